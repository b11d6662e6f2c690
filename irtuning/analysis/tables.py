"""Tables made from records, and the line of text that says which runs a figure or a table was made from."""

from collections.abc import Mapping, Sequence
from itertools import accumulate

import pandas

from irtuning.corpora.base import sharing
from irtuning.errors import InputError
from irtuning.method.registry import facts

METRICS = ("macro_f1", "macro_precision", "macro_recall", "auprc", "accuracy")
KEYS = ("corpus", "model", "method", "fold", "seed")
UNITS = {"bytes": "MiB", "gib": "GiB", "ms": "ms", "seconds": "s"}  # by the last word of a column's name
# A run's title names what differs from these usual values, in these words.
USUAL = {"adapter": ("lora", "{}"), "head": ("learns", "head {}"), "train_share": (1.0, "{:.0%} of train"),
         "backward": ("exact", "backward={}"), "idle": ("keep", "idle={}")}  # fmt: skip


def runs_table(records: Sequence[dict], split: str = "validation") -> pandas.DataFrame:
    """Return a row per run: keys, scores, mean share of layers, lowest layer, seconds. InputError without scores."""
    if not all(split in record["scores"] for record in records):
        raise InputError(f"a run has no scores on {split!r}; train it with --score-test")
    rows = []
    for record in records:
        scores, steps, seconds = record["scores"][split], record["train"]["steps"], record["meta"]["step_seconds"]
        lowest = sum(min(step["layers"]) for step in steps) / len(steps)
        costs = {"layer_share": mean_share(record), "lowest_layer": lowest, "train_seconds": sum(seconds)}
        rows.append(run_keys(record["run"]["config"]) | {name: scores[name] for name in METRICS} | costs)
    return pandas.DataFrame(rows)


def summary_table(records: Sequence[dict], floors: Sequence[dict] = (), split: str = "validation") -> pandas.DataFrame:
    """Return the mean and standard deviation of the scores of each method (also by corpus and model), floors first.

    InputError is raised if there are no records, or the runs differ in more than method, budget, fold and seed.
    """
    if not records:
        raise InputError("there are no records to summarise; make some runs first")
    configs = [record["run"]["config"] for record in records]
    # Full fine-tuning has a learning rate of its own, and the epochs follow from max_steps and the size of a fold.
    free = {*KEYS, *USUAL, "share", "counts", "learning_rate", "epochs"}
    if len({(config["model"], config["corpus"], config["train_share"]) for config in configs}) > 1:
        free |= {"max_steps", "warmup_steps", "eval_every"}  # they follow the number of examples and the batch size
    if len({config["model"] for config in configs}) > 1:
        free |= {"rank", "alpha", "width", "dropout", "batch_size", "max_length", "form"}
    if names := {n for config in configs for n in {*configs[0], *config} - free if config.get(n) != configs[0].get(n)}:
        raise InputError(f"runs differ in {', '.join(sorted(names))}, so their mean says nothing; choose a subset")
    table = runs_table(records, split)
    keys = [name for name in ("corpus", "model") if table[name].nunique() > 1]
    if lines := [floor | {"method": bound_name(floor)} for floor in floors if floor["split"] == split]:
        columns, models = ["corpus", "macro_f1", "accuracy", "method"], table[["model"]].drop_duplicates()
        table = pandas.concat([pandas.DataFrame(lines)[columns].merge(models, how="cross"), table])
    grouped = table.groupby([*keys, "method"], sort=False)
    result = grouped[[*METRICS, "layer_share", "lowest_layer", "train_seconds"]].mean()
    result.insert(0, "runs", grouped.size())
    for name in ("macro_f1", "auprc"):
        result.insert(result.columns.get_loc(name) + 1, f"{name}_sd", grouped[name].std(ddof=1))
    return result


def bound_name(row: Mapping) -> str:
    """Return the name of a floor or of a human ceiling, which has an interval, in tables."""
    return row["name"] if "macro_f1_low" in row else f"{row['name']} floor"


def losses_table(records: Sequence[dict]) -> pandas.DataFrame:
    """Return one row per step of every run: the run's keys, step, training loss, and seconds since the run began."""
    rows = []
    for record in records:
        keys, ends = run_keys(record["run"]["config"]), accumulate(record["meta"]["step_seconds"])
        steps = zip(record["train"]["steps"], ends, strict=True)
        rows += [keys | {"step": step["step"], "loss": step["loss"], "seconds": end} for step, end in steps]
    return pandas.DataFrame(rows)


def validation_table(records: Sequence[dict]) -> pandas.DataFrame:
    """Return one row per evaluation of every run: the run's keys, and the step with its validation scores."""
    return pandas.DataFrame([run_keys(r["run"]["config"]) | row for r in records for row in r["train"]["validation"]])


