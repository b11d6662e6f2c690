"""arXivEdits: edits in sentences of scientific papers, each with its span and its intention."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from irtuning.corpora.base import Corpus, Revision
from irtuning.corpora.folds import cut_apart
from irtuning.corpora.reading import parse_object, read_text
from irtuning.errors import InputError, brief, unknown

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
    for key, pair in parse_object(read_text(path), str(path)).items():
        where = f"{path}, sentence pair {key!r}"
        for number, edit in _field(pair, GOLD, where, Mapping).items():
            here = f"{where}, edit {number!r}"
            label = _field(edit, "intention", here, str)
            if label not in COARSE:
                raise unknown(f"intention in {here}:", label, COARSE)
            texts = [_field(pair, f"sentence-{n}", here, str).strip() for n in (1, 2)]
            spans = [_span(edit, f"sentence-{n}-token-indices", texts[n - 1], here) for n in (1, 2)]
            if spans == [None, None]:
                raise InputError(f"{here}: it has a span on neither side; an edit needs one")
            group, identity = _field(pair, "arxiv-id", here, str).strip(), f"arxivedits_{path.stem}_{key}_{number}"
            yield Revision(identity, *texts, label, group, *spans, {"labels": label})


def _field(record: object, name: str, where: str, kind: type) -> object:
    """Return a named value of a JSON object, or raise InputError where it is missing or of another type."""
    if not isinstance(record, Mapping) or name not in record:
        raise InputError(f"{where} must be an object with {name!r}, got {brief(record)}")
    if not isinstance(record[name], kind):
        raise InputError(f"{where}: {name!r} must be {kind.__name__}, got {brief(record[name])}")
    return record[name]


def _span(edit: object, name: str, sentence: str, where: str) -> tuple[int, int] | None:
    """Return a [start, end) token range inside the sentence, or None where that side of the edit does not exist."""
    span, length = _field(edit, name, where, object), len(sentence.split())
    if span is None:
        return None
    is_pair = isinstance(span, list) and [type(end) for end in span] == [int, int]
    if not is_pair or not 0 <= span[0] < span[1] <= length:
        raise InputError(f"{where}: {name!r} must be null or [start, end) within {length} tokens, got {brief(span)}")
    return span[0], span[1]
