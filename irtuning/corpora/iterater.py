"""ITERATER-human: sentences of articles, papers and news, each revised with one intention and labelled by three people.

The published split shares documents between its parts. So the default is five folds by document. The document-level
archive has the label of each annotator, from which `irtuning.analysis.ceiling` computes how well people agree.
"""

import json
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

from irtuning.corpora.base import SPLITS, Corpus, Revision
from irtuning.corpora.folds import cut_apart
from irtuning.corpora.tabular import ITERATER_LABELS, Columns, read_splits
from irtuning.errors import InputError

COLUMNS = Columns("before_sent", "after_sent", "labels", "doc_id")
OTHERS = "others"  # rows with this label are dropped
ANNOTATORS = "human_doc_level.zip"  # beside the files of the sentence level; the corpus works without it


def load_iterater(folder: Path, fold: int = 0, labels: str | None = None, split: str = "folds") -> Corpus:
    """Return the sentence level, in folds by document or in the published split.

    Where the folder has the document level too, `extra["annotators"]` holds the labels that three people gave.
    """
    parts = [COLUMNS.revisions(rows, f"iterater_{name}") for name, rows in read_splits(folder).items()]
    if (folder / ANNOTATORS).is_file():
        parts = _with_annotators(parts, folder / ANNOTATORS)
    dropped = Counter(r.intention for part in parts for r in part if r.intention == OTHERS)
    parts = [[r for r in part if r.intention != OTHERS] for part in parts]
    corpus = Corpus("iterater", ITERATER_LABELS, *parts, dropped=dict(dropped))
    if split == "published":
        return corpus
    folds = zip(SPLITS, cut_apart([r for part in parts for r in part], fold), strict=True)
    return replace(corpus, fold=fold, **dict(folds))


def _with_annotators(parts: list[list[Revision]], path: Path) -> list[list[Revision]]:
    """Return the rows with three annotators' labels in `extra`, where the document level has the same edit.

    Both levels list the edits in one order, and both state the label of the majority.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            texts = [archive.read(f"human_doc_level/{name}.json").decode() for name in ("train", "dev", "test")]
        edits = [[edit for line in text.splitlines() for edit in json.loads(line)["edit_actions"]] for text in texts]
        joined = zip(parts, edits, strict=True)
        return [[_with_labels(*pair) for pair in zip(rows, of, strict=True)] for rows, of in joined]
    except (OSError, LookupError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} does not fit ({error}); get it again, or move it away to do without") from error


def _with_labels(row: Revision, edit: dict) -> Revision:
    sides = ((edit["before"], row.before), (edit["after"], row.after))
    if edit["major_intent"] != row.intention or not all((part or "").strip() in text for part, text in sides):
        return row
    return replace(row, extra={**row.extra, "annotators": tuple(edit["raw_intents"])})
