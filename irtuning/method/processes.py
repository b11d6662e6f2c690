"""Helpers for several processes that train one model together, started by torchrun or accelerate launch."""

import os
import sys
from typing import TYPE_CHECKING

from irtuning.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


def world_size() -> int:
    """Return the number of processes that train together. Before they connect, it is what their launcher states."""
    distributed = sys.modules.get("torch.distributed")  # without it, this process is not connected
    connected = distributed and distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if connected else int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Return whether this process is the one that writes files. It is true without a launcher."""
    return os.environ.get("RANK", "0") == "0"


def refuse_sharding(fsdp: object = None, deepspeed: object = None, devices: int = 1) -> None:
    """Raise InputError if FSDP, DeepSpeed or DataParallel is asked for, by argument or by `accelerate launch`."""
    for name, asked in (("FSDP", fsdp), ("DeepSpeed", deepspeed), ("DataParallel", devices > 1)):
        if asked or os.environ.get(f"ACCELERATE_USE_{name.upper()}", "").lower() in ("true", "1"):
            raise InputError(f"{name} cannot train layer by layer: it divides or copies the layers, so they cannot "
                             "be frozen step by step; use DDP (torchrun), or CUDA_VISIBLE_DEVICES=0")  # fmt: skip


def summed(values: "Tensor") -> "Tensor":
    """Return the sum of a tensor over all processes, on the same device."""
    if world_size() > 1:
        from torch.distributed import all_reduce
        all_reduce(values := values.clone())
    return values
