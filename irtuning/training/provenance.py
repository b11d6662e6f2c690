"""The former home of `provenance`, which is in `irtuning.training.record` now."""

from irtuning.training.record import provenance, versions  # noqa: F401
