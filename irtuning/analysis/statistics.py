"""Certainty of the difference between two methods: two-way standard errors over writers or papers and over seeds.

Texts of one writer are alike, and so are predictions of one seed. The variance of a score is therefore the variance
between writers or papers (clusters), plus the variance between the seeds of a fold, minus the variance of single cells
(one cluster under one seed), which the first two both contain (Cameron, Gelbach & Miller 2011,
https://doi.org/10.1198/jbes.2010.07136). The sum is never below the variance between clusters.

One estimand is used everywhere: macro F1 of the confusion counts, averaged over the seeds of a fold and summed over the
folds. The area under the precision-recall curve is the mean over runs, since scores of two models cannot be pooled.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from operator import itemgetter

import numpy as np
import pandas
from scipy import stats

from irtuning.analysis.tables import groups_by, run_title
from irtuning.errors import InputError

SETTING = ["corpus", "model"]
PAIRED = itemgetter("fold", "seed")
CONFIDENCE = 0.95  # of every interval
ALPHA = 0.05  # a p value below it counts as evidence
POWER = 0.8  # of `detectable`
EQUIVALENT = 0.01  # differences of macro F1 within plus and minus this count as none
FEWEST = 5  # clusters and runs for an interval; fewer are shown as dots
Cells = list[tuple[list[str], np.ndarray]]  # of each fold: names of its clusters, and a number per seed and cluster


@dataclass(frozen=True)
class Comparison:
    """Score of `method` minus that of `against`, with its standard error, interval and p value."""
    method: str
    against: str
    difference: float
    error: float  # two-way standard error
    low: float  # end of the 95 % interval; NaN for fewer than five clusters or runs
    high: float
    p_value: float  # two-sided, of the hypothesis that there is no difference
    equivalent: bool  # the 90 % interval lies within EQUIVALENT of zero: two one-sided tests at 5 %
    detectable: float  # the difference that the deciding test finds in four of five repetitions of the study
    clusters: int  # writers or papers
    runs: int  # of each method


def compare_methods(records: Sequence[dict], method: str, against: str, split="test", metric="macro_f1",
                    tests: int = 1) -> Comparison:  # fmt: skip
    """Compare two methods' runs on one corpus and model, paired by fold and seed.

    A method is named by its text, or by its run's title such as `ir, dora`. `metric` is macro_f1 or auprc. `tests` is
    the number of tests among which Holm's method decides; `detectable` is for the first of them. InputError is raised
    if the runs form no pairs, have fewer than two clusters, or have several corpora or models.
    """
    if len(groups_by(records, SETTING)) > 1:
        raise InputError("the records have several corpora or models; compare methods on one of each")
    runs = paired_runs(records, method, against, split)
    (score, cells), (other, its_cells) = (contributions(of_method, split, metric) for of_method in runs)
    paired = [(names, a - b) for (names, a), (_, b) in zip(cells, its_cells, strict=True)]
    clusters, count = len({name for names, _ in cells for name in names}), len(runs[0])
    if clusters < 2:
        raise InputError(f"the {split} split has {clusters} writer or paper; an error needs two or more")
    numbers = _certainty(score - other, two_way_error(paired), min(clusters, count), tests)
    return Comparison(method, against, *numbers, clusters, count)


def _certainty(difference: float, error: float, units: int, tests: int = 1) -> tuple:
    """Return difference, error, ends of the interval, p value, equivalence and detectable difference."""
    half = error * stats.norm.ppf((1 + CONFIDENCE) / 2) if units >= FEWEST else np.nan
    p_value = float(2 * stats.norm.sf(abs(difference) / error)) if error else float(difference == 0)
    equivalent = bool(abs(difference) + error * stats.norm.ppf(1 - ALPHA) < EQUIVALENT)
    detectable = error * float(stats.norm.ppf(1 - ALPHA / tests / 2) + stats.norm.ppf(POWER))
    return difference, error, difference - half, difference + half, p_value, equivalent, detectable


def against_all(records: Sequence[dict], method: str = "ir") -> list[tuple[str, str]]:
    """Return the pairs of `method` and each other method in the records, in their order."""
    names = dict.fromkeys(run_title(r["run"]["config"]) for r in records)
    return [(method, name) for name in names if name != method]


def comparisons_table(records: Sequence[dict], pairs: Sequence[tuple], split="test", metric="macro_f1",
                      tests: int | None = None) -> pandas.DataFrame:  # fmt: skip
    """Return one row per corpus (and model) and pair of methods, with p values adjusted by Holm over all rows.

    `detectable` is for the first of Holm's tests, or for one of `tests`.
    """
    rows, settings = [], groups_by(records, SETTING)
    for setting, part in settings.items():
        named, among = dict(zip(SETTING, setting, strict=True)), tests or len(settings) * len(pairs)
        rows += [named | asdict(compare_methods(part, *pair, split, metric, among)) for pair in pairs]
    table = pandas.DataFrame(rows)
    return (table if table.model.nunique() > 1 else table.drop(columns="model")).assign(p_holm=holm(table.p_value))


def mean_of_corpora(table: pandas.DataFrame) -> pandas.DataFrame:
    """Return a table's differences averaged over its corpora, which share no cluster or run, a row for each pair."""
    rows = []
    for (method, against), part in table.groupby(["method", "against"], sort=False):
        error, units = float(np.sqrt((part.error**2).sum()) / len(part)), part[["clusters", "runs"]].min(axis=None)
        numbers = _certainty(float(part.difference.mean()), error, units)
        rows.append(Comparison(method, against, *numbers, part.clusters.sum(), part.runs.sum()))
    return pandas.DataFrame(rows)


