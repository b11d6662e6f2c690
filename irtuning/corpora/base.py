"""The two classes of this room: a revision with its intention, and a corpus of revisions in three splits."""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter

from irtuning.corpora.html import revision_html
from irtuning.errors import InputError, brief, unknown

SPLITS = ("train", "validation", "test")
EDIT_MARKS = ("<edit>", "</edit>")


@dataclass(frozen=True, slots=True)
class Revision:
    """Text before and after a change, with the writer's intention."""
    id: str  # occurs once in a corpus
    before: str  # "" where the writer only added
    after: str  # "" where the writer only deleted
    intention: str  # the label
    group: str = ""  # what two splits must not share, such as the writer or the document
    before_span: tuple[int, int] | None = None  # [start, end) of `before.split()`, where the intention has its place
    after_span: tuple[int, int] | None = None  # likewise of `after.split()`
    extra: Mapping[str, object] = field(default_factory=dict, compare=False, repr=False)  # further fields of the corpus

    @property
    def operation(self) -> str:
        """Whether text was added, deleted or modified, from the sides (or marked spans) that exist."""
        marked = self.before_span or self.after_span
        before, after = (self.before_span, self.after_span) if marked else (self.before, self.after)
        return "modify" if before and after else "add" if after else "delete"

    def texts(self) -> tuple[str, str]:
        """Return before and after as a model reads them, with the edit marked where the corpus gives its span."""
        return _mark(self.before, self.before_span), _mark(self.after, self.after_span)

    def _repr_html_(self) -> str:
        return revision_html(*self.texts(), self.intention)


@dataclass(frozen=True, repr=False)
class Corpus:
    """Corpus in three splits, with its labels in index order. InputError is raised where it cannot be used."""
    name: str
    labels: tuple[str, ...]
    train: list[Revision]
    validation: list[Revision]
    test: list[Revision]
    licence: str = "unknown"
    citation: str = ""
    synthetic: bool = False
    fold: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict, compare=False)  # rows left out, if counted
    reading: Mapping[str, object] = field(default_factory=dict, compare=False)  # settings it was read with

    def __post_init__(self) -> None:
        if problems := list(_problems(self)):
            raise InputError(f"corpus {self.name!r} cannot be used: {'; '.join(problems[:8])}")

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {len(self.split(split)):,}" for split in SPLITS)
        named = f"{self.name!r}, {'SYNTHETIC' if self.synthetic else 'real'}, {len(self.labels)} labels"
        return f"Corpus({named}, {sizes}, fold {self.fold}{sharing(self.shared_groups)})"

    @cached_property
    def checksum(self) -> str:
        """SHA-256 over labels and every revision's id, texts, spans, intention, group and split."""
        values = attrgetter("id", "before", "after", "intention", "group", "before_span", "after_span")
        rows = ([split, *values(r)] for split in SPLITS for r in self.split(split))
        text = "".join(json.dumps(row, ensure_ascii=False) for row in ([self.name, self.labels], *rows))
        return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()  # a text may hold half a character

    @property
    def shared_groups(self) -> int:
        """Number of groups (writers, documents) that are in more than one split. Scores are too high if it is not 0."""
        groups = Counter(group for split in SPLITS for group in {r.group for r in self.split(split)} - {""})
        return sum(count > 1 for count in groups.values())

    def split(self, name: str) -> list[Revision]:
        """Return the revisions of `train`, `validation` or `test`."""
        if name not in SPLITS:
            raise unknown("split", name, SPLITS)
        return getattr(self, name)

    def train_part(self, share: float, seed: int) -> list[Revision]:
        """Return a random share of each label of train, at least one. With one seed, larger shares contain smaller."""
        if share == 1:
            return self.train
        rng, chosen = random.Random(seed), set()
        for label in self.labels:
            rows = [i for i, r in enumerate(self.train) if r.intention == label]
            chosen.update(rng.sample(rows, len(rows))[: max(1, round(share * len(rows)))])
        return [r for i, r in enumerate(self.train) if i in chosen]

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of revisions per intention in each split, in label order."""
        totals = {s: Counter(r.intention for r in self.split(s)) for s in SPLITS}
        return {s: {label: totals[s][label] for label in self.labels} for s in SPLITS}


def sharing(groups: int) -> str:
    """Return the words that go with every result on a corpus whose splits share groups."""
    return f", {groups} groups in several splits" if groups else ""


def _mark(text: str, span: tuple[int, int] | None) -> str:
    if span is None:
        return text
    words, (start, end) = text.split(), span
    return " ".join([*words[:start], EDIT_MARKS[0], *words[start:end], EDIT_MARKS[1], *words[end:]])


def _problems(corpus: Corpus):
    """Yield everything that is wrong with a corpus, one sentence each."""
    counts, revisions = corpus.counts(), [r for s in SPLITS for r in corpus.split(s)]
    yield from (f"split {s!r} is empty" for s in SPLITS if not corpus.split(s))
    if len(corpus.labels) < 2:
        yield f"it has {len(corpus.labels)} label(s) {brief(list(corpus.labels))}; a classifier needs two or more"
    for label in corpus.labels:
        if counts["train"][label] == 0 or sum(counts[s][label] for s in SPLITS) == 1:
            yield f"label {brief(label)} has one example, or none in train; merge it into another or drop its rows"
    if empty := [r.id for r in revisions if not r.before.strip() and not r.after.strip()]:
        yield f"both sides are empty in {empty[:3]}"
    if strange := sorted({r.intention for r in revisions} - set(corpus.labels)):
        yield f"unknown label(s) {brief(strange)}; known are {brief(list(corpus.labels))}"
    if repeated := sorted(id for id, count in Counter(r.id for r in revisions).items() if count > 1):
        yield f"ids occur twice: {repeated[:3]}"
