"""Where a public corpus is: the folder given, IRTUNING_DATA, or its public home at one fixed commit."""

import hashlib
import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from irtuning.errors import InputError, unknown

ENVIRONMENT_VARIABLE = "IRTUNING_DATA"


@dataclass(frozen=True)
class Source:
    """What marks a folder as this corpus, and how to get one.

    `patterns` are the files that are read, relative to the folder. `archive` is a zip of the public repository at
    one commit; since GitHub does not promise stable zip bytes, `sha256` is over those files (see `digest`).
    """

    patterns: tuple[str, ...]
    home: str
    archive: str = ""
    sha256: str = ""
    licence: str = "unknown"


SOURCES = {
    "argrewrite": Source(
        patterns=("dataset/annotations/*/*/Annotation_*.xlsx",),
        home="https://github.com/omidkashefi/ArgRewrite (commit a433be296c3d)",
        licence="CC BY 4.0",
        archive="https://github.com/omidkashefi/ArgRewrite/archive/a433be296c3d.zip",
        sha256="b16470e0cd81d56d0f7dcecd0eb1fae8ca3989a36cd979e9426656695b85f7aa",
    ),
    "arxivedits": Source(
        patterns=("data/edits/train.json", "data/edits/dev.json", "data/edits/test.json"),
        home="https://github.com/chaojiang06/arXivEdits (commit 113913d68522)",
        licence="none stated",
        archive="https://github.com/chaojiang06/arXivEdits/archive/113913d68522.zip",
        sha256="3153f9ddbc95f5a21d13689aecbe1338d7a68ac3bc692446102eeebc0157062d",
    ),
    "argrevision": Source(
        patterns=("argrevision.xlsx", "argrevision.csv"),
        home="its authors (the ArgRevision corpus is not public); save their spreadsheet as argrevision.xlsx or .csv",
        licence="not public",
    ),
    "iterater": Source(
        patterns=("train.json", "train.jsonl"),
        home="https://huggingface.co/datasets/wanyu/IteraTeR_human_sent",
        licence="Apache-2.0",
    ),
}


def locate(name: str, data_dir: str | Path | None = None) -> Path:
    """The folder of a corpus on this machine, downloaded into pooch's cache if it is nowhere else.

    Looked for in `data_dir` or its subfolder `name`, else likewise in the folder that IRTUNING_DATA names, else in its
    public home. InputError, with what to do, when it is not found or not what was published.
    """
    found = find(name, data_dir)
    if found is not None:
        return found
    source = SOURCES[name]
    if not source.archive:
        raise InputError(f"corpus {name!r} was not found. {_cure(name)}")
    return _download(name, source)


def find(name: str, data_dir: str | Path | None = None) -> Path | None:
    """The folder of a corpus in `data_dir` or IRTUNING_DATA; None where neither is given or the latter lacks it."""
    if name not in SOURCES:
        raise unknown("public corpus", name, SOURCES)
    base = data_dir or os.environ.get(ENVIRONMENT_VARIABLE)
    if not base:
        return None
    origin = "data folder" if data_dir else ENVIRONMENT_VARIABLE
    base = Path(base).expanduser()
    if not base.is_dir():
        raise InputError(f"{origin} {str(base)!r} is not a folder; name an existing one")
    found = next((folder for folder in (base, base / name) if files(name, folder)), None)
    if found is None and data_dir:
        raise InputError(
            f"{origin} {str(base)!r} does not hold {name!r}: neither it nor its subfolder {name!r} has "
            f"{' or '.join(SOURCES[name].patterns)}. {_cure(name)}"
        )
    return found


def files(name: str, folder: Path) -> list[Path]:
    """The files of a corpus inside its folder, sorted."""
    found = (path for pattern in SOURCES[name].patterns for path in folder.glob(pattern))
    return sorted(found, key=Path.as_posix)


def digest(name: str, folder: Path) -> str:
    """SHA-256 over the corpus's files in sorted order: each one's relative path, length and bytes."""
    whole = hashlib.sha256()
    for path in files(name, folder):
        content = path.read_bytes()
        whole.update(f"{path.relative_to(folder).as_posix()}\n{len(content)}\n".encode() + content)
    return whole.hexdigest()


def _download(name: str, source: Source) -> Path:
    import pooch

    cache = Path(pooch.os_cache("irtuning"))
    folder = cache / f"{name}-{PurePosixPath(source.archive).stem}"
    if not folder.is_dir():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache) as scratch:
                archive = pooch.retrieve(source.archive, known_hash=None, fname="archive.zip", path=scratch)
                _unpack(Path(archive), source).replace(folder)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            problem = f"corpus {name!r} could not be fetched from {source.archive} ({error})"
            raise InputError(f"{problem}. {_cure(name)}") from error
    return _verify(name, folder)


def _unpack(archive: Path, source: Source) -> Path:
    """The one folder in a repository's zip with the corpus's files alone; zipfile keeps every name inside."""
    target = archive.parent / "unpacked"
    with zipfile.ZipFile(archive) as packed:
        wanted = [n for n in packed.namelist() if any(PurePosixPath(n).match(p) for p in source.patterns)]
        if not wanted:
            raise ValueError(f"the archive holds no {' or '.join(source.patterns)}")
        packed.extractall(target, wanted)
    return target / PurePosixPath(wanted[0]).parts[0]


def _verify(name: str, folder: Path) -> Path:
    found, expected = digest(name, folder), SOURCES[name].sha256
    if found != expected:
        raise InputError(
            f"{name!r} in {folder} is not the published release: SHA-256 {found}, expected {expected}. "
            f"Delete that folder to fetch it again. {_cure(name)}"
        )
    return folder


def _cure(name: str) -> str:
    return (
        f"Get it from {SOURCES[name].home} and name its folder as the data folder (data_dir, --data) "
        f"or in the environment variable {ENVIRONMENT_VARIABLE}"
    )
