"""Archive of many records: three small parquet files and an index of the experiments.

Step values are rounded. Texts and class probabilities, which are most of a record, are left out.
"""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas

from irtuning.analysis.tables import runs_table
from irtuning.errors import InputError
from irtuning.training.record import write_bytes, write_text

TABLES = ("runs", "steps", "predictions")
DIGITS = 4  # significant digits of what is measured at every step
INDEX = "panels.json"  # the name that the study's archive was written with


def has_archive(folder: Path) -> bool:
    """Return whether a folder holds an archive."""
    return (folder / INDEX).exists()


def write_archive(folder: Path, experiments: Mapping[str, Mapping[str, Sequence[dict]]]) -> None:
    """Write `runs`, `steps` and `predictions.parquet` and `panels.json` from the `records` and `floors` of experiments.

    A run of several experiments is stored once.
    """
    records, index = {}, {}
    for name, experiment in experiments.items():
        keys = [json.dumps(record["run"]["config"], sort_keys=True) for record in experiment["records"]]
        records |= dict(zip(keys, experiment["records"], strict=True))
        index[name] = {"runs": [list(records).index(key) for key in keys], "floors": list(experiment["floors"])}
    runs = list(records.values())
    frames = {
        "runs": runs_table(runs).assign(record=[json.dumps(_without_tables(record)) for record in runs]),
        "steps": pandas.DataFrame([{"run": i} | row for i, record in enumerate(runs) for row in _step_rows(record)]),
        "predictions": pandas.DataFrame([{"run": i} | row for i, run in enumerate(runs) for row in _answers(run)]),
    }
    for name, frame in frames.items():
        stream = io.BytesIO()
        frame.to_parquet(stream, compression="zstd", index=False)
        write_bytes(folder / f"{name}.parquet", stream.getvalue())
    write_text(folder / INDEX, json.dumps(index) + "\n")


def read_archive(folder: Path, experiment: str) -> tuple[list[dict], list[dict]]:
    """Return the records and floors of an experiment; both are empty if it is not in the archive.

    Raises:
        InputError: The files are damaged.
    """
    if not has_archive(folder):
        return [], []
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        entry = index.get(experiment, {"runs": [], "floors": []})
        runs, steps, predictions = (pandas.read_parquet(folder / f"{name}.parquet") for name in TABLES)
        of_run = [dict(tuple(frame[frame.run.isin(entry["runs"])].groupby("run"))) for frame in (steps, predictions)]
        return [_record(runs.record[i], *(rows[i] for rows in of_run)) for i in entry["runs"]], entry["floors"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"the records in {folder} are damaged: {error}; get them again or run the profile") from None


def _without_tables(record: dict) -> dict:
    """Return a record without what the tables of steps and predictions hold."""
    train = {name: value for name, value in record["train"].items() if name != "steps"}
    meta = {name: value for name, value in record["meta"].items() if name != "step_seconds"}
    return {name: record[name] for name in ("schema", "run", "scores")} | {"train": train, "meta": meta}


def _step_rows(record: dict) -> list[dict]:
    steps = zip(record["train"]["steps"], record["meta"]["step_seconds"], strict=True)
    return [_rounded(row | {"seconds": seconds}) for row, seconds in steps]


def _answers(record: dict) -> list[dict]:
    names = ("id", "group", "intention", "predicted")
    rows = [(split, row) for split, rows in record["predictions"].items() for row in rows]
    return [{"split": split} | {name: row[name] for name in names} for split, row in rows]


def _rounded(value):
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _record(text: str, steps: pandas.DataFrame, predictions: pandas.DataFrame) -> dict:
    record, rows = json.loads(text), _plain(steps.drop(columns="run").to_dict("records"))
    record["meta"]["step_seconds"] = [row.pop("seconds") for row in rows]
    record["train"]["steps"] = rows
    record["predictions"] = {
        split: _plain(part.drop(columns=["run", "split"]).to_dict("records"))
        for split, part in predictions.groupby("split", sort=False)
    }
    return record


def _plain(value):
    """Return a value with lists in place of NumPy arrays and None in place of NaN."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and value != value else value
