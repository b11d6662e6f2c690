"""What a card can hold: whether a setting fits, the largest batch, the lowest layer, what to change. All *predicted*."""

import dataclasses
import re
from typing import TYPE_CHECKING

from irtuning.errors import InputError
from irtuning.memory.predict import predict_memory, predict_run
from irtuning.models.shapes import load_shape

if TYPE_CHECKING:
    from irtuning.training.config import RunConfig

CONTEXT_BYTES, SLACK = 2**29, 0.95  # of a card: what CUDA itself takes, and the share fragmentation leaves


def largest_batch(gpu_bytes: int, model: str = "mini", method: str = "ir", adapter: str = "lora", **settings) -> int:
    """The largest batch, a multiple of `accumulation`, whose predicted peak fits a card; 0 when not even the least does.

    Args:
        gpu_bytes: of the card; half a GiB for CUDA and 5 % for fragmentation are left free.
        settings: as for `predict_memory`, without `batch`.
    """
    whole = settings.get("accumulation", 1)

    def peak(batch: int) -> int:
        return predict_memory(model, method, adapter, batch * whole, **settings).peak_bytes

    room = usable_bytes(gpu_bytes)
    if peak(1) > room:
        return 0
    batch = 8
    for _ in range(3):  # it grows in a nearly straight line from 4 on
        slope = (peak(batch) - peak(4)) / (batch - 4)
        batch = max(5, int(4 + (room - peak(4)) / max(1.0, slope)))
    while peak(batch) > room:
        batch -= 1
    while peak(batch + 1) <= room:
        batch += 1
    return batch * whole


def lowest_layer_that_fits(
    gpu_bytes: int, model: str = "mini", method: str = "ir", adapter: str = "lora", **settings
) -> int | None:
    """The smallest `min_layer` with which the predicted peak fits a card; None when none does.

    Args: as for `largest_batch`, with `batch`, without `min_layer`.
    """
    for layer in range(load_shape(model).num_hidden_layers - 1):
        found = predict_memory(model, method, adapter, min_layer=layer, **settings)
        if found.peak_bytes <= usable_bytes(gpu_bytes):
            return layer
    return None


def setting_that_fits(config: "RunConfig", gpu_bytes: int) -> str | None:
    """The first change of a run that leaves its result as it is and whose predicted peak fits a card, in words.

    More micro-batches first, then checkpointing too, which costs time; None when neither is enough.
    """
    splits = [n for n in range(config.accumulation, config.batch_size + 1) if config.batch_size % n == 0]
    for checkpointing in sorted({config.checkpointing, True}):
        for accumulation in splits:
            changed = dataclasses.replace(config, accumulation=accumulation, checkpointing=checkpointing)
            if changed != config and (peak := predict_run(changed).peak_bytes) <= usable_bytes(gpu_bytes):
                change = f"accumulation={accumulation}" + ", checkpointing=true" * checkpointing
                return f"{change} (predicted {peak / 2**30:.1f} GiB)"
    return None


def card_report(
    gpu_bytes: int | None, model: str = "mini", method: str = "ir", adapter: str = "lora", **settings
) -> dict[str, object]:
    """What a card can hold: whether the setting fits, the largest batch, the `min_layer` needed (None: none does).

    Without a card, nothing.
    """
    if gpu_bytes is None:
        return {}
    settings = {"batch": None, "min_layer": 0} | settings
    peak = predict_memory(model, method, adapter, **settings).peak_bytes
    without_batch = {name: value for name, value in settings.items() if name != "batch"}
    without_layer = {name: value for name, value in settings.items() if name != "min_layer"}
    return {
        "gpu_bytes": gpu_bytes,
        "fits": peak <= usable_bytes(gpu_bytes),
        "largest_batch": largest_batch(gpu_bytes, model, method, adapter, **without_batch),
        "min_layer_needed": lowest_layer_that_fits(gpu_bytes, model, method, adapter, **without_layer),
    }


def parse_gpu(text: str) -> int:
    """Bytes of a GPU's memory: GB are 10^9, GiB 2^30, a bare number means GB.

    >>> parse_gpu("24GB"), parse_gpu("24 GiB"), parse_gpu("80")
    (24000000000, 25769803776, 80000000000)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(gb|gib|g|)", text.strip().lower())
    if not found or float(found[1]) <= 0:
        raise InputError(f"GPU memory {text!r} cannot be read; write it as 24GB, 24GiB or 80")
    return int(float(found[1]) * (2**30 if found[2] == "gib" else 10**9))


def usable_bytes(gpu_bytes: int) -> int:
    """What of a card's memory PyTorch can be expected to hand out."""
    return int(gpu_bytes * SLACK) - CONTEXT_BYTES
