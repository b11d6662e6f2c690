"""Tables from records: one row per run, one per method, and the line that says where numbers come from."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from irtuning.errors import InputError

if TYPE_CHECKING:
    import pandas

METRICS = ("macro_f1", "macro_precision", "macro_recall", "auprc", "accuracy")


def runs_table(records: Sequence[dict], split: str = "validation") -> "pandas.DataFrame":
    """One row per run: method, fold, seed, scores on `split`, mean share of layers, seconds of training."""
    import pandas

    return pandas.DataFrame([_row(record, split) for record in records])


def summary_table(
    records: Sequence[dict], floors: Sequence[dict] = (), split: str = "validation"
) -> "pandas.DataFrame":
    """One row per method, floors first: mean and sample standard deviation of the scores over its runs.

    Raises:
        InputError: nothing to summarise, or runs that differ in more than method, budget, fold and seed.
    """
    import pandas

    _check_comparable(records)
    rows = [{"method": f"{f['name']} floor", **{m: f[m] for m in ("macro_f1", "accuracy")}} for f in floors]
    table = pandas.DataFrame(rows + runs_table(records, split).to_dict("records"))
    grouped = table.groupby("method", sort=False)
    summary = pandas.DataFrame({"runs": grouped.size()})
    for name in METRICS:
        summary[name] = grouped[name].mean()
        if name in ("macro_f1", "auprc"):
            summary[f"{name}_sd"] = grouped[name].std(ddof=1)
    for name in ("layer_share", "lowest_layer", "train_seconds"):
        summary[name] = grouped[name].mean()
    return summary


def scores_table(record: dict, split: str = "validation") -> "pandas.DataFrame":
    """Precision, recall, F1, average precision and support of each class."""
    import pandas

    return pandas.DataFrame(record["scores"][split]["per_class"]).T.rename_axis("intention")


def layer_frequency(records: Sequence[dict]) -> "pandas.DataFrame":
    """Share of steps in which each layer learned: one row per method, one column per layer, mean over runs."""
    import pandas

    rows = []
    for record in records:
        steps = record["train"]["steps"]
        layers = [layer for step in steps for layer in step["layers"]]
        share = {layer: layers.count(layer) / len(steps) for layer in range(record["run"]["depth"])}
        rows.append({"method": record["run"]["config"]["method"]} | share)
    return pandas.DataFrame(rows).groupby("method", sort=False).mean()


def losses_table(records: Sequence[dict]) -> "pandas.DataFrame":
    """Training loss of every step of every run, long form: method, fold, seed, step, loss, seconds so far."""
    import pandas

    rows = []
    for record in records:
        config, seconds = record["run"]["config"], 0.0
        for step, took in zip(record["train"]["steps"], record["meta"]["step_seconds"], strict=True):
            seconds += took
            row = {name: config[name] for name in ("method", "fold", "seed")}
            rows.append(row | {"step": step["step"], "loss": step["loss"], "seconds": seconds})
    return pandas.DataFrame(rows)


def validation_table(records: Sequence[dict]) -> "pandas.DataFrame":
    """Validation scores at every evaluation of every run, long form."""
    import pandas

    keys = ("method", "fold", "seed")
    rows = [
        {name: record["run"]["config"][name] for name in keys} | point
        for record in records
        for point in record["train"]["validation"]
    ]
    return pandas.DataFrame(rows)


def stamp(records: Sequence[dict], profile: str) -> str:
    """The line every figure and table carries: profile, corpus, model, seeds, steps, device."""
    runs, configs = [r["run"] for r in records], [r["run"]["config"] for r in records]
    corpus = "SYNTHETIC corpus" if runs[0]["synthetic_corpus"] else f"{configs[0]['corpus']} (real)"
    weights = "random weights, " if runs[0]["random_weights"] else ""
    sizes = sorted({run["parameters"] for run in runs})
    model = f"{configs[0]['model']} ({weights}{sizes[0] / 1e6:.1f} M parameters)"
    parts = {
        "seeds": sorted({c["seed"] for c in configs}),
        "folds": sorted({c["fold"] for c in configs}),
        "steps": sorted({c["max_steps"] for c in configs}),
    }
    listed = [f"{name} {', '.join(map(str, values))}" for name, values in parts.items()]
    devices = sorted({r["meta"]["device"] for r in records})
    return " · ".join([profile, corpus, model, *listed, ", ".join(devices)])


def markdown(table: "pandas.DataFrame") -> str:
    """A table in Markdown, its index first, an unknown number blank."""
    flat = table.reset_index()
    rows = [list(map(str, flat.columns)), ["---"] * len(flat.columns)]
    rows += [["" if value != value else str(value) for value in row] for row in flat.to_numpy(dtype=object)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def mean_share(record: dict) -> float:
    """Mean share of the model's layers that learned at a step."""
    steps = record["train"]["steps"]
    return sum(len(step["layers"]) for step in steps) / (len(steps) * record["run"]["depth"])


def _row(record: dict, split: str) -> dict:
    if split not in record["scores"]:
        raise InputError(f"a run has no scores on {split!r}; train it with --score-test")
    config, scores, steps = record["run"]["config"], record["scores"][split], record["train"]["steps"]
    return {
        **{name: config[name] for name in ("method", "fold", "seed")},
        **{name: scores[name] for name in METRICS},
        "layer_share": mean_share(record),
        "lowest_layer": sum(min(step["layers"]) for step in steps) / len(steps),
        "train_seconds": sum(record["meta"]["step_seconds"]),
    }


def _check_comparable(records: Sequence[dict]) -> None:
    if not records:
        raise InputError("no records to summarise")
    free = {"method", "share", "counts", "fold", "seed", "learning_rate"}  # the last: full parameters have their own
    first = {k: v for k, v in records[0]["run"]["config"].items() if k not in free}
    for record in records[1:]:
        other = {k: v for k, v in record["run"]["config"].items() if k not in free}
        if other != first:
            names = sorted(k for k in first if other.get(k) != first[k])
            raise InputError(f"runs differ in {', '.join(names)}, so a mean over them says nothing; choose a subset")
