"""Where and how a run was made: versions, commit, device, memory. No path, host name or environment variable."""

import datetime
import importlib.metadata
import platform
import resource
import subprocess
from pathlib import Path

import torch

PACKAGES = ("irtuning", "torch", "transformers", "peft", "accelerate", "numpy", "scikit-learn")


def provenance(device: str = "auto") -> dict:
    """Date, versions, commit and device of this process (`cpu`: although there may be a GPU), and its peak memory."""
    gpu = torch.cuda.is_available() and device != "cpu"
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "commit": _commit(),
        "device": torch.cuda.get_device_name() if gpu else f"CPU, {_threads()}",
        "platform": f"{platform.system()} {platform.machine()}",
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if gpu else _peak_resident_bytes(),
        "peak_memory_kind": "GPU allocated by this run" if gpu else "resident, of the whole process so far",
    }


def versions() -> dict[str, str | None]:
    """Of Python and of the packages that decide a run's numbers."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def _threads() -> str:
    count = torch.get_num_threads()
    return f"{count} thread{'s' * (count > 1)}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the checkout this package lies in, marked where files were changed since; None elsewhere."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=root, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


def _peak_resident_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024
