"""Tables of layers from records: their scores, how runs rank them, and which were never chosen again."""

from collections.abc import Sequence
from itertools import pairwise

import pandas

from irtuning.errors import InputError
from irtuning.method.registry import facts
from irtuning.analysis.tables import KEYS, layer_frequency, run_keys

SETTLED = 3  # steps after which IR-Tuning has measured (nearly) every layer


def has_scores(record: dict) -> bool:
    """Whether the run's method keeps scores of layers (IR-Tuning and its variants)."""
    return any(step["scores"] for step in record["train"]["steps"])


def score_matrix(record: dict) -> pandas.DataFrame:
    """The scores each choice was made from: one row per candidate layer, one column per step, NaN: not measured yet.

    Raises:
        InputError: the run's method keeps no scores.
    """
    if not has_scores(record):
        raise InputError(f"method {_method(record)!r} keeps no scores of layers; take a run of ir or one of its variants")
    layers = pandas.Index(record["run"]["candidate_layers"], name="layer")
    columns = {step["step"]: step["scores"] for step in record["train"]["steps"]}
    return pandas.DataFrame(columns, index=layers, dtype=float).rename_axis(columns="step")


def score_spread(record: dict) -> pandas.DataFrame:
    """How the scores lie at each step, one row per step: min, q25, median, q75, max over the measured layers.

    `cut` is the lowest measured score that was kept (the highest where the low ones learn), `learn` and `measured`
    the numbers of layers that learn and that have a score.

    Raises:
        InputError: the run's method keeps no scores.
    """
    scores = score_matrix(record)
    table = scores.quantile([0, 0.25, 0.5, 0.75, 1]).T.set_axis(["min", "q25", "median", "q75", "max"], axis=1)
    edge = "max" if _facts(record)["keep"] == "low" else "min"
    steps = record["train"]["steps"]
    table["cut"] = [scores.loc[step["layers"], step["step"]].agg(edge) for step in steps]
    table["learn"] = [len(step["layers"]) for step in steps]
    table["measured"] = scores.notna().sum()
    return table


def rank_agreement(records: Sequence[dict], by: Sequence[str] = ("method", "seed")) -> pandas.DataFrame:
    """Spearman correlation between runs of their layers' scores, mean over the steps: a square matrix.

    Runs alike in `by` (names of `tables.KEYS`) share a row, whose value is the mean over pairs of different runs of
    one corpus and model; on the diagonal among its own runs, 1 where there is one. Methods without scores are left
    out. A negative value is what gradient and cosine should show: there a *low* similarity marks an important layer.
    """
    scored, pairs = [record for record in records if has_scores(record)], []
    for runs in _groups(scored, ("corpus", "model")):
        means = pandas.DataFrame({i: score_matrix(run).mean(axis=1) for i, run in enumerate(runs)})
        matrix, names = means.corr(method="spearman").to_numpy(), [_name(run, by) for run in runs]
        pairs += [(a, b, matrix[i, j]) for i, a in enumerate(names) for j, b in enumerate(names) if i != j]
    names = pandas.Index(dict.fromkeys(_name(record, by) for record in scored), name=", ".join(by))
    long = pandas.DataFrame(pairs, columns=["one", "other", "rho"]).astype({"rho": float})
    table = long.pivot_table(index="one", columns="other", values="rho").reindex(index=names, columns=names.rename(None))
    for name in names[[_alone(name, scored, by) for name in names]]:
        table.loc[name, name] = 1.0
    return table


