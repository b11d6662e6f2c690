"""Which layers learn: the cut of a list of layer scores into a low and a high part. Pure NumPy."""

import math
from collections.abc import Sequence

import numpy as np

from irtuning.errors import InputError, unknown

VARIANTS = ("reference", "exact")
KEEPS = ("high", "low")
MIDDLE = (0.35, 0.65)  # the cut is looked for between these shares of the sorted layers
REFERENCE_UNMEASURED = 1000.0  # what the authors' code scores a layer without a finite gradient norm


def split_scores(
    scores: Sequence[float | None],
    *,
    variant: str = "reference",
    splits: int = 1,
    keep: str = "high",
    window: tuple[int, int] | None = None,
    rng: np.random.Generator | None = None,
) -> list[int]:
    """Choose the layers that learn from one score per layer.

    With the L scores sorted ascending, `V[i] = Var(first i + 1) + Var(rest)` for i = 0..L-2 (population variances,
    not weighted by size). The cut is the smallest V within the middle of the list, indices int(0.35 L)..int(0.65 L).

    Args:
        scores: one per layer, lowest layer first; None, NaN and infinities are layers not measured yet.
        variant: `reference` does what the authors' code does: unmeasured layers count as 1000; the smallest value's
            first occurrence anywhere in V is taken as the index i; `high` keeps sorted[i:], one layer more than the
            best cut, `low` keeps sorted[:i] and does not look at the window's last index. When nothing is measured
            the scores are uniform random numbers. `exact` keeps the best cut's own part (sorted[i+1:] or
            sorted[:i+1]); unmeasured layers always learn and the cut is made among the measured.
        splits: how many times the cut is applied, each time inside the part kept before (the paper's one or two).
        keep: `high` or `low` scores learn.
        window: first and last index of V of the first cut, both included, instead of the middle.
        rng: needed by `reference` when no layer is measured.

    Returns:
        The chosen layers' indices, ascending; never empty. A part with fewer than 2 layers is kept as it is. Where
        the reference would raise or keep nothing (very few layers, `low`), the smallest part it can cut is kept.

    Raises:
        InputError: no scores, an unknown variant or part, splits below 1, or no `rng` where one is needed.

    Source: the behaviour of the authors' public code; `exact` is ours, after the abstract's description.

    >>> split_scores([1, 1, 1, 1, 9, 9, 9, 9], variant="exact")
    [4, 5, 6, 7]
    >>> split_scores([1, 1, 1, 1, 9, 9, 9, 9])  # one layer more than the high part
    [3, 4, 5, 6, 7]
    """
    _check(scores, variant, splits, keep)
    values = np.array([math.nan if score is None else score for score in scores], dtype=float)
    measured = np.isfinite(values)
    if variant == "exact":
        candidates, always = np.flatnonzero(measured), np.flatnonzero(~measured)
    else:
        candidates, always = np.arange(len(values)), np.array([], dtype=int)
        values = _reference_values(values, measured, rng)
    kept = candidates[np.argsort(values[candidates], kind="stable")]
    for cut in range(splits):
        kept = _keep_part(kept, values[kept], variant, keep, window if cut == 0 else None)
    return sorted(int(layer) for layer in (*always, *kept))


def _check(scores: Sequence, variant: str, splits: int, keep: str) -> None:
    if len(scores) == 0:
        raise InputError("no scores to split: the model has no layers that could learn")
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS)
    if keep not in KEEPS:
        raise unknown("part to keep", keep, KEEPS)
    if splits < 1:
        raise InputError(f"splits is {splits}; give 1 or more")


def _reference_values(values: np.ndarray, measured: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
    if measured.any():
        return np.where(measured, values, REFERENCE_UNMEASURED)
    if rng is None:
        raise InputError("no layer has a score yet: pass rng, a numpy random Generator, to draw the first layers")
    return rng.random(len(values))


def _keep_part(
    order: np.ndarray, ascending: np.ndarray, variant: str, keep: str, window: tuple[int, int] | None
) -> np.ndarray:
    """The part of `order` (layers by ascending score) on the wanted side of the best cut."""
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
    """V[i] = Var(first i + 1) + Var(rest) of L sorted scores, i = 0..L-2; shape (L - 1,)."""
    return np.array([ascending[:k].var() + ascending[k:].var() for k in range(1, len(ascending))])
