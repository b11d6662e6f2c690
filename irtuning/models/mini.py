"""The folder of the embedded model `irtuning-mini`."""

from pathlib import Path

CHECKSUMS = "SHA256SUMS"  # file with the SHA-256 of every other file in the folder


def embedded_model_path() -> Path:
    """Return the folder of `irtuning-mini`, which has the form of a Hugging Face model."""
    return Path(__file__).resolve().parents[1] / "mini"
