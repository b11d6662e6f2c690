"""The named corpora: what each one states about itself, and where its files are found or downloaded."""

import hashlib
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from irtuning.corpora import argrewrite, arxivedits, tabular, tetra
from irtuning.corpora.base import Corpus
from irtuning.errors import InputError, unknown


@dataclass(frozen=True, kw_only=True)
class CorpusSource:
    """Everything that a named corpus states, in one row of `CORPORA`. Only `load`, `labels` and `home` are required."""
    load: Callable[..., Corpus]  # of its folder or None, the fold, the label set or None; with two splits also `split`
    labels: tuple[str, ...]  # the default label set, in index order
    home: str  # where people get it
    licence: str = "unknown"
    citation: str = ""
    has_coarse: bool = False  # whether it has a fine and a coarse label set
    splits: tuple[str, ...] = ("published",)  # or "folds", five that this package makes; or both, the default first
    patterns: tuple[str, ...] = ()  # its files, which mark a folder as this corpus; empty if it needs none
    url: str = ""  # a zip archive of its repository at one commit, or an address ending in "/" that has its files
    checksum: str = ""  # `digest` of the downloaded files, since GitHub may change the bytes of a zip that it packs

    def files(self, folder: Path) -> list[Path]:
        """Return the files of this corpus in a folder, sorted."""
        return sorted((path for pattern in self.patterns for path in folder.glob(pattern)), key=Path.as_posix)

    def digest(self, folder: Path) -> str:
        """Return the SHA-256 over the relative path, length and bytes of each file of this corpus in a folder."""
        total = hashlib.sha256()
        for path in self.files(folder):
            content = path.read_bytes()
            total.update(f"{path.relative_to(folder).as_posix()}\n{len(content)}\n".encode() + content)
        return total.hexdigest()

    def cure(self) -> str:
        """Return what helps where the corpus is not on this machine."""
        return f"Get it from {self.home} and name its folder in data_dir, --data or the variable IRTUNING_DATA"


CORPORA = {
    "iterater": CorpusSource(
        load=tabular.load_iterater, labels=tabular.ITERATER_LABELS, splits=("folds", "published"),
        patterns=("train.json", "train.jsonl", "dev.json", "test.json"),
        home="https://github.com/vipulraheja/IteraTeR (commit 4bddaa4f90e9, dataset/)",
        url="https://raw.githubusercontent.com/vipulraheja/IteraTeR/4bddaa4f90e9ba041cf468625bc253a93437776e/"
        "dataset/human_sent_level.zip", licence="Apache-2.0",
        checksum="c63749bab8075161bfba88e0a6ece03ef6f32ca3e4355736fa5b45636e483c34",
        citation="Du et al., Understanding Iterative Revision from Human-Written Text, ACL 2022"),
    "argrevision": CorpusSource(
        load=tabular.load_argrevision, labels=tabular.ARGREVISION_LABELS, licence="not public",
        home="its authors (the ArgRevision corpus is not public); save their spreadsheet as argrevision.xlsx or .csv",
        patterns=("argrevision.xlsx", "argrevision.csv"),
        citation="ArgRevision, as used by Liu & Litman, Findings of EMNLP 2025"),
    "argrewrite": CorpusSource(
        load=argrewrite.load_argrewrite, labels=argrewrite.FINE_LABELS, has_coarse=True, splits=("folds",),
        patterns=(argrewrite.PATTERN,), home="https://github.com/omidkashefi/ArgRewrite (commit a433be296c3d)",
        url="https://github.com/omidkashefi/ArgRewrite/archive/a433be296c3d.zip", licence="CC BY 4.0",
        checksum="b16470e0cd81d56d0f7dcecd0eb1fae8ca3989a36cd979e9426656695b85f7aa",
        citation="Kashefi et al., ArgRewrite V.2: an annotated argumentative revisions corpus, LRE 56(3), 2022"),
    "arxivedits": CorpusSource(
        load=arxivedits.load_arxivedits, labels=arxivedits.COARSE_LABELS, has_coarse=True, licence="none stated",
        home="https://github.com/chaojiang06/arXivEdits (commit 113913d68522)", patterns=arxivedits.FILES,
        splits=("published", "folds"), url="https://github.com/chaojiang06/arXivEdits/raw/113913d68522/",
        checksum="3153f9ddbc95f5a21d13689aecbe1338d7a68ac3bc692446102eeebc0157062d",
        citation="Jiang, Xu & Stevens, arXivEdits: Understanding the Human Revision Process in Scientific Writing, "
        "EMNLP 2022"),
    "tetra": CorpusSource(
        load=tetra.load_tetra, labels=tetra.LABELS, splits=("folds",), patterns=(tetra.PATTERN,), licence="CC BY 4.0",
        home="https://github.com/chemicaltree/tetra (commit 054ba8b308b7)",
        url="https://github.com/chemicaltree/tetra/archive/054ba8b308b7ed5a3a2aca9619427bc8f8fbd405.zip",
        checksum="c6c1b594ce528585672c374093c279333e07eec7bf8211212174053009e8e7b7",
        citation="Mita et al., Towards Automated Document Revision: Grammatical Error Correction, Fluency Edits, and "
        "Beyond, arXiv 2205.11484, 2022"),
    "synthetic": CorpusSource(load=tabular.load_synthetic, labels=tabular.ITERATER_LABELS, home="made by the package",
                              licence="Apache-2.0")}  # fmt: skip


