"""TETRA: title, abstract and introduction of 64 papers, each revised by three editors who say why.

A file holds unchanged text and edits in turn. A revision is the sentence around an edit, before and after, in which the
editor's other edits are made too, and a span marks the edit's own words.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from irtuning.corpora.base import Corpus, Revision
from irtuning.corpora.folds import cut_apart

PATTERN = "original/*.xml"
# the authors' own map from their editors' words to seven aspects, with their spelling
ASPECTS = {
    "Grammaticality": ("grammar", "spelling", "capitalization", "hyphenation", "accuracy", "agreement", "tense"),
    "Fluency": ("word choice", "word order", "natrural english", "usage", "word usage"), "Clarity": ("clarity",),
    "Style": ("tone", "style"), "Readability": ("readability", "parallelism", "punctuation"), "Redundancy":
    ("repetitiveness", "redundancy", "redundant", "conciseness"), "Consistency": ("consistency", "flow")}  # fmt: skip
LABELS = tuple(ASPECTS)
ASPECT_OF = {word: aspect for aspect, words in ASPECTS.items() for word in words}
# One published file, P17-1188-C.xml, is not well formed: an edit has `type=` without a value. It is read as no label.
FAULT, REPAIR = b"type= ", b'type="" '
BREAK = re.compile(r"(?:\\n(?![a-z])|\\)+")  # how the files write the end of a paragraph: \\ or \n\n or \
BREAK_WORD = r"\\"  # what stands for it inside an edit
SENTENCE_END, SENTENCE_START = re.compile(r".*[.!?][\"'”’)\]]*"), re.compile(r"[\"'“‘(\[]*[A-Z]")
ABBREVIATIONS = ("al.", "cf.", "e.g.", "i.e.", "vs.", "Eq.", "Fig.", "Sec.", "Tab.")


class Unit(NamedTuple):
    """One unchanged word, which is on both sides, or all words of one edit. `number` is the edit's in its file."""
    before: list[str]
    after: list[str]
    labels: str = ""
    number: int = 0


def load_tetra(folder: Path, fold: int = 0, labels: str | None = None) -> Corpus:
    """Return the edits in five folds by paper, with the editor's own labels in `extra["labels"]`."""
    rows = [r for path in sorted(folder.glob(PATTERN), key=Path.as_posix) for r in read_edits(path)]
    dropped = Counter(r.extra["labels"] or "no label" for r in rows if not r.intention)
    return Corpus("tetra", LABELS, *cut_apart([r for r in rows if r.intention], fold), fold=fold, dropped=dict(dropped))


def read_edits(path: Path) -> Iterator[Revision]:
    """Yield the edits of one file. The intention is the aspect of the first label that has one, else empty."""
    paper, _, _ = path.stem.rpartition("-")  # behind it stands the editor; some files state another paper's id
    for paragraph in _paragraphs(path):
        starts = [i for i in range(len(paragraph)) if _is_start(paragraph, i)]
        for position, unit in enumerate(paragraph):
            if not unit.number:
                continue
            first = max(i for i in starts if i <= position)
            end = min((i for i in starts if i > position), default=len(paragraph))
            texts, spans = [], []
            for side in ("before", "after"):
                parts = [getattr(u, side) for u in paragraph[first:end]]
                start, words = sum(map(len, parts[: position - first])), parts[position - first]
                texts.append(" ".join(word for part in parts for word in part))
                spans.append((start, start + len(words)) if words else None)
            aspect = next((ASPECT_OF[w] for w in map(str.strip, unit.labels.split(";")) if w in ASPECT_OF), "")
            yield Revision(f"{path.stem}-{unit.number}", *texts, aspect, paper, *spans, {"labels": unit.labels})


def _paragraphs(path: Path) -> Iterator[list[Unit]]:
    """Yield the units of each paragraph of a file."""
    number = 0
    for section in ElementTree.fromstring(path.read_bytes().replace(FAULT, REPAIR)):
        units = [[]]
        for element in section:
            if element.tag == "edit":
                number += 1
                texts = (BREAK.sub(r" \\\\ ", text or "") for text in (element.text, element.get("crr")))
                units[-1].append(Unit(*map(str.split, texts), element.get("type"), number))
            for text in (element.text if element.tag == "text" else "", element.tail):
                first, *more = BREAK.split(text or "")
                units[-1] += [Unit([word], [word]) for word in first.split()]
                units += [[Unit([word], [word]) for word in part.split()] for part in more]
        yield from units


def _is_start(paragraph: list[Unit], i: int) -> bool:
    """Return whether a sentence starts at a unit on both sides. The first unit of a paragraph starts one."""
    last, unit = paragraph[i - 1], paragraph[i]
    words = [side[-1].lstrip('"“([') if side else "" for side in (last.before, last.after)]
    ends = all(word not in ABBREVIATIONS and SENTENCE_END.fullmatch(word) for word in words)
    heads = [side[0] for side in (unit.before, unit.after) if side]
    return i == 0 or all(word == BREAK_WORD for word in heads) or (ends and all(map(SENTENCE_START.match, heads)))
