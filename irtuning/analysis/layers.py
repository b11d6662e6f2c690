"""Tables of layers made from records: their scores, and whether the choice among them still changes."""

from collections.abc import Sequence

import pandas

from irtuning.analysis.tables import candidates, chosen, run_keys
from irtuning.errors import InputError


def has_scores(record: dict) -> bool:
    """Return whether the run's method gives scores to layers, as IR-Tuning and its variants do."""
    return any(step["scores"] for step in record["train"]["steps"])


def score_matrix(record: dict) -> pandas.DataFrame:
    """Return the scores before each choice: a row per layer or block, a column per step, NaN if not measured yet.

    InputError is raised if the method of the run keeps no scores.
    """
    if not has_scores(record):
        method = record["run"]["config"]["method"].split(":")[0]
        raise InputError(f"method {method!r} keeps no scores of layers; take a run of ir or one of its variants")
    columns = {step["step"]: step["scores"] for step in record["train"]["steps"]}
    table = pandas.DataFrame(columns, index=candidates(record["run"]), dtype=float)
    return table.rename_axis(index="layer", columns="step")


def late_shares(record: dict) -> pandas.Series:
    """Return the share of the steps after the first quarter at which each layer, or block, of a run learned."""
    steps = record["train"]["steps"]
    late = [set(chosen(step)) for step in steps[len(steps) // 4 :]]
    return pandas.Series({unit: sum(unit in units for units in late) / len(late) for unit in candidates(record["run"])})


def choice_over_time(records: Sequence[dict]) -> pandas.DataFrame:
    """Return for each corpus and method what its runs choose after the first quarter of their steps.

    `steady` and `frozen` are mean numbers of layers (or blocks) that learn at over 90 % and under 10 % of these steps.
    `changes` is the median number of steps that change the set, and `one_set` the share of steps of the commonest set.
    """
    rows = []
    for record in records:
        steps, shares = record["train"]["steps"], late_shares(record)
        late = pandas.Series([tuple(chosen(step)) for step in steps[len(steps) // 4 :]])
        rows.append(run_keys(record["run"]["config"]) | {
            "layers": len(shares), "steady": (shares > 0.9).sum(), "frozen": (shares < 0.1).sum(), "runs": 1,
            "changes": int((late != late.shift()).sum() - 1), "one_set": late.value_counts(normalize=True).iloc[0],
        })  # fmt: skip
    how = dict.fromkeys(("layers", "steady", "frozen", "one_set"), "mean") | {"changes": "median", "runs": "sum"}
    return pandas.DataFrame(rows).groupby(["corpus", "method"], sort=False).agg(how)
