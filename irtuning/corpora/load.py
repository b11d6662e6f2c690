"""One function that loads any corpus: a named one by its name, a table of your own by its path."""

from dataclasses import replace
from pathlib import Path

from irtuning.corpora.base import Corpus
from irtuning.corpora.folds import FOLDS
from irtuning.corpora.sources import CORPORA, locate
from irtuning.corpora.tabular import Columns, load_own
from irtuning.errors import InputError, unknown

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
    """Return a corpus by its name (see `corpus_names`), or from your own table or folder with a table per split.

    Args:
        name_or_path: a name, or a path. If a name and a path are spelled alike, the name wins.
        data_dir: the folder of a named corpus. By default the one in IRTUNING_DATA; else it is downloaded.
        fold: 0 to 4 where this package makes the splits: for argrewrite and for a single file of your own.
        labels: "fine" or "coarse" where a corpus has both. The default is fine for argrewrite, coarse for arxivedits.
        before, after, label, group: the columns of your own table.

    Raises:
        InputError: the corpus does not exist or cannot be read. The message says what would work.
    """
    columns = Columns(before, after, label, group)
    if name_or_path in CORPORA:
        name, source = str(name_or_path), CORPORA[name_or_path]
        if columns != Columns():
            raise InputError(f"corpus {name!r} has its own columns; leave before, after, label and group at their defaults")
        _check_fold(name, fold, fixed=not source.split_by_us)
        _check_labels(name, labels, source.has_coarse)
        corpus = source.load(locate(name, data_dir), fold, labels)
        return replace(corpus, name=name, licence=source.licence, citation=source.citation)
    path = _existing(name_or_path)
    _check_fold(str(path), fold, fixed=path.is_dir())
    _check_labels(str(path), labels, has_coarse=False)
    return load_own(path, fold, columns)


def corpus_names() -> tuple[str, ...]:
    """Return the names that `load_corpus` knows."""
    return tuple(CORPORA)


def has_fixed_splits(name: str) -> bool:
    """Return whether a corpus comes with its own splits, so that only fold 0 exists."""
    return not CORPORA[name].split_by_us if name in CORPORA else Path(name).is_dir()


def _check_fold(name: str, fold: int, fixed: bool) -> None:
    if fixed and fold != 0:
        raise InputError(f"corpus {name!r} has fixed splits, so fold {fold!r} does not exist; leave it at 0")
    if fold not in range(FOLDS):
        raise InputError(f"fold must be 0 to {FOLDS - 1}, got {fold!r}")


def _check_labels(name: str, labels: str | None, has_coarse: bool) -> None:
    if labels is not None and labels not in LABEL_SETS:
        raise unknown("label set", labels, LABEL_SETS)
    if labels == "coarse" and not has_coarse:
        raise InputError(f"corpus {name!r} has one label set, so 'coarse' does not exist; leave labels at None")


def _existing(name_or_path: str | Path) -> Path:
    """Return the path, or raise the error that fits a mistyped name or a missing file."""
    try:
        path = Path(name_or_path).expanduser()
        if str(name_or_path) and path.exists():
            return path
    except (OSError, RuntimeError, ValueError) as error:  # too long, a zero byte, or the home of an unknown user
        raise InputError(f"{str(name_or_path)!r} is no corpus and no possible path: {error}") from error
    looks_like_path = isinstance(name_or_path, Path) or path.suffix or len(path.parts) > 1
    if looks_like_path:
        raise InputError(f"no file or folder {str(path)!r}; give an existing one, or a corpus: {', '.join(CORPORA)}")
    raise unknown("corpus", name_or_path, CORPORA)
