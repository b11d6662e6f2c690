"""ITERATER-human: sentences of articles, papers and news, each revised with one intention and labelled by three people.

The published split shares documents between its parts. So the default is five folds by document. The document-level
archive has the label of each annotator, from which `irtuning.analysis.ceiling` computes how well people agree.
"""

import json
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from irtuning.corpora.base import SPLITS, Corpus, Revision
from irtuning.corpora.folds import cut_apart
from irtuning.corpora.reading import Row
from irtuning.corpora.tabular import ITERATER_LABELS, Columns, read_splits
from irtuning.errors import InputError

HUB = "wanyu/IteraTeR_human_sent"
COLUMNS = Columns("before_sent", "after_sent", "labels", "doc_id")
OTHERS = "others"  # rows with this label are dropped
RELEASE = "5c33b5310d0c"  # first digits of the checksum of the published split, from whichever place it was read
ANNOTATORS = "human_doc_level.zip"  # beside the files of the sentence level; the corpus works without it


def load_iterater(folder: Path | None, fold: int = 0, labels: str | None = None, split: str = "folds") -> Corpus:
    """Return the sentence level, from a folder or the Hub (None), in folds by document or in the published split.

    Where the folder has the document level too, `extra["annotators"]` holds the labels that three people gave.
    """
    tables = read_splits(folder) if folder else {name: _hub_rows(name) for name in SPLITS}
    names = (*ITERATER_LABELS, OTHERS)
    parts = [COLUMNS.revisions(rows, f"iterater_{name}", names) for name, rows in tables.items()]
    if folder and (folder / ANNOTATORS).is_file():
        parts = [_with_annotators(part, *found) for part, found in zip(parts, _annotated(folder), strict=True)]
        if not any("annotators" in r.extra for part in parts for r in part):
            raise InputError(f"{folder / ANNOTATORS} has none of these edits; get it again, or move it away")
    dropped = Counter(r.intention for part in parts for r in part if r.intention == OTHERS)
    parts = [[r for r in part if r.intention != OTHERS] for part in parts]
    corpus = Corpus("iterater", ITERATER_LABELS, *parts, dropped=dict(dropped))
    if not corpus.checksum.startswith(RELEASE):
        sizes = {name: len(corpus.split(name)) for name in SPLITS}
        problem = f"{folder or HUB} does not hold the published release of ITERATER-human: its labelled rows {sizes}"
        raise InputError(f"{problem} differ from it; get that release, or name the files as a corpus of your own")
    if split == "published":
        return corpus
    folds = zip(SPLITS, cut_apart([r for part in parts for r in part], fold), strict=True)
    return replace(corpus, fold=fold, **dict(folds))


def _annotated(folder: Path) -> Iterator[tuple[str, list[dict]]]:
    """Yield the place in words and the documents of each split of the document level."""
    path = folder / ANNOTATORS
    for name in ("train", "dev", "test"):
        try:
            with zipfile.ZipFile(path) as archive:
                text = archive.read(f"human_doc_level/{name}.json").decode()
            yield f"{path}, {name}.json", [json.loads(line) for line in text.splitlines()]
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} cannot be read ({error}); get it again, or move it away to do without") from error


def _with_annotators(rows: list[Revision], where: str, documents: list[dict]) -> list[Revision]:
    """Return the rows with three annotators' labels in `extra`, where the same edit of the same document has them.

    Both levels list the edits of a revision of a document in one order, and both state the label of the majority.
    """
    edits = defaultdict(list)
    try:
        for document in documents:
            edits[document["doc_id"], document["revision_depth"]] += [
                (e["major_intent"], e["before"] or "", e["after"] or "", tuple(e["raw_intents"]))
                for e in document["edit_actions"]]  # fmt: skip
    except (KeyError, TypeError) as error:
        raise InputError(f"{where} is not the document level of ITERATER-human ({error!r})") from error
    joined = []
    for row in rows:
        of_document = edits[row.group, row.extra.get("revision_depth")]
        label, before, after, annotators = of_document.pop(0) if of_document else ("", "", "", ())
        same = label == row.intention and before.strip() in row.before and after.strip() in row.after
        joined.append(replace(row, extra={**row.extra, "annotators": annotators}) if same else row)
    return joined


def _hub_rows(split: str) -> list[Row]:
    from datasets import load_dataset
    try:
        examples = load_dataset(HUB, split=split)
    except Exception as error:  # the Hub's client raises many classes of error
        problem = f"corpus 'iterater' could not be fetched from the Hub data set {HUB} ({error})"
        cure = "Put train.json, dev.json and test.json in a folder; name it in data_dir, --data or IRTUNING_DATA"
        raise InputError(f"{problem}. {cure}") from error
    return [Row(f"{HUB}, {split}, row {n}", n, example) for n, example in enumerate(examples, start=1)]
