"""The two corpora of the paper: ITERATER-human (from disk or the Hub) and ArgRevision (from a spreadsheet)."""

from collections.abc import Sequence
from pathlib import Path

from irtuning.corpora import sources
from irtuning.corpora.base import SPLITS, Corpus, Revision
from irtuning.corpora.reading import Row, read_rows, require
from irtuning.corpora.tabular import Columns, read_splits
from irtuning.errors import InputError

ITERATER_HUB = "wanyu/IteraTeR_human_sent"
ITERATER_LABELS = ("clarity", "fluency", "coherence", "style", "meaning-changed")
ITERATER_DROPPED = "others"
ITERATER_COLUMNS = Columns("before_sent", "after_sent", "labels", "doc_id")

ARGREVISION_LABELS = ("relevant", "irrelevant", "already exists", "LCE", "not LCE", "commentary")
ARGREVISION_DROPPED = "claim"
ARGREVISION_COLUMNS = Columns("old_sentences", "new_sentences", "purpose_labels")
ARGREVISION_SEED = 171  # the paper's, for the shuffle and for both cuts


def load_iterater(data_dir: str | Path | None = None) -> Corpus:
    """ITERATER-human, sentence level, with its published splits; rows labelled `others` are dropped.

    From JSON lines files train, validation (or dev) and test in the data folder, else from the Hub. The document is
    the group. Source: Du et al., Understanding Iterative Revision from Human-Written Text, ACL 2022.
    """
    folder = sources.find("iterater", data_dir)
    tables = read_splits(folder) if folder else {split: _hub_rows(split) for split in SPLITS}
    parts = []
    for split, rows in tables.items():
        require(rows, ITERATER_COLUMNS.names())
        parts.append(_kept(rows, ITERATER_COLUMNS, f"iterater_{split}", ITERATER_LABELS, ITERATER_DROPPED))
    citation = "Du et al., Understanding Iterative Revision from Human-Written Text, ACL 2022"
    return Corpus("iterater", ITERATER_LABELS, *parts, licence=sources.SOURCES["iterater"].licence, citation=citation)


def load_argrevision(data_dir: str | Path | None = None) -> Corpus:
    """ArgRevision (evidence revisions of student essays), shuffled and cut 80/10/10; rows labelled `claim` are dropped.

    Read from argrevision.xlsx or argrevision.csv in the data folder, or from `data_dir` itself if that is a file. The
    paper gives the seed and the shares, not the generator: the split is fixed, and need not be the paper's row by row.
    """
    from numpy.random import RandomState
    from sklearn.model_selection import train_test_split

    own_file = data_dir is not None and Path(data_dir).expanduser().is_file()
    path = Path(data_dir).expanduser() if own_file else _argrevision_file(data_dir)
    rows = read_rows(path)
    require(rows, ARGREVISION_COLUMNS.names())
    kept = _kept(rows, ARGREVISION_COLUMNS, "argrevision", ARGREVISION_LABELS, ARGREVISION_DROPPED)
    if len(kept) < 10:
        raise InputError(f"{path} holds {len(kept)} usable rows; a split in 80/10/10 needs 10 or more")
    shuffled = [kept[place] for place in RandomState(ARGREVISION_SEED).permutation(len(kept))]
    train, rest = train_test_split(shuffled, test_size=0.2, random_state=ARGREVISION_SEED)
    validation, test = train_test_split(rest, test_size=0.5, random_state=ARGREVISION_SEED)
    citation = "ArgRevision, as used by Liu & Litman, Findings of EMNLP 2025"
    return Corpus("argrevision", ARGREVISION_LABELS, train, validation, test, licence=sources.SOURCES["argrevision"].licence, citation=citation)


def _argrevision_file(data_dir: str | Path | None) -> Path:
    return sources.files("argrevision", sources.locate("argrevision", data_dir))[0]


def _kept(rows: Sequence[Row], columns: Columns, source: str, labels: Sequence[str], dropped: str) -> list[Revision]:
    """The revisions of the rows that are not labelled `dropped`."""
    kept = (row for row in rows if row.text(columns.label) != dropped)
    return [columns.revision(row, f"{source}:{row.line}", labels) for row in kept]


def _hub_rows(split: str) -> list[Row]:
    from datasets import load_dataset

    try:
        examples = load_dataset(ITERATER_HUB, split=split)
    except Exception as error:  # the Hub's client raises a different class for each way of not getting there
        raise InputError(
            f"corpus 'iterater' could not be fetched from the Hub data set {ITERATER_HUB} ({error}). Put its train, "
            f"validation and test .json files in a folder and name that as the data folder (data_dir, --data) or in "
            f"the environment variable {sources.ENVIRONMENT_VARIABLE}"
        ) from error
    return [Row(f"{ITERATER_HUB}, {split}, row {n}", n, example) for n, example in enumerate(examples, start=1)]
