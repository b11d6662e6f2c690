"""Archive of many records: three parquet files and an index, with rounded steps, without texts or probabilities."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas
from pyarrow import parquet

from irtuning.analysis.tables import runs_table
from irtuning.errors import InputError
from irtuning.training.record import write_bytes, write_text

INDEX = "panels.json"  # an older name, which the study's archive has


def write_archive(folder: Path, experiments: Mapping[str, tuple[Sequence[dict], Sequence[dict]]]) -> None:
    """Write the records and floors of experiments to a folder. A run that several of them share is stored once."""
    records, index = {}, {}
    for name, (runs, floors) in experiments.items():
        keys = [json.dumps(record["run"]["config"], sort_keys=True) for record in runs]
        records |= dict(zip(keys, runs, strict=True))
        index[name] = {"runs": [list(records).index(key) for key in keys], "floors": list(floors)}
    texts, steps, answers = [], [], []
    for run, record in enumerate(records.values()):
        train, meta = dict(record["train"]), dict(record["meta"])
        rows = zip(train.pop("steps"), meta.pop("step_seconds"), strict=True)
        texts.append(json.dumps({n: record[n] for n in ("schema", "run", "scores")} | {"train": train, "meta": meta}))
        steps += [{"run": run, **row, "seconds": seconds} for row, seconds in rows]
        for split, predictions in record["predictions"].items():
            answers += [{"run": run, "split": split} | row for row in predictions]
    steps = json.loads(json.dumps(steps), parse_float=lambda text: float(f"{float(text):.4g}"))  # rounded
    answers = pandas.DataFrame(answers)[["run", "split", "id", "group", "intention", "predicted"]]
    runs = runs_table(list(records.values())).assign(record=texts)
    for name, table in (("runs", runs), ("steps", pandas.DataFrame(steps)), ("predictions", answers)):
        write_bytes(folder / f"{name}.parquet", table.to_parquet(compression="zstd", index=False))
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
        steps, answers = (parquet.read_table(path, filters=[("run", "in", runs)]).to_pylist() for path in paths)
        for row in steps:
            record = records[row.pop("run")]
            record["meta"]["step_seconds"].append(row.pop("seconds"))
            record["train"]["steps"].append(row)
        for row in answers:
            records[row.pop("run")]["predictions"].setdefault(row.pop("split"), []).append(row)
        return list(records.values()), index[experiment]["floors"]
    except (OSError, ValueError, LookupError) as error:
        raise InputError(f"the records in {folder} are damaged: {error}; get them again or rerun the profile") from None
