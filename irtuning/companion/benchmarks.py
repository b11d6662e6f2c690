"""Tables made from the committed measurements of large models on one GPU, the records in `reports/benchmarks`."""

import hashlib
import json
from collections.abc import Mapping

import pandas

from irtuning.companion.paths import REPOSITORY
from irtuning.errors import InputError

LAYERS = {"all": "all 32 layers", "trajectory": "200 chosen sets", "scattered": "14 scattered",
          "upper": "14, none below 16", "last16": "the last 16", "last14": "the last 14"}  # fmt: skip
ENGINES = ("", "uncast", "uncast,liger", "uncast,compile", "uncast,compile,liger")  # liger was an option once
GIVEN = ("core", "last-k", "trajectory", "eager", "liger", "checkpointing", "budget")  # cases with given layers


def measurement(name: str) -> tuple[dict, dict[str, str]]:
    """Return a record of `reports/benchmarks`, and the hash of its file by file name. InputError if it is missing."""
    path = REPOSITORY / "reports" / "benchmarks" / f"{name}.json"
    try:
        content = path.read_bytes()
        return json.loads(content), {path.name: hashlib.sha256(content).hexdigest()}
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}; get it from the repository again") from None


def measured_on(record: Mapping) -> str:
    """Return the hardware and versions of a measurement, for the line below a figure."""
    meta = record["meta"]
    versions = ", ".join(f"{name} {meta['versions'][name]}" for name in ("torch", "transformers", "peft"))
    return f"random weights · measured on one {meta['device']}, {versions}"


def prediction_errors(record: Mapping) -> pandas.DataFrame:
    """Return predicted and measured peak memory in GiB, and the error as a share: one row per setting."""
    rows = [row for row in record["rows"] if row["measured_bytes"]]
    peaks = {"predicted": [r["predicted"]["peak_bytes"] for r in rows], "measured": [r["measured_bytes"] for r in rows]}
    errors = {name: [row[name] for row in rows] for name in ("error", "held_out")}
    return pandas.DataFrame([row["setting"] for row in rows]).assign(**pandas.DataFrame(peaks) / 2**30, **errors)


def error_summary(table: pandas.DataFrame) -> pandas.DataFrame:
    """Return the median and worst absolute error in percent, for settings seen in development and held-out ones."""
    size = table.assign(error=100 * table.error.abs(), part=table.held_out.map({True: "held out", False: "seen"}))
    return size.groupby("part", sort=False).error.agg(settings="size", median_percent="median", worst_percent="max")


def step_table(record: Mapping) -> pandas.DataFrame:
    """Return time and memory of a step of 16 x 256 tokens with given layers: one row per set, engine and dropout.

    `step_ms` is a median. `roofline_share` is the share of it that matrix products would take at the GPU's bf16 peak.
    """
    order = {name: i for names in (LAYERS, ENGINES) for i, name in enumerate(names)}
    rows = [row for row in record["rows"] if not row.get("error") and row["group"] in GIVEN]
    table = pandas.DataFrame([row | {"engine": _engine(row), "recomputed": -row["activation_budget"]} for row in rows])
    keys = ["cudnn_attention", "checkpointing", "speed", "recomputed", "layers", "dropout"]
    table = table.sort_values(keys, key=lambda column: column.replace(order)).replace({"layers": LAYERS})
    table = table[["layers", "engine", "dropout", "step_ms", "step_ms_stdev", "peak_gib", "roofline_share"]]
    return table.drop_duplicates(["layers", "engine", "dropout"]).reset_index(drop=True)


def saving(table: pandas.DataFrame, layers: str, engine: str, dropout: float) -> tuple[float, float]:
    """Return the shares of time and memory that a set of layers saves, compared with a step of all layers."""
    part = table[(table.engine == engine) & (table.dropout == dropout)].set_index("layers")[["step_ms", "peak_gib"]]
    return tuple(1 - part.loc[layers] / part.loc[LAYERS["all"]])


def _engine(row: Mapping) -> str:
    """Return a text with the settings that made a measured step fast or small."""
    budget = f"{row['activation_budget']:.0%} of activations" * (row["activation_budget"] < 1)
    words = [row["speed"].replace(",", ", ") or "plain", budget, "checkpointing" * row["checkpointing"]]
    return ", ".join(filter(None, [*words, "cuDNN attention" * row["cudnn_attention"]]))
