"""Calls that test_workers.py makes elsewhere; a process that makes them imports nothing else."""

import atexit
import os
import signal
import time
from pathlib import Path


def noted(folder: Path, number: int, deaths: int = 0) -> int:
    """Note that a call began, and kill this process at the first `deaths` calls of this number."""
    (folder / f"{number}-{time.monotonic_ns()}").touch()
    time.sleep(0.2)
    if len(list(folder.glob(f"{number}-*"))) <= deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def ended(folder: Path, number: int) -> int:
    """End the first call of a number as a process does that gets SIGTERM."""
    (folder / f"{number}-{time.monotonic_ns()}").touch()
    if number and len(list(folder.glob(f"{number}-*"))) == 1:
        raise SystemExit(143)
    return number


def process_number() -> int:
    time.sleep(0.3)  # so that one process cannot take two of the calls
    return os.getpid()


KEPT = []


def grows(size: int) -> int:
    """Keep so many bytes, as compiled code does, and wait until loky looks again."""
    KEPT.append(b"1" * size)
    time.sleep(1.1)
    return os.getpid()


def environment(seconds: float = 0.5) -> tuple[str, str]:
    time.sleep(seconds)
    return os.environ["CUDA_VISIBLE_DEVICES"], os.environ["OMP_NUM_THREADS"]


def says_goodbye(folder: Path, seconds: float) -> None:
    """Note that a call began, and later that its process ended as Python does, which a process that is killed cannot."""
    begun = folder / str(os.getpid())
    begun.touch()
    atexit.register(begun.with_suffix(".ended").touch)
    time.sleep(seconds)