def stability(records: Sequence[dict]) -> pandas.DataFrame:
    """How alike the choices of a method are, one row per method.

    `seed_spearman`: mean Spearman correlation, over pairs of seeds of one corpus, model and fold, of how often each
    layer learned; NaN with one seed, or where all layers learned alike (Full PEFT). `step_jaccard`: mean over steps
    of |A and B| / |A or B| for the sets A, B chosen at a step and at the next; 1 where nothing changes.
    """
    import numpy
    rows = []
    for runs in _groups(records, ("corpus", "model", "fold", "method")):
        shares = pandas.concat([layer_frequency([run])[run["run"]["candidate_layers"]] for run in runs])
        matrix = shares.reset_index(drop=True).T.corr(method="spearman").to_numpy()
        between = pandas.Series(matrix[numpy.triu_indices(len(runs), 1)], dtype=float)
        rows += [{"method": _name(runs[0], ("method",)), "runs": 1, "step_jaccard": _jaccard(run)} for run in runs]
        rows += [{"method": rows[-1]["method"], "runs": 0, "seed_spearman": rho} for rho in between]
    grouped = pandas.DataFrame(rows, columns=["method", "runs", "seed_spearman", "step_jaccard"]).groupby("method", sort=False)
    return grouped.agg({"runs": "sum", "seed_spearman": "mean", "step_jaccard": "mean"})


def lock_in(records: Sequence[dict], by: Sequence[str] = KEYS) -> pandas.DataFrame:
    """Which layers a run has given up or holds on to: one row per run, or means over runs alike in `by`.

    Numbers of candidate layers, for every method: `never_after_3` and `never_after_third` were never chosen after step
    3 and after the first third of the steps, `always` at every step, `always_after_3` at every step after step 3
    (the first three explore); NaN for shorter runs. `score_age`: mean number of steps, over layers and steps, since a
    layer was last measured (1: at the step before); for gradient scores only, where a layer is measured when it learns.
    """
    rows = []
    for record in records:
        steps, layers = record["train"]["steps"], set(record["run"]["candidate_layers"])
        chosen = [set(step["layers"]) for step in steps]
        late, last = chosen[SETTLED:], chosen[len(chosen) // 3 :]
        counts = {
            "layers": len(layers),
            "never_after_3": len(layers.difference(*late)) if late else None,
            "never_after_third": len(layers.difference(*last)),
            "always": len(layers.intersection(*chosen)),
            "always_after_3": len(layers.intersection(*late)) if late else None,
            "score_age": _score_age(steps) if _facts(record)["importance"] == "gradient" else None,
        }
        rows.append(run_keys(record["run"]["config"]) | {name: float("nan") if n is None else n for name, n in counts.items()})
    return pandas.DataFrame(rows, columns=[*KEYS, *counts]).groupby(list(by), sort=False)[list(counts)].mean()


def _score_age(steps: Sequence[dict]) -> float | None:
    """Mean age of the known scores when a choice was made from them; a skipped step measures nothing."""
    measured, ages = {}, []
    for step in steps:
        ages += [step["step"] - when for when in measured.values()]
        if not step["skipped"]:
            measured |= dict.fromkeys(step["layers"], step["step"])
    return sum(ages) / len(ages) if ages else None


def _jaccard(record: dict) -> float:
    sets = [set(step["layers"]) for step in record["train"]["steps"]]
    shares = [len(a & b) / len(a | b) for a, b in pairwise(sets)]
    return sum(shares) / len(shares) if shares else float("nan")


def _groups(records: Sequence[dict], by: Sequence[str]) -> list[list[dict]]:
    """Records alike in `by`, in their order."""
    groups = {}
    for record in records:
        groups.setdefault(_name(record, by), []).append(record)
    return list(groups.values())


def _alone(name: str, records: Sequence[dict], by: Sequence[str]) -> bool:
    return sum(_name(record, by) == name for record in records) == 1


def _name(record: dict, by: Sequence[str]) -> str:
    keys = run_keys(record["run"]["config"])
    return ", ".join(str(keys[key]) if key in ("method", "corpus", "model") else f"{key} {keys[key]}" for key in by)


def _method(record: dict) -> str:
    return record["run"]["config"]["method"].split(":")[0]


def _facts(record: dict) -> dict:
    return facts(record["run"]["config"]["method"], record["run"].get("strategy"))
