"""Choice of the layers that learn: the cut of their scores into a low and a high part. It needs only NumPy."""

import math
from collections.abc import Sequence

import numpy as np

from irtuning.errors import InputError, unknown

MIDDLE = (0.35, 0.65)  # the cut is searched between these fractions of the sorted list of layers
REFERENCE_UNMEASURED = 1000.0  # the score that the authors' code gives a layer without a finite gradient norm


def split_scores(scores: Sequence[float | None], *, variant: str = "reference", splits: int = 1, keep: str = "high",
                 window: tuple[int, int] | None = None, rng: np.random.Generator | None = None) -> list[int]:
    """Choose the layers that learn from one score per layer. Invalid arguments raise InputError.

    With the L scores sorted ascending, `V[i] = Var(first i + 1) + Var(rest)` for i = 0..L-2 (population variances,
    not weighted by size). The cut is the smallest V within the middle of the list, indices int(0.35 L)..int(0.65 L).

    `exact`, which is ours, keeps the part beyond the cut: sorted[i+1:] for `high`, sorted[:i+1] for `low`. Layers that
    are not measured yet always learn, and the cut is made among the others.

    `reference` does what the authors' public code does. A layer that is not measured counts as 1000; if none is
    measured, the scores are uniform random numbers. The index i is the first one anywhere in V with the smallest value
    of the middle. `high` keeps sorted[i:], one layer more than the high part. `low` keeps sorted[:i], and its
    middle is one index shorter.

    Args:
        scores: one per layer, lowest layer first; None marks a layer that is not measured yet.
        variant, keep: `reference` or `exact`; and whether layers with `high` or with `low` scores learn.
        splits: how many times the cut is applied, each time inside the part kept before (once or twice in the paper).
        window: first and last index of V, both included, that the first cut searches instead of the middle.
        rng: random generator; `reference` needs it when no layer is measured.

    Returns:
        The indices of the chosen layers, ascending, at least one. A list of fewer than 2 layers is not cut.

    >>> split_scores([1, 1, 1, 1, 9, 9, 9, 9], variant="exact")
    [4, 5, 6, 7]
    >>> split_scores([1, 1, 1, 1, 9, 9, 9, 9])  # one layer more than the high part
    [3, 4, 5, 6, 7]
    """
    for kind, value, choices in (("variant", variant, ("reference", "exact")), ("part", keep, ("high", "low"))):
        if value not in choices:
            raise unknown(kind, value, choices)
    if len(scores) == 0 or splits < 1:
        raise InputError(f"{len(scores)} scores cannot be cut {splits} times; give at least 1 score and 1 split")
    if wrong := [score for score in scores if score is not None and not math.isfinite(score)]:
        raise InputError(f"a score is {wrong[0]}; give finite numbers, and None for a layer that is not measured yet")
    values = np.array([math.nan if score is None else score for score in scores], dtype=float)
    measured, always = np.isfinite(values), []
    if variant == "exact":
        always = np.flatnonzero(~measured)
    elif measured.any():
        values[~measured] = REFERENCE_UNMEASURED
    elif rng is None:
        raise InputError("no layer has a score yet: pass rng, a numpy random Generator, to draw the first layers")
    else:
        values = rng.random(len(values))
    candidates = np.setdiff1d(np.arange(len(values)), always)
    order = candidates[np.argsort(values[candidates], kind="stable")]
    for cut in range(splits):
        order = _keep_part(order, values[order], variant, keep, window if cut == 0 else None)
    return sorted(int(layer) for layer in (*always, *order))


def _keep_part(order: np.ndarray, ascending: np.ndarray, variant: str, keep: str, window: tuple | None) -> np.ndarray:
    """Return the layers on the kept side of the best cut. `order` lists all layers by ascending score."""
    depth = len(order)
    if depth < 2:
        return order
    sums = cut_variances(ascending)
    first, last = window or tuple(int(share * depth) for share in MIDDLE)
    if window is None and variant == "reference" and keep == "low":
        last -= 1
    first = min(first, depth - 2)
    best = first + int(np.argmin(sums[first : max(last, first) + 1]))
    if variant == "exact":
        return order[best + 1 :] if keep == "high" else order[: best + 1]
    best = int(np.flatnonzero(sums == sums[best])[0])
    return order[best:] if keep == "high" else order[: max(best, 1)]


def cut_variances(ascending: np.ndarray) -> np.ndarray:
    """Return V[i] = Var(first i + 1) + Var(rest) of L sorted scores for i = 0..L-2, shape (L - 1,)."""
    return np.array([ascending[:k].var() + ascending[k:].var() for k in range(1, len(ascending))])
