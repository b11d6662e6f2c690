"""Methods x folds x seeds as a list of independent runs, the recorded ones skipped, and their table."""

import dataclasses
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from irtuning.config import RunConfig, corpus_of
from irtuning.corpora.base import Corpus
from irtuning.errors import InputError
from irtuning.records import find_records, read_record, write_text
from irtuning.run import train
from irtuning.strategies import EQUAL_BUDGET, make_strategy
from irtuning.tables import mean_share, summary_table

if TYPE_CHECKING:
    import pandas

logger = logging.getLogger(__name__)
FIRST_SEED = 171  # the reference's


def compare(
    methods: Sequence[str],
    *,
    seeds: int | Sequence[int] = 2,
    folds: Sequence[int] = (0,),
    budget: str = "equal",
    output: str | Path | None = None,
    data_dir: str | Path | None = None,
    progress: bool = True,
    **settings: object,
) -> "pandas.DataFrame":
    """Run every method on every fold with every seed; return mean and spread per method, floors first.

    Args:
        methods: method texts, such as `["full", "ir", "ir:variant=exact", "rst"]`.
        seeds: how many, from 171 on, or which.
        folds: of a corpus split by us.
        budget: `equal` gives RST, lisa-adapters, last-k and middle-k the mean share of layers that the first
            IR-Tuning method used with that fold and seed; `own` leaves them the papers' own.
        output: folder of the runs; what it holds already is not run again.
        data_dir, progress: as for `train`.
        settings: fields of `RunConfig`, the same for all.

    Raises:
        InputError: anything that cannot work, before the first run.
    """
    records, floors = [], []
    for step in comparison(methods, seeds, folds, budget, output, data_dir, progress, settings):
        (floors if "name" in step else records).append(step)
    return summary_table(records, floors)


def comparison(
    methods: Sequence[str],
    seeds: int | Sequence[int],
    folds: Sequence[int],
    budget: str,
    output: str | Path | None,
    data_dir: str | Path | None,
    progress: bool,
    settings: dict,
) -> Iterator[dict]:
    """The floors and records of `compare`, one by one as they are there."""
    from tqdm import tqdm

    methods, seeds = _check(methods, seeds, budget)
    base = RunConfig.of(settings)
    corpora = {fold: corpus_of(dataclasses.replace(base, fold=fold), data_dir) for fold in folds}
    runs = [(fold, seed, method) for fold in folds for seed in seeds for method in methods]
    leader = next((m for m in methods if m.split(":")[0].startswith("ir")), None)
    for fold in folds:
        yield from corpus_floors(corpora[fold], output)
    led: dict[tuple[int, int], dict] = {}
    with tqdm(runs, desc="runs", disable=not progress) as bar:
        for fold, seed, method in bar:
            bar.set_postfix_str(f"{method}, fold {fold}, seed {seed}")
            config = dataclasses.replace(base, method=method, fold=fold, seed=seed)
            config = with_budget(config, led.get((fold, seed)), budget)
            folder = None if output is None else Path(output) / run_name(config)
            run = train(config, corpus=corpora[fold], output=folder, progress=False)
            if method == leader:
                led[fold, seed] = run.record
            yield run.record


def with_budget(config: RunConfig, leader: dict | None, budget: str = "equal") -> RunConfig:
    """Give a method with a budget IR-Tuning's own: the mean share of a record, or its layer counts per step."""
    if leader is None:
        return config
    name = config.method.split(":")[0]
    if name == "random-counts":
        return dataclasses.replace(config, counts=tuple(len(s["layers"]) for s in leader["train"]["steps"]))
    if name in EQUAL_BUDGET and budget == "equal" and config.share is None:
        return dataclasses.replace(config, share=round(mean_share(leader), 4))
    return config


def run_name(config: RunConfig) -> str:
    """The folder name of a run within its comparison."""
    return f"{config.method.replace(':', '_').replace('=', '-')}-fold{config.fold}-seed{config.seed}"


def corpus_floors(corpus: Corpus, output: str | Path | None = None) -> list[dict]:
    """Scores of both floors on validation, kept beside the runs."""
    from irtuning.floors import edit_aware_floor, operation_floor

    path = None if output is None else Path(output) / f"floors-fold{corpus.fold}.json"
    if path and path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["corpus_checksum"] == corpus.checksum:
            return kept["floors"]
    floors = [
        {"name": f.name, "split": f.split, "macro_f1": f.macro_f1, "accuracy": f.accuracy, "fold": corpus.fold}
        for f in (operation_floor(corpus), edit_aware_floor(corpus))
    ]
    if path:
        write_text(path, json.dumps({"corpus_checksum": corpus.checksum, "floors": floors}) + "\n")
    return floors


def read_comparison(folder: str | Path) -> tuple[list[dict], list[dict]]:
    """The records and floors a comparison left in a folder.

    Raises:
        InputError: there are none.
    """
    records = [read_record(path) for path in find_records(Path(folder))]
    if not records:
        raise InputError(f"no runs in {folder}; run a comparison there first")
    files = sorted(Path(folder).glob("floors-fold*.json"))
    return records, [floor for file in files for floor in json.loads(file.read_text(encoding="utf-8"))["floors"]]


def _check(methods: Sequence[str], seeds: int | Sequence[int], budget: str) -> tuple[list[str], list[int]]:
    """Every problem that can be seen before the first run; IR-Tuning's runs come first."""
    methods = sorted(dict.fromkeys(methods), key=lambda m: not m.split(":")[0].startswith("ir"))
    if not methods:
        raise InputError("no methods to compare; name some, such as full,ir,rst")
    for method in methods:
        make_strategy(method)
    if budget not in ("equal", "own"):
        raise InputError(f"budget is {budget!r}; give equal or own")
    if "random-counts" in methods and not methods[0].startswith("ir"):
        raise InputError("random-counts takes its layer counts from IR-Tuning: add ir to the methods")
    seeds = [FIRST_SEED + i for i in range(seeds)] if isinstance(seeds, int) else list(seeds)
    if not seeds:
        raise InputError("no seeds; give 1 or more")
    return methods, seeds
