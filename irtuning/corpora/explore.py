"""Tables about corpora: corpus in, pandas frame out. What is described is the training split unless asked otherwise."""

import re
from collections import Counter
from collections.abc import Sequence

import pandas

from irtuning.corpora import corpus_names
from irtuning.corpora.argrewrite import FINE_LABELS
from irtuning.corpora.arxivedits import COARSE_LABELS
from irtuning.corpora.base import SPLITS, Corpus, Revision
from irtuning.corpora.public import ARGREVISION_LABELS, ITERATER_HUB, ITERATER_LABELS
from irtuning.corpora.sources import SOURCES
from irtuning.corpora.synthetic import LABELS
from irtuning.corpora.edits import edit_of
from irtuning.corpora.floors import Floor

OPERATIONS = ("add", "delete", "modify")
SIDES = ("inserted", "deleted")
WORD_OR_MARK = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")
SMOOTHING = 0.5  # added to every count, so that a word that never occurs has finite odds
FEWEST_REVISIONS = 10  # rarer words would top the list by chance
DEFAULT_LABELS = {
    "iterater": ITERATER_LABELS,
    "argrevision": ARGREVISION_LABELS,
    "argrewrite": FINE_LABELS,
    "arxivedits": COARSE_LABELS,
    "synthetic": LABELS,
}


def first_of_each(corpus: Corpus, most_words: int = 60) -> list[Revision]:
    """The first training revision of each intention with at most `most_words` words on both sides, else the first."""
    found = []
    for label in corpus.labels:
        own = [r for r in corpus.train if r.intention == label]
        found.append(next((r for r in own if len(f"{r.before} {r.after}".split()) <= most_words), own[0]))
    return found


def label_table(corpus: Corpus) -> pandas.DataFrame:
    """Number of revisions: a row per intention, a column per split."""
    return pandas.DataFrame(corpus.counts()).rename_axis("intention")


def size_table(corpus: Corpus, split: str = "train") -> pandas.DataFrame:
    """One row per revision: its intention, words before, words after, words edited (inserted and deleted)."""
    rows = []
    for revision in corpus.split(split):
        edit = edit_of(revision)
        edited = len(edit.inserted) + len(edit.deleted)
        rows.append((revision.intention, len(revision.before.split()), len(revision.after.split()), edited))
    table = pandas.DataFrame(rows, columns=["intention", "words before", "words after", "words edited"])
    return table.assign(intention=pandas.Categorical(table.intention, corpus.labels))


def operation_table(corpus: Corpus, split: str = "train") -> pandas.DataFrame:
    """Share of each operation in an intention's revisions: a row per intention; one without revisions is all NaN."""
    counts = Counter((r.intention, r.operation) for r in corpus.split(split))
    rows = {label: {name: counts[label, name] for name in OPERATIONS} for label in corpus.labels}
    table = pandas.DataFrame(rows).T.rename_axis("intention")
    return table.div(table.sum(axis=1), axis=0)


def edited_words(revision: Revision) -> dict[str, set[str]]:
    """Lower-cased words and marks that an edit inserts more often than it deletes, and those it deletes more often."""
    edit = edit_of(revision)
    new, old = (Counter(WORD_OR_MARK.findall(" ".join(words).lower())) for words in (edit.inserted, edit.deleted))
    return {"inserted": set(new - old), "deleted": set(old - new)}


def log_odds(corpus: Corpus, side: str) -> pandas.DataFrame:
    """How much likelier than in the other intentions an edit has a word on one side, "inserted" or "deleted".

    With c of an intention's n training revisions having the word, and c' of the n' others, the log-odds ratio is
    `ln((c + a) / (n - c + a)) - ln((c' + a) / (n' - c' + a))`, a = `SMOOTHING`. A row per word of at least
    `FEWEST_REVISIONS` revisions, a column per intention. The measure is our choice, not the paper's.
    """
    import numpy
    counts = {label: Counter() for label in corpus.labels}
    for revision in corpus.train:
        counts[revision.intention].update(edited_words(revision)[side])
    with_word = pandas.DataFrame(counts, dtype=float).fillna(0).sort_index()
    with_word = with_word[with_word.sum(axis=1) >= FEWEST_REVISIONS]
    total = pandas.Series(corpus.counts()["train"])
    without, others = total - with_word, -with_word.sub(with_word.sum(axis=1), axis=0)
    own = numpy.log((with_word + SMOOTHING) / (without + SMOOTHING))
    return own - numpy.log((others + SMOOTHING) / (total.sum() - total - others + SMOOTHING))


def cue_table(corpus: Corpus, top: int = 5) -> pandas.DataFrame:
    """The `top` words with the highest positive log-odds of each intention: "word (log-odds)", by side."""
    rows = {label: {} for label in corpus.labels}
    for side in SIDES:
        for label, odds in log_odds(corpus, side).items():
            best = odds[odds > 0].sort_values(ascending=False, kind="stable").head(top)
            rows[label][side] = " · ".join(f"{word} ({value:.1f})" for word, value in best.items())
    return pandas.DataFrame(rows).T.rename_axis("intention")


def corpora_table(loaded: Sequence[Corpus] = ()) -> pandas.DataFrame:
    """Every corpus the package knows: labels, licence, home, how to get it; the size of those that are loaded."""
    here, rows = {corpus.name: corpus for corpus in loaded}, {}
    for name in corpus_names():
        corpus = here.get(name)
        rows[name] = {
            "labels": ", ".join(corpus.labels if corpus else DEFAULT_LABELS[name]),
            "revisions": str(sum(len(corpus.split(split)) for split in SPLITS)) if corpus else "not loaded",
            "licence": corpus.licence if corpus else SOURCES[name].licence if name in SOURCES else "Apache-2.0",
            "home": SOURCES[name].home if name in SOURCES else "made by the package",
            "how to get it": _way(name),
        }
    return pandas.DataFrame(rows).T.rename_axis("corpus")


def floor_table(floors: Sequence[Floor]) -> pandas.DataFrame:
    """Macro F1 and accuracy of each floor."""
    rows = {floor.name: {"macro F1": floor.macro_f1, "accuracy": floor.accuracy} for floor in floors}
    return pandas.DataFrame(rows).T.rename_axis("floor")


def _way(name: str) -> str:
    """What `load_corpus` needs to give a corpus."""
    if name not in SOURCES:
        return f'load_corpus("{name}"); nothing to fetch'
    own = f'load_corpus("{name}", DIR), with {" or ".join(SOURCES[name].patterns)} in DIR or DIR/{name}'
    if SOURCES[name].archive:
        return f'load_corpus("{name}") downloads it; or {own}'
    return f'load_corpus("{name}") reads {ITERATER_HUB} from the Hub; or {own}' if name == "iterater" else own
