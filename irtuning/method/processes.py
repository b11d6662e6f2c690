"""Processes that train one model together (torchrun, accelerate launch): what they share, and what they must not be."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from irtuning.errors import InputError, TrainingStopped

if TYPE_CHECKING:
    from torch import Tensor

SHARDED = {
    "FSDP": "its flat shards hold a part of each layer, so that no rank has a layer's gradient norm",
    "DeepSpeed": "its optimizer holds the parameters that learned first, so that layers chosen later would not",
}


def world_size() -> int:
    """How many processes train together: as many as have met, or as their launcher says."""
    from torch import distributed

    met = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if met else int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that writes; true without a launcher."""
    return os.environ.get("RANK", "0") == "0"


def refuse_sharding(fsdp: object = None, deepspeed: object = None, devices: int = 1) -> None:
    """Raise InputError for ways to train together in which layers cannot be chosen step by step.

    Args:
        fsdp, deepspeed: the Trainer's arguments of these names; `accelerate launch` says the same by its environment.
        devices: GPUs that one process would spread a batch over (DataParallel).
    """
    asked = {"FSDP": fsdp or _launched("FSDP"), "DeepSpeed": deepspeed or _launched("DEEPSPEED")}
    for name, reason in SHARDED.items():
        if asked[name]:
            raise InputError(f"{name} cannot train layer by layer: {reason}; use DDP (torchrun, accelerate launch --multi_gpu)")
    if devices > 1:
        raise InputError(f"one process would use {devices} GPUs; start one for each (torchrun), or set CUDA_VISIBLE_DEVICES=0")


def _launched(kind: str) -> bool:
    return os.environ.get(f"ACCELERATE_USE_{kind}", "").lower() in ("true", "1")


def examples_each(batch_size: int, accumulation: int) -> int:
    """Examples of a micro-batch in each process.

    Raises:
        InputError: the batch cannot be shared out evenly.
    """
    each, left = divmod(batch_size, accumulation * world_size())
    if left or not each:
        raise InputError(
            f"batch_size {batch_size} cannot be shared by {world_size()} processes with accumulation {accumulation}; "
            f"give a multiple of {accumulation * world_size()}"
        )
    return each


def summed(values: "Tensor") -> "Tensor":
    """The sum over all processes, on the same device; the values themselves in a process of its own."""
    from torch import distributed

    if world_size() > 1:
        values = values.clone()
        distributed.all_reduce(values)
    return values


def mean(values: "Tensor") -> "Tensor":
    """The mean over all processes."""
    return summed(values) / world_size()


def votes(layers: list[int], chosen: list[int], device: object) -> "Tensor":
    """How many processes chose each layer, shape (layers,); empty in a process of its own, which has none to ask."""
    import torch

    if world_size() == 1:
        return torch.empty(0, device=device)
    return summed(torch.tensor([float(position in chosen) for position in range(len(layers))], device=device))


def without_votes(values: list[float], layers: list[int]) -> list[float]:
    """The values before the `votes` at their end, which must be unanimous.

    Raises:
        TrainingStopped: some processes chose a layer and others did not.
    """
    if world_size() == 1:
        return values
    values, counts = values[: -len(layers)], values[-len(layers) :]
    if split := [layer for layer, count in zip(layers, counts, strict=True) if count not in (0, world_size())]:
        raise TrainingStopped(
            f"the processes chose different layers, they disagree on {split}: their seeds, data or versions differ; "
            "start all with the same command on the same corpus"
        )
    return values


def from_first(make: Callable[[], object]) -> object:
    """What the first process makes, in all of them."""
    from torch import distributed

    if world_size() == 1:
        return make()
    made = [make() if is_first() else None]
    distributed.broadcast_object_list(made)
    return made[0]


def wait_for_all() -> None:
    """Go on when every process has come here."""
    from torch import distributed

    if world_size() > 1:
        distributed.barrier()