def method_scores(records: Sequence[dict], split="test") -> pandas.DataFrame:
    """Return macro F1 of each method (run title) on each corpus and model, its two-way error and 95 % interval."""
    rows = []
    for names, part in groups_by(records, [*SETTING, "method"]).items():
        score, cells = contributions(part, split)
        units = min(len(part), len({name for of_fold, _ in cells for name in of_fold}))
        rows.append([*names, *_certainty(score, two_way_error(cells), units)[:4]])
    return pandas.DataFrame(rows, columns=[*SETTING, "method", "macro_f1", "error", "low", "high"])


def paired_runs(records: Sequence[dict], method: str, against: str, split: str) -> list[list[dict]]:
    """Return both methods' runs in the order of folds and seeds. InputError is raised if they do not form pairs."""
    ordered = sorted(records, key=lambda record: PAIRED(record["run"]["config"]))
    runs = [[run for run in ordered if run_title(run["run"]["config"]) == name]
            or [run for run in ordered if run["run"]["config"]["method"] == name] for name in (method, against)]
    folds = [[PAIRED(run["run"]["config"]) for run in part] for part in runs]
    if not runs[0] or folds[0] != folds[1]:
        raise InputError(f"{method} and {against} do not have the same folds and seeds; run what is missing")
    if len(set(folds[0])) < len(folds[0]):  # such as a run with LoRA and a run with DoRA
        raise InputError(f"{method} has several runs of one fold and seed; keep one")
    if any(split not in record["predictions"] for part in runs for record in part):
        raise InputError(f"a run has no predictions for the {split} split; train it with score_test")
    return runs


def contributions(records: Sequence[dict], split: str, metric: str = "macro_f1") -> tuple[float, Cells]:
    """Return the score of one method's runs, and what each cluster adds to it under each seed of each fold.

    The contributions are those of the linearised score: their mean over seeds, summed over clusters and folds, varies
    as the score does. For macro F1 they come from its gradient, for auprc from leaving out one cluster at a time.
    """
    folds, counts = {fold: part for (fold,), part in sorted(groups_by(records, ["fold"]).items())}, []
    names = [sorted({row["group"] for row in part[0]["predictions"][split]}) for part in folds.values()]
    if metric == "auprc":
        parts = [np.array([areas(r, split, of) for r in part]) for of, part in zip(names, folds.values(), strict=True)]
        cells = [part[:, 1:] / len(parts) for part in parts]
        return float(np.mean([part[:, 0].mean() for part in parts])), list(zip(names, cells, strict=True))
    for of_fold, part in zip(names, folds.values(), strict=True):
        cluster, code = ({name: i for i, name in enumerate(of)} for of in (of_fold, part[0]["run"]["labels"]))
        confusions = np.zeros((len(part), len(cluster), len(code), len(code)))
        for confusion, run in zip(confusions, part, strict=True):
            for row in run["predictions"][split]:
                confusion[cluster[row["group"]], code[row["intention"]], code[row["predicted"]]] += 1
        counts.append(confusions)
    pooled = sum(part.mean(0).sum(0) for part in counts)
    sizes, f1 = _sizes(pooled), _class_f1(pooled)
    seen = sizes > 0
    each = (2 * part.diagonal(axis1=2, axis2=3) - f1 * _sizes(part) for part in counts)
    cells = [(part[..., seen] / sizes[seen]).mean(2) for part in each]
    return float(f1[seen].mean()), list(zip(names, cells, strict=True))


