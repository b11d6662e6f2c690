"""One's own revisions: a table with columns of one's choice, or a folder with a table per split."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from irtuning.corpora.base import SPLITS, Corpus, Revision
from irtuning.corpora.folds import cut
from irtuning.corpora.reading import READERS, Row, read_rows, require
from irtuning.errors import InputError, unknown

MOST_LABELS = 256
SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "dev", "valid"), "test": ("test",)}


@dataclass(frozen=True)
class Columns:
    """Which column holds what; `group` is None where the rows belong to nobody in particular."""

    before: str = "before"
    after: str = "after"
    label: str = "label"
    group: str | None = None

    def names(self) -> list[str]:
        """The columns that a table must have."""
        return [name for name in (self.before, self.after, self.label, self.group) if name is not None]

    def revision(self, row: Row, id: str, labels: Sequence[str] | None = None) -> Revision:
        """The revision in a row; its other cells go to `extra`.

        InputError, naming the row, for two empty sides, a blank label or group, or a label that is not in `labels`.
        """
        before, after, label = row.text(self.before), row.text(self.after), row.text(self.label)
        group = row.text(self.group) if self.group else ""
        if not before and not after:
            raise InputError(f"{row.where}: both sides are empty ({self.before!r}, {self.after!r}); drop the row")
        if not label or self.group and not group:
            blank = self.group if label else self.label
            raise InputError(f"{row.where}: {blank!r} is blank; fill it in or drop the row")
        if labels is not None and label not in labels:
            raise unknown(f"label in {row.where}:", label, labels)
        extra = {name: value for name, value in row.cells.items() if name not in self.names()}
        return Revision(id, before, after, label, group, extra=extra)


def load_own(path: str | Path, fold: int = 0, columns: Columns = Columns()) -> Corpus:
    """A corpus from one file (.csv, .tsv, .jsonl, .json, .xlsx), split in folds, or from a folder with one per split.

    One file is split by `columns.group` if given, else row by row. In a folder, `train`, `validation` (or `dev`) and
    `test` files keep their split, and only fold 0 exists. Labels are in sorted order. InputError says what is wrong.
    """
    path = Path(path).expanduser()
    try:
        if path.is_dir():
            parts = [_revisions(rows, columns, split) for split, rows in read_splits(path).items()]
        else:
            parts = cut(_revisions(read_rows(path), columns, path.stem), fold)
        labels = tuple(sorted({r.intention for part in parts for r in part}))
        return Corpus(path.stem, labels, *parts, fold=fold)
    except InputError as error:
        if str(path) in str(error):
            raise
        raise InputError(f"{path}: {error}") from None


def read_splits(folder: Path) -> dict[str, list[Row]]:
    """The rows of the train, validation and test files in a folder."""
    return {split: read_rows(_split_file(folder, split)) for split in SPLITS}


def _revisions(rows: Sequence[Row], columns: Columns, source: str) -> list[Revision]:
    require(rows, columns.names())
    found = [columns.revision(row, f"{source}:{row.line}") for row in rows]
    if (count := len({r.intention for r in found})) > MOST_LABELS:
        raise InputError(f"column {columns.label!r} holds {count:,} labels, the most is {MOST_LABELS}; name another one")
    return found


def _split_file(folder: Path, split: str) -> Path:
    wanted = [f"{name}{ending}" for name in SPLIT_NAMES[split] for ending in READERS]
    found = [folder / name for name in wanted if (folder / name).is_file()]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{folder} holds {[p.name for p in found]} for split {split!r}; keep one of them")
    names = " or ".join(SPLIT_NAMES[split])
    raise InputError(f"{folder} holds no file for split {split!r}; name it {names} with one of {', '.join(READERS)}")
