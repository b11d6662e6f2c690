"""Revision corpora: one function loads any of them, public ones by name and one's own by path."""

from collections.abc import Callable
from pathlib import Path

from irtuning.corpora.argrewrite import load_argrewrite
from irtuning.corpora.arxivedits import load_arxivedits
from irtuning.corpora.base import SPLITS, Corpus, Revision
from irtuning.corpora.folds import FOLDS
from irtuning.corpora.public import load_argrevision, load_iterater
from irtuning.corpora.tabular import Columns, load_own
from irtuning.errors import InputError, unknown

__all__ = ["SPLITS", "SPLIT_BY_US", "Columns", "Corpus", "Revision", "corpus_names", "load_corpus"]

SPLIT_BY_US = ("argrewrite",)  # into folds; the others come with splits
COARSE = ("argrewrite", "arxivedits")  # those with two label sets
LABEL_SETS = ("fine", "coarse")


def load_corpus(
    name_or_path: str | Path,
    data_dir: str | Path | None = None,
    fold: int = 0,
    *,
    labels: str | None = None,
    before: str = "before",
    after: str = "after",
    label: str = "label",
    group: str | None = None,
) -> Corpus:
    """A corpus by its name (see `corpus_names`), or one's own from a table or from a folder with a table per split.

    `data_dir` is where a public corpus lies (else IRTUNING_DATA, else its public home). `fold` is 0 to 4 where this
    package makes the splits: argrewrite, one's own single file. `labels` is "fine" or "coarse" where a corpus has both
    (argrewrite: fine by default; arxivedits: coarse). `before`, `after`, `label` and `group` name the columns of one's
    own table. A name comes before a path of the same spelling. InputError says what is wrong and what would do.
    """
    columns = Columns(before, after, label, group)
    if name_or_path in LOADERS:
        _check_named(name_or_path, fold, labels, columns)
        return LOADERS[name_or_path](data_dir, fold, labels)
    path = _existing(name_or_path)
    _check_fold(str(path), fold, fixed=path.is_dir())
    _check_labels(str(path), labels)
    return load_own(path, fold, columns)


def corpus_names() -> tuple[str, ...]:
    """The names that `load_corpus` knows."""
    return tuple(LOADERS)


def _synthetic(data_dir: str | Path | None, fold: int, labels: str | None) -> Corpus:
    from irtuning.corpora.synthetic import load_synthetic

    return load_synthetic()


# a corpus by its name: a function of the data's folder, the fold and the label set
LOADERS: dict[str, Callable[[str | Path | None, int, str | None], Corpus]] = {
    "iterater": lambda data_dir, fold, labels: load_iterater(data_dir),
    "argrevision": lambda data_dir, fold, labels: load_argrevision(data_dir),
    "argrewrite": load_argrewrite,
    "arxivedits": lambda data_dir, fold, labels: load_arxivedits(data_dir, labels),
    "synthetic": _synthetic,
}


def _check_named(name: str, fold: int, labels: str | None, columns: Columns) -> None:
    if columns != Columns():
        raise InputError(f"corpus {name!r} has its own columns; leave before, after, label and group at their defaults")
    _check_fold(name, fold, fixed=name not in SPLIT_BY_US)
    _check_labels(name, labels)


def _check_fold(name: str, fold: int, fixed: bool) -> None:
    if fixed and fold != 0:
        raise InputError(f"corpus {name!r} has fixed splits, so fold {fold!r} does not exist; leave it at 0")
    if fold not in range(FOLDS):
        raise InputError(f"fold must be 0 to {FOLDS - 1}, got {fold!r}")


def _check_labels(name: str, labels: str | None) -> None:
    if labels is not None and labels not in LABEL_SETS:
        raise unknown("label set", labels, LABEL_SETS)
    if labels == "coarse" and name not in COARSE:
        raise InputError(f"corpus {name!r} has one label set, so 'coarse' does not exist; leave labels at None")


def _existing(name_or_path: str | Path) -> Path:
    """The path, if there is something; else an error that fits a mistyped name or a missing file."""
    try:
        path = Path(name_or_path).expanduser()
        if str(name_or_path) and path.exists():
            return path
    except (OSError, RuntimeError, ValueError) as error:  # too long, a zero byte, ~ of nobody
        raise InputError(f"{str(name_or_path)!r} is no corpus and no possible path: {error}") from error
    looks_like_path = isinstance(name_or_path, Path) or path.suffix or len(path.parts) > 1
    if looks_like_path:
        raise InputError(f"no file or folder {str(path)!r}; give an existing one, or a corpus: {', '.join(LOADERS)}")
    raise unknown("corpus", name_or_path, LOADERS)
