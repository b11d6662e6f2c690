"""The named corpora: what each one states about itself, and where its files are found or downloaded."""

import hashlib
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from irtuning.corpora import argrewrite, arxivedits, public, synthetic
from irtuning.corpora.base import Corpus
from irtuning.errors import InputError, unknown

ENVIRONMENT_VARIABLE = "IRTUNING_DATA"


@dataclass(frozen=True)
class CorpusSource:
    """Everything that a named corpus states, in one row of `CORPORA`.

    Attributes:
        load: function of the folder (or None), the fold and the label set ("fine", "coarse" or None for the default)
            that returns the `Corpus`. `load_corpus` adds the name, licence and citation to it.
        labels: the default label set, in index order.
        home: where people get the corpus.
        licence, citation: its licence, and the publication to cite.
        has_coarse: whether it has a fine and a coarse label set.
        split_by_us: whether this package splits it in five folds; otherwise its splits are fixed.
        patterns: its files, relative to its folder. They mark a folder as this corpus. Empty if it needs no files.
        may_be_file: whether the data folder may also be the corpus's only file.
        hub: Hub data set that `load` reads where the folder is None.
        url: a zip archive of the public repository at one commit, or the address below which `files` lie.
        files: SHA-256 of each file to download, by its path relative to the folder.
        checksum: SHA-256 over the files of the archive (see `digest`), since GitHub may change the bytes of a zip.
    """

    load: Callable[[Path | None, int, str | None], Corpus]
    labels: tuple[str, ...]
    home: str
    licence: str = "unknown"
    citation: str = ""
    has_coarse: bool = False
    split_by_us: bool = False
    patterns: tuple[str, ...] = ()
    may_be_file: bool = False
    hub: str = ""
    url: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    checksum: str = ""


CORPORA = {
    "iterater": CorpusSource(
        load=public.load_iterater,
        labels=public.ITERATER_LABELS,
        home=f"https://huggingface.co/datasets/{public.ITERATER_HUB}",
        licence="Apache-2.0",
        citation="Du et al., Understanding Iterative Revision from Human-Written Text, ACL 2022",
        patterns=("train.json", "train.jsonl"),
        hub=public.ITERATER_HUB,
    ),
    "argrevision": CorpusSource(
        load=public.load_argrevision,
        labels=public.ARGREVISION_LABELS,
        home="its authors (the ArgRevision corpus is not public); save their spreadsheet as argrevision.xlsx or .csv",
        licence="not public",
        citation="ArgRevision, as used by Liu & Litman, Findings of EMNLP 2025",
        patterns=public.ARGREVISION_FILES[::-1],
        may_be_file=True,
    ),
    "argrewrite": CorpusSource(
        load=argrewrite.load_argrewrite,
        labels=argrewrite.FINE_LABELS,
        home="https://github.com/omidkashefi/ArgRewrite (commit a433be296c3d)",
        licence="CC BY 4.0",
        citation="Kashefi et al., ArgRewrite V.2: an annotated argumentative revisions corpus, LRE 56(3), 2022",
        has_coarse=True,
        split_by_us=True,
        patterns=(argrewrite.PATTERN,),
        url="https://github.com/omidkashefi/ArgRewrite/archive/a433be296c3d.zip",
        checksum="b16470e0cd81d56d0f7dcecd0eb1fae8ca3989a36cd979e9426656695b85f7aa",
    ),
    "arxivedits": CorpusSource(
        load=arxivedits.load_arxivedits,
        labels=arxivedits.COARSE_LABELS,
        home="https://github.com/chaojiang06/arXivEdits (commit 113913d68522)",
        licence="none stated",
        citation="Jiang, Xu & Stevens, arXivEdits: Understanding the Human Revision Process in Scientific Writing, "
        "EMNLP 2022",
        has_coarse=True,
        patterns=("data/edits/train.json", "data/edits/dev.json", "data/edits/test.json"),
        url="https://github.com/chaojiang06/arXivEdits/raw/113913d68522/",
        files={
            "data/edits/train.json": "22b8e4b8f2e5dd4710665bc5077456b4f455fa2d0e07b31635f5dc89a99e44d1",
            "data/edits/dev.json": "2280be90e03f7cb794769d82b92b1769fa8ec84fa0e563df6a9a3a3a1a8840a6",
            "data/edits/test.json": "d0db73e78cf0c3086146d7339307a870769f5a50b0e0a969478b45041bb9ece3",
        },
    ),
    "synthetic": CorpusSource(
        load=synthetic.load_synthetic, labels=synthetic.LABELS, home="made by the package", licence="Apache-2.0"
    ),
}


