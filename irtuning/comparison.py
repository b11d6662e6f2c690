"""Methods x folds x seeds as a list of independent runs, the recorded ones skipped, and their table."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from irtuning.config import RunConfig, corpus_of, strategy_of
from irtuning.corpora.base import Corpus
from irtuning.display import progress_bar
from irtuning.errors import InputError
from irtuning.models import MINI, RANDOM, resolve
from irtuning.records import has_record
from irtuning.run import train
from irtuning.strategies import EQUAL_BUDGET
from irtuning.tables import mean_share, summary_table

if TYPE_CHECKING:
    import pandas

FIRST_SEED = 171  # the reference's
_FLOORS: dict[tuple[str, int], list[dict]] = {}  # a comparison after the other asks for the same


def compare(methods: Sequence[str], **options: object) -> "pandas.DataFrame":
    """Run every method on every fold with every seed; return mean and spread per method, floors first.

    Takes the arguments of `run_comparison`.
    """
    return summary_table(*run_comparison(methods, **options))


def run_comparison(
    methods: Sequence[str],
    *,
    seeds: int | Sequence[int] = 2,
    folds: Sequence[int] = (0,),
    budget: str = "equal",
    jobs: int | None = None,
    output: str | Path | None = None,
    data_dir: str | Path | None = None,
    corpora: Mapping[int, Corpus] | None = None,
    progress: bool = True,
    **settings: object,
) -> tuple[list[dict], list[dict]]:
    """Run every method on every fold with every seed; return the records, and both floors of every fold.

    Args:
        methods: method texts, such as `["full", "ir", "ir:variant=exact", "rst"]`.
        seeds: how many, from 171 on, or which.
        folds: of a corpus split by us.
        budget: `equal` gives RST, lisa-adapters, last-k and middle-k the mean share of layers that the first
            IR-Tuning method used with that fold and seed; `own` leaves them the papers' own.
        jobs: runs at a time, each in its own process with its share of the threads; where None, as many as there are
            cores for an embedded model on the CPU, else one after the other in this process.
        output: folder of the runs; what it holds already is not run again.
        data_dir, progress: as for `train`.
        corpora: the corpus of each fold, where they are loaded already.
        settings: fields of `RunConfig`, the same for all.

    Raises:
        InputError: anything that cannot work, before the first run where it can be seen there.
    """
    runs = planned_runs(methods, seeds, folds, budget, **settings)
    corpora = corpora or {run.fold: corpus_of(run, data_dir) for run in runs if run.seed == runs[0].seed}
    _check(runs, corpora)
    floors = [floor for fold in folds for floor in corpus_floors(corpora[fold])]
    jobs = jobs or _default_jobs(runs[0])
    records: dict[int, dict] = {}
    with progress_bar(total=len(runs), desc=f"{runs[0].corpus} on {runs[0].model}, runs", disable=not progress) as bar:
        for wave in _waves(runs):  # IR-Tuning's first: others take their budget from it
            leaders = {(runs[i].fold, runs[i].seed): records[i] for i in _waves(runs)[0] if i in records}
            configs = [with_budget(runs[i], leaders.get((runs[i].fold, runs[i].seed)), budget) for i in wave]
            work = [(config, corpora[config.fold], _folder(output, config)) for config in configs]
            for position, record in _run_all(work, jobs):
                records[wave[position]] = record
                bar.update()
    return [records[i] for i in range(len(runs))], floors


def planned_runs(
    methods: Sequence[str], seeds: int | Sequence[int], folds: Sequence[int], budget: str = "equal", **settings: object
) -> list[RunConfig]:
    """The runs of a comparison in their order, budgets and the model's own settings not filled in yet."""
    methods, seeds = _order(methods, seeds, budget)
    base = RunConfig.of(settings)
    return [dataclasses.replace(base, fold=f, seed=s, method=m) for f in folds for s in seeds for m in methods]


def _waves(runs: Sequence[RunConfig]) -> tuple[list[int], list[int]]:
    """Positions of the runs that lead (the first IR-Tuning method's), and of the others."""
    first = next((run.method for run in runs if run.method.startswith("ir")), None)
    return tuple([i for i, run in enumerate(runs) if (run.method == first) == leads] for leads in (True, False))


