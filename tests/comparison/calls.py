"""Calls that test_workers.py makes elsewhere; a process that makes them imports nothing else."""

import os
import signal
import sys
import time
from pathlib import Path


def noted(folder: Path, number: int, deaths: int = 0, told: bool = False) -> int:
    """Note that a call began; at the first `deaths` calls of this number kill this process, or end as SIGTERM does."""
    (folder / f"{number}-{time.monotonic_ns()}").touch()
    time.sleep(0.2)
    if len(list(folder.glob(f"{number}-*"))) <= deaths:
        sys.exit(143) if told else os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def inverse(number: int) -> float:
    return 1 / number


def process_number() -> int:
    time.sleep(0.3)  # so that one process cannot take two of the calls
    return os.getpid()


def environment(seconds: float = 0.5) -> tuple[str, str]:
    time.sleep(seconds)
    return os.environ["CUDA_VISIBLE_DEVICES"], os.environ["OMP_NUM_THREADS"]
