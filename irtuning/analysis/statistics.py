"""Certainty of the difference between two methods: intervals and p values of a bootstrap over writers or papers.

Texts of one writer are alike, and so are predictions of one seed. So each draw of the bootstrap samples whole writers
or papers (clusters) and then seeds, with replacement and the same for both methods. It pools all folds' predictions.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from operator import itemgetter

import numpy as np
import pandas
from scipy import stats

from irtuning.analysis.tables import groups_by
from irtuning.errors import InputError

SETTING = ["corpus", "model"]
PAIRED = itemgetter("fold", "seed")
DRAWS = 10_000
CONFIDENCE = 0.95  # of every interval
ALPHA = 0.05  # a p value below it counts as evidence
NORMAL = 1.96, 0.84  # quantiles of the normal distribution for a two-sided test at ALPHA with a power of 80 %


@dataclass(frozen=True)
class Comparison:
    """Macro F1 of `method` minus that of `against`, with its interval and p value."""
    method: str
    against: str
    difference: float
    low: float  # end of the 95 % interval, a percentile of the draws
    high: float
    p_value: float  # two-sided, of the hypothesis that there is no difference
    effect_size: float  # the difference divided by its standard deviation between clusters and seeds
    detectable: float  # the difference that a test at 5 % finds in four of five repetitions of the study
    clusters: int  # writers or papers
    seeds: int


def interval(values: pandas.Series) -> dict[str, float]:
    """Return the mean of paired differences and the ends of its 95 % t interval."""
    mean, half = values.mean(), half_width(values)
    return {"difference": mean, "low": mean - half, "high": mean + half}


def half_width(values: pandas.Series) -> float:
    """Return half the width of the 95 % t interval of a mean. It is NaN for fewer than two values."""
    return float(pandas.Series(values).sem() * stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))


def compare_methods(records: Sequence[dict], method: str, against: str, split="test", draws=DRAWS) -> Comparison:
    """Compare two methods' runs on one corpus and model, paired by fold and seed.

    InputError is raised if the runs form no pairs, have fewer than two clusters, or have several corpora or models.
    """
    if len(groups_by(records, SETTING)) > 1:
        raise InputError("the records have several corpora or models; compare methods on one of each")
    *counts, clusters = paired_confusions(records, method, against, split)
    seeds, rng = len(counts[0]), np.random.default_rng(0)
    weights = rng.multinomial(clusters, np.full(clusters, 1 / clusters), draws)  # how often each cluster was drawn
    drawn = rng.integers(0, seeds, (draws, seeds))
    scores = [np.take_along_axis(f1_of_seeds(part, weights), drawn, axis=1).mean(1) for part in counts]
    means = [f1_of_seeds(part, np.ones((1, clusters))).mean() for part in counts]
    difference, differences = means[0] - means[1], scores[0] - scores[1]
    low, high = np.quantile(differences, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    fewer = min((differences <= 0).sum(), (differences >= 0).sum())  # draws on the other side of zero
    p_value, error = float(min(1.0, 2 * ((fewer + 1) / (draws + 1)))), float(differences.std(ddof=1))
    effect = float(difference / (error * np.sqrt(clusters))) if error else 0.0
    numbers = float(difference), float(low), float(high), p_value, effect, sum(NORMAL) * error
    return Comparison(method, against, *numbers, clusters, seeds)


def against_all(records: Sequence[dict], method: str = "ir") -> list[tuple[str, str]]:
    """Return the pairs of `method` and each other method in the records, in their order."""
    return [(method, name) for name in dict.fromkeys(r["run"]["config"]["method"] for r in records) if name != method]


def comparisons_table(records: Sequence[dict], pairs: Sequence[tuple], split="test", draws=DRAWS) -> pandas.DataFrame:
    """Return one row per corpus (and model) and pair of methods, with p values adjusted by Holm over all rows."""
    rows = []
    for setting, part in groups_by(records, SETTING).items():
        named = dict(zip(SETTING, setting, strict=True))
        rows += [named | asdict(compare_methods(part, *pair, split, draws)) for pair in pairs]
    table = pandas.DataFrame(rows)
    return (table if table.model.nunique() > 1 else table.drop(columns="model")).assign(p_holm=holm(table.p_value))


def paired_confusions(records: Sequence[dict], method: str, against: str, split: str) -> tuple:
    """Return both methods' confusions (seeds, clusters, true, predicted), and cluster count. InputError if unpaired."""
    ordered = sorted(records, key=lambda record: PAIRED(record["run"]["config"]))
    runs = [[run for run in ordered if run["run"]["config"]["method"] == name] for name in (method, against)]
    folds = [[PAIRED(run["run"]["config"]) for run in part] for part in runs]
    if not runs[0] or folds[0] != folds[1]:
        raise InputError(f"{method} and {against} do not have the same folds and seeds; run what is missing")
    if len(set(folds[0])) < len(folds[0]):  # such as a run with LoRA and a run with DoRA
        raise InputError(f"{method} has several runs of one fold and seed; keep one")
    if any(split not in record["predictions"] for part in runs for record in part):
        raise InputError(f"a run has no predictions for the {split} split; train it with score_test")
    groups = sorted({row["group"] for record in runs[0] for row in record["predictions"][split]})
    if len(groups) < 2:
        raise InputError(f"the {split} split has {len(groups)} writer or paper; an interval needs two or more")
    cluster, code = ({name: i for i, name in enumerate(names)} for names in (groups, runs[0][0]["run"]["labels"]))
    # the first seeds of all folds give one complete set of predictions, the second seeds another one, and so on
    seeds = [sum(fold == earlier for earlier, _ in folds[0][:i]) for i, (fold, _) in enumerate(folds[0])]
    counts = np.zeros((2, max(seeds) + 1, len(groups), len(code), len(code)))
    for of_method, part in zip(counts, runs, strict=True):
        for seed, record in zip(seeds, part, strict=True):
            for row in record["predictions"][split]:
                of_method[seed, cluster[row["group"]], code[row["intention"]], code[row["predicted"]]] += 1
    return *counts, len(groups)


def f1_of_seeds(confusions: np.ndarray, weights: np.ndarray, classes: int | None = None) -> np.ndarray:
    """Return the macro F1 of each draw and seed, from counts (seeds, clusters, K, K) and weights (draws, clusters).

    The mean is over the first `classes`, by default over all K.
    """
    pooled = np.tensordot(weights, confusions, (1, 1))
    right, true, predicted = pooled.diagonal(axis1=2, axis2=3), pooled.sum(3), pooled.sum(2)
    seen = true + predicted > 0  # a class that a draw neither has nor predicts is left out of its mean
    f1 = np.divide(2 * right, true + predicted, out=np.zeros_like(right, dtype=float), where=seen)
    return f1[..., :classes].sum(2) / seen[..., :classes].sum(2)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number by Holm's method: 0.01, 0.04, 0.03 become 0.03, 0.06, 0.06."""
    ascending = pandas.Series(list(p_values), dtype=float).sort_values(kind="stable")
    return (ascending * np.arange(len(ascending), 0, -1)).clip(upper=1).cummax().sort_index().tolist()
