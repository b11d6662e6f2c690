"""Paired differences between methods with their intervals, and what they say about a claim. Records in, frames out."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from irtuning.errors import InputError
from irtuning.tables import losses_table, runs_table

if TYPE_CHECKING:
    import pandas

LEVEL = 0.95


def paired_differences(
    records: Sequence[dict], method: str = "ir", metric: str = "macro_f1", split: str = "validation"
) -> "pandas.DataFrame":
    """`method` minus every other method on the same corpus, model, fold and seed: mean and 95 % t interval.

    The units are folds where a corpus has several (seeds are averaged first: runs of one fold share their texts), else
    seeds. Columns: corpus, model, against, difference, low, high, units; with one unit the interval is not known (NaN).
    """
    import pandas

    table, rows = runs_table(records, split), []
    for (corpus, model), part in table.groupby(["corpus", "model"], sort=False):
        unit = "fold" if part.fold.nunique() > 1 else "seed"
        scores = part.pivot_table(index=unit, columns="method", values=metric, aggfunc="mean")
        for other in [name for name in part.method.unique() if name != method and method in scores]:
            apart = (scores[method] - scores[other]).dropna()
            mean, half = apart.mean(), half_width(apart)
            row = {"corpus": corpus, "model": model, "against": other, "difference": mean}
            rows.append(row | {"low": mean - half, "high": mean + half, "units": f"{len(apart)} {unit}s"})
    return pandas.DataFrame(rows, columns=["corpus", "model", "against", "difference", "low", "high", "units"])


def half_width(values: "pandas.Series") -> float:
    """Half the width of the 95 % t interval of a mean; NaN for fewer than two values."""
    from scipy import stats

    if len(values) < 2:
        return float("nan")
    return float(stats.sem(values) * stats.t.ppf((1 + LEVEL) / 2, len(values) - 1))


def verdict(differences: "pandas.DataFrame") -> str:
    """What paired differences on real corpora say of the claim that they are above zero.

    `consistent` when the interval is above zero on every corpus, `inconsistent` when it is below zero on any,
    else `inconclusive`.
    """
    if len(differences) and (differences.low > 0).all():
        return "consistent"
    return "inconsistent" if (differences.high < 0).any() else "inconclusive"


def claim_verdicts(records: Sequence[dict], method: str = "ir") -> "pandas.DataFrame":
    """The verdict on "`method` scores higher" against every other method, on macro F1 and AUPRC, per model.

    Raises:
        InputError: records of a synthetic corpus, which can say nothing about a claim.
    """
    import pandas

    if any(record["run"]["synthetic_corpus"] for record in records):
        raise InputError("a verdict needs real corpora, and these records are of the synthetic one")
    sizes = {r["run"]["config"]["model"]: r["run"]["parameters"] / 1e6 for r in records}
    rows = []
    for metric in ("macro_f1", "auprc"):
        table = paired_differences(records, method, metric)
        for (model, against), found in table.groupby(["model", "against"], sort=False):
            intervals = [f"{r.corpus} {r.difference:+.3f} [{r.low:+.3f}, {r.high:+.3f}]" for r in found.itertuples()]
            said = f"on {model} ({sizes[model]:.1f} M parameters), {' and '.join(found.corpus)}: {verdict(found)}"
            rows.append({"against": against, "metric": metric, "differences": "; ".join(intervals), "verdict": said})
    return pandas.DataFrame(rows)


def steps_to_loss(records: Sequence[dict], smooth: int = 10) -> "pandas.DataFrame":
    """Steps and seconds until the running mean of the training loss reaches Full PEFT's last one, mean over runs.

    One row per method; `reached` is the share of runs that get there at all, and means are over those.
    """
    import pandas

    losses, rows = losses_table(records), []
    place = ["corpus", "model", "fold", "seed"]
    losses["loss"] = losses.groupby([*place, "method"]).loss.transform(lambda s: s.rolling(smooth).mean())
    final = losses[losses.method == "full"].groupby(place).loss.last()
    for (method, *where), run in losses.groupby(["method", *place], sort=False):
        if tuple(where) in final.index:
            hit = run[run.loss <= final[tuple(where)]]
            first = hit.iloc[0] if len(hit) else {"step": float("nan"), "seconds": float("nan")}
            rows.append(
                {"method": method, "reached": len(hit) > 0, "steps": first["step"], "seconds": first["seconds"]}
            )
    return pandas.DataFrame(rows).groupby("method", sort=False).mean()


def best_rates(records: Sequence[dict]) -> "pandas.DataFrame":
    """Validation macro F1 of each method at each learning rate, mean over corpora, and the `best` rate (the lower of equals)."""
    table = runs_table(records).assign(rate=[record["run"]["config"]["learning_rate"] for record in records])
    scores = table.pivot_table(index="method", columns="rate", values="macro_f1", aggfunc="mean", sort=False).sort_index(axis=1)
    return scores.assign(best=scores.idxmax(axis=1), runs=table.groupby("method").size())


def data_curve(records: Sequence[dict]) -> "pandas.DataFrame":
    """Macro F1 against the size of the training split: a row per run with method, train_examples, macro_f1."""
    import pandas

    rows = []
    for record in records:
        config = record["run"]["config"]
        row = {"corpus": config["corpus"], "method": config["method"], "fold": config["fold"], "seed": config["seed"]}
        row |= {"train_examples": record["run"]["split_sizes"]["train"]}
        rows.append(row | {"macro_f1": record["scores"]["validation"]["macro_f1"]})
    return pandas.DataFrame(rows)


def class_scores(records: Sequence[dict], split: str = "validation") -> "pandas.DataFrame":
    """F1 of each class, mean over runs: one row per method, one column per class. Records of one corpus."""
    import pandas

    rows = [
        {"method": run["method"]} | {name: c["f1"] for name, c in record["scores"][split]["per_class"].items()}
        for record, run in zip(records, runs_table(records, split).to_dict("records"), strict=True)
    ]
    return pandas.DataFrame(rows).groupby("method", sort=False).mean()


def step_cost(records: Sequence[dict]) -> "pandas.DataFrame":
    """What a step keeps, per method, mean over runs: bytes from the shapes that were recorded, seconds as measured.

    `gradient_bytes` are of the layers that learn at a step, `optimizer_bytes` Adam's two moments of every layer that
    ever learned, both in float32 and without the head; `differentiated_layers` are those at or above the lowest that
    learns: what activations are kept for. `peak_memory_bytes` is measured where the run was on a GPU.
    """
    import pandas

    rows = []
    for record in records:
        run, steps, meta = record["run"], record["train"]["steps"], record["meta"]
        size = dict(zip(run["candidate_layers"], run["layer_parameters"], strict=True))
        ever = {layer for step in steps for layer in step["layers"]}
        rows.append({
            "method": runs_table([record]).method[0],
            "gradient_bytes": 4 * sum(size[i] for s in steps for i in s["layers"]) / len(steps),
            "optimizer_bytes": 8 * sum(size[i] for i in ever),
            "differentiated_layers": sum(run["depth"] - min(s["layers"]) for s in steps) / len(steps),
            "milliseconds_per_step": 1000 * float(pandas.Series(meta["step_seconds"]).median()),
            "peak_memory_bytes": meta["peak_memory_bytes"] if meta["peak_memory_kind"].startswith("GPU") else None,
        })  # fmt: skip
    return pandas.DataFrame(rows).groupby("method", sort=False).mean()