def two_way_error(cells: Cells) -> float:
    """Return the standard error of a sum over clusters and folds of means over seeds, from `contributions`.

    Where seeds add nothing but the noise of cells, it is a little too large: by 10 % with two seeds in five folds.
    """
    parts = [(part, *part.shape) for _, part in cells]
    totals = pandas.concat([pandas.Series(part.mean(0), names) for names, part in cells]).groupby(level=0).sum()
    clusters, seeds, single = len(totals) * totals.var(), 0.0, 0.0
    for part, runs, size in parts:
        if runs > 1:  # with one run a fold, what its seed adds to all clusters at once cannot be known
            rest = part - part.mean(0) - part.mean(1, keepdims=True) + part.mean()
            seeds += part.sum(1).var(ddof=1) / runs
            single += (rest**2).sum() / ((runs - 1) * max(1, size - 1)) * size / runs
    return float(np.sqrt(clusters + max(0.0, seeds - single)))


def areas(record: dict, split: str, names: Sequence[str]) -> list[float]:
    """Return a run's mean average precision over its classes, then what each cluster adds to it (jackknife)."""
    rows, each = record["predictions"][split], []
    if not rows or "probabilities" not in rows[0]:
        raise InputError("the records have no class probabilities, which auprc needs; use macro_f1")
    kept = np.array([r["group"] for r in rows], object) != np.array([[object(), *names]], object).T  # all; all but one
    for label, chances in zip(record["run"]["labels"], np.transpose([r["probabilities"] for r in rows]), strict=True):
        order, there = np.argsort(-chances), kept & np.array([r["intention"] == label for r in rows])
        ends = np.append(np.diff(chances[order]) != 0, True)  # items with equal chances count together
        right, seen = (np.cumsum(of[:, order], 1)[:, ends] for of in (there, kept))
        if there.any():
            area = (np.diff(right, prepend=0) * right / np.maximum(seen, 1)).sum(1) / np.maximum(right[:, -1], 1)
            each.append(np.where(right[:, -1], area, area[0]))  # a cluster may have all items of a class
    score, *left = np.mean(each, axis=0)
    return [score, *(score - (len(names) - 1) / len(names) * np.array(left))]  # pseudo-values over their number


def f1_of_seeds(confusions: np.ndarray, weights: np.ndarray, classes: int | None = None) -> np.ndarray:
    """Return macro F1 of `classes` by draw and seed. Counts: (seeds, clusters, K, K), weights: (draws, clusters)."""
    pooled = np.tensordot(weights, confusions, (1, 1))
    f1, seen = _class_f1(pooled), _sizes(pooled) > 0  # a class that a draw neither has nor predicts is left out
    return f1[..., :classes].sum(2) / seen[..., :classes].sum(2)


def _sizes(confusions: np.ndarray) -> np.ndarray:
    """Return how many items have a class plus how many are predicted to have it, of counts (..., K, K)."""
    return confusions.sum(-1) + confusions.sum(-2)


def _class_f1(confusions: np.ndarray) -> np.ndarray:
    """Return the F1 of each class of counts (..., K, K), or zero for a class without items and predictions."""
    right, sizes = 2 * np.diagonal(confusions, axis1=-2, axis2=-1), _sizes(confusions)
    return np.divide(right, sizes, out=np.zeros_like(sizes, dtype=float), where=sizes > 0)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number by Holm's method: 0.01, 0.04, 0.03 become 0.03, 0.06, 0.06."""
    ascending = pandas.Series(list(p_values), dtype=float).sort_values(kind="stable")
    return (ascending * np.arange(len(ascending), 0, -1)).clip(upper=1).cummax().sort_index().tolist()
