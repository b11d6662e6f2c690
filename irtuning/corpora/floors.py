"""Floors: scores that baselines reach without reading. A model below the edit-aware one makes less of the edit."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas

from irtuning.corpora.base import Corpus, Revision
from irtuning.corpora.marked import SHAPE_NAMES, edit_of, shape_of

REGULARISATION = (0.1, 0.3, 1.0, 3.0)
TEXT_BLOCKS = {"before": 1, "after": 1, "inserted": 2, "deleted": 2}  # longest word n-gram of each text
BLOCK_FEATURES = 3000  # the most frequent of each block; all of them double the time for half a point of F1
WORDS_OR_MARKS = r"\w+|[^\w\s]"


@dataclass(frozen=True)
class Floor:
    """Score of one floor on one split, with a prediction per revision."""
    name: str
    split: str
    macro_f1: float
    accuracy: float
    predictions: list[str]


def macro_f1(labels: Sequence[str], truth: Sequence[str], predictions: Sequence[str]) -> float:
    """Return the mean F1 over all `labels`. A label that occurs neither in truth nor in predictions counts zero."""
    from sklearn.metrics import f1_score
    return float(f1_score(truth, predictions, labels=list(labels), average="macro", zero_division=0))


def operation_floor(corpus: Corpus, split: str = "validation") -> Floor:
    """Score a baseline that predicts the most frequent training intention of each operation (add, delete, modify).

    An operation that train lacks gets the most frequent intention of all. Among equals, the earlier label is used.
    """
    return simple_floors(corpus.labels, corpus.train, corpus.split(split), split)[1]


def simple_floors(labels: Sequence[str], train: Sequence[Revision], scored: Sequence[Revision], split: str) -> list:
    """Return the floors of two rules: the most frequent intention in train, and that of the revision's operation."""
    table = pandas.DataFrame([(r.operation, r.intention) for r in train], columns=["operation", "intention"])
    counts = pandas.crosstab(table.operation, table.intention).reindex(columns=list(labels), fill_value=0)
    overall, commonest = counts.sum().idxmax(), counts.idxmax(axis=1)  # among equals, the earlier label
    rules = {"majority": [overall] * len(scored), "operation": [commonest.get(r.operation, overall) for r in scored]}
    return [_floor(name, labels, scored, split, predictions) for name, predictions in rules.items()]


def edit_aware_floor(corpus: Corpus, split: str = "validation") -> Floor:
    """Score a logistic regression with balanced classes on TF-IDF features of words and on the shape of the edit.

    Words come from before, after, the inserted and the deleted text; the shape is `SHAPE_NAMES`. The model is fitted on
    train, with the regularisation that has the best macro F1 on validation, so the score there is a little too high.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits
    train = _table(corpus.train)
    words = {"token_pattern": WORDS_OR_MARKS, "max_features": BLOCK_FEATURES, "sublinear_tf": True, "dtype": np.float32}
    longest = {name: count for name, count in TEXT_BLOCKS.items() if train[name].str.strip().any()}  # with words
    blocks = [(name, TfidfVectorizer(ngram_range=(1, count), **words), name) for name, count in longest.items()]
    features = ColumnTransformer([*blocks, ("shape", StandardScaler(), list(SHAPE_NAMES))], sparse_threshold=1.0)
    rows, truth = features.fit_transform(train), [r.intention for r in corpus.train]
    validation, expected = features.transform(_table(corpus.validation)), [r.intention for r in corpus.validation]
    asked = validation if split == "validation" else features.transform(_table(corpus.split(split)))
    options = {"class_weight": "balanced", "max_iter": 1000, "tol": 1e-3}
    with threadpool_limits(1):  # the matrices are small, and more threads take up to 30 times as long
        models = [LogisticRegression(C=strength, **options).fit(rows, truth) for strength in REGULARISATION]
    model = max(models, key=lambda model: macro_f1(corpus.labels, expected, model.predict(validation)))
    return _floor("edit-aware", corpus.labels, corpus.split(split), split, model.predict(asked).tolist())


def _table(revisions: Sequence[Revision]) -> pandas.DataFrame:
    """Return a row per revision with its texts, edited words and shape numbers."""
    edits = ((r, edit_of(r)) for r in revisions)
    texts = ((r.before, r.after, " ".join(edit.inserted), " ".join(edit.deleted)) for r, edit in edits)
    rows = [dict(zip(TEXT_BLOCKS, t, strict=True)) | shape_of(r) for r, t in zip(revisions, texts, strict=True)]
    return pandas.DataFrame(rows).astype(dict.fromkeys(SHAPE_NAMES, np.float32))  # fits twice as fast as float64


def _floor(name: str, labels: Sequence[str], scored: Sequence[Revision], split: str, predictions: list[str]) -> Floor:
    truth = [r.intention for r in scored]
    accuracy = float(np.mean([t == p for t, p in zip(truth, predictions, strict=True)]))
    return Floor(name, split, macro_f1(labels, truth, predictions), accuracy, predictions)
