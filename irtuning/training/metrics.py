"""Scores of a classifier (precision, recall, F1, accuracy, AUPRC), and class weights."""

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_fscore_support
from sklearn.utils.class_weight import compute_class_weight


def score(gold: Sequence[int], probabilities: np.ndarray, labels: Sequence[str]) -> dict:
    """Return the scores of class probabilities, shape (n, K), against gold class indices, shape (n,).

    AUPRC is the mean over the classes of the average precision. A class that occurs neither in the gold indices nor
    in the predictions counts as zero in every macro average.
    """
    gold, predicted, classes = np.asarray(gold), probabilities.argmax(1), range(len(labels))
    *rates, support = precision_recall_fscore_support(gold, predicted, labels=list(classes), zero_division=0)
    areas = [average_precision_score(gold == k, probabilities[:, k]) if (gold == k).any() else 0.0 for k in classes]
    columns = dict(zip(("precision", "recall", "f1"), rates, strict=True))
    macro = {f"macro_{name}": float(np.mean(values)) for name, values in columns.items()}
    columns |= {"auprc": areas, "support": support}
    each = {label: {name: float(columns[name][k]) for name in columns} for k, label in enumerate(labels)}
    return {"accuracy": float((gold == predicted).mean()), **macro, "auprc": float(np.mean(areas)), "per_class": each}


def balanced_weights(gold: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Return the weight n / (K n_k) of each class k, which has n_k of the n examples, shape (K,)."""
    return compute_class_weight("balanced", classes=np.array(labels), y=list(gold))
