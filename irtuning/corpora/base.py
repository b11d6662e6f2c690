"""What a corpus is: revisions with an intention each, in three splits."""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from irtuning.errors import InputError, brief, unknown

SPLITS = ("train", "validation", "test")
MOST_PROBLEMS = 8  # named in one message
EDIT_MARKS = ("<edit>", "</edit>")


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision: a text before and after, and why the writer changed it.

    `before` or `after` is "" when that side does not exist (pure addition or deletion). `group` is what must not
    be shared between splits (a writer, a document). Spans are [start, end) token ranges of `text.split()`; where
    one is given, the intention belongs to that edit alone. `extra` holds the corpus's own further fields.
    """

    id: str
    before: str
    after: str
    intention: str
    group: str = ""
    before_span: tuple[int, int] | None = None
    after_span: tuple[int, int] | None = None
    extra: Mapping[str, object] = field(default_factory=dict, compare=False, repr=False)

    @property
    def operation(self) -> str:
        """add, delete or modify, from which sides (or marked spans) exist."""
        marked = self.before_span is not None or self.after_span is not None
        before = self.before_span is not None if marked else bool(self.before)
        after = self.after_span is not None if marked else bool(self.after)
        return "modify" if before and after else "add" if after else "delete"

    def texts(self) -> tuple[str, str]:
        """Before and after as a model reads them: the edit at hand marked where the corpus gives its span."""
        return _mark(self.before, self.before_span), _mark(self.after, self.after_span)

    def _repr_html_(self) -> str:
        from irtuning.corpora.html import revision_html

        return revision_html(self)


@dataclass(frozen=True)
class Corpus:
    """Three splits of revisions, the labels in index order, and where they come from."""

    name: str
    labels: tuple[str, ...]
    train: list[Revision]
    validation: list[Revision]
    test: list[Revision]
    licence: str = "unknown"
    citation: str = ""
    synthetic: bool = False
    fold: int = 0

    def __post_init__(self) -> None:
        problems = _problems(self)
        if problems:
            more = f"; and {len(problems) - MOST_PROBLEMS} more" if len(problems) > MOST_PROBLEMS else ""
            raise InputError(f"corpus {self.name!r} cannot be used: {'; '.join(problems[:MOST_PROBLEMS])}{more}")

    @property
    def checksum(self) -> str:
        """SHA-256 over labels and every revision's id, texts, spans, intention, group and split."""
        digest = hashlib.sha256(_bytes([self.name, self.labels]))
        for split in SPLITS:
            for r in self.split(split):
                row = [split, r.id, r.before, r.after, r.intention, r.group, r.before_span, r.after_span]
                digest.update(_bytes(row))
        return digest.hexdigest()

    def split(self, name: str) -> list[Revision]:
        """The revisions of `train`, `validation` or `test`."""
        if name not in SPLITS:
            raise unknown("split", name, SPLITS)
        return getattr(self, name)

    def train_part(self, share: float, seed: int) -> list[Revision]:
        """A random share of the training split, every label alike and at least one; smaller ones lie in larger ones."""
        if share == 1:
            return self.train
        rng, kept = random.Random(seed), set()
        for label in self.labels:
            own = [i for i, r in enumerate(self.train) if r.intention == label]
            kept.update(rng.sample(own, len(own))[: max(1, round(share * len(own)))])
        return [r for i, r in enumerate(self.train) if i in kept]

    def counts(self) -> dict[str, dict[str, int]]:
        """Number of revisions per intention in each split, in label order."""
        found = {s: Counter(r.intention for r in self.split(s)) for s in SPLITS}
        return {s: {label: found[s][label] for label in self.labels} for s in SPLITS}

    def _repr_html_(self) -> str:
        from irtuning.corpora.html import corpus_html

        return corpus_html(self)


def _bytes(row: list) -> bytes:
    """JSON as UTF-8; a file name or id may hold half a character, which must not break the checksum."""
    return json.dumps(row, ensure_ascii=False).encode(errors="surrogatepass")


def _mark(text: str, span: tuple[int, int] | None) -> str:
    if span is None:
        return text
    words, (start, end) = text.split(), span
    return " ".join([*words[:start], EDIT_MARKS[0], *words[start:end], EDIT_MARKS[1], *words[end:]])


def _problems(corpus: Corpus) -> list[str]:
    """Everything wrong with a corpus, a sentence each."""
    problems = [f"split {s!r} is empty" for s in SPLITS if not corpus.split(s)]
    if len(corpus.labels) < 2:
        problems.append(f"it has {len(corpus.labels)} label(s) {brief(list(corpus.labels))}; a classifier needs two or more")
    counts = corpus.counts()
    for label in corpus.labels:
        total = sum(counts[s][label] for s in SPLITS)
        if total == 1:
            problems.append(f"label {brief(label)} has one example; drop that row or merge the label into another")
        elif counts["train"][label] == 0:
            problems.append(f"label {brief(label)} never occurs in train; merge it into another or drop its rows")
    for split in SPLITS:
        problems += _row_problems(split, corpus.split(split), corpus.labels)
    seen: set[str] = set()
    repeated = {r.id for s in SPLITS for r in corpus.split(s) if r.id in seen or seen.add(r.id)}
    if repeated:
        problems.append(f"ids occur twice: {sorted(repeated)[:3]}")
    return problems


def _row_problems(split: str, rows: Sequence[Revision], labels: Sequence[str]) -> list[str]:
    empty = [r.id for r in rows if not r.before.strip() and not r.after.strip()]
    strange = sorted({r.intention for r in rows} - set(labels))
    problems = [f"{split}: both sides are empty in {empty[:3]}"] if empty else []
    if strange:
        problems.append(f"{split}: unknown label(s) {brief(strange)}; known are {brief(list(labels))}")
    return problems
