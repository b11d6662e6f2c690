"""The record of a run: one JSON file, written completely or not at all, that also says how the run was made."""

import datetime
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from irtuning import __version__
from irtuning.errors import InputError

SCHEMA, RECORD = 1, "record.json"
BLOCKS = ("schema", "run", "train", "scores", "predictions", "meta")
PACKAGES = ("torch", "transformers", "peft", "accelerate", "numpy", "scikit-learn")


def write_text(path: Path, text: str) -> None:
    """Write a text file completely or not at all. See `write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file under a temporary name and rename it. If that fails, InputError is raised and an old file stays."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        if os.path.exists(temporary):
            temporary.unlink()
        raise InputError(f"cannot write {path}: {error.strerror}; free some space or give another folder") from None


def write_record(folder: Path, record: Mapping) -> None:
    """Write the record of a run to `folder/record.json`."""
    write_text(folder / RECORD, json.dumps(record, allow_nan=False, ensure_ascii=False) + "\n")


def has_record(folder: Path) -> bool:
    """Return whether a folder holds a record, sound or damaged."""
    return os.path.exists(Path(folder) / RECORD)  # Path.exists raises if the folder may not be read


def read_record(folder: Path) -> dict:
    """Read and check `folder/record.json`. Raise InputError if it is missing, damaged or of another version."""
    path = Path(folder) / RECORD
    if not has_record(folder):
        raise InputError(f"no run in {folder} ({RECORD} is missing); train one there first")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        schema, run, *_ = [record[block] for block in BLOCKS]
        run["config"].keys()
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is damaged: {error!r}; remove its folder and train again") from None
    if schema != SCHEMA:
        raise InputError(f"{path} has schema {schema!r}, this version reads {SCHEMA}; train again")
    return record


@contextmanager
def new_folder(folder: Path, within: Path | None = None) -> Iterator[Path]:
    """Yield a temporary folder, inside `within` or beside `folder`, that is renamed to `folder` at the end.

    InputError: `folder` is not empty or cannot be written. If the body fails, the temporary folder is removed.
    """
    folder = Path(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            if not folder.is_dir() or any(folder.iterdir()):
                raise InputError(f"{folder} holds something that is not this run; give an empty or new folder")
            folder.rmdir()  # fails before training if it cannot be replaced, such as a mount or a link
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=within or folder.parent))
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}; give another folder") from None
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    temporary.chmod(0o755)
    os.replace(temporary, folder)  # if the name was taken meanwhile, the error names both folders and nothing is lost


def provenance(device: str = "auto") -> dict:
    """Return date, versions, commit, hardware and peak memory, without paths or host names. `device` is auto or cpu."""
    import torch
    gpu, threads = torch.cuda.is_available() and device != "cpu", torch.get_num_threads()
    try:
        import resource
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)
    except ImportError:  # on Windows
        resident = None
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"date": now, "versions": versions(), "commit": _commit(),
        "device": torch.cuda.get_device_name() if gpu else f"CPU, {threads} thread{'s' * (threads > 1)}",
        "platform": f"{platform.system()} {platform.machine()}",
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if gpu else resident,
        "peak_memory_kind": "GPU allocated by this run" if gpu else "resident, of the whole process so far"}


def versions() -> dict[str, str]:
    """Return the versions of Python, of this package, and of the others that decide a run's numbers."""
    own = {"python": platform.python_version(), "irtuning": __version__}
    return own | {name: importlib.metadata.version(name) for name in PACKAGES}


def _commit() -> str | None:
    """Return the commit of this package's Git checkout, with `-dirty` if files changed, or None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    describe = ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    command = ["git", f"--git-dir={root}/.git", f"--work-tree={root}", *describe]
    try:
        return subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL, timeout=10).strip()
    except (OSError, subprocess.SubprocessError):
        return None
