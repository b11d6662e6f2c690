"""Agreement of annotators: kappa over all intentions and of each, with intervals, and what they disagree on."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas

from irtuning.analysis.statistics import CONFIDENCE
from irtuning.errors import InputError, unknown

DRAWS, ENDS = 2_000, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]


def agreement(answers: pandas.DataFrame, labels: Sequence[str], draws: int = DRAWS) -> pandas.DataFrame:
    """Return agreement, Cohen's and Fleiss' kappa over all labels and of each label against the others.

    `answers` has a row per answer with `id`, `annotator` and `label`. Only items that all annotators labelled count.
    Cohen's kappa is the mean over pairs of annotators. The intervals are percentiles of a bootstrap over items.
    Kappa is NaN where chance alone explains full agreement. Sources: Cohen 1960, Fleiss 1971.
    """
    table = _common(answers, labels)
    given = np.stack([table == label for label in labels], axis=-1).astype(float)  # (items, annotators, labels)
    pairs = list(combinations(range(table.shape[1]), 2))
    same = np.stack([given[:, a] == given[:, b] for a, b in pairs], axis=1)
    same = np.concatenate([same.all(-1, keepdims=True), same], axis=-1).astype(float)  # (items, pairs, all + labels)
    weights = np.random.default_rng(0).multinomial(len(given), np.full(len(given), 1 / len(given)), draws)
    weights = np.vstack([np.ones(len(given)), weights]) / len(given)  # the first draw takes each item once
    observed, shares = np.tensordot(weights, same, (1, 0)), np.tensordot(weights, given, (1, 0))
    by_pair = np.stack([_chance(shares[:, a], shares[:, b]) for a, b in pairs], axis=1)
    of_all = _chance(shares.mean(1), shares.mean(1))
    values = {"agreement": observed.mean(1), "cohen": _kappa(observed, by_pair).mean(1)}
    values["fleiss"] = _kappa(observed.mean(1), of_all)
    rows = {"items": np.r_[len(given), given.max(1).sum(0)].astype(int)}  # of a label: those where anyone gave it
    for name, drawn in values.items():
        possible = ~np.isnan(drawn[0])
        ends = np.nanquantile(np.where(possible, drawn, 0), ENDS, axis=0)  # without draws that lack a label
        rows[name], (rows[f"{name}_low"], rows[f"{name}_high"]) = drawn[0], np.where(possible, ends, np.nan)
    return pandas.DataFrame(rows, index=pandas.Index(["all", *labels], name="intention"))


def disagreements(answers: pandas.DataFrame, labels: Sequence[str]) -> pandas.DataFrame:
    """Return the items with different labels: their texts, notes, and the label of each annotator.

    `answers` also has `before`, `after` and `note`. The most frequent kind of disagreement comes first.
    """
    table = _common(answers, labels)
    kinds = {item: tuple(given) for item, *given in table.itertuples() if len({*given}) > 1}
    counts = Counter(kinds.values())
    order = sorted(kinds, key=lambda item: (-counts[kinds[item]], kinds[item]))
    parts = {"before": "first", "after": "first", "note": lambda notes: " / ".join(filter(None, notes))}
    return answers.groupby("id").agg(parts).join(table).loc[order]


def _common(answers: pandas.DataFrame, labels: Sequence[str]) -> pandas.DataFrame:
    """Return the labels of the items that all annotators labelled: a row per item, a column per annotator."""
    if strange := sorted(set(answers.label) - set(labels)):
        raise unknown("label of an annotator", strange[0], labels)
    if twice := answers[answers.duplicated(["id", "annotator"])].id.tolist():
        raise InputError(f"an annotator labelled {twice[0]!r} twice; keep one answer")
    table = answers.pivot(index="id", columns="annotator", values="label")
    if table.shape[1] < 2 or table.dropna().empty:
        raise InputError(f"{table.shape[1]} annotator(s) have no item in common; agreement needs two on the same items")
    return table.dropna()


def _chance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the expected agreement of two sets of label shares, over all labels and of each: (draws, 1 + labels)."""
    each = one * other + (1 - one) * (1 - other)
    return np.concatenate([(one * other).sum(-1, keepdims=True), each], axis=-1)


def _kappa(observed: np.ndarray, chance: np.ndarray) -> np.ndarray:
    chance = np.where(chance < 1 - 1e-12, chance, np.nan)
    return (observed - chance) / (1 - chance)
