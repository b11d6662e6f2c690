"""Methods x folds x seeds as a list of independent runs, the recorded ones skipped, and their table."""

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas

from irtuning.training.config import RunConfig, corpus_of, strategy_of
from irtuning.corpora.base import Corpus
from irtuning.comparison.progress import progress_bar
from irtuning.errors import InputError
from irtuning.comparison.workers import cores, outcomes
from irtuning.models.loading import MINI, RANDOM, resolve
from irtuning.method.processes import is_first, world_size
from irtuning.training.record import has_record, new_folder, read_record, write_record
from irtuning.training.run import train
from irtuning.method.registry import METHODS, facts
from irtuning.analysis.tables import mean_share, summary_table

FIRST_SEED = 171  # the reference's
_FLOORS: dict[tuple, list[dict]] = {}  # a comparison after the other asks for the same


def compare(methods: Sequence[str], **options: object) -> pandas.DataFrame:
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
    rates: Mapping[str, float] | None = None,
    jobs: int | None = None,
    scheduler: str | None = None,
    output: str | Path | None = None,
    data_dir: str | Path | None = None,
    corpora: Mapping[int, Corpus] | None = None,
    progress: bool = True,
    **settings: object,
) -> tuple[list[dict], list[dict]]:
    """Run every method on every fold with every seed; return the records, and both floors of every fold.

    Args:
        methods: method texts, such as `["full", "ir", "ir:variant=exact", "rst"]`.
        seeds: how many, from 171 on and numbered through over the folds so that all runs differ; or which, in every fold.
        folds: of a corpus split by us.
        budget: `equal` gives RST, lisa-adapters, last-k and middle-k the mean share of layers that the first
            IR-Tuning method used with that fold and seed; `own` leaves them the papers' own.
        rates: learning rates by method; those not named have the settings' or the model's own.
        jobs: runs at a time, each in its own process with its share of the threads; where None, as many as there are
            cores for an embedded model on the CPU, else one after the other in this process.
        scheduler: address of a Dask scheduler whose workers run them instead, one at a time each; no disk is shared,
            and records come back without the weights.
        output: folder of the runs; what it holds already is not run again.
        data_dir, progress: as for `train`.
        corpora: the corpus of each fold, where they are loaded already.
        settings: fields of `RunConfig`, the same for all.

    Raises:
        InputError: anything that cannot work, before the first run where it can be seen there; after the last, runs
            that failed or whose worker died twice, by name.
    """
    if jobs is not None and jobs < 1:
        raise InputError(f"jobs is {jobs}; give 1 or more")
    runs = planned_runs(methods, seeds, folds, budget, rates, **settings)
    corpora = corpora or {fold: corpus_of(run, data_dir) for fold, run in {run.fold: run for run in runs}.items()}
    _check(runs, corpora)
    scored = ("validation", "test") if runs[0].score_test else ("validation",)
    floors = [floor for fold in dict.fromkeys(folds) for floor in corpus_floors(corpora[fold], scored)]
    jobs = 1 if world_size() > 1 else jobs or _default_jobs(runs[0])
    records: dict[int, dict] = {}
    failed: dict[str, Exception] = {}
    with progress_bar(total=len(runs), desc=f"{runs[0].corpus} on {runs[0].model}, runs", disable=not (progress and is_first())) as bar:
        for later in (False, True):  # IR-Tuning's first: others take their budget from it
            stage = _stage(runs, records, budget, later)
            work = [(config, corpora[config.fold], _folder(output, config)) for config in stage.values()]
            for at, outcome in _run_all(work, jobs, scheduler):
                bar.update()
                if isinstance(outcome, Exception):
                    failed[run_name(work[at][0])] = outcome
                else:
                    records[list(stage)[at]] = outcome
    if failed:
        raise _failure(failed, len(runs) - len(records)) from next(iter(failed.values()))
    return [records[i] for i in range(len(runs))], floors


