"""Checkpoints of an unfinished run, in a folder beside its output that one process locks."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from irtuning.errors import InputError, differences
from irtuning.training.record import has_record

FORMAT = 2
IDENTITY = "identity.json"


def unfinished_folder(output: Path) -> Path:
    """Return the folder that holds a run's work until it is finished, `.NAME.unfinished` beside its output."""
    return output.parent / f".{output.name}.unfinished"


@contextmanager
def unfinished(output: Path) -> Iterator[Path]:
    """Lock the folder of a run's unfinished work and yield it. The lock ends with the process, however it ends.

    After an error the folder stays if it holds a checkpoint, or a finished run that could not be renamed.

    Raises:
        InputError: the folder cannot be made, or another process trains in it.
    """
    folder, finished = unfinished_folder(output), False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise InputError(f"another process is training in {folder}; wait for it, or give another output") from None
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}; give another output") from None
    try:
        _remove_half_written(folder)
        yield folder
        finished = True
    finally:
        _remove_half_written(folder)
        if finished or not any(path.is_dir() for path in folder.iterdir()):
            shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _remove_half_written(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.name.startswith("checkpoint-") and not has_record(path):
            shutil.rmtree(path)


class Checkpoints:
    """The checkpoints of one run, as `folder/checkpoint-STEP`.

    Each is written to `folder/new` and then renamed, so that a process killed at any moment leaves complete ones only.

    Args:
        folder: the folder of the run's unfinished work.
        identity: everything that must stay the same for the run to resume, by name.
    """

    def __init__(self, folder: Path, identity: Mapping[str, object]):
        self.folder, self.new = folder, folder / "new"
        self.identity = json.loads(json.dumps({"format": FORMAT, **identity}))  # as it is read from a file

    def publish(self, step: int) -> None:
        """Give the complete checkpoint in `new` its final name, and remove older ones."""
        older, written = list(self.folder.glob("checkpoint-*")), self.new / f"checkpoint-{step}"
        (written / IDENTITY).write_text(json.dumps(self.identity, indent=1) + "\n", encoding="utf-8")
        os.rename(written, self.folder / written.name)
        for checkpoint in older:
            shutil.rmtree(checkpoint)

    def newest(self) -> Path | None:
        """Return the newest checkpoint, or None; raise InputError if it is another run's or another version's."""
        steps = [int(path.name.rpartition("-")[2]) for path in self.folder.glob("checkpoint-*")]
        if not steps:
            return None
        checkpoint = self.folder / f"checkpoint-{max(steps)}"
        try:
            recorded = json.loads((checkpoint / IDENTITY).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # of an older version
            recorded = {}
        if different := differences(recorded, self.identity):
            raise InputError(f"{self.folder} holds unfinished work of another run ({'; '.join(different)}); give "
                             "another output, or remove that folder")  # fmt: skip
        return checkpoint
