"""Committed measurements of large models on one GPU. Records of `reports/benchmarks` in, pandas frames out."""

import hashlib
import json
from collections.abc import Mapping

import pandas

from irtuning.errors import InputError
from irtuning.companion.paths import REPOSITORY

LAYERS = {
    "all": "all 32 layers", "trajectory": "200 chosen sets", "scattered": "14 scattered", "upper": "14, none below 16",
    "last16": "the last 16", "last14": "the last 14",
}  # fmt: skip
ENGINES = ("", "uncast", "uncast,liger", "uncast,compile", "uncast,compile,liger")
GIVEN = ("core", "last-k", "trajectory", "eager", "liger", "checkpointing", "budget")  # given layers, at batch 16 of 256 tokens
LATER = {"activation_budget": 1.0, "checkpointing": False, "error": None}  # columns older rows lack
GIB = 2**30


def measurement(name: str) -> tuple[dict, dict[str, str]]:
    """A committed record of `reports/benchmarks` and its origin for a sidecar, the hash of its file.

    Raises:
        InputError: no such record, or a damaged one.
    """
    path = REPOSITORY / "reports" / "benchmarks" / f"{name}.json"
    try:
        content = path.read_bytes()
        return json.loads(content), {path.name: hashlib.sha256(content).hexdigest()}
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}; get it from the repository again") from None


def measured_on(record: Mapping) -> str:
    """What a stamp says of a measurement: random weights, hardware, versions."""
    meta = record["meta"]
    versions = ", ".join(f"{name} {meta['versions'][name]}" for name in ("torch", "transformers", "peft"))
    return f"random weights · measured on one {meta['device']}, {versions}"


def prediction_errors(record: Mapping) -> pandas.DataFrame:
    """Predicted against measured peak memory: one row per setting, bytes as GiB, the error as a share."""
    names = ("model", "method", "adapter", "batch", "length", "checkpointing", "dropout", "padded")
    rows = [
        {name: row["setting"][name] for name in names}
        | {"predicted": row["predicted"]["peak_bytes"] / GIB, "measured": row["measured_bytes"] / GIB}
        | {"error": row["error"], "held_out": row["held_out"]}
        for row in record["rows"]
        if row["measured_bytes"]
    ]
    return pandas.DataFrame(rows)


def error_summary(table: pandas.DataFrame) -> pandas.DataFrame:
    """Number of settings, median and worst absolute error in %: of those looked at while building, and held out."""
    size = table.assign(error=100 * table.error.abs(), part=table.held_out.map({True: "held out", False: "seen"}))
    return size.groupby("part", sort=False).error.agg(settings="size", median_percent="median", worst_percent="max")


def step_table(record: Mapping) -> pandas.DataFrame:
    """Time and memory of a step with given layers, one row per set, engine and dropout, at batch 16 of 256 tokens.

    Columns: layers, engine, dropout, step_ms (median) and its standard deviation, peak_gib over the whole run,
    roofline_share: of the matrix products really needed at the GPU's bf16 peak.
    """
    table = _finished(record)
    table = table[table.group.isin(GIVEN)]
    order = {name: place for names in (LAYERS, ENGINES) for place, name in enumerate(names)}
    keys = ["cudnn_attention", "checkpointing", "speed", "activation_budget", "layers", "dropout"]
    table = table.sort_values(keys, key=lambda column: -column if column.name == "activation_budget" else column.replace(order))
    names = ["layers", "engine", "dropout", "step_ms", "step_ms_stdev", "peak_gib", "roofline_share"]
    table = table.assign(layers=table.layers.replace(LAYERS))[names]
    return table.drop_duplicates(["layers", "engine", "dropout"]).reset_index(drop=True)


def case_table(record: Mapping) -> pandas.DataFrame:
    """Steps of the methods, of other adapters, and of batches and lengths that checkpointing makes room for.

    `layers` is a given set or a method, whose scores come of random weights; the mean step counts what a method does
    between steps, such as IST's measuring of layers.
    """
    table = _finished(record)
    table = table[table.method.notna() | table.group.isin(["adapters", "reach"])]
    table = table.assign(layers=table.method.fillna(table.layers.replace(LAYERS)))
    names = ["layers", "layers_per_step", "adapter", "engine", "batch", "length", "step_ms", "step_ms_mean", "peak_gib"]
    order = table.group.map({"adapters": 1, "reach": 2}).fillna(0)  # the methods first
    return table.assign(order=order).sort_values(["order", "adapter", "batch", "length"], kind="stable")[names]


def other_cards(record: Mapping) -> pandas.Series:
    """How much longer each step took than on the first card of this kind that it was timed on, as shares."""
    table = _finished(record).dropna(subset="earlier_ms").set_index("name")
    return table.step_ms / table.earlier_ms.str[0] - 1


def _finished(record: Mapping) -> pandas.DataFrame:
    """The rows that did not fail, with the engine in words."""
    table = pandas.DataFrame(record["rows"])
    table = table.assign(**{n: table[n].fillna(d) if n in table else d for n, d in LATER.items()})
    return table[table.error.isna()].assign(engine=lambda t: t.apply(engine, axis=1))


def engine(row: Mapping) -> str:
    """How a measured step was made fast or small, in words."""
    words = row["speed"].replace(",", ", ") or "plain"
    words += f", {row['activation_budget']:.0%} of activations" if row["activation_budget"] < 1 else ""
    words += ", checkpointing" if row["checkpointing"] else ""
    return words + (", cuDNN attention" if row["cudnn_attention"] else "")


def saving(table: pandas.DataFrame, layers: str, engine: str, dropout: float) -> tuple[float, float]:
    """What a set of layers saves of the time and of the memory of a step in which all layers learn, as shares."""
    part = table[(table.engine == engine) & (table.dropout == dropout)].set_index("layers")[["step_ms", "peak_gib"]]
    return tuple(1 - part.loc[layers] / part.loc[LAYERS["all"]])
