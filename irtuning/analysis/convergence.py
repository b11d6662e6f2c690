"""Paired differences between methods, convergence, rates, sizes, costs. Records in, frames out."""

from collections.abc import Sequence

import pandas

from irtuning.analysis.tables import label, losses_table, runs_table, validation_table

LEVEL = 0.95


def paired_differences(
    records: Sequence[dict], method: str = "ir", metric: str = "macro_f1", split: str = "validation"
) -> pandas.DataFrame:
    """`method` minus every other method on the same corpus, model, fold and seed: mean and 95 % t interval.

    The units are folds where a corpus has several (seeds are averaged first: runs of one fold share their texts), else
    seeds. Columns: corpus, model, against, difference, low, high, units; with one unit the interval is not known (NaN).
    """
    table, rows = runs_table(records, split), []
    for (corpus, model), part in table.groupby(["corpus", "model"], sort=False):
        unit = "fold" if part.fold.nunique() > 1 else "seed"
        scores = part.pivot_table(index=unit, columns="method", values=metric, aggfunc="mean")
        for other in [name for name in part.method.unique() if name != method and method in scores]:
            apart = (scores[method] - scores[other]).dropna()
            row = {"corpus": corpus, "model": model, "against": other} | interval(apart)
            rows.append(row | {"units": f"{len(apart)} {unit}s"})
    return pandas.DataFrame(rows, columns=["corpus", "model", "against", "difference", "low", "high", "units"])


def interval(values: pandas.Series) -> dict[str, float]:
    """A mean difference and the ends of its 95 % t interval."""
    mean, half = values.mean(), half_width(values)
    return {"difference": mean, "low": mean - half, "high": mean + half}


def half_width(values: pandas.Series) -> float:
    """Half the width of the 95 % t interval of a mean; NaN for fewer than two values."""
    from scipy import stats

    if len(values) < 2:
        return float("nan")
    return float(stats.sem(values) * stats.t.ppf((1 + LEVEL) / 2, len(values) - 1))


def reaching(records: Sequence[dict], loss: str = "training", smooth: int = 10) -> pandas.DataFrame:
    """When each run's loss is first at or below the one Full PEFT ends with on the same fold and seed.

    One row per run: its keys, reached, steps and seconds (NaN where it never is), all_steps, all_seconds. `loss` is
    `training`, its running mean over `smooth` steps, or `validation`, at the evaluations.
    """
    losses, place, rows = losses_table(records), ["corpus", "model", "fold", "seed"], []
    if loss == "training":
        losses["loss"] = losses.groupby([*place, "method"]).loss.transform(lambda s: s.rolling(smooth).mean())
    else:
        keys = [*place, "method", "step"]
        losses = validation_table(records)[[*keys, "loss"]].merge(losses[[*keys, "seconds"]], on=keys)
    final = losses[losses.method == "full"].groupby(place).loss.last()
    for (method, *where), run in losses.groupby(["method", *place], sort=False):
        if tuple(where) in final.index:
            hit, last = run[run.loss <= final[tuple(where)]], run.iloc[-1]
            first = hit.iloc[0] if len(hit) else {"step": float("nan"), "seconds": float("nan")}
            rows.append(
                dict(zip(place, where, strict=True))
                | {"method": method, "reached": len(hit) > 0, "steps": first["step"], "seconds": first["seconds"]}
                | {"all_steps": last["step"], "all_seconds": last["seconds"]}
            )
    return pandas.DataFrame(rows)


def steps_to_loss(records: Sequence[dict], smooth: int = 10) -> pandas.DataFrame:
    """Steps and seconds until the running mean of the training loss reaches Full PEFT's last one, mean over runs.

    One row per method; `reached` is the share of runs that get there at all, and means are over those.
    """
    table = reaching(records, smooth=smooth)
    return table.groupby("method", sort=False)[["reached", "steps", "seconds"]].mean()


def best_rates(records: Sequence[dict]) -> pandas.DataFrame:
    """Validation macro F1 of each method at each learning rate, mean over corpora, and the `best` rate (the lower of equals)."""
    table = runs_table(records).assign(rate=[record["run"]["config"]["learning_rate"] for record in records])
    scores = table.pivot_table(index="method", columns="rate", values="macro_f1", aggfunc="mean", sort=False).sort_index(axis=1)
    best = scores.idxmax(axis=1).map("{:g}".format)  # as text: a table's rounding would leave nothing of it
    return scores.assign(best=best, runs=table.groupby("method").size())


def data_curve(records: Sequence[dict], split: str = "validation") -> pandas.DataFrame:
    """Macro F1 against the size of the training split: a row per run with method, macro_f1, train_examples.

    Folds differ a little in size: train_examples is their mean at a share.
    """
    runs = [record["run"] for record in records]
    table = runs_table(records, split).assign(
        method=[run["config"]["method"] for run in runs],
        share=[run["config"]["train_share"] for run in runs],
        train_examples=[run["split_sizes"]["train"] for run in runs],
    )
    return table.assign(train_examples=table.groupby(["corpus", "share"]).train_examples.transform("mean").round().astype(int))


def class_scores(records: Sequence[dict], split: str = "validation") -> pandas.DataFrame:
    """F1 of each class, mean over runs: one row per method, one column per class. Records of one corpus."""
    rows = [
        {"method": label(record["run"]["config"])} | {k: c["f1"] for k, c in record["scores"][split]["per_class"].items()}
        for record in records
    ]
    return pandas.DataFrame(rows).groupby("method", sort=False).mean()


def step_cost(records: Sequence[dict]) -> pandas.DataFrame:
    """What a step keeps, per method, mean over runs: bytes from the shapes that were recorded, seconds as measured.

    `gradient_bytes` are of the layers that learn at a step, `optimizer_bytes` Adam's two moments of every layer that
    ever learned, both in float32 and without the head; `differentiated_layers` are those at or above the lowest that
    learns: what activations are kept for. `peak_memory_bytes` is measured where the run was on a GPU.
    """
    rows = []
    for record in records:
        run, steps, meta = record["run"], record["train"]["steps"], record["meta"]
        size = dict(zip(run["candidate_layers"], run["layer_parameters"], strict=True))
        ever = {layer for step in steps for layer in step["layers"]}
        rows.append({
            "method": label(run["config"]),
            "gradient_bytes": 4 * sum(size[i] for s in steps for i in s["layers"]) / len(steps),
            "optimizer_bytes": 8 * sum(size[i] for i in ever),
            "differentiated_layers": sum(run["depth"] - min(s["layers"]) for s in steps) / len(steps),
            "milliseconds_per_step": 1000 * float(pandas.Series(meta["step_seconds"]).median()),
            "peak_memory_bytes": meta["peak_memory_bytes"] if meta["peak_memory_kind"].startswith("GPU") else None,
        })  # fmt: skip
    return pandas.DataFrame(rows).groupby("method", sort=False).mean()