def _run_all(work: Sequence[tuple], jobs: int) -> Iterator[tuple[int, dict]]:
    """Every run's position and record, as they end; what is recorded already is read here, without a worker."""
    alone = [i for i, (_, _, folder) in enumerate(work) if jobs == 1 or (folder is not None and has_record(folder))]
    for position in alone:
        yield _run_one(position, *work[position])
    if len(alone) == len(work):
        return
    from joblib import Parallel, delayed, parallel_config

    with parallel_config("loky", n_jobs=jobs, inner_max_num_threads=max(1, cores() // jobs)):
        tasks = (delayed(_run_one)(position, *run) for position, run in enumerate(work) if position not in alone)
        yield from Parallel(return_as="generator_unordered")(tasks)


def _run_one(position: int, config: RunConfig, corpus: Corpus, folder: Path | None) -> tuple[int, dict]:
    return position, train(config, corpus=corpus, output=folder, progress=False).record


def _folder(output: str | Path | None, config: RunConfig) -> Path | None:
    return None if output is None else Path(output) / run_name(config)


def _default_jobs(run: RunConfig) -> int:
    """One run per core for a small model on the CPU: two threads hardly speed one up."""
    import torch

    on_gpu = torch.cuda.is_available() and run.device == "auto"
    return 1 if on_gpu or run.model not in (MINI, *RANDOM) else cores()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def with_budget(config: RunConfig, leader: dict | None, budget: str = "equal") -> RunConfig:
    """Give a method with a budget IR-Tuning's own: the mean share of a record, or its layer counts per step."""
    name = config.method.split(":")[0]
    if leader is None:
        return config
    if name == "random-counts":
        return dataclasses.replace(config, counts=tuple(len(s["layers"]) for s in leader["train"]["steps"]))
    if name in EQUAL_BUDGET and budget == "equal" and config.share is None:
        return dataclasses.replace(config, share=round(mean_share(leader), 4))
    return config


def run_name(config: RunConfig) -> str:
    """The folder name of a run within its comparison: another configuration gets another folder."""
    digest = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode()).hexdigest()
    return f"{config.method.replace(':', '_').replace('=', '-')}-fold{config.fold}-seed{config.seed}-{digest[:8]}"


def corpus_floors(corpus: Corpus) -> list[dict]:
    """Scores of both floors on validation, computed once for each corpus."""
    from irtuning.floors import edit_aware_floor, operation_floor

    key = corpus.checksum, corpus.fold
    if key not in _FLOORS:
        names = ("name", "split", "macro_f1", "accuracy")
        floors = operation_floor(corpus), edit_aware_floor(corpus)
        place = {"corpus": corpus.name, "fold": corpus.fold}
        _FLOORS[key] = [{name: getattr(floor, name) for name in names} | place for floor in floors]
    return _FLOORS[key]


def _order(methods: Sequence[str], seeds: int | Sequence[int], budget: str) -> tuple[list[str], list[int]]:
    """The methods, IR-Tuning's first, and the seeds."""
    methods = sorted(dict.fromkeys(methods), key=lambda method: not method.startswith("ir"))
    if not methods:
        raise InputError("no methods to compare; name some, such as full,ir,rst")
    if budget not in ("equal", "own"):
        raise InputError(f"budget is {budget!r}; give equal or own")
    if "random-counts" in methods and not methods[0].startswith("ir"):
        raise InputError("random-counts takes its layer counts from IR-Tuning: add ir to the methods")
    seeds = [FIRST_SEED + i for i in range(seeds)] if isinstance(seeds, int) else list(seeds)
    if not seeds:
        raise InputError("no seeds; give 1 or more")
    return methods, seeds


def _check(runs: Sequence[RunConfig], corpora: dict[int, Corpus]) -> None:
    """Raise InputError for a configuration that cannot be completed."""
    for config in runs:
        full = strategy_of(config).scope == "parameters"
        config.complete(resolve(config.model, config.form), len(corpora[config.fold].train), full, "cpu")
