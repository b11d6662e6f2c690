"""Corpora in tables: ArgRevision, the synthetic one, and your own file or folder of files."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from irtuning.corpora.base import SPLITS, Corpus, Revision
from irtuning.corpora.reading import READERS, Row, read_rows, with_columns
from irtuning.errors import InputError, unknown

SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "dev", "valid", "val"), "test": ("test",)}
ITERATER_LABELS = ("clarity", "fluency", "coherence", "style", "meaning-changed")
ARGREVISION_LABELS = ("relevant", "irrelevant", "already exists", "LCE", "not LCE", "commentary")
ARGREVISION_SEED = 171  # the paper's seed, for the shuffle and for both cuts
SYNTHETIC_FILE = Path(__file__).with_name("synthetic.csv")  # written by reports/synthetic/generate.py


@dataclass(frozen=True)
class Columns:
    """Names of the columns that hold the parts of a revision. `group` is None where the rows have no groups."""
    before: str = "before"
    after: str = "after"
    label: str = "label"
    group: str | None = None

    def revisions(self, rows: Sequence[Row], source: str, labels: Sequence[str] = ()) -> list[Revision]:
        """Return the revisions of the rows, with further cells in `extra`. If `labels` are given, others are errors."""
        names, revisions = list(filter(None, vars(self).values())), []
        for row in with_columns(rows, names):
            before, after, label, *group = (row.text(name) for name in names)
            if not before and not after:
                raise InputError(f"{row.where}: both sides are empty ({self.before!r}, {self.after!r}); drop the row")
            if not all([label, *group]):
                raise InputError(f"{row.where}: {names[3 if label else 2]!r} is blank; fill it in or drop the row")
            if labels and label not in labels:
                raise InputError(f"{row.where}: {unknown('label', label, labels)}")
            extra = {name: value for name, value in row.cells.items() if name not in names}
            revisions.append(Revision(f"{source}:{row.line}", before, after, label, *group, extra=extra))
        return revisions


def read_splits(folder: Path) -> dict[str, list[Row]]:
    """Return the rows of the train, validation (or dev) and test files in a folder."""
    tables = {}
    for split, names in SPLIT_NAMES.items():
        paths = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in READERS and p.stem.lower() in names]
        if len(paths) != 1:
            files, form = [path.name for path in paths] or "no file", f"{' or '.join(names)} + {' or '.join(READERS)}"
            raise InputError(f"{folder} holds {files} for split {split!r}; give one, named {form}")
        tables[split] = read_rows(paths[0])
    return tables


def load_argrevision(folder: Path, fold: int = 0, labels: str | None = None) -> Corpus:
    """Return ArgRevision, shuffled and cut 80/10/10, without the rows labelled `claim`.

    The paper gives the seed and the shares but not the generator. So the split is fixed, but may differ from theirs.
    """
    from numpy.random import RandomState
    from sklearn.model_selection import train_test_split
    file = next(filter(Path.is_file, (folder / "argrevision.csv", folder / "argrevision.xlsx")))
    columns = Columns("old_sentences", "new_sentences", "purpose_labels")
    rows = columns.revisions(read_rows(file), "argrevision", (*ARGREVISION_LABELS, "claim"))
    revisions = [r for r in rows if r.intention != "claim"]
    shuffled = [revisions[row] for row in RandomState(ARGREVISION_SEED).permutation(len(revisions))]
    train, rest = train_test_split(shuffled, test_size=0.2, random_state=ARGREVISION_SEED)
    validation, test = train_test_split(rest, test_size=0.5, random_state=ARGREVISION_SEED)
    return Corpus("argrevision", ARGREVISION_LABELS, train, validation, test)


def load_synthetic(folder: Path | None = None, fold: int = 0, labels: str | None = None) -> Corpus:
    """Return the 1,600 / 200 / 200 rows that the package ships. All arguments are ignored."""
    rows = Columns("before", "after", "intention", "template").revisions(read_rows(SYNTHETIC_FILE), "synthetic")
    parts = [[replace(r, id=r.extra["id"]) for r in rows if r.extra["split"] == split] for split in SPLITS]
    return Corpus("synthetic", ITERATER_LABELS, *parts, synthetic=True)
