"""What the processes that train one model together (torchrun, accelerate launch) share and agree on."""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from irtuning.errors import InputError, TrainingStopped

if TYPE_CHECKING:
    from torch import Tensor

SHARDED = {
    "FSDP": "its flat shards hold a part of each layer, so that no process has a layer's gradient norm",
    "DeepSpeed": "its optimizer holds the parameters that learned first, so that layers chosen later would not learn",
}


def world_size() -> int:
    """Return how many processes train together; before they are connected, what their launcher says."""
    from torch import distributed

    connected = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if connected else int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Return whether this process is the one that writes files; true without a launcher."""
    return os.environ.get("RANK", "0") == "0"


def refuse_sharding(fsdp: object = None, deepspeed: object = None, devices: int = 1) -> None:
    """Raise InputError for ways of training in which layers cannot be chosen step by step.

    Args:
        fsdp, deepspeed: the Trainer's arguments of these names; `accelerate launch` sets environment variables instead.
        devices: number of GPUs over which one process would spread a batch (DataParallel).
    """
    asked = {"FSDP": fsdp, "DeepSpeed": deepspeed}
    for name, reason in SHARDED.items():
        if asked[name] or os.environ.get(f"ACCELERATE_USE_{name.upper()}", "").lower() in ("true", "1"):
            cure = "use DDP (torchrun, accelerate launch --multi_gpu)"
            raise InputError(f"{name} cannot train layer by layer: {reason}; {cure}")
    if devices > 1:
        raise InputError(f"one process would use {devices} GPUs; start one for each (torchrun), or set "
                         "CUDA_VISIBLE_DEVICES=0")  # fmt: skip


def examples_each(batch_size: int, accumulation: int) -> int:
    """Return the number of examples in a micro-batch of each process.

    Raises:
        InputError: the batch cannot be divided evenly.
    """
    shares = accumulation * world_size()
    if batch_size % shares or not batch_size:
        raise InputError(f"batch_size {batch_size} cannot be shared by {world_size()} processes with accumulation "
                         f"{accumulation}; give a multiple of {shares}")  # fmt: skip
    return batch_size // shares


def summed(values: "Tensor") -> "Tensor":
    """Return the sum of a tensor over all processes, on the same device."""
    from torch import distributed

    if world_size() > 1:
        values = values.clone()
        distributed.all_reduce(values)
    return values


def mean(values: "Tensor") -> "Tensor":
    """Return the mean of a tensor over all processes."""
    return summed(values) / world_size()


def votes(chosen: Sequence[int], count: int, device: object) -> "Tensor":
    """Return how many processes chose each of `count` layers, shape (count,); empty if there is one process."""
    import torch

    if world_size() == 1:
        return torch.empty(0, device=device)
    return summed(torch.tensor([float(position in chosen) for position in range(count)], device=device))


def check_votes(counts: Sequence[float], layers: Sequence[int]) -> None:
    """Raise TrainingStopped, naming the layers, if some processes chose a layer and others did not."""
    if split := [layer for layer, count in zip(layers, counts, strict=False) if count not in (0, world_size())]:
        raise TrainingStopped(
            f"the processes chose different layers, they disagree on {split}: their seeds, data or versions differ; "
            "start all of them with the same command on the same corpus"
        )


def from_first(make: Callable[[], object]) -> object:
    """Return in every process what `make` returns in the first one, which alone calls it."""
    from torch import distributed

    if world_size() == 1:
        return make()
    made = [make() if is_first() else None]
    distributed.broadcast_object_list(made)
    return made[0]


def wait_for_all() -> None:
    """Wait until every process has called this function."""
    from torch import distributed

    if world_size() > 1:
        distributed.barrier()
