"""Agreement of annotators: kappa over all intentions and of each, with intervals."""

from collections.abc import Sequence

import numpy as np
import pandas

from irtuning.analysis.ceiling import DRAWS, ENDS
from irtuning.analysis.statistics import FEWEST
from irtuning.errors import InputError, unknown


def agreement(answers: pandas.DataFrame, labels: Sequence[str], draws: int = DRAWS) -> pandas.DataFrame:
    """Return agreement, Cohen's and Fleiss' kappa over all labels and of each label against the others.

    `answers` has a row per answer with `id`, `annotator` and `label`. Only items that all annotators labelled count.
    Cohen's kappa is the mean over pairs of annotators. Kappa is NaN where chance alone explains full agreement. The
    intervals are percentiles of a bootstrap over groups (column `group`, such as documents), and NaN for fewer than
    five. An item without one is its own. InputError: answers cannot be compared. Sources: Cohen 1960, Fleiss 1971.
    """
    if strange := sorted(set(answers.label) - set(labels)):
        raise unknown("label of an annotator", strange[0], labels)
    if answers.duplicated(["id", "annotator"]).any():
        raise InputError("an annotator has two answers with one id; keep one of them, or make the ids unique")
    table, rows = answers.pivot(index="id", columns="annotator", values="label").dropna(), {}
    if table.shape[1] < 2 or table.empty:
        raise InputError(f"{table.shape[1]} annotator(s) have no item in common; agreement needs two on the same items")
    groups = answers.get("group", answers.id).replace("", None).fillna(answers.id).groupby(answers.id).first()
    members = list(pandas.RangeIndex(len(table)).groupby(groups[table.index].factorize()[0]).values())
    picks = np.random.default_rng(0).integers(len(members), size=(draws, len(members)))
    samples = [np.concatenate([members[group] for group in pick]) for pick in picks]
    for name in ("all", *labels):
        categories = [table == label for label in labels] if name == "all" else [table == name, table != name]
        given = np.stack(categories, axis=-1).astype(float)  # (items, annotators, categories)
        drawn = pandas.DataFrame([_measures(given[sample]) for sample in samples])
        low, high = drawn[: draws * (len(members) >= FEWEST)].quantile(ENDS).to_dict("records")  # without NaN draws
        rows[name] = {"items": len(table) if name == "all" else (table == name).any(axis=1).sum()}
        for key, value in _measures(given).items():
            rows[name] |= {key: value, f"{key}_low": low[key], f"{key}_high": high[key]}
    return pandas.DataFrame(rows.values(), index=pandas.Index(rows, name="intention"))


def _measures(given: np.ndarray) -> dict[str, float]:
    """Return the three measures of answers as ones and zeros, shape (items, annotators, categories)."""
    shares = given.mean(axis=0)  # of each annotator
    pairs = np.triu_indices(len(shares), 1)
    observed = (np.einsum("iac,ibc->ab", given, given) / len(given))[pairs]
    cohen, pooled = _kappa(observed, (shares @ shares.T)[pairs]), (shares.mean(axis=0) ** 2).sum()
    return {"agreement": observed.mean(), "cohen": cohen.mean(), "fleiss": float(_kappa(observed.mean(), pooled))}


def _kappa(observed: np.ndarray, chance: np.ndarray) -> np.ndarray:
    chance = np.where(chance < 1 - 1e-12, chance, np.nan)
    return (observed - chance) / (1 - chance)