def planned_runs(
    methods: Sequence[str],
    seeds: int | Sequence[int],
    folds: Sequence[int],
    budget: str = "equal",
    rates: Mapping[str, float] | None = None,
    **settings: object,
) -> list[RunConfig]:
    """The runs of a comparison in their order, budgets and the model's own settings not filled in yet."""
    methods, by_fold = _order(methods, budget), _seeds(seeds, list(dict.fromkeys(folds)))
    base = RunConfig.of(settings)
    of_method = [dataclasses.replace(base, method=m, learning_rate=(rates or {}).get(m, base.learning_rate)) for m in methods]
    return [dataclasses.replace(run, fold=f, seed=s) for f, seeds in by_fold.items() for s in seeds for run in of_method]


def _stage(runs: Sequence[RunConfig], records: Mapping[int, dict], budget: str, later: bool) -> dict[int, RunConfig]:
    """By position the runs that depend on no other; or, `later`, those whose IR-Tuning run is there, with its budget."""
    first = next((run.method for run in runs if facts(run.method)["leads"]), None)
    leaders = {(runs[i].fold, runs[i].seed): record for i, record in records.items() if runs[i].method == first}
    return {
        i: with_budget(run, leaders.get((run.fold, run.seed)), budget)
        for i, run in enumerate(runs)
        if (first is not None and takes_budget(run, budget)) == later and (not later or (run.fold, run.seed) in leaders)
    }


def _run_all(work: Sequence[tuple], jobs: int, scheduler: str | None) -> Iterator[tuple[int, object]]:
    """Every run's position and record, or why it failed, as they end; recorded ones are read here, without a worker."""
    recorded = {i for i, (_, _, folder) in enumerate(work) if folder is not None and has_record(folder)}
    for i in recorded:
        yield i, _recorded(*work[i])
    rest = [i for i in range(len(work)) if i not in recorded]
    if scheduler is None and jobs == 1:
        yield from ((i, _attempt(*work[i])) for i in rest)
    elif scheduler is None:
        yield from ((rest[at], outcome) for at, outcome in outcomes(_run_one, [work[i] for i in rest], jobs=jobs))
    elif rest:
        yield from _run_far(work, rest, scheduler)


def _run_far(work: Sequence[tuple], rest: Sequence[int], scheduler: str) -> Iterator[tuple[int, object]]:
    """The same on a cluster: corpora and records travel as values, and the records are written here."""
    _check_writable(work[rest[0]][2])
    for at, outcome in outcomes(_run_one, [(*work[i][:2], None) for i in rest], scheduler=scheduler):
        folder = work[rest[at]][2]
        if folder is not None and not isinstance(outcome, Exception):
            with new_folder(folder) as temporary:
                write_record(temporary, outcome)
        yield rest[at], outcome


def _run_one(config: RunConfig, corpus: Corpus, folder: Path | None) -> dict:
    return train(config, corpus=corpus, output=folder, progress=False).record


def _recorded(config: RunConfig, corpus: Corpus, folder: Path) -> dict:
    """Read a run and check that it is the one asked for; where it ran decided its precision, not this machine."""
    precision = config.precision or read_record(folder)["run"]["config"].get("precision")
    return _run_one(dataclasses.replace(config, precision=precision), corpus, folder)


def _attempt(config: RunConfig, corpus: Corpus, folder: Path | None) -> dict | Exception:
    """A run in this process; one that fails stops no other, as where they have processes of their own."""
    try:
        return _run_one(config, corpus, folder)
    except Exception as error:
        return error


def _check_writable(folder: Path | None) -> None:
    """Raise InputError, before anything runs elsewhere, if its record could not be kept here."""
    if folder is not None:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryDirectory(dir=folder.parent).cleanup()
        except OSError as error:
            raise InputError(f"cannot write to {folder.parent}: {error.strerror}; give another folder") from None


def _failure(failed: dict[str, Exception], missing: int) -> InputError:
    """What to say of runs that failed: the first of them by name, and how many are missing in all."""
    texts = [f"{name}: {error if isinstance(error, InputError) else repr(error)}" for name, error in failed.items()]
    more = f"; and {len(texts) - 3} more" * (len(texts) > 3)
    waiting = f", and {missing - len(failed)} wait for their layer budget" * (missing > len(failed))
    return InputError(
        f"{len(failed)} run{'s' * (len(failed) > 1)} failed{waiting}; all others are recorded where there is an output "
        f"folder, and repeating the command runs what is missing. {'; '.join(texts[:3])}{more}"
    )


