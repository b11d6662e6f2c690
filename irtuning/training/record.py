"""The record of a run: one JSON file that exists whole or not at all."""

import json
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from irtuning.errors import InputError

SCHEMA = 1
RECORD = "record.json"
BLOCKS = ("schema", "run", "train", "scores", "predictions", "meta")


def write_text(path: Path, text: str) -> None:
    """Write a text file whole; see `write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole: to a temporary one beside it, synced, then renamed.

    Raises:
        InputError: the folder cannot be written, or there is no space; what was there stays.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("wb", dir=path.parent, delete=False) as stream:
            temporary = stream.name
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {error.strerror}; free some space or give another folder") from None


def write_record(folder: Path, record: Mapping) -> None:
    """Write `folder/record.json`."""
    write_text(folder / RECORD, json.dumps(record, allow_nan=False, ensure_ascii=False) + "\n")


def finite(row: dict) -> dict:
    """JSON has no NaN: a number that is not finite is not known."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def read_record(folder: Path) -> dict:
    """Read and check `folder/record.json`.

    Raises:
        InputError: no record, not whole, or written by another version; says which.
    """
    path = Path(folder) / RECORD
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise InputError(f"{path} is a link or no file; train again")
    except OSError as error:
        raise InputError(f"no run in {folder}: {error.strerror} ({RECORD}); train one there first") from None
    record = read_json(path, "remove its folder and train again")
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        found = record.get("schema") if isinstance(record, dict) else None
        raise InputError(f"{path} has schema {found!r}, this version reads {SCHEMA}; train again")
    missing = [block for block in BLOCKS if block not in record]
    if missing or not isinstance(record["run"], dict) or not isinstance(record["run"].get("config"), dict):
        raise InputError(f"{path} is damaged: it lacks {missing or ['run.config']}; remove its folder and train again")
    return record


def read_json(path: Path, cure: str) -> object:
    """A JSON file that this package wrote; InputError where it is not whole."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: {error}; {cure}") from None


def has_record(folder: Path) -> bool:
    """Whether a folder holds a record, whole or not.

    Raises:
        InputError: the path cannot be looked at.
    """
    try:
        return (Path(folder) / RECORD).exists()
    except OSError as error:
        raise InputError(f"cannot look into {folder}: {error.strerror}; give another folder") from None


@contextmanager
def new_folder(folder: Path, within: Path | None = None) -> Iterator[Path]:
    """Give a temporary folder that becomes `folder` at the end, or nothing at all when an error comes up.

    It is made beside `folder`, or `within` another folder on the same file system.

    Raises:
        InputError: `folder` holds something already or cannot be made; should it appear meanwhile, what was
            written is kept and its place named.
    """
    folder = Path(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} holds something that is not a run of ours; give an empty or new folder")
        if folder.exists():
            folder.rmdir()  # now, not after hours: a mount, a link or the current folder cannot be replaced
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=within or folder.parent))
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}; give another folder") from None
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    try:
        temporary.chmod(0o755)
        os.replace(temporary, folder)
    except OSError as error:
        raise InputError(f"cannot name {temporary}, a whole run, {folder}: {error.strerror}; move it by hand") from None
