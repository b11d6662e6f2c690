"""The paper's corpora, ITERATER-human and ArgRevision, and the synthetic one made for tests and demonstrations."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from irtuning.corpora.base import SPLITS, Corpus
from irtuning.corpora.reading import Row, read_rows
from irtuning.corpora.tabular import Columns, read_splits
from irtuning.errors import InputError

ITERATER_HUB = "wanyu/IteraTeR_human_sent"
ITERATER_LABELS = ("clarity", "fluency", "coherence", "style", "meaning-changed")
ARGREVISION_LABELS = ("relevant", "irrelevant", "already exists", "LCE", "not LCE", "commentary")
ARGREVISION_SEED = 171  # the paper's seed, for the shuffle and for both cuts
SYNTHETIC_FILE = Path(__file__).with_name("synthetic.csv")  # written by reports/synthetic/generate.py


def load_iterater(folder: Path | None, fold: int = 0, labels: str | None = None) -> Corpus:
    """Return ITERATER-human at sentence level in its published splits, without the rows labelled `others`.

    A folder holds the JSON lines files train, validation (or dev) and test. None reads the corpus from the Hub.
    """
    read = partial(Columns("before_sent", "after_sent", "labels", "doc_id").revisions, labels=ITERATER_LABELS)
    tables = read_splits(folder) if folder else {split: _hub_rows(split) for split in SPLITS}
    parts = [read(rows, f"iterater_{split}", dropped="others") for split, rows in tables.items()]
    return Corpus("iterater", ITERATER_LABELS, *parts)


def load_argrevision(path: Path, fold: int = 0, labels: str | None = None) -> Corpus:
    """Return ArgRevision, shuffled and cut 80/10/10, without the rows labelled `claim`.

    The path is the spreadsheet, or the folder with argrevision.csv or argrevision.xlsx. The paper gives the seed and
    the shares but not the generator. So the split is fixed, but may differ from theirs.
    """
    from numpy.random import RandomState
    from sklearn.model_selection import train_test_split

    paths = (path, path / "argrevision.csv", path / "argrevision.xlsx")
    file = next(candidate for candidate in paths if candidate.is_file())
    columns = Columns("old_sentences", "new_sentences", "purpose_labels")
    revisions = columns.revisions(read_rows(file), "argrevision", ARGREVISION_LABELS, dropped="claim")
    if len(revisions) < 10:
        raise InputError(f"{file} holds {len(revisions)} usable rows; a split in 80/10/10 needs 10 or more")
    shuffled = [revisions[row] for row in RandomState(ARGREVISION_SEED).permutation(len(revisions))]
    train, rest = train_test_split(shuffled, test_size=0.2, random_state=ARGREVISION_SEED)
    validation, test = train_test_split(rest, test_size=0.5, random_state=ARGREVISION_SEED)
    return Corpus("argrevision", ARGREVISION_LABELS, train, validation, test)


def load_synthetic(folder: Path | None = None, fold: int = 0, labels: str | None = None) -> Corpus:
    """Return the 1,600 / 200 / 200 rows that the package ships. All arguments are ignored."""
    rows = Columns("before", "after", "intention", "template").revisions(read_rows(SYNTHETIC_FILE), "synthetic")
    parts = [[replace(r, id=r.extra["id"]) for r in rows if r.extra["split"] == split] for split in SPLITS]
    return Corpus("synthetic", ITERATER_LABELS, *parts, synthetic=True)


def _hub_rows(split: str) -> list[Row]:
    from datasets import load_dataset

    try:
        examples = load_dataset(ITERATER_HUB, split=split)
    except Exception as error:  # the Hub's client raises many classes of error
        raise InputError(
            f"corpus 'iterater' could not be fetched from the Hub data set {ITERATER_HUB} ({error}). Put its files "
            "train, validation and test.json in a folder; name it as data folder (data_dir, --data) or in IRTUNING_DATA"
        ) from error
    return [Row(f"{ITERATER_HUB}, {split}, row {n}", n, example) for n, example in enumerate(examples, start=1)]