def _folder(output: str | Path | None, config: RunConfig) -> Path | None:
    return None if output is None else Path(output) / run_name(config)


def _default_jobs(run: RunConfig) -> int:
    """One run per core for a small model on the CPU: two threads hardly speed one up."""
    import torch

    on_gpu = torch.cuda.is_available() and run.device == "auto"
    return 1 if on_gpu or run.model not in (MINI, *RANDOM) else cores()


def with_budget(config: RunConfig, leader: dict | None, budget: str = "equal") -> RunConfig:
    """Give a method with a budget IR-Tuning's own: the mean share of a record, or its layer counts per step."""
    if leader is None or not takes_budget(config, budget):
        return config
    if METHODS[config.method.split(":")[0]].takes == "counts":
        return dataclasses.replace(config, counts=tuple(len(s["layers"]) for s in leader["train"]["steps"]))
    of_candidates = mean_share(leader) * leader["run"]["depth"] / len(leader["run"]["candidate_layers"])
    return dataclasses.replace(config, share=round(of_candidates, 4))


def takes_budget(config: RunConfig, budget: str = "equal") -> bool:
    """Whether a run depends on how many layers IR-Tuning used."""
    takes = METHODS[config.method.split(":")[0]].takes
    own = config.share is not None or ":share=" in config.method
    return takes == "counts" or (takes == "share" and budget == "equal" and not own)


def run_name(config: RunConfig) -> str:
    """The folder name of a run within its comparison: another configuration gets another folder."""
    digest = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode()).hexdigest()
    return f"{config.method.replace(':', '_').replace('=', '-')}-fold{config.fold}-seed{config.seed}-{digest[:8]}"


def corpus_floors(corpus: Corpus, splits: Sequence[str] = ("validation",)) -> list[dict]:
    """Scores of both floors on each of the splits, computed once for each corpus."""
    from irtuning.corpora.floors import edit_aware_floor, operation_floor

    key = corpus.checksum, corpus.fold, *splits
    if key not in _FLOORS:
        names = ("name", "split", "macro_f1", "accuracy")
        floors = [floor(corpus, split) for split in splits for floor in (operation_floor, edit_aware_floor)]
        place = {"corpus": corpus.name, "fold": corpus.fold}
        _FLOORS[key] = [{name: getattr(floor, name) for name in names} | place for floor in floors]
    return _FLOORS[key]


def _order(methods: Sequence[str], budget: str) -> list[str]:
    """The methods, IR-Tuning's first."""
    methods = sorted(dict.fromkeys(methods), key=lambda method: not facts(method)["leads"])
    if not methods:
        raise InputError("no methods to compare; name some, such as full,ir,rst")
    if budget not in ("equal", "own"):
        raise InputError(f"budget is {budget!r}; give equal or own")
    if "random-counts" in methods and not facts(methods[0])["leads"]:
        raise InputError("random-counts takes its layer counts from IR-Tuning: add ir to the methods")
    return methods


def _seeds(seeds: int | Sequence[int], folds: Sequence[int]) -> dict[int, list[int]]:
    """The seeds of each fold."""
    if not seeds:
        raise InputError("no seeds; give 1 or more")
    if not isinstance(seeds, int):
        return {fold: list(dict.fromkeys(seeds)) for fold in folds}
    return {fold: [FIRST_SEED + place * seeds + i for i in range(seeds)] for place, fold in enumerate(folds)}


def _check(runs: Sequence[RunConfig], corpora: dict[int, Corpus]) -> None:
    """Raise InputError for a configuration that cannot be completed."""
    for config in runs:
        full = strategy_of(config).scope == "parameters"
        config.complete(resolve(config.model, config.form), len(corpora[config.fold].train), full, "cpu")
