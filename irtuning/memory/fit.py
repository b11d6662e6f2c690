"""Predictions of what fits a GPU: a setting, the largest batch and the lowest layer."""

import bisect
import itertools
import re
from collections.abc import Mapping

from irtuning.errors import InputError
from irtuning.memory.predict import predict_memory
from irtuning.models.loading import load_shape

CONTEXT_BYTES = 2**29  # CUDA itself takes half a GiB of a GPU's memory
SLACK = 0.95  # share of the memory that is usable despite fragmentation


def usable_bytes(gpu_bytes: int) -> int:
    """Return how many bytes of a GPU's memory PyTorch can use, without CUDA's own and 5 % for fragmentation."""
    return int(gpu_bytes * SLACK) - CONTEXT_BYTES


def largest_batch(gpu_bytes: int, model: str = "mini", method="ir", adapter: str = "lora", **settings) -> int:
    """Return the largest batch (a multiple of `accumulation`) that fits a GPU, or 0. Settings: see `predict_memory`."""
    accumulation, room = settings.get("accumulation", 1), usable_bytes(gpu_bytes)

    def peak(size: int) -> int:
        return predict_memory(model, method, adapter, size * accumulation, **settings).peak_bytes

    doubled = (2**power for power in itertools.count())
    too_large = next(size for size in doubled if peak(size) > room)
    return bisect.bisect(range(1, too_large), room, key=peak) * accumulation


def lowest_layer_that_fits(gpu_bytes: int, model="mini", method="ir", adapter="lora", **settings) -> int | None:
    """Return the smallest `min_layer` that fits a GPU, or None if none does. Settings: see `predict_memory`."""
    layers = range(load_shape(model).num_hidden_layers - 1)
    peaks = (predict_memory(model, method, adapter, min_layer=layer, **settings).peak_bytes for layer in layers)
    return next((layer for layer, peak in enumerate(peaks) if peak <= usable_bytes(gpu_bytes)), None)


def fit_report(gpu_bytes: int | None, model="mini", method="ir", adapter="lora", **settings) -> dict[str, object]:
    """Return whether a setting fits a GPU, the largest batch, and the `min_layer` it needs (None if none helps).

    If `gpu_bytes` is None, the report is empty. The other arguments are those of `predict_memory`.
    """
    if gpu_bytes is None:
        return {}
    without_batch, without_layer = ({k: v for k, v in settings.items() if k != left} for left in ("batch", "min_layer"))
    fits = predict_memory(model, method, adapter, **settings).peak_bytes <= usable_bytes(gpu_bytes)
    batch = largest_batch(gpu_bytes, model, method, adapter, **without_batch)
    layer = lowest_layer_that_fits(gpu_bytes, model, method, adapter, **without_layer)
    again = predict_memory(model, method, adapter, **settings | {"checkpointing": True}).peak_bytes
    report = {"gpu_bytes": gpu_bytes, "fits": fits, "largest_batch": batch, "min_layer_needed": layer}
    return report | {"fits_with_checkpointing": again <= usable_bytes(gpu_bytes)}


def fit_answer(report: Mapping[str, object]) -> str:
    """Return a sentence that tells whether a prediction with its `fit_report` fits the GPU, and else the cures."""
    sizes = (f"{size / 2**30:.1f} GiB" for size in (report["peak_bytes"], usable_bytes(report["gpu_bytes"])))
    text = "{} predicted, {} usable".format(*sizes)
    if report["fits"]:
        return f"It fits: {text}. The largest batch that fits is {report['largest_batch']}."
    cures = [f"--batch {report['largest_batch']}"] * (report["largest_batch"] > 0)
    cures += [f"--min-layer {report['min_layer_needed']}"] * (report["min_layer_needed"] is not None)
    cures += ["--checkpointing"] * report["fits_with_checkpointing"]
    return f"It does not fit: {text}. What would fit: {', or '.join(cures) or 'a smaller model, or a larger GPU'}."


def parse_gpu(text: str) -> int:
    """Return the bytes in a text such as `24GB` or `24GiB`. A number alone means GB. InputError if it is no size.

    >>> parse_gpu("24GB"), parse_gpu("24 GiB"), parse_gpu("80")
    (24000000000, 25769803776, 80000000000)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(gb|gib|g|)", text.strip().lower())
    if not found or float(found[1]) <= 0:
        raise InputError(f"GPU memory {text!r} cannot be read; write it as 24GB, 24GiB or 80")
    return int(float(found[1]) * (2**30 if found[2] == "gib" else 10**9))
