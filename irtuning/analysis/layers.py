"""Tables of layers made from records: their scores, how far runs agree on them, and which ones stopped learning."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas

from irtuning.analysis.tables import groups_by, layer_frequency, mean_by_method, run_title
from irtuning.errors import InputError
from irtuning.method.registry import facts


def has_scores(record: dict) -> bool:
    """Return whether the run's method gives scores to layers, as IR-Tuning and its variants do."""
    return any(step["scores"] for step in record["train"]["steps"])


def score_matrix(record: dict) -> pandas.DataFrame:
    """Return the scores before each choice: a row per candidate layer, a column per step, NaN if not measured yet.

    InputError is raised if the method of the run keeps no scores.
    """
    if not has_scores(record):
        method = record["run"]["config"]["method"].split(":")[0]
        raise InputError(f"method {method!r} keeps no scores of layers; take a run of ir or one of its variants")
    columns = {step["step"]: step["scores"] for step in record["train"]["steps"]}
    table = pandas.DataFrame(columns, index=record["run"]["candidate_layers"], dtype=float)
    return table.rename_axis(index="layer", columns="step")


def rank_agreement(records: Sequence[dict]) -> pandas.DataFrame:
    """Return a square matrix of how far methods agree on the order of layers: Spearman correlations of mean scores.

    A number is the mean over pairs of different runs of one corpus and model, or 1 for a method with a single run.
    Cosine and gradient agree where it is negative, as low cosines matter.
    """
    scored, pairs = [record for record in records if has_scores(record)], []
    for runs in groups_by(scored, ["corpus", "model"]).values():
        means = pandas.DataFrame({i: score_matrix(run).mean(axis=1) for i, run in enumerate(runs)})
        matrix, names = means.corr(method="spearman").to_numpy(), [run_title(run["run"]["config"]) for run in runs]
        pairs += [(a, b, matrix[i, j]) for i, a in enumerate(names) for j, b in enumerate(names) if i != j]
    names = [run_title(record["run"]["config"]) for record in scored]
    pairs += [(name, name, 1.0) for name in names if names.count(name) == 1]
    table = pandas.DataFrame(pairs, columns=["method", "other", "rho"])
    table = table.pivot_table("rho", "method", "other", sort=False).rename_axis(columns=None)
    return table.loc[(order := list(dict.fromkeys(names))), order]


def stability(records: Sequence[dict]) -> pandas.DataFrame:
    """Return how similar the choices of each method are, between seeds and from step to step.

    `seed_spearman` is the correlation of how often each layer learned, mean over pairs of seeds of one fold (NaN if
    there is none). `step_jaccard` is the mean of |A and B| / |A or B| for the sets chosen at two consecutive steps.
    """
    rows = []
    for (*_, method), runs in groups_by(records, ["corpus", "model", "fold", "method"]).items():
        shares = pandas.concat([layer_frequency([run])[run["run"]["candidate_layers"]] for run in runs])
        matrix = shares.reset_index(drop=True).T.corr(method="spearman").to_numpy()
        for run in runs:
            steps = pairwise(set(step["layers"]) for step in run["train"]["steps"])
            alike = [len(one & other) / len(one | other) for one, other in steps]
            numbers = {"runs": 1, "seed_spearman": np.nan, "step_jaccard": sum(alike) / (len(alike) or np.nan)}
            rows.append({"method": method} | numbers)
        rows += [{"method": method, "runs": 0, "seed_spearman": rho} for rho in matrix[np.triu_indices(len(runs), 1)]]
    means = {"runs": "sum", "seed_spearman": "mean", "step_jaccard": "mean"}
    return pandas.DataFrame(rows).groupby("method", sort=False).agg(means)


def lock_in(records: Sequence[dict]) -> pandas.DataFrame:
    """Return how many layers the runs of each method no longer chose or always chose, as means over runs.

    `never_after_3` and `never_after_third` count the layers that are never chosen after step 3 or after a third of the
    steps. `always` and `always_after_3` count those chosen at every step, or at every step after 3. `score_age` is the
    mean age of gradient scores in steps (1: measured at the step before). Only layers that learn are measured.
    """
    rows = []
    for record in records:
        run, steps, layers = record["run"], record["train"]["steps"], set(record["run"]["candidate_layers"])
        chosen = [set(step["layers"]) for step in steps]
        late, last, measured, ages = chosen[3:], chosen[len(chosen) // 3 :], {}, []
        for step in steps if facts(run["config"]["method"], run.get("strategy"))["importance"] == "gradient" else []:
            ages += [step["step"] - when for when in measured.values()]
            if not step["skipped"]:  # a skipped step measures nothing
                measured |= dict.fromkeys(step["layers"], step["step"])
        rows.append({
            "layers": len(layers), "never_after_3": len(layers.difference(*late)) if late else np.nan,
            "never_after_third": len(layers.difference(*last)), "always": len(layers.intersection(*chosen)),
            "always_after_3": len(layers.intersection(*late)) if late else np.nan,
            "score_age": sum(ages) / (len(ages) or np.nan),
        })  # fmt: skip
    return mean_by_method(records, rows)
