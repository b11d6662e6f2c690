"""Numbers about classes: precision, recall, F1 per class and macro, accuracy, AUPRC; probabilities; class weights."""

from collections.abc import Sequence

import numpy as np


def score(gold: Sequence[int], probabilities: np.ndarray, labels: Sequence[str]) -> dict:
    """Score class probabilities of shape (n, K) against gold class indices of shape (n,).

    AUPRC is the mean over classes of the average precision of the class scores. A class absent from labels and
    predictions counts zero in every macro average; nothing raises.
    """
    from sklearn.metrics import average_precision_score, precision_recall_fscore_support

    gold, probabilities = np.asarray(gold), np.asarray(probabilities)
    predicted, classes = probabilities.argmax(1), range(len(labels))
    precision, recall, f1, support = precision_recall_fscore_support(
        gold, predicted, labels=list(classes), zero_division=0
    )
    areas = [
        float(average_precision_score(gold == k, probabilities[:, k])) if (gold == k).any() else 0.0 for k in classes
    ]
    columns = {"precision": precision, "recall": recall, "f1": f1, "auprc": areas, "support": support}
    return {
        "accuracy": float((gold == predicted).mean()),
        **{f"macro_{name}": float(np.mean(columns[name])) for name in ("precision", "recall", "f1")},
        "auprc": float(np.mean(areas)),
        "per_class": {
            label: {name: float(values[k]) for name, values in columns.items()} for k, label in enumerate(labels)
        },
    }


def softmax(logits: np.ndarray | tuple) -> np.ndarray:
    """Class probabilities in float64 of logits, shape (n, K); of several outputs the first."""
    from scipy import special

    return special.softmax(np.asarray(logits[0] if isinstance(logits, tuple) else logits, dtype=np.float64), axis=1)


def balanced_weights(gold: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """n / (K n_k) for each class k with n_k of the n examples; shape (K,)."""
    from sklearn.utils.class_weight import compute_class_weight

    return compute_class_weight("balanced", classes=np.array(labels), y=list(gold))