def register_corpus(name: str, source: CorpusSource) -> None:
    """Add a corpus that `load_corpus`, the tables about corpora and the command line then know by its name.

    Raises:
        InputError: another corpus has that name.
    """
    if CORPORA.get(name, source) != source:
        raise InputError(f"a corpus named {name!r} exists already; choose another name")
    CORPORA[name] = source


def find(name: str, data_dir: str | Path | None = None) -> Path | None:
    """Return the folder of a corpus on this machine, or None where it is not.

    It is `data_dir` or its subfolder `name`. Without a `data_dir`, the folder in IRTUNING_DATA is used likewise.

    Raises:
        InputError: the data folder does not exist, or `data_dir` does not hold the corpus.
    """
    if name not in CORPORA:
        raise unknown("corpus", name, CORPORA)
    source, given = CORPORA[name], data_dir or os.environ.get(ENVIRONMENT_VARIABLE)
    if not given or not source.patterns:
        return None
    base, origin = Path(given).expanduser(), "data folder" if data_dir else ENVIRONMENT_VARIABLE
    if data_dir and source.may_be_file and base.is_file():
        return base
    if not base.is_dir():
        raise InputError(f"{origin} {str(base)!r} is not a folder; name an existing one")
    for folder in (base, base / name):
        if _files(source, folder):
            return folder
    if data_dir:
        raise InputError(
            f"{origin} {str(base)!r} does not hold {name!r}: neither it nor its subfolder {name!r} has "
            f"{' or '.join(source.patterns)}. {_cure(source)}"
        )
    return None


def locate(name: str, data_dir: str | Path | None = None) -> Path | None:
    """Return the folder of a corpus, downloaded once if it is not on this machine; None where it needs no folder.

    Raises:
        InputError: the corpus cannot be found or downloaded, or is not what was published. The message says what to do.
    """
    folder, source = find(name, data_dir), CORPORA[name]
    if folder is not None or source.hub or not source.patterns:
        return folder
    if not source.url:
        raise InputError(f"corpus {name!r} was not found. {_cure(source)}")
    try:
        return _download(name, source)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"corpus {name!r} could not be fetched from {source.url} ({error}). {_cure(source)}") from error


def digest(source: CorpusSource, folder: Path) -> str:
    """Return the SHA-256 over a corpus's files in sorted order: the relative path, length and bytes of each."""
    total = hashlib.sha256()
    for path in sorted(_files(source, folder), key=Path.as_posix):
        content = path.read_bytes()
        total.update(f"{path.relative_to(folder).as_posix()}\n{len(content)}\n".encode() + content)
    return total.hexdigest()


def _download(name: str, source: CorpusSource) -> Path:
    import pooch

    cache = Path(pooch.os_cache("irtuning")) / f"{name}-{hashlib.sha256(source.url.encode()).hexdigest()[:12]}"
    if source.files:
        registry = pooch.create(cache, source.url, registry=dict(source.files))
        for file in source.files:
            registry.fetch(file)
        return cache
    pooch.retrieve(source.url, known_hash=None, fname="archive.zip", path=cache, processor=pooch.Unzip(extract_dir="."))
    folder = next((path for path in cache.iterdir() if path.is_dir() and _files(source, path)), None)
    if folder is None:
        raise ValueError(f"the archive holds no {' or '.join(source.patterns)}; delete {cache} to fetch it again")
    if (found := digest(source, folder)) != source.checksum:
        raise ValueError(
            f"what it holds is not the published release: SHA-256 {found}, expected {source.checksum}; "
            f"delete {cache} to fetch it again"
        )
    return folder


def _files(source: CorpusSource, folder: Path) -> list[Path]:
    return [path for pattern in source.patterns for path in folder.glob(pattern)]


def _cure(source: CorpusSource) -> str:
    return (
        f"Get it from {source.home} and name its folder as the data folder (data_dir, --data) "
        f"or in the environment variable {ENVIRONMENT_VARIABLE}"
    )
