"""arXivEdits: edits in sentences of scientific papers, each with its span and its intention."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from irtuning.corpora.base import Corpus, Revision
from irtuning.corpora.reading import as_text, read_json
from irtuning.corpora.sources import SOURCES, locate
from irtuning.errors import InputError, brief, unknown

# The authors' own grouping (`arxiv_rel_mapping` in their code); "spefific" is the published spelling.
COARSE = {
    "Content": "Content",
    "Improve-grammar-Typo": "Improve-grammar-Typo",
    "Format": "Format",
    "Lang-accurate-spefific": "Language",
    "Lang-professional-Improve-style": "Language",
    "Lang-improve-readability-Simplify": "Language",
    "Lang-other": "Language",
}
FINE_LABELS = tuple(COARSE)
COARSE_LABELS = ("Content", "Language", "Improve-grammar-Typo", "Format")
GOLD = "edits-combination-0"  # the only one the authors' reader uses; in the others most edits have no intention
ALTERNATIVES = ("edits-combination-1", "edits-combination-2")
CITATION = "Jiang, Xu & Stevens, arXivEdits: Understanding the Human Revision Process in Scientific Writing, EMNLP 2022"


def load_arxivedits(data_dir: str | Path | None = None, labels: str | None = None) -> Corpus:
    """arXivEdits with the published splits: 1,254 / 438 / 430 edits, the paper as group.

    `labels` is "coarse" (four classes, the default) or "fine" (seven). `extra["labels"]` always holds the fine label.
    """
    folder = locate("arxivedits", data_dir)
    parts = [list(read_edits(folder / "data" / "edits" / f"{name}.json")) for name in ("train", "dev", "test")]
    if labels != "fine":
        parts = [[replace(r, intention=r.extra["coarse"]) for r in part] for part in parts]
    names, licence = FINE_LABELS if labels == "fine" else COARSE_LABELS, SOURCES["arxivedits"].licence
    return Corpus("arxivedits", names, *parts, licence=licence, citation=CITATION)


def read_edits(path: Path) -> Iterator[Revision]:
    """The gold edits of one published file; before and after are whole sentences, the spans say which words changed."""
    pairs = read_json(path)
    if not isinstance(pairs, dict):
        raise InputError(f"{path} must hold an object of sentence pairs, got {type(pairs).__name__}")
    for key, pair in pairs.items():
        where = f"{path}, sentence pair {key!r}"
        edits = _field(pair, GOLD, where, Mapping)
        for number, edit in edits.items():
            yield _revision(pair, edit, f"{where}, edit {number!r}", f"{path.stem}_{key}", number)


def _revision(pair: Mapping, edit: Mapping, where: str, pair_id: str, number: str) -> Revision:
    before, after = (as_text(_field(pair, side, where, str), where) for side in ("sentence-1", "sentence-2"))
    before_span = _span(edit, "sentence-1-token-indices", before, where)
    after_span = _span(edit, "sentence-2-token-indices", after, where)
    if before_span is None and after_span is None:
        raise InputError(f"{where}: it has a span on neither side; an edit needs one")
    label = _field(edit, "intention", where, str)
    if label not in COARSE:
        raise unknown(f"intention in {where}:", label, COARSE)
    group = as_text(_field(pair, "arxiv-id", where, str), where)
    extra = {
        "pair_id": pair_id,
        "edit_type": _field(edit, "type", where, str),
        "before_span_text": _words(before, before_span),
        "after_span_text": _words(after, after_span),
        "labels": label,
        "coarse": COARSE[label],
        "n_edits_in_pair": len(pair[GOLD]),
        "n_alternative_combinations": sum(bool(pair.get(name)) for name in ALTERNATIVES),
        "difficulty": _field(pair, "easy-or-hard", where, str),
        "before_version": _field(pair, "sentence-1-level", where, int),
        "after_version": _field(pair, "sentence-2-level", where, int),
    }
    return Revision(f"arxivedits_{pair_id}_{number}", before, after, label, group, before_span, after_span, extra)


def _field(record: object, name: str, where: str, kind: type) -> object:
    """A named value of the expected kind; InputError for anything else."""
    if not isinstance(record, Mapping):
        raise InputError(f"{where} must be an object, got {type(record).__name__}")
    if name not in record:
        raise InputError(f"{where}: no {name!r}; found {brief(list(record))}")
    if not isinstance(record[name], kind):
        raise InputError(f"{where}: {name!r} must be {kind.__name__}, got {brief(record[name])}")
    return record[name]


def _span(edit: object, name: str, sentence: str, where: str) -> tuple[int, int] | None:
    """A [start, end) token range inside the sentence, or None where that side of the edit does not exist."""
    span = _field(edit, name, where, object)
    if span is None:
        return None
    whole = isinstance(span, list) and len(span) == 2 and all(type(place) is int for place in span)
    length = len(sentence.split())
    if not whole or not 0 <= span[0] < span[1] <= length:
        raise InputError(f"{where}: {name!r} must be null or [start, end) within {length} tokens, got {brief(span)}")
    return span[0], span[1]


def _words(sentence: str, span: tuple[int, int] | None) -> str:
    return " ".join(sentence.split()[slice(*span)]) if span else ""
