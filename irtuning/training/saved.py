"""The folder of a saved run as something to trust no further than needed: whole, regular files alone, data alone.

What a library reads of it is sealed with SHA256SUMS when the run is saved. A folder from someone else may be sealed
anew after it was changed, so nothing in it may be a link, a pickle, code, or name a file outside of it either. The one
thing outside that a run names is its base model, read from where the user's own command once had it.
"""

import hashlib
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from irtuning.models.mini import CHECKSUMS
from irtuning.errors import InputError
from irtuning.training.record import RECORD, read_json, write_text

CURE = "train the run again"
WEIGHTS = re.compile(r"(adapter_)?model(-\d+-of-\d+)?\.safetensors")
NAMES = {  # what each folder may hold
    "adapter": re.compile(rf"README\.md|adapter_config\.json|{WEIGHTS.pattern}"),
    "model": re.compile(rf"(generation_)?config\.json|model\.safetensors\.index\.json|{WEIGHTS.pattern}"),
    "tokenizer": re.compile(r"[\w-]+\.(json|txt|jinja|model)"),
}
CONFIGS = re.compile(r"(\w+_)?config\.json")
# settings with which transformers or peft read another file, import a module or fetch code
OUTSIDE = re.compile(r".*(_files?|_path|_dir|_implementation)|auto_map(ping)?|megatron_config|adapters")
NAMES_ALONE = ("base_model_name_or_path", "_name_or_path", "name_or_path")  # said, not read
NUMBERS = ("F64", "F32", "F16", "BF16")


def seal(folder: Path) -> None:
    """Write SHA256SUMS over the record and what a library wrote beside it."""
    write_text(folder / CHECKSUMS, "".join(f"{sha256(folder / name)}  {name}\n" for name in sorted(_names(folder))))


def check_saved(folder: Path) -> None:
    """Refuse a folder that is not whole, or that could make a library read or run something outside of it.

    Raises:
        InputError: names the file and what is wrong with it.
    """
    found = _names(folder)
    listed = read_sums(folder, CURE)
    for name in sorted(found ^ set(listed)):
        state = "is not of this run" if name in found else "is missing"
        raise InputError(f"{folder / name} {state} ({CHECKSUMS}); {CURE}")
    checked(folder, CURE)
    for name in found:
        if name.endswith(".json"):
            _check_json(folder / name, found)


def tensor_shapes(file: Path) -> dict[str, list[int]]:
    """The shapes in a safetensors file by name; InputError where it is damaged or holds other than real numbers."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "numpy") as stream:
            parts = {name: stream.get_slice(name) for name in stream.keys()}  # noqa: SIM118 (no mapping)
            if strange := sorted(name for name, part in parts.items() if part.get_dtype() not in NUMBERS):
                raise InputError(f"{file}: {strange[0]} is {parts[strange[0]].get_dtype()}, not floating point; {CURE}")
            return {name: part.get_shape() for name, part in parts.items()}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file} is damaged: {error}; {CURE}") from None


def _names(folder: Path) -> set[str]:
    """The record and every file of the folders that libraries read; whatever else lies there is not looked at."""
    return {path.relative_to(folder).as_posix() for path in _files(folder)}


def _files(folder: Path) -> Iterator[Path]:
    for path in (folder / CHECKSUMS, folder / RECORD):
        if path.is_symlink() or path.exists():
            _check_kind(path, stat.S_ISREG)
    yield folder / RECORD
    for part, allowed in NAMES.items():
        if not (folder / part).is_symlink() and not (folder / part).exists():
            continue
        _check_kind(folder / part, stat.S_ISDIR)
        for path in (folder / part).iterdir():
            _check_kind(path, stat.S_ISREG)
            if not allowed.fullmatch(path.name):
                raise InputError(f"{path} is no file that a run holds; remove it, or {CURE}")
            yield path


def _check_kind(path: Path, wanted) -> None:
    if not wanted(path.lstat().st_mode):
        raise InputError(f"{path} is a link or no {'file' if wanted is stat.S_ISREG else 'folder'}; {CURE}")


def _check_json(path: Path, found: set[str]) -> None:
    content = read_json(path, CURE)
    if CONFIGS.fullmatch(path.name) and (key := next(_outside(content), None)):
        raise InputError(f"{path} sets {key!r}, which may lead outside of the run; {CURE}")
    if path.name.endswith(".index.json"):
        parts = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(parts, dict) or not {f"model/{part}" for part in parts.values()} <= found:
            raise InputError(f"{path} names weights that are not in its folder; {CURE}")


def _outside(content: object) -> Iterator[str]:
    """Names of settings that could lead outside, at any depth."""
    if isinstance(content, list):
        for item in content:
            yield from _outside(item)
    elif isinstance(content, dict):
        for key, value in content.items():
            if key in ("id2label", "label2id"):
                continue
            if value and key not in NAMES_ALONE and OUTSIDE.fullmatch(key):
                yield key
            yield from _outside(value)


def checked(folder: Path, cure: str = CURE) -> Path:
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
