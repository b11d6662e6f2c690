"""Helpers for several processes of one run: which of them writes files, and where they wait for one another."""

import os
from collections.abc import Callable

from irtuning.method.processes import world_size


def is_first() -> bool:
    """Return whether this process is the one that writes files. It is true without a launcher."""
    return os.environ.get("RANK", "0") == "0"


def from_first(make: Callable[[], object]) -> object:
    """Call `make` in the first process only, and return its result in every process."""
    if world_size() == 1:
        return make()
    from torch.distributed import broadcast_object_list
    made = [make() if is_first() else None]
    broadcast_object_list(made)
    return made[0]


def wait_for_all() -> None:
    """Wait until every process has called this function."""
    if world_size() > 1:
        from torch.distributed import barrier
        barrier()
