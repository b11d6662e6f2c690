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
ENGINES = {"": "plain", "uncast": "uncast", "uncast,liger": "uncast, liger", "uncast,compile": "uncast, compile",
           "uncast,compile,liger": "uncast, compile, liger", "uncast,lean": "uncast, lean", "uncast,compile,lean": "uncast, compile, lean"}  # fmt: skip
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

    rows = []
    for row in record["rows"]:
        plain = row["spread"] == "all 256" and row["batch"] == 16 and row["callback"] and not row["waits"]
        first = row["name"].split("/")[-1] != "again"
        known = row["layers"] in LAYERS and row["speed"] in ENGINES and row["adapter"] == "lora"
        if plain and first and known and not row["method"] and "error" not in row:
            place = {"layers": LAYERS[row["layers"]], "engine": ENGINES[row["speed"]], "dropout": row["dropout"]}
            names = ("step_ms", "step_ms_stdev", "peak_gib", "roofline_share")
            rows.append(place | {name: row[name] for name in names})
    table = pandas.DataFrame(rows).drop_duplicates(["layers", "engine", "dropout"])
    order = {name: place for names in (LAYERS, ENGINES) for place, name in enumerate(names.values())}
    return table.sort_values(["engine", "layers", "dropout"], key=lambda column: column.replace(order), ignore_index=True)


def saving(table: "pandas.DataFrame", layers: str, engine: str, dropout: float) -> tuple[float, float]:
    """What a set of layers saves of the time and of the memory of a step in which all layers learn, as shares."""
    part = table[(table.engine == engine) & (table.dropout == dropout)].set_index("layers")[["step_ms", "peak_gib"]]
    return tuple(1 - part.loc[layers] / part.loc[LAYERS["all"]])
