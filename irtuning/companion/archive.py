"""Archive of many records: three parquet files and an index, with rounded steps and probabilities, no texts.

Each row of each file names its run by corpus, model, method, seed and fold, so that the files can be read alone. The
predictions of the floors stand among those of the runs, as method `edit-aware floor`, without a model and a run.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas
from pyarrow import parquet

from irtuning.analysis.tables import KEYS, bound_name, run_keys, runs_table
from irtuning.errors import InputError
from irtuning.training.record import write_bytes, write_text

INDEX = "panels.json"  # an older name, which the study's archive has


def write_archive(folder: Path, experiments: Mapping[str, tuple[Sequence[dict], Sequence[dict]]]) -> None:
    """Write the records and floors of experiments to a folder. A run that several of them share is stored once."""
    records, index, bounds = {}, {}, {}
    for name, (runs, floors) in experiments.items():
        keys = [json.dumps(record["run"]["config"], sort_keys=True) for record in runs]
        records |= dict(zip(keys, runs, strict=True))
        bounds |= {(f["corpus"], f["fold"], f["split"], bound_name(f)): f.get("predictions", ()) for f in floors}
        scores = [{k: v for k, v in floor.items() if k != "predictions"} for floor in floors]
        index[name] = {"runs": [list(records).index(key) for key in keys], "floors": scores}
    answers = [{"corpus": corpus, "fold": fold, "split": split, "method": method} | row
               for (corpus, fold, split, method), rows in bounds.items() for row in rows]  # fmt: skip
    texts, steps = [], []
    for run, record in enumerate(records.values()):
        train, meta = dict(record["train"]), dict(record["meta"])
        rows, keys = zip(train.pop("steps"), meta.pop("step_seconds"), strict=True), run_keys(record["run"]["config"])
        keys |= {"test_scored": record["scores"]["test_scored"]}
        texts.append(json.dumps({n: record[n] for n in ("schema", "run", "scores")} | {"train": train, "meta": meta}))
        steps += [{"run": run, **row, "seconds": seconds} | keys for row, seconds in rows]
        for split, predictions in record["predictions"].items():
            answers += [{"run": run, "split": split} | keys | row for row in predictions]
    steps = json.loads(json.dumps(steps), parse_float=lambda text: float(f"{float(text):.4g}"))  # rounded
    answers = pandas.DataFrame(answers).astype({"run": "Int32", "seed": "Int64", "test_scored": "Int8"})
    if "probabilities" in answers:
        answers["probabilities"] = [np.float16(row) if isinstance(row, list) else None for row in answers.probabilities]
    tested = [record["scores"]["test_scored"] for record in records.values()]
    runs = runs_table(list(records.values())).assign(test_scored=tested, record=texts)
    for name, table in (("runs", runs), ("steps", pandas.DataFrame(steps)), ("predictions", answers)):
        write_bytes(folder / f"{name}.parquet", table.to_parquet(compression="zstd", compression_level=19, index=False))
    write_text(folder / INDEX, json.dumps(index) + "\n")


def read_archive(folder: Path, experiment: str) -> tuple[list[dict], list[dict]]:
    """Return an experiment's records and floors, empty if it is not in the archive. InputError if files are damaged."""
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8")) if (folder / INDEX).exists() else {}
        if experiment not in index:
            return [], []
        runs = index[experiment]["runs"]
        texts = parquet.read_table(folder / "runs.parquet", columns=["record"])["record"].to_pylist()
        records = {run: json.loads(texts[run]) for run in runs}
        for record in records.values():
            record["meta"]["step_seconds"], record["train"]["steps"], record["predictions"] = [], [], {}
        paths = (folder / f"{name}.parquet" for name in ("steps", "predictions"))
        tables = (parquet.read_table(path, filters=[("run", "in", runs)]) for path in paths)  # the keys only name a run
        steps, answers = (t.drop_columns([*{*KEYS, "test_scored"} & {*t.column_names}]).to_pylist() for t in tables)
        for row in steps:
            record = records[row.pop("run")]
            record["meta"]["step_seconds"].append(row.pop("seconds"))
            record["train"]["steps"].append(row)
        for row in answers:
            records[row.pop("run")]["predictions"].setdefault(row.pop("split"), []).append(row)
        return list(records.values()), index[experiment]["floors"]
    except (OSError, ValueError, LookupError) as error:
        raise InputError(f"the records in {folder} are damaged: {error}; get them again or rerun the profile") from None
