"""Unfinished runs: a folder beside the output that one process owns, and checkpoints in it, whole or not there."""

import fcntl
import json
import logging
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from irtuning.training.saved import sha256
from irtuning.errors import InputError, differences
from irtuning.training.record import has_record, write_text

logger = logging.getLogger(__name__)

FORMAT = 1
KEPT = 2  # should the newest be damaged, there is one more
MANIFEST = "manifest.json"
LOCK = "lock"


def place_of(output: Path) -> Path:
    """The folder of a run's unfinished work."""
    return output.parent / f".{output.name}.unfinished"


@contextmanager
def unfinished(output: Path) -> Iterator[Path]:
    """Own the folder of a run's unfinished work, `.NAME.unfinished` beside its output.

    After an error it stays where it holds a checkpoint (or a whole run without its name); else it is removed.

    Raises:
        InputError: it cannot be made, or another process owns it; that one is named.
    """
    folder, whole = place_of(output), False
    with _owned(folder):
        try:
            _remove_half_written(folder)
            yield folder
            whole = True
        finally:
            _remove_half_written(folder)
            if whole or not any(path.is_dir() for path in folder.iterdir()):
                shutil.rmtree(folder, ignore_errors=True)


def _remove_half_written(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.name.startswith("checkpoint-") and not has_record(path):
            shutil.rmtree(path)


def _owned(folder: Path) -> TextIO:
    """The locked lock file of a folder; the lock ends with the process, however that ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = open(folder / LOCK, "a+")  # noqa: SIM115 (the caller closes it)
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not (folder / LOCK).exists() or not os.path.samestat(os.fstat(stream.fileno()), (folder / LOCK).stat()):
            return _owned(folder)  # its owner ended and removed it meanwhile
    except BlockingIOError:
        stream.seek(0)
        raise InputError(f"{stream.read()} is training in {folder}; wait for it, or give another output") from None
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}; give another output") from None
    stream.truncate(0)
    stream.write(f"process {os.getpid()} on {socket.gethostname()}")
    stream.flush()
    return stream


class Checkpoints:
    """The checkpoints of one run, written to `new` and then sealed: a manifest of checksums, synced, renamed.

    Args:
        folder: where they lie, as `checkpoint-STEP`.
        identity: all that must be the same for a run to go on from them, name by name.
    """

    def __init__(self, folder: Path, identity: Mapping[str, object]):
        self.folder, self.new = folder, folder / "new"
        self.identity = json.loads(json.dumps({"format": FORMAT, **identity}))  # tuples are lists in the manifest

    def seal(self, step: int) -> None:
        """Make `new/checkpoint-STEP` whole and give it its place; remove all but the newest."""
        written, place = self.new / f"checkpoint-{step}", self.folder / f"checkpoint-{step}"
        manifest = {"identity": self.identity, "files": _checksums(written)}
        for name in manifest["files"]:
            _sync(written / name)
        write_text(written / MANIFEST, json.dumps(manifest, indent=1) + "\n")
        _sync(written)
        os.rename(written, place)
        _sync(self.folder)
        for old in self._newest_first()[KEPT:]:
            shutil.rmtree(old)

    def newest(self) -> Path | None:
        """The newest whole checkpoint; torn ones are reported and removed.

        Raises:
            InputError: it is another run's, or another version's; the differences are named.
        """
        for place in self._newest_first():
            try:
                manifest = json.loads((place / MANIFEST).read_bytes())
                whole = manifest["files"] == _checksums(place)
            except (OSError, ValueError, KeyError, TypeError):
                whole = False
            if whole:
                self._check_identity(manifest["identity"])
                return place
            logger.warning("%s is damaged and not used", place)
            shutil.rmtree(place)
        return None

    def _check_identity(self, found: Mapping[str, object]) -> None:
        if different := differences(found, self.identity):
            raise InputError(
                f"{self.folder} holds unfinished work of another run ({'; '.join(different)}); give another output, "
                "or remove that folder"
            )

    def _newest_first(self) -> list[Path]:
        places = self.folder.glob("checkpoint-*")
        return sorted(places, key=lambda place: int(place.name.rpartition("-")[2]), reverse=True)


def _checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder but the manifest, by name."""
    return {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
