"""Tables about corpora. They describe the training split unless another one is given."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy
import pandas

from irtuning.corpora.base import SPLITS, Corpus, Revision, sharing
from irtuning.corpora.floors import Floor
from irtuning.corpora.marked import edit_of
from irtuning.corpora.sources import CORPORA

OPERATIONS = ("add", "delete", "modify")
WORD_OR_MARK = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")
SMOOTHING = 0.5  # added to every count, so that a word that never occurs has finite odds
FEWEST_REVISIONS = 10  # rarer words would rank high by chance


def examples() -> tuple[dict[str, str], list[Revision]]:
    """Return what each intention of ITERATER and ArgRewrite does, and twenty revisions that we wrote for notebook 1."""
    stored = json.loads(Path(__file__).with_name("examples.json").read_text(encoding="utf-8"))
    return stored["meanings"], [Revision(f"example-{i}", **row) for i, row in enumerate(stored["revisions"], 1)]


def first_of_each(corpus: Corpus, most_words: int = 60) -> list[Revision]:
    """Return one training revision per intention: the first of at most `most_words` words, otherwise the first."""
    short = [r for r in corpus.train if len(f"{r.before} {r.after}".split()) <= most_words]
    return [next(r for r in [*short, *corpus.train] if r.intention == label) for label in corpus.labels]


def label_table(corpus: Corpus) -> pandas.DataFrame:
    """Return the number of revisions of each intention (row) in each split (column)."""
    return pandas.DataFrame(corpus.counts()).rename_axis("intention")


def size_table(corpus: Corpus, split: str = "train") -> pandas.DataFrame:
    """Return a row per revision: its intention, and its numbers of words before, after, and edited."""
    edits = ((r, edit_of(r)) for r in corpus.split(split))
    rows = [(r.intention, len(r.before.split()), len(r.after.split()), len(e.inserted + e.deleted)) for r, e in edits]
    table = pandas.DataFrame(rows, columns=["intention", "words before", "words after", "words edited"])
    return table.astype({"intention": pandas.CategoricalDtype(corpus.labels)})


def operation_table(corpus: Corpus, split: str = "train") -> pandas.DataFrame:
    """Return the share of each operation (column) in the revisions of each intention (row), NaN without revisions."""
    counts = Counter((r.intention, r.operation) for r in corpus.split(split))
    rows = [[counts[label, name] for name in OPERATIONS] for label in corpus.labels]
    table = pandas.DataFrame(rows, corpus.labels, OPERATIONS).rename_axis("intention")
    return table.div(table.sum(axis=1), axis=0)


def edited_words(revision: Revision) -> dict[str, set[str]]:
    """Return the lower-case words and marks that an edit inserts more often than it deletes, and the opposite."""
    edit = edit_of(revision)
    new, old = (Counter(WORD_OR_MARK.findall(" ".join(words).lower())) for words in (edit.inserted, edit.deleted))
    return {"inserted": set(new - old), "deleted": set(old - new)}


def log_odds(corpus: Corpus, side: str) -> pandas.DataFrame:
    """Return, as a log-odds ratio, how much more likely a word is in the edits of an intention than in all others.

    `side` is "inserted" or "deleted". If c of an intention's n training revisions have the word, and c' of the n'
    others, the ratio is `ln((c + a) / (n - c + a)) - ln((c' + a) / (n' - c' + a))` with a = `SMOOTHING`. Each row
    is a word of at least `FEWEST_REVISIONS` revisions, each column an intention. The paper has no such measure.
    """
    counts = {label: Counter() for label in corpus.labels}
    for revision in corpus.train:
        counts[revision.intention].update(edited_words(revision)[side])
    with_word = pandas.DataFrame(counts, dtype=float).fillna(0).sort_index()
    with_word = with_word[with_word.sum(axis=1) >= FEWEST_REVISIONS]
    total = pandas.Series(corpus.counts()["train"])
    without, others = total - with_word, -with_word.sub(with_word.sum(axis=1), axis=0)
    odds = numpy.log((with_word + SMOOTHING) / (without + SMOOTHING))
    return odds - numpy.log((others + SMOOTHING) / (total.sum() - total - others + SMOOTHING))


def cue_table(corpus: Corpus, top: int = 5) -> pandas.DataFrame:
    """Return the `top` words with the highest positive log-odds of each intention (row) and side, with their values."""
    def cues(odds: pandas.Series) -> str:
        best = odds[odds > 0].sort_values(ascending=False, kind="stable").head(top)
        return " · ".join(f"{word} ({value:.1f})" for word, value in best.items())
    table = {side: log_odds(corpus, side).apply(cues) for side in ("inserted", "deleted")}
    return pandas.DataFrame(table).rename_axis("intention")


def corpora_table(loaded: Sequence[Corpus] = ()) -> pandas.DataFrame:
    """Return a row per named corpus: its labels, splits, licence and home, and its size if it is loaded."""
    here, rows = {corpus.name: corpus for corpus in loaded}, {}
    for name, source in CORPORA.items():
        corpus = here.get(name)
        size = corpus and f"{sum(len(corpus.split(split)) for split in SPLITS)}{sharing(corpus.shared_groups)}"
        labels = ", ".join(corpus.labels if corpus else source.labels)
        rows[name] = {"labels": labels, "revisions": size or "not loaded", "splits": " or ".join(source.splits),
                      "licence": source.licence, "home": source.home.partition(" (commit")[0]}  # fmt: skip
    return pandas.DataFrame(rows).T.rename_axis("corpus")


def floor_table(floors: Sequence[Floor], ceilings: Sequence = ()) -> pandas.DataFrame:
    """Return the macro F1 and accuracy of each floor, then those of each human ceiling with the ends of an interval."""
    rows = {bound.name: {"macro F1": bound.macro_f1, "accuracy": bound.accuracy} for bound in (*floors, *ceilings)}
    for ceiling in ceilings:
        rows[ceiling.name] |= {"low": ceiling.macro_f1_low, "high": ceiling.macro_f1_high}
    return pandas.DataFrame(rows).T.rename_axis("bound" if ceilings else "floor")
