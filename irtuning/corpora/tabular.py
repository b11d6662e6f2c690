"""Corpora in tables: ITERATER, ArgRevision, the synthetic one, and your own file or folder of files."""

import json
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from irtuning.corpora.base import SPLITS, Corpus, Revision
from irtuning.corpora.folds import cut_apart
from irtuning.corpora.reading import READERS, Row, read_rows, with_columns
from irtuning.errors import InputError, unknown

SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "dev", "valid", "val"), "test": ("test",)}
ITERATER_LABELS = ("clarity", "fluency", "coherence", "style", "meaning-changed")
ITERATER_ANNOTATORS = "human_doc_level.zip"  # beside the files of the sentence level; the corpus works without it
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


def load_iterater(folder: Path, fold: int = 0, labels: str | None = None, split: str = "folds") -> Corpus:
    """Return ITERATER's sentence level without the label `others`, in folds by document or in the published split.

    The published split shares documents between its parts. Where the folder has the document level too,
    `extra["annotators"]` holds the labels that three people gave, which `irtuning.analysis.ceiling` compares.
    """
    columns, path = Columns("before_sent", "after_sent", "labels", "doc_id"), folder / ITERATER_ANNOTATORS
    parts = [columns.revisions(rows, f"iterater_{name}") for name, rows in read_splits(folder).items()]
    parts = _with_annotators(parts, path) if path.is_file() else parts
    dropped = Counter(r.intention for part in parts for r in part if r.intention == "others")
    parts = [[r for r in part if r.intention != "others"] for part in parts]
    if split == "folds":
        parts = cut_apart([r for part in parts for r in part], fold)
    return Corpus("iterater", ITERATER_LABELS, *parts, fold=fold, dropped=dict(dropped))


def _with_annotators(parts: list[list[Revision]], path: Path) -> list[list[Revision]]:
    """Return the rows with three annotators' labels in `extra`, where the document level has the same edit.

    Both levels list the edits in one order, and both state the label of the majority.
    """
    def labelled(row: Revision, edit: dict) -> Revision:
        sides = ((edit["before"], row.before), (edit["after"], row.after))
        same = edit["major_intent"] == row.intention and all((part or "").strip() in text for part, text in sides)
        return replace(row, extra={**row.extra, "annotators": tuple(edit["raw_intents"])}) if same else row
    try:
        with zipfile.ZipFile(path) as archive:
            texts = [archive.read(f"human_doc_level/{name}.json").decode() for name in ("train", "dev", "test")]
        edits = [[edit for line in text.splitlines() for edit in json.loads(line)["edit_actions"]] for text in texts]
        joined = zip(parts, edits, strict=True)
        return [[labelled(*pair) for pair in zip(rows, of, strict=True)] for rows, of in joined]
    except (OSError, LookupError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} does not fit ({error}); get it again, or move it away to do without") from error


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
