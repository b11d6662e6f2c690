"""The embedded model `irtuning-mini`: where its files lie, and whether they are whole."""

import hashlib
from functools import cache
from pathlib import Path

from irtuning.errors import InputError

CHECKSUMS = "SHA256SUMS"


@cache
def embedded_model_path() -> Path:
    """The folder of `irtuning-mini` in Hugging Face form, its files checked against their checksums once a process.

    Raises:
        InputError: a file is missing or damaged; names it.
    """
    return checked(Path(__file__).resolve().parent / "mini")


def checked(folder: Path) -> Path:
    """The folder, when every file in its SHA256SUMS is there and whole.

    Raises:
        InputError: names the file that is not.
    """
    try:
        rows = [line.split("  ", 1) for line in (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise InputError(f"no {CHECKSUMS} in {folder}: {error.strerror}; install irtuning again") from None
    for expected, name in rows:
        path = folder / name
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
        if found != expected:
            raise InputError(
                f"{path} fails its checksum ({found[:12]}, not {expected[:12]}): the install is damaged; "
                "install irtuning again"
            )
    return folder
