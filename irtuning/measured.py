"""Committed measurements of large models on one GPU. Records of `tests/benchmarks` in, pandas frames out."""

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from irtuning.errors import InputError
from irtuning.paths import REPOSITORY

if TYPE_CHECKING:
    import pandas

LAYERS = {"all": "all 32 layers", "scattered": "14 scattered", "last14": "the last 14", "upper": "14, none below 16"}
ENGINES = ("", "uncast", "uncast,liger", "uncast,compile", "uncast,compile,liger")
LATER = {"activation_budget": 1.0, "checkpointing": False, "alternating": False, "error": None}  # columns older rows lack
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


def prediction_errors(record: Mapping) -> "pandas.DataFrame":
    """Predicted against measured peak memory: one row per setting, bytes as GiB, the error as a share."""
    import pandas

    names = ("model", "method", "adapter", "batch", "length", "checkpointing", "dropout", "padded")
    rows = [
        {name: row["setting"][name] for name in names}
        | {"predicted": row["predicted"]["peak_bytes"] / GIB, "measured": row["measured_bytes"] / GIB}
        | {"error": row["error"], "held_out": row["held_out"]}
        for row in record["rows"]
        if row["measured_bytes"]
    ]
    return pandas.DataFrame(rows)


def error_summary(table: "pandas.DataFrame") -> "pandas.DataFrame":
    """Number of settings, median and worst absolute error in %: of those looked at while building, and held out."""
    size = table.assign(error=100 * table.error.abs(), part=table.held_out.map({True: "held out", False: "seen"}))
    return size.groupby("part", sort=False).error.agg(settings="size", median_percent="median", worst_percent="max")


def step_table(record: Mapping) -> "pandas.DataFrame":
    """Time and memory of a step, one row per set of layers, engine and dropout that was measured at one length.

    Columns: layers, engine, dropout, step_ms (median) and its standard deviation, peak_gib over the whole run,
    roofline_share: of the matrix products really needed at the GPU's bf16 peak.
    """
    import pandas

    table = pandas.DataFrame(record["rows"])
    table = table.assign(**{n: table[n].fillna(d) if n in table else d for n, d in LATER.items()}, engine=lambda t: t.apply(engine, axis=1))
    usual = (table.spread == "all 256") & (table.batch == 16) & (table.adapter == "lora") & table.method.isna()
    usual &= table.group != "changing"  # timed against each other, beside other work
    table = table[usual & table.callback & ~table.waits & ~table.alternating & table.layers.isin(list(LAYERS)) & table.error.isna()]
    order = {name: place for names in (LAYERS, ENGINES) for place, name in enumerate(names)}
    keys = ["cudnn_attention", "checkpointing", "speed", "activation_budget", "layers", "dropout"]
    table = table.sort_values(keys, key=lambda column: -column if column.name == "activation_budget" else column.replace(order))
    names = ["layers", "engine", "dropout", "step_ms", "step_ms_stdev", "peak_gib", "roofline_share"]
    table = table.assign(layers=table.layers.replace(LAYERS))[names]
    return table.drop_duplicates(["layers", "engine", "dropout"]).reset_index(drop=True)


def engine(row: Mapping) -> str:
    """How a measured step was made fast or small, in words."""
    words = row["speed"].replace(",", ", ") or "plain"
    words += f", {row['activation_budget']:.0%} of activations" if row["activation_budget"] < 1 else ""
    words += ", checkpointing" if row["checkpointing"] else ""
    return words + (", cuDNN attention" if row["cudnn_attention"] else "")


def saving(table: "pandas.DataFrame", layers: str, engine: str, dropout: float) -> tuple[float, float]:
    """What a set of layers saves of the time and of the memory of a step in which all layers learn, as shares."""
    part = table[(table.engine == engine) & (table.dropout == dropout)].set_index("layers")[["step_ms", "peak_gib"]]
    return tuple(1 - part.loc[layers] / part.loc[LAYERS["all"]])
