"""Tables made from the committed measurements of large models on one GPU, the records in `reports/benchmarks`."""

import hashlib
import json
from collections.abc import Mapping

import pandas

from irtuning.companion.paths import REPOSITORY

LAYERS = {"all": "all 32 layers", "trajectory": "200 chosen sets", "scattered": "14 scattered",
          "upper": "14, none below 16", "last16": "the last 16", "last14": "the last 14"}  # fmt: skip
ENGINES = {("", False): "plain", ("uncast", False): "uncast", ("uncast,compile", False): "uncast, compile",
           ("uncast", True): "uncast, checkpointing", ("float8,uncast,compile", False): "float8, compile",
           ("float8,uncast,compile", True): "float8, compile, checkpointing"}  # fmt: skip
GIVEN = ("core", "last-k", "trajectory", "eager", "checkpointing", "float8")  # cases with given layers


def measurement(name: str, folder: str = "benchmarks") -> tuple[dict, dict[str, str]]:
    """Return a record of a folder of `reports`, and the hash of its file by file name. OSError if it is missing."""
    content = (REPOSITORY / "reports" / folder / f"{name}.json").read_bytes()
    return json.loads(content), {f"{name}.json": hashlib.sha256(content).hexdigest()}


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


def step_table(record: Mapping) -> pandas.DataFrame:
    """Return the median time and the peak memory of a step of 16 x 256 tokens, with a row for each set and engine."""
    rows = [row | {"engine": ENGINES.get((row["speed"], row["checkpointing"])), "layers": LAYERS.get(row["layers"])}
            for row in record["rows"] if not row.get("error") and row["group"] in GIVEN and row["dropout"]
            and row["callback"] and not row.get("activation_memory_budget")]  # fmt: skip
    table = pandas.DataFrame(rows).dropna(subset=["engine", "layers"]).drop_duplicates(["engine", "layers"])
    table = table.sort_values(["engine", "layers"], key=lambda c: c.map([*ENGINES.values(), *LAYERS.values()].index))
    return table[["engine", "layers", "step_ms", "peak_gib"]].reset_index(drop=True)


def saving(table: pandas.DataFrame, layers: str, engine: str = "plain") -> tuple[float, float]:
    """Return the shares of time and memory that a set of layers saves, compared with a step of all layers."""
    part = table[table.engine == engine].set_index("layers")[["step_ms", "peak_gib"]]
    return tuple(1 - part.loc[layers] / part.loc[LAYERS["all"]])
