"""The synthetic corpus: rows that `reports/synthetic/generate.py` made for tests and demonstrations."""

from pathlib import Path

from irtuning.corpora.base import SPLITS, Corpus
from irtuning.corpora.reading import read_rows
from irtuning.corpora.tabular import Columns

LABELS = ("clarity", "fluency", "coherence", "style", "meaning-changed")
COLUMNS = Columns("before", "after", "intention", "template")
FILE = Path(__file__).with_name("synthetic.csv")


def load_synthetic(folder: Path | None = None, fold: int = 0, labels: str | None = None) -> Corpus:
    """Return the 1,600 / 200 / 200 rows that the package ships. All arguments are ignored."""
    parts: dict[str, list] = {split: [] for split in SPLITS}
    for row in read_rows(FILE):
        parts[row.text("split")].append(COLUMNS.revision(row, row.text("id"), LABELS))
    return Corpus("synthetic", LABELS, **parts, synthetic=True)
