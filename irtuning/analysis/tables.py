"""Tables from records: one row per run, one per method, and the line that says where numbers come from."""

from collections.abc import Mapping, Sequence

import pandas

from irtuning.errors import InputError
from irtuning.method.registry import facts

METRICS = ("macro_f1", "macro_precision", "macro_recall", "auprc", "accuracy")
KEYS = ("corpus", "model", "method", "fold", "seed")
NAMED = {"adapter": "lora", "head": "learns", "train_share": 1.0}  # told in a run's label where it is something else


def runs_table(records: Sequence[dict], split: str = "validation") -> pandas.DataFrame:
    """One row per run: corpus, model, method (see `label`), fold, seed, scores, mean share of layers, seconds."""
    return pandas.DataFrame([_row(record, split) for record in records])


def summary_table(
    records: Sequence[dict], floors: Sequence[dict] = (), split: str = "validation"
) -> pandas.DataFrame:
    """One row per method, floors first: mean and sample standard deviation of the scores over its runs.

    Rows are told apart by corpus and model too, where there are several.

    Raises:
        InputError: nothing to summarise, or runs that differ in more than method, budget, fold and seed.
    """
    _check_comparable(records)
    table = runs_table(records, split)
    rows = [
        {"corpus": f["corpus"], "model": model, "method": f"{f['name']} floor"}
        | {m: f[m] for m in ("macro_f1", "accuracy")}
        for f in floors if f["split"] == split for model in table.model.unique()
    ]  # fmt: skip
    keys = [name for name in ("corpus", "model") if table[name].nunique() > 1]
    table = pandas.concat([pandas.DataFrame(rows), table]) if rows else table
    grouped = table.groupby([*keys, "method"], sort=False)
    summary = pandas.DataFrame({"runs": grouped.size()})
    for name in METRICS:
        summary[name] = grouped[name].mean()
        if name in ("macro_f1", "auprc"):
            summary[f"{name}_sd"] = grouped[name].std(ddof=1)
    for name in ("layer_share", "lowest_layer", "train_seconds"):
        summary[name] = grouped[name].mean()
    return summary


def scores_table(record: dict, split: str = "validation") -> pandas.DataFrame:
    """Precision, recall, F1, average precision and support of each class."""
    return pandas.DataFrame(record["scores"][split]["per_class"]).T.rename_axis("intention")


def layer_frequency(records: Sequence[dict]) -> pandas.DataFrame:
    """Share of steps in which each layer learned: one row per method, one column per layer, mean over runs."""
    rows = []
    for record in records:
        steps = record["train"]["steps"]
        layers = [layer for step in steps for layer in step["layers"]]
        share = {layer: layers.count(layer) / len(steps) for layer in range(record["run"]["depth"])}
        rows.append({"method": label(record["run"]["config"])} | share)
    return pandas.DataFrame(rows).groupby("method", sort=False).mean()


def losses_table(records: Sequence[dict]) -> pandas.DataFrame:
    """Training loss of every step of every run, long form: its keys, step, loss, seconds so far."""
    rows = []
    for record in records:
        config, seconds = record["run"]["config"], 0.0
        for step, took in zip(record["train"]["steps"], record["meta"]["step_seconds"], strict=True):
            seconds += took
            rows.append(run_keys(config) | {"step": step["step"], "loss": step["loss"], "seconds": seconds})
    return pandas.DataFrame(rows)


def validation_table(records: Sequence[dict]) -> pandas.DataFrame:
    """Validation scores at every evaluation of every run, long form."""
    rows = [run_keys(record["run"]["config"]) | point for record in records for point in record["train"]["validation"]]
    return pandas.DataFrame(rows)


def stamp(records: Sequence[dict], profile: str) -> str:
    """The line every figure and table carries: profile, corpus, model, seeds, steps, device."""
    runs, configs = [r["run"] for r in records], [r["run"]["config"] for r in records]
    kinds = {r["config"]["corpus"]: r["synthetic_corpus"] for r in runs}
    corpus = ", ".join("SYNTHETIC corpus" if synthetic else f"{name} (real)" for name, synthetic in kinds.items())
    model = models_of(records)
    parts = {
        "seeds": sorted({c["seed"] for c in configs}),
        "folds": sorted({c["fold"] for c in configs}),
        "steps": sorted({c["max_steps"] for c in configs}),
    }
    listed = [f"{name} {_listed(values)}" for name, values in parts.items()]
    devices = sorted({r["meta"]["device"] for r in records})
    return " · ".join([profile, corpus, model, *listed, ", ".join(devices)])


def models_of(records: Sequence[dict]) -> str:
    """The models by name, with their parameters, adapters left out: `mini (11.7 M parameters)`."""
    sizes: dict[str, int] = {}
    for run in (record["run"] for record in records):
        config, size = run["config"], run["parameters"]
        if facts(config["method"], run.get("strategy"))["scope"] == "adapters":
            size -= sum(run["layer_parameters"])
        name = f"{config['model']} ({'random weights, ' if run['random_weights'] else ''}"
        sizes[name] = min(size, sizes.get(name, size))
    return ", ".join(f"{name}{size / 1e6:.1f} M parameters)" for name, size in sizes.items())


def label(config: Mapping) -> str:
    """A run's method, with what else sets it apart: adapter, head, share of the training split.

    >>> label({"method": "ir", "adapter": "dora", "head": "learns", "train_share": 1.0})
    'ir, dora'
    """
    told = [config["method"]]
    for name, usual in NAMED.items():
        value = config.get(name, usual)
        if value != usual:
            told.append(
                value if name == "adapter" else f"{value:.0%} of train" if name == "train_share" else f"{name} {value}"
            )
    return ", ".join(told)


def _listed(values: Sequence) -> str:
    follow = len(values) > 2 and list(values) == list(range(values[0], values[-1] + 1))
    return f"{values[0]} to {values[-1]}" if follow else ", ".join(map(str, values))


def run_keys(config: Mapping) -> dict:
    """What tells runs apart: corpus, model, method as its label, fold, seed."""
    return {name: config[name] for name in KEYS} | {"method": label(config)}


def markdown(table: pandas.DataFrame) -> str:
    """A table in Markdown, its index first, an unknown number blank."""
    flat = table.reset_index() if any(table.index.names) else table
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
        **run_keys(config),
        **{name: scores[name] for name in METRICS},
        "layer_share": mean_share(record),
        "lowest_layer": sum(min(step["layers"]) for step in steps) / len(steps),
        "train_seconds": sum(record["meta"]["step_seconds"]),
    }


def _check_comparable(records: Sequence[dict]) -> None:
    if not records:
        raise InputError("no records to summarise")
    configs = [record["run"]["config"] for record in records]
    free = {*KEYS, *NAMED, "share", "counts", "learning_rate", "epochs"}  # full parameters have their own rate;
    # epochs are what max_steps make of a fold's size
    if len({(c["corpus"], c["train_share"]) for c in configs}) > 1:  # length follows the number of examples
        free |= {"max_steps", "epochs", "warmup_steps", "eval_every"}
    if len({c["model"] for c in configs}) > 1:
        free |= {"rank", "alpha", "width", "dropout", "batch_size", "max_length", "form", "max_steps", "warmup_steps", "eval_every"}
    first = {k: v for k, v in configs[0].items() if k not in free}
    for config in configs[1:]:
        other = {k: v for k, v in config.items() if k not in free}
        if other != first:
            names = sorted(k for k in first if other.get(k) != first[k])
            raise InputError(f"runs differ in {', '.join(names)}, so a mean over them says nothing; choose a subset")
