"""Floors: what a corpus gives away without reading. A method has to beat them before its score means anything."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from irtuning.corpora.base import Corpus, Revision
from irtuning.corpora.edits import SHAPE_NAMES, edit_of, shape_of

REGULARISATION = (0.1, 0.3, 1.0, 3.0)
TEXT_BLOCKS = {"before": 1, "after": 1, "inserted": 2, "deleted": 2}  # column and longest word n-gram
BLOCK_FEATURES = 3000  # the commonest of each block: half the time, and half a point less F1 on ArgRewrite than all
WORDS_OR_MARKS = r"\w+|[^\w\s]"


@dataclass(frozen=True)
class Floor:
    """One floor's score on one split, with what it answered.

    `predictions` holds a label per revision; `probabilities` is (revisions, labels) in label order, or None where the
    floor only answers; `settings` says what was chosen or fitted.
    """

    name: str
    split: str
    macro_f1: float
    accuracy: float
    predictions: list[str]
    probabilities: np.ndarray | None = None
    settings: Mapping[str, object] = field(default_factory=dict)


def macro_f1(labels: Sequence[str], truth: Sequence[str], predictions: Sequence[str]) -> float:
    """Mean F1 over all `labels`; one that occurs neither in truth nor in predictions counts zero."""
    from sklearn.metrics import f1_score

    return float(f1_score(truth, predictions, labels=list(labels), average="macro", zero_division=0))


def operation_floor(corpus: Corpus, split: str = "validation") -> Floor:
    """Answer each revision with the commonest intention of its operation (add, delete, modify) in train.

    An operation that train lacks gets train's commonest intention; ties go to the earlier label.
    """
    overall = _commonest(corpus.labels, corpus.train)
    table = {
        operation: _commonest(corpus.labels, [r for r in corpus.train if r.operation == operation])
        for operation in sorted({r.operation for r in corpus.train})
    }
    predictions = [table.get(r.operation, overall) for r in corpus.split(split)]
    return _floor("operation", corpus, split, predictions, settings={"answers": table})


def length_floor(corpus: Corpus, split: str = "validation", leaves: int = 8) -> Floor:
    """Answer from the length difference in words alone: a decision tree with balanced classes, fitted on train."""
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(max_leaf_nodes=leaves, min_samples_leaf=5, class_weight="balanced", random_state=0)
    tree.fit(_length_differences(corpus.train), [r.intention for r in corpus.train])
    predictions, probabilities = _answers(tree, corpus.labels, _length_differences(corpus.split(split)))
    return _floor("length difference", corpus, split, predictions, probabilities, {"leaves": tree.get_n_leaves()})


def edit_aware_floor(corpus: Corpus, split: str = "validation") -> Floor:
    """Answer from words and edit shape: balanced logistic regression over TF-IDF blocks and numbers, fitted on train.

    The blocks are the words of before, of after, the inserted and the deleted words, and `SHAPE_NAMES`. The
    regularisation is chosen by macro F1 on validation, whatever split is scored; on validation itself the score is
    therefore a little favourable.
    """
    train = _table(corpus.train)
    features = _features(train)
    rows, truth = features.fit_transform(train), [r.intention for r in corpus.train]
    validation = features.transform(_table(corpus.validation))
    model = _best_regression(corpus, rows, truth, validation)
    scored = validation if split == "validation" else features.transform(_table(corpus.split(split)))
    predictions, probabilities = _answers(model, corpus.labels, scored)
    settings = {"C": model.C, "features": rows.shape[1]}
    return _floor("edit-aware", corpus, split, predictions, probabilities, settings)


def _best_regression(corpus: Corpus, rows, truth: Sequence[str], validation):
    """The logistic regression, of those over `REGULARISATION`, that does best on validation (of equals the first)."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    expected = [r.intention for r in corpus.validation]
    with threadpool_limits(1):  # small products: on a busy machine waiting for threads costs up to 30 times as long
        models = [
            LogisticRegression(C=strength, class_weight="balanced", max_iter=1000, tol=1e-3).fit(rows, truth)
            for strength in REGULARISATION
        ]
    return max(models, key=lambda model: macro_f1(corpus.labels, expected, model.predict(validation)))


def _features(table):
    """The transformer from `_table`'s columns to one row per revision; a text column without a word is left out."""
    from sklearn.compose import ColumnTransformer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import StandardScaler

    def words(longest: int) -> TfidfVectorizer:
        return TfidfVectorizer(
            token_pattern=WORDS_OR_MARKS,
            ngram_range=(1, longest),
            max_features=BLOCK_FEATURES,
            sublinear_tf=True,
            dtype=np.float32,
        )

    blocks = [(name, words(longest), name) for name, longest in TEXT_BLOCKS.items() if table[name].str.strip().any()]
    return ColumnTransformer([*blocks, ("shape", StandardScaler(), list(SHAPE_NAMES))], sparse_threshold=1.0)


def _table(revisions: Sequence[Revision]):
    """A data frame with the texts, the edited words and the shape numbers (float32), a row per revision."""
    import pandas as pd

    rows = []
    for revision in revisions:
        edit = edit_of(revision)
        edited = {"inserted": " ".join(edit.inserted), "deleted": " ".join(edit.deleted)}
        rows.append({"before": revision.before, "after": revision.after, **edited, **shape_of(revision)})
    return pd.DataFrame(rows).astype(dict.fromkeys(SHAPE_NAMES, np.float32))  # half the fitting time of float64


def _length_differences(revisions: Sequence[Revision]) -> np.ndarray:
    """Length of after minus length of before in words, (revisions, 1)."""
    return np.array([[len(r.after.split()) - len(r.before.split())] for r in revisions], dtype=float)


def _answers(model, labels: Sequence[str], rows) -> tuple[list[str], np.ndarray]:
    """The model's label per row, and its probabilities with a column per label in label order."""
    columns = [list(model.classes_).index(label) for label in labels]
    probabilities = model.predict_proba(rows)[:, columns]
    return [labels[best] for best in probabilities.argmax(axis=1)], probabilities


def _commonest(labels: Sequence[str], revisions: Sequence[Revision]) -> str:
    counts = Counter(r.intention for r in revisions)
    return max(labels, key=lambda label: counts[label])


def _floor(name, corpus, split, predictions, probabilities=None, settings=None) -> Floor:
    """The record of one floor, scored."""
    truth = [r.intention for r in corpus.split(split)]
    accuracy = float(np.mean([t == p for t, p in zip(truth, predictions, strict=True)]))
    score = macro_f1(corpus.labels, truth, predictions)
    return Floor(name, split, score, accuracy, predictions, probabilities, settings or {})
