"""Your own revisions: a table with columns that you name, or a folder with a table per split."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from irtuning.corpora.base import Corpus, Revision
from irtuning.corpora.folds import cut
from irtuning.corpora.reading import READERS, Row, read_rows, require
from irtuning.errors import InputError, unknown

SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "dev", "valid"), "test": ("test",)}


@dataclass(frozen=True)
class Columns:
    """Names of the columns that hold the parts of a revision. `group` is None where the rows have no groups."""

    before: str = "before"
    after: str = "after"
    label: str = "label"
    group: str | None = None

    def revisions(
        self, rows: Sequence[Row], source: str, labels: Sequence[str] = (), dropped: str | None = None
    ) -> list[Revision]:
        """Return the revisions of the rows without those labelled `dropped`. Further cells go to `extra`.

        An id is `source` and the line.

        Raises:
            InputError: both sides are empty, the label or group is blank, or the label is not one of `labels`, if any.
        """
        names, revisions = list(filter(None, vars(self).values())), []
        require(rows, names)
        for row in rows:
            before, after, label, *group = (row.text(name) for name in names)
            if label == dropped:
                continue
            if not before and not after:
                raise InputError(f"{row.where}: both sides are empty ({self.before!r}, {self.after!r}); drop the row")
            if not all([label, *group]):
                raise InputError(f"{row.where}: {names[3 if label else 2]!r} is blank; fill it in or drop the row")
            if labels and label not in labels:
                raise unknown(f"label in {row.where}:", label, labels)
            extra = {name: value for name, value in row.cells.items() if name not in names}
            revisions.append(Revision(f"{source}:{row.line}", before, after, label, *group, extra=extra))
        return revisions


def load_own(path: Path, fold: int = 0, columns: Columns = Columns()) -> Corpus:
    """Return a corpus from one file, which is split in folds, or from a folder with one file per split.

    A file is split by `columns.group` if given, else row by row. Labels are in sorted order.

    Raises:
        InputError: a file is missing or malformed, or the rows make no corpus.
    """
    try:
        if path.is_dir():
            parts = [columns.revisions(rows, split) for split, rows in read_splits(path).items()]
        else:
            parts = cut(columns.revisions(read_rows(path), path.stem), fold)
        labels = tuple(sorted({r.intention for part in parts for r in part}))
        return Corpus(path.stem, labels, *parts, fold=fold)
    except InputError as error:
        raise error if str(path) in str(error) else InputError(f"{path}: {error}") from None


def read_splits(folder: Path) -> dict[str, list[Row]]:
    """Return the rows of the train, validation (or dev) and test files in a folder."""
    tables = {}
    for split, names in SPLIT_NAMES.items():
        paths = [path for name in names for ending in READERS if (path := folder / f"{name}{ending}").is_file()]
        if len(paths) > 1:
            raise InputError(f"{folder} holds {[path.name for path in paths]} for split {split!r}; keep one of them")
        if not paths:
            name = f"{' or '.join(names)} with one of {', '.join(READERS)}"
            raise InputError(f"{folder} holds no file for split {split!r}; name it {name}")
        tables[split] = read_rows(paths[0])
    return tables
