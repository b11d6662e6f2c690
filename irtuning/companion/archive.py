"""Many records as three small parquet files and back: what is committed of a study.

Floats are rounded; texts and class probabilities, most of a record, stay out.
"""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas

from irtuning.errors import InputError
from irtuning.training.record import write_bytes, write_text
from irtuning.analysis.tables import runs_table

FILES = ("runs", "steps", "predictions")
DIGITS = 4  # significant, of what is measured at every step
PANELS = "panels.json"


def write_store(folder: Path, panels: Mapping[str, Mapping[str, Sequence[dict]]]) -> None:
    """Write `runs`, `steps` and `predictions.parquet` and `panels.json`.

    `panels` gives each panel's `records` and `floors`; a run that several panels share is kept once.
    """
    records, members = {}, {}
    for panel, found in panels.items():
        keys = [json.dumps(record["run"]["config"], sort_keys=True) for record in found["records"]]
        records |= dict(zip(keys, found["records"], strict=True))
        members[panel] = {"runs": [list(records).index(key) for key in keys], "floors": list(found["floors"])}
    runs = list(records.values())
    frames = {
        "runs": runs_table(runs).assign(record=[json.dumps(_kept(record)) for record in runs]),
        "steps": pandas.DataFrame([row for i, record in enumerate(runs) for row in _steps(i, record)]),
        "predictions": pandas.DataFrame([row for i, record in enumerate(runs) for row in _predictions(i, record)]),
    }
    for name, frame in frames.items():
        stream = io.BytesIO()
        frame.to_parquet(stream, compression="zstd", index=False)
        write_bytes(folder / f"{name}.parquet", stream.getvalue())
    write_text(folder / PANELS, json.dumps(members) + "\n")


def read_store(folder: Path, panel: str) -> tuple[list[dict], list[dict]]:
    """Records and floors of a panel; both empty where nothing is stored.

    Raises:
        InputError: the files are damaged.
    """
    if not (folder / PANELS).exists():
        return [], []
    try:
        members = json.loads((folder / PANELS).read_text(encoding="utf-8")).get(panel, {"runs": [], "floors": []})
        wanted = members["runs"]
        runs, steps, predictions = (pandas.read_parquet(folder / f"{name}.parquet") for name in FILES)
        groups = [dict(tuple(frame[frame.run.isin(wanted)].groupby("run"))) for frame in (steps, predictions)]
        return [_record(runs.record[i], groups[0][i], groups[1][i]) for i in wanted], members["floors"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"the records in {folder} are damaged: {error}; get them again or run the study") from None


def _kept(record: dict) -> dict:
    """A record without what the other two tables hold."""
    train = {name: value for name, value in record["train"].items() if name != "steps"}
    meta = {name: value for name, value in record["meta"].items() if name != "step_seconds"}
    return {name: record[name] for name in ("schema", "run", "scores")} | {"train": train, "meta": meta}


def _steps(run: int, record: dict) -> list[dict]:
    rows = zip(record["train"]["steps"], record["meta"]["step_seconds"], strict=True)
    return [
        {"run": run} | {name: _rounded(value) for name, value in (row | {"seconds": took}).items()}
        for row, took in rows
    ]


def _predictions(run: int, record: dict) -> list[dict]:
    rows = [(split, row) for split, found in record["predictions"].items() for row in found]
    return [
        {"run": run, "split": split} | {name: row[name] for name in ("id", "group", "intention", "predicted")}
        for split, row in rows
    ]


def _rounded(value: object) -> object:
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _record(text: str, steps, predictions) -> dict:
    record, rows = json.loads(text), [_plain(row) for row in steps.drop(columns="run").to_dict("records")]
    record["meta"]["step_seconds"] = [row.pop("seconds") for row in rows]
    record["train"]["steps"] = rows
    found = predictions.drop(columns="run")
    record["predictions"] = {
        split: [_plain(row) for row in part.drop(columns="split").to_dict("records")]
        for split, part in found.groupby("split", sort=False)
    }
    return record


def _plain(row: dict) -> dict:
    """NumPy's arrays as lists, a number that is not known as None."""
    return {name: _none(value.tolist() if hasattr(value, "tolist") else value) for name, value in row.items()}


def _none(value: object) -> object:
    if isinstance(value, list):
        return [_none(item) for item in value]
    return None if isinstance(value, float) and value != value else value
