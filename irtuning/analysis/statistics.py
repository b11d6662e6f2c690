"""How sure a difference between two methods is: a bootstrap over whole writers or papers, then seeds, paired by method.

Items of one writer are alike and runs of one seed share their noise, so that neither counts as independent: a draw
takes clusters with replacement, then seeds, the same for both methods, and pools the folds' predictions, in which every
cluster stands once a seed.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas

from irtuning.errors import InputError

DRAWS = 10_000
LEVEL = 0.95
NORMAL = 1.96, 0.84  # quantiles of the normal distribution at a two-sided 5 % and a power of 80 %


@dataclass(frozen=True)
class Comparison:
    """One method minus another in macro F1, with what its distribution over the draws says."""

    method: str
    against: str
    difference: float
    low: float  # of the 95 % interval, by percentiles
    high: float
    p_value: float  # two-sided, that the difference is none
    effect_size: float  # difference over its standard deviation from cluster to cluster and seed to seed
    detectable: float  # what a test at 5 % would find four times in five
    clusters: int
    seeds: int


def compare_methods(records: Sequence[dict], method: str, against: str, split: str = "test", draws: int = DRAWS) -> Comparison:
    """Compare two methods' records of one corpus and model, paired by fold and seed.

    Raises:
        InputError: a run of one has no partner, a split was not scored, fewer than two clusters, or several corpora or
            models.
    """
    if len({(record["run"]["config"]["corpus"], record["run"]["config"]["model"]) for record in records}) > 1:
        raise InputError("records of several corpora or models; compare methods on one of each")
    first, second, clusters = paired_confusions(records, method, against, split)
    seeds, rng = len(first), np.random.default_rng(0)
    weights = rng.multinomial(clusters, np.full(clusters, 1 / clusters), draws)  # how often each cluster was drawn
    drawn = rng.integers(0, seeds, (draws, seeds))
    of_seed = (np.take_along_axis(f1_of_seeds(confusions, weights), drawn, axis=1) for confusions in (first, second))
    ours, theirs = (scores.mean(1) for scores in of_seed)
    differences = ours - theirs
    everything = np.ones((1, clusters))
    found = f1_of_seeds(first, everything).mean() - f1_of_seeds(second, everything).mean()
    low, high = np.quantile(differences, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    below, above = ((differences <= 0).sum() + 1) / (draws + 1), ((differences >= 0).sum() + 1) / (draws + 1)
    error = float(differences.std(ddof=1))
    return Comparison(
        method, against, float(found), float(low), float(high), float(min(1.0, 2 * min(below, above))),
        float(found / (error * np.sqrt(clusters))) if error else 0.0, sum(NORMAL) * error, clusters, seeds,
    )  # fmt: skip


def comparisons_table(
    records: Sequence[dict], pairs: Sequence[tuple[str, str]], split: str = "test", draws: int = DRAWS
) -> pandas.DataFrame:
    """Every pair of methods on every corpus, with p values adjusted by Holm over the whole table."""
    corpora = dict.fromkeys(record["run"]["config"]["corpus"] for record in records)
    rows = []
    for corpus in corpora:
        own = [record for record in records if record["run"]["config"]["corpus"] == corpus]
        rows += [{"corpus": corpus} | asdict(compare_methods(own, *pair, split, draws)) for pair in pairs]
    table = pandas.DataFrame(rows)
    return table.assign(p_holm=holm(table.p_value))


def paired_confusions(
    records: Sequence[dict], method: str, against: str, split: str
) -> tuple[np.ndarray, np.ndarray, int]:
    """Confusions of both methods, shape (seeds, clusters, K, K) with the true class first, and the number of clusters.

    The n-th seed of every fold makes one whole set of predictions.
    """
    runs = {name: _by_fold(records, name) for name in (method, against)}
    if not runs[method] or {f: list(s) for f, s in runs[method].items()} != {f: list(s) for f, s in runs[against].items()}:
        raise InputError(f"{method} and {against} do not have the same folds and seeds; run what is missing")
    labels = next(iter(next(iter(runs[method].values())).values()))["run"]["labels"]
    groups = _groups(runs[method], split)
    if len(groups) < 2:
        raise InputError(f"{len(groups)} writer or paper on the {split} split; an interval needs two or more")
    both = (_confusions(runs[name], split, labels, groups) for name in (method, against))
    return *both, len(groups)


def f1_of_seeds(confusions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Macro F1 of the pooled items, each cluster as often as its weight: shape (draws, seeds).

    A class that a draw has neither among the true nor the predicted has no F1 there and is left out.

    Args:
        confusions: shape (seeds, clusters, K, K).
        weights: shape (draws, clusters).
    """
    pooled = np.tensordot(weights, confusions, (1, 1))
    right, true, predicted = pooled.diagonal(axis1=2, axis2=3), pooled.sum(3), pooled.sum(2)
    seen = true + predicted > 0
    f1 = np.divide(2 * right, true + predicted, out=np.zeros_like(right, dtype=float), where=seen)
    return f1.sum(2) / seen.sum(2)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for being many, by Holm's method.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, position in enumerate(np.argsort(p_values, kind="stable")):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = highest
    return adjusted


def _by_fold(records: Sequence[dict], method: str) -> dict[int, dict[int, dict]]:
    """A method's records by fold and seed, in order."""
    found: dict[int, dict[int, dict]] = {}
    for record in sorted(records, key=lambda r: (r["run"]["config"]["fold"], r["run"]["config"]["seed"])):
        if record["run"]["config"]["method"] == method:
            found.setdefault(record["run"]["config"]["fold"], {})[record["run"]["config"]["seed"]] = record
    return found


def _groups(runs: dict[int, dict[int, dict]], split: str) -> list[str]:
    names = set()
    for seeds in runs.values():
        for record in seeds.values():
            if split not in record["predictions"]:
                raise InputError(f"a run has no predictions for the {split} split; train it with score_test")
            names |= {row["group"] for row in record["predictions"][split]}
    return sorted(names)


def _confusions(runs: dict[int, dict[int, dict]], split: str, labels: Sequence[str], groups: Sequence[str]) -> np.ndarray:
    seeds, place = len(next(iter(runs.values()))), {group: i for i, group in enumerate(groups)}
    code = {label: i for i, label in enumerate(labels)}
    counts = np.zeros((seeds, len(groups), len(labels), len(labels)))
    for of_fold in runs.values():
        for seed, record in enumerate(of_fold.values()):
            for row in record["predictions"][split]:
                counts[seed, place[row["group"]], code[row["intention"]], code[row["predicted"]]] += 1
    return counts