def register_corpus(name: str, source: CorpusSource) -> None:
    """Add a corpus that all parts of the package then know by its name. A name that is taken raises InputError."""
    if CORPORA.get(name, source) != source:
        raise InputError(f"a corpus named {name!r} exists already; choose another name")
    CORPORA[name] = source


def find(name: str, data_dir: str | Path | None = None) -> Path | None:
    """Return `data_dir` (by default IRTUNING_DATA) or its subfolder `name`, whichever has the corpus, else None.

    InputError is raised where the data folder does not exist, or `data_dir` does not hold the corpus.
    """
    if name not in CORPORA:
        raise unknown("corpus", name, CORPORA)
    source, given = CORPORA[name], data_dir or os.environ.get("IRTUNING_DATA")
    if not given or not source.patterns:
        return None
    base = Path(given).expanduser()
    if not base.is_dir():
        raise InputError(f"data folder {str(base)!r} is not a folder; name an existing one")
    folder = next((folder for folder in (base, base / name) if source.files(folder)), None)
    if data_dir and folder is None:
        files = f"{' or '.join(source.patterns)}, also in its subfolder {name!r}"
        raise InputError(f"data folder {str(base)!r} lacks {files}. {source.cure()}")
    return folder


def locate(name: str, data_dir: str | Path | None = None) -> Path | None:
    """Return the folder of a corpus, downloaded once if it is not on this machine, or None where it needs none.

    InputError says what to do where it cannot be found or downloaded, or is not what was published.
    """
    folder, source = find(name, data_dir), CORPORA[name]
    if folder is not None or not source.patterns:
        return folder
    if not source.url:
        raise InputError(f"corpus {name!r} was not found. {source.cure()}")
    try:
        return _download(name, source)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{name!r} is not here, and its download failed ({error}). {source.cure()}") from error


def _download(name: str, source: CorpusSource) -> Path:
    import pooch
    cache = Path(pooch.os_cache("irtuning")) / f"{name}-{hashlib.sha256(source.url.encode()).hexdigest()[:12]}"
    for path in map(Path, source.patterns if source.url.endswith("/") else ()):
        pooch.retrieve(source.url + path.as_posix(), None, path.name, cache / path.parent)
    if not source.url.endswith("/"):
        pooch.retrieve(source.url, None, "archive.zip", cache, processor=pooch.Unzip(extract_dir="."))
    for folder in (cache, *cache.iterdir()):
        if source.digest(folder) == source.checksum:
            return folder
    raise ValueError(f"the download does not hold the published release; delete {cache} to fetch it again")
