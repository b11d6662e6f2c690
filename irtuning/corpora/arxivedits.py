"""arXivEdits: edits in sentences of scientific papers, each with its span and its intention."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from irtuning.corpora.base import Corpus, Revision
from irtuning.corpora.folds import cut_apart

# The grouping is the authors' own (`arxiv_rel_mapping` in their code), and so is the spelling "spefific".
FINE_LABELS = (
    "Content", "Improve-grammar-Typo", "Format", "Lang-accurate-spefific", "Lang-professional-Improve-style",
    "Lang-improve-readability-Simplify", "Lang-other")  # fmt: skip
COARSE = {label: "Language" if label.startswith("Lang-") else label for label in FINE_LABELS}
COARSE_LABELS = ("Content", "Language", "Improve-grammar-Typo", "Format")
FILES = ("data/edits/train.json", "data/edits/dev.json", "data/edits/test.json")
GOLD = "edits-combination-0"  # the authors' reader uses no other; most edits of the others have no intention


def load_arxivedits(folder: Path, fold: int = 0, labels: str | None = None, split: str = "published") -> Corpus:
    """Return the edits in their published splits or in `folds` by paper, with the fine label in `extra["labels"]`."""
    parts = [list(read_edits(folder / file)) for file in FILES]
    if split == "folds":
        parts = cut_apart([r for part in parts for r in part], fold)  # by the fine labels, always
    if labels == "fine":
        return Corpus("arxivedits", FINE_LABELS, *parts, fold=fold)
    parts = [[replace(r, intention=COARSE[r.intention]) for r in part] for part in parts]
    return Corpus("arxivedits", COARSE_LABELS, *parts, fold=fold)


def read_edits(path: Path) -> Iterator[Revision]:
    """Yield the gold edits of one published file. Before and after are full sentences. Spans mark the changed words."""
    for key, pair in json.loads(path.read_text(encoding="utf-8")).items():
        *texts, paper = (pair[name].strip() for name in ("sentence-1", "sentence-2", "arxiv-id"))
        for number, edit in pair[GOLD].items():
            spans = (edit[f"sentence-{n}-token-indices"] for n in (1, 2))  # None where a side does not exist
            spans, label = [span and tuple(span) for span in spans], edit["intention"]
            yield Revision(f"arxivedits_{path.stem}_{key}_{number}", *texts, label, paper, *spans, {"labels": label})