def stamp(records: Sequence[dict], profile: str) -> str:
    """Return the line that every figure and table carries: profile, corpus, model, seeds, folds, steps, device."""
    runs = {record["run"]["config"]["corpus"]: record["run"] for record in records}
    names = {name: f"{name} (real{sharing(run.get('shared_groups', 0))})" for name, run in runs.items()}
    corpora = ", ".join("SYNTHETIC corpus" if runs[name]["synthetic_corpus"] else text for name, text in names.items())
    parts = [profile, corpora, models_of(records)]
    for name, field in {"seeds": "seed", "folds": "fold", "steps": "max_steps"}.items():
        of = sorted({record["run"]["config"][field] for record in records})
        said = f"{of[0]} to {of[-1]}" if len(of) == of[-1] - of[0] + 1 > 2 else ", ".join(map(str, of))
        parts.append(f"{len(of)} seeds from {of[0]} on" if name == "seeds" and len(said) > 40 else f"{name} {said}")
    return " · ".join([*parts, ", ".join(sorted({record["meta"]["device"] for record in records}))])


def models_of(records: Sequence[dict]) -> str:
    """Return the models' names with their number of parameters without adapters: `mini (11.7 M parameters)`."""
    sizes: dict[str, int] = {}
    for run in (record["run"] for record in records):
        config, scope = run["config"], facts(run["config"]["method"], run.get("strategy"))["scope"]
        size = run["parameters"] - (sum(run["layer_parameters"]) if scope == "adapters" else 0)
        name = f"{run.get('model_title', config['model'])} ({'random weights, ' if run['random_weights'] else ''}"
        sizes[name] = min(size, sizes.get(name, size))
    return ", ".join(f"{name}{size / 1e6:.1f} M parameters)" for name, size in sizes.items())


def groups_by(records: Sequence[dict], names: Sequence[str]) -> dict[tuple, list[dict]]:
    """Group the records by the values of these settings. For `method`, the title of the run is used."""
    groups: dict[tuple, list[dict]] = {}
    for record in records:
        config = record["run"]["config"] | run_keys(record["run"]["config"])
        groups.setdefault(tuple(config[name] for name in names), []).append(record)
    return groups


def run_title(config: Mapping) -> str:
    """Return a run's method, and its adapter, head and share of the data if unusual: `ir, dora, 25% of train`."""
    unusual = [name for name, (usual, _) in USUAL.items() if config.get(name, usual) != usual]
    return ", ".join([config["method"], *(USUAL[name][1].format(config[name]) for name in unusual)])


def run_keys(config: Mapping) -> dict:
    """Return the values that identify a run: corpus, model, method (the run's title), fold and seed."""
    return {name: config[name] for name in KEYS} | {"method": run_title(config)}


def markdown(table: pandas.DataFrame) -> str:
    """Return a table as Markdown text, its index first. An unknown number is left blank."""
    flat = table.reset_index() if any(table.index.names) else table
    rows = [list(map(str, flat.columns)), ["---"] * len(flat.columns)]
    rows += [["" if value != value else str(value) for value in row] for row in flat.to_numpy(dtype=object)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def readable(table: pandas.DataFrame) -> pandas.DataFrame:
    """Return a table for readers: words and units as column names, MiB for bytes, equal decimals in a column."""
    columns = {}
    for name, column in table.items():
        head, _, unit = str(name).rpartition("_")
        name = f"{head} ({UNITS[unit]})" if head and unit in UNITS else str(name)
        column = column / 2**20 if unit == "bytes" else column
        if pandas.api.types.is_float_dtype(column):
            decimals = 3 if column.abs().max() < 10 else 1
            column = column.map(f"{{:.{decimals}f}}".format, na_action="ignore").astype(object).fillna("")
        columns[name.replace("_", " ").replace(" f1", " F1").replace("auprc", "AUPRC")] = column
    return pandas.DataFrame(columns, table.index)


def mean_share(record: dict) -> float:
    """Return the mean share of the model's layers, or of their blocks, that learned at a step."""
    steps, run = record["train"]["steps"], record["run"]
    depth = run["depth"] * len(candidates(run)) / len(run["candidate_layers"])
    return sum(len(chosen(step)) for step in steps) / (len(steps) * depth)


def candidates(run: Mapping) -> list:
    """Return what a run could choose: numbers of layers, or names of blocks such as `3.attention` and `3.mlp`."""
    return run.get("candidate_blocks") or run["candidate_layers"]


def chosen(step: Mapping) -> list:
    """Return the layers that learned at a step, or their blocks if the run chose blocks."""
    return step.get("blocks") or step["layers"]
