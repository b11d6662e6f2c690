"""The two corpora of the paper: ITERATER-human (from disk or the Hub) and ArgRevision (from a spreadsheet)."""

from functools import partial
from pathlib import Path

from irtuning.corpora.base import SPLITS, Corpus
from irtuning.corpora.reading import Row, read_rows
from irtuning.corpora.tabular import Columns, read_splits
from irtuning.errors import InputError

ITERATER_HUB = "wanyu/IteraTeR_human_sent"
ITERATER_LABELS = ("clarity", "fluency", "coherence", "style", "meaning-changed")
ITERATER_COLUMNS = Columns("before_sent", "after_sent", "labels", "doc_id")

ARGREVISION_FILES = ("argrevision.csv", "argrevision.xlsx")
ARGREVISION_LABELS = ("relevant", "irrelevant", "already exists", "LCE", "not LCE", "commentary")
ARGREVISION_COLUMNS = Columns("old_sentences", "new_sentences", "purpose_labels")
ARGREVISION_SEED = 171  # the paper's seed, for the shuffle and for both cuts


def load_iterater(folder: Path | None, fold: int = 0, labels: str | None = None) -> Corpus:
    """Return ITERATER-human at sentence level in its published splits, without the rows labelled `others`.

    Args:
        folder: holds the JSON lines files train, validation (or dev) and test. None reads the corpus from the Hub.
        fold, labels: ignored, since splits and labels are fixed.
    """
    tables = read_splits(folder) if folder else {split: _hub_rows(split) for split in SPLITS}
    read = partial(ITERATER_COLUMNS.revisions, labels=ITERATER_LABELS, dropped="others")
    return Corpus("iterater", ITERATER_LABELS, *(read(rows, f"iterater_{split}") for split, rows in tables.items()))


def load_argrevision(path: Path, fold: int = 0, labels: str | None = None) -> Corpus:
    """Return ArgRevision, shuffled and cut 80/10/10, without the rows labelled `claim`.

    The paper gives the seed and the shares but not the generator. So the split is fixed, but may differ from theirs.

    Args:
        path: the spreadsheet, or the folder with argrevision.csv or argrevision.xlsx.
        fold, labels: ignored, since splits and labels are fixed.
    """
    from numpy.random import RandomState
    from sklearn.model_selection import train_test_split

    file = path if path.is_file() else next(path / name for name in ARGREVISION_FILES if (path / name).is_file())
    revisions = ARGREVISION_COLUMNS.revisions(read_rows(file), "argrevision", ARGREVISION_LABELS, dropped="claim")
    if len(revisions) < 10:
        raise InputError(f"{file} holds {len(revisions)} usable rows; a split in 80/10/10 needs 10 or more")
    shuffled = [revisions[row] for row in RandomState(ARGREVISION_SEED).permutation(len(revisions))]
    train, rest = train_test_split(shuffled, test_size=0.2, random_state=ARGREVISION_SEED)
    validation, test = train_test_split(rest, test_size=0.5, random_state=ARGREVISION_SEED)
    return Corpus("argrevision", ARGREVISION_LABELS, train, validation, test)


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
