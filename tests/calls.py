"""Calls for test_jobs.py to make elsewhere; a process that makes them imports nothing else."""

import os
import signal
import time
from pathlib import Path


def noted(folder: Path, number: int, deaths: int = 0) -> int:
    """Note that a call began; kill this process at the first `deaths` calls of this number."""
    (folder / f"{number}-{time.monotonic_ns()}").touch()
    time.sleep(0.3)
    if len(list(folder.glob(f"{number}-*"))) <= deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def ended(folder: Path, number: int) -> int:
    """The first call of a number ends as a process does that is told to."""
    (folder / f"{number}-{time.monotonic_ns()}").touch()
    if number and len(list(folder.glob(f"{number}-*"))) == 1:
        raise SystemExit(143)
    return number


def raises(number: int) -> float:
    return 1 / number


def process_number() -> int:
    time.sleep(0.3)
    return os.getpid()


def visible_gpu(seconds: float = 0.5) -> str:
    time.sleep(seconds)  # so that one process cannot take both calls
    return os.environ["CUDA_VISIBLE_DEVICES"]
