"""The embedded model `irtuning-mini`: where its files lie, and whether they are whole."""

import hashlib
import re
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
    return checked(Path(__file__).resolve().parents[1] / "mini")


def checked(folder: Path, cure: str = "install irtuning again") -> Path:
    """The folder, when every file in its SHA256SUMS is there and whole.

    Raises:
        InputError: names the file that is not.
    """
    for name, expected in read_sums(folder, cure).items():
        path = folder / name
        found = sha256(path) if path.is_file() else "no file"
        if found != expected:
            raise InputError(f"{path} fails its checksum ({found[:12]}, not {expected[:12]}): it is damaged; {cure}")
    return folder


def read_sums(folder: Path, cure: str) -> dict[str, str]:
    """Checksums by file name from a folder's SHA256SUMS; InputError where it is not whole."""
    path = folder / CHECKSUMS
    try:
        rows = [re.fullmatch("([0-9a-f]{64})  (.+)", line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"no {CHECKSUMS} in {folder}: {error}; {cure}") from None
    if not rows or None in rows:
        raise InputError(f"{path} is damaged: not a checksum and a name on every line; {cure}")
    return {row[2]: row[1] for row in rows}


def sha256(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
