"""One function that loads any corpus: a named one by its name, a table of your own by its path."""

import logging
from dataclasses import replace
from pathlib import Path

from irtuning.corpora.base import Corpus, sharing
from irtuning.corpora.folds import FOLDS, cut, warnings_about
from irtuning.corpora.reading import read_rows
from irtuning.corpora.sources import CORPORA, locate
from irtuning.corpora.tabular import Columns, read_splits
from irtuning.errors import InputError, unknown

logger = logging.getLogger(__name__)


def load_corpus(
    name_or_path: str | Path, data_dir: str | Path | None = None, fold: int = 0, *, labels: str | None = None,
    before: str = "before", after: str = "after", label: str = "label", group: str | None = None,
    split: str | None = None) -> Corpus:  # fmt: skip
    """Return a corpus by its name (see `CORPORA`), or from your own table or folder with a table per split.

    Args:
        name_or_path: a name, or a path. If a name and a path are spelled alike, the name wins.
        data_dir: the folder of a named corpus. By default the one in IRTUNING_DATA; else it is downloaded.
        fold: 0 to 4 where this package makes the splits: in `folds`, and for a single file of your own.
        labels: "fine" or "coarse" where a corpus has both. The default is fine for argrewrite, coarse for arxivedits.
        split: "published" or "folds" where a corpus has both. The default is folds for iterater, whose published split
            shares documents between its parts, and published for arxivedits.
        before, after, label, group: the columns of your own table.

    Raises:
        InputError: the corpus does not exist or cannot be read. The message says what would work.
    """
    columns, source = Columns(before, after, label, group), CORPORA.get(name_or_path)
    path = None if source else Path(name_or_path).expanduser()
    name = str(path or name_or_path)
    if path and not (str(name_or_path) and path.exists()):
        raise unknown("corpus (nor an existing file or folder)", name, CORPORA)
    if source and columns != Columns():
        raise InputError(f"corpus {name!r} has its own columns; leave before, after, label and group at their defaults")
    given = vars(columns) | {"label_set": labels, "split": split}
    kinds = source.splits if source else ("published" if path.is_dir() else "folds",)
    known = ("fine", "coarse") if source and source.has_coarse else ("fine",)
    for kind, asked, choices in (("split", split, kinds), ("label set", labels, known)):
        if asked not in (None, *choices):
            raise unknown(f"{kind} of corpus {name!r}:", asked, choices)
    if fold not in range(folds := 1 if has_fixed_splits(name, split) else FOLDS):
        raise InputError(f"corpus {name!r} has {folds} fold(s), so fold {fold!r} does not exist; count from 0")
    if source:
        options = {"split": split or kinds[0]} if len(kinds) > 1 else {}
        folder = locate(name, data_dir)
        if folder and source.checksum and source.digest(folder) != source.checksum:
            problem = f"{folder} does not hold the files of {name!r} as published; Git may have changed their line ends"
            raise InputError(f"{problem}. {source.cure()}")
        corpus = source.load(folder, fold, labels, **options)
        if corpus.shared_groups:
            logger.warning("%s%s: scores on this split are too high", name, sharing(corpus.shared_groups))
        return replace(corpus, name=name, licence=source.licence, citation=source.citation, reading=given)
    if path.is_dir():
        parts = [columns.revisions(rows, name) for name, rows in read_splits(path).items()]
    else:
        parts = cut(columns.revisions(read_rows(path), path.stem), fold)
    known = tuple(sorted({r.intention for part in parts for r in part}))
    corpus = Corpus(path.stem, known, *parts, fold=fold, reading=given)
    for warning in warnings_about(corpus):
        logger.warning("%s: %s", path, warning)
    return corpus


def has_fixed_splits(name: str, split: str | None = None) -> bool:
    """Return whether a corpus is used in splits of its own, so that only fold 0 exists."""
    return (split or CORPORA[name].splits[0]) == "published" if name in CORPORA else Path(name).is_dir()
