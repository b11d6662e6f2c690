"""Comparison of methods over folds and seeds: a list of independent runs, of which only missing ones are trained."""

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pandas
from tqdm import tqdm

from irtuning.analysis.tables import chosen, mean_share, summary_table
from irtuning.comparison.workers import cores, outcomes
from irtuning.corpora.base import Corpus
from irtuning.errors import InputError
from irtuning.method.processes import is_first, world_size
from irtuning.method.registry import METHODS, as_strategy, method_text
from irtuning.method.strategies import Strategy
from irtuning.models.loading import MINI, RANDOM
from irtuning.training.config import RunConfig
from irtuning.training.prepare import available_device, corpus_of, finished_run, prepare
from irtuning.training.record import RECORD, has_record, new_folder, read_record, write_record, write_text

FIRST_SEED = 171  # the seed in the authors' code
Method = str | type[Strategy] | Strategy
_FLOORS: dict[tuple, list[dict]] = {}  # several comparisons may use one corpus


def compare(methods: Sequence[Method], **options: object) -> pandas.DataFrame:
    """Return the mean and spread of each method's scores, below the floors. Arguments: see `run_comparison`."""
    return summary_table(*run_comparison(methods, **options))


def run_comparison(
    methods: Sequence[Method], *, seeds: int | Sequence[int] = 2, folds: Sequence[int] = (0,), budget: str = "equal",
    rates: Mapping[str, float] | None = None, workers: int | None = None, scheduler: str | None = None,
    output: str | Path | None = None, data_dir: str | Path | None = None, corpora: Mapping[int, Corpus] | None = None,
    progress: bool = True, **settings: object) -> tuple[list[dict], list[dict]]:  # fmt: skip
    """Run every method on every fold with every seed, and return the records and the two floors of every fold.

    Args:
        methods: names such as `["full", "ir:variant=exact"]`, subclasses of `Strategy`, or instances.
        seeds: the number of seeds, counted from 171 and different in each fold; or a list of seeds for every fold.
        folds: numbers of the folds, for a corpus that this package splits.
        budget: `equal` gives methods with a share of layers the mean share that IR-Tuning used on the same fold and
            seed; `own` keeps the shares of their papers.
        rates: the learning rate of each method; others use that of the settings, or else the model's own.
        workers: runs at a time, each in a process. None: one per core for a model of this package on the CPU, else 1.
        scheduler: address of a Dask scheduler whose workers make the runs. Only the records come back, not the weights.
        output: folder for the runs; a run that it already holds is not repeated.
        data_dir, progress, settings: as for `train`.
        corpora: the corpus of each fold, if they are loaded already.

    Raises:
        InputError: a setting cannot work (before the first run, if possible), or runs failed (after the last one).
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}; give 1 or more")
    runs, strategies = planned_runs(methods, seeds, folds, budget, rates, **settings), _named(methods)
    corpora = corpora or {fold: corpus_of(run, data_dir) for fold, run in {run.fold: run for run in runs}.items()}
    recorded = {path.parent.name[:-9] for path in Path(output).glob(f"*/{RECORD}")} if output else ()
    for run in runs:
        prepared = prepare(run, corpus=corpora[run.fold], strategy=strategies[run.method], on_device="cpu")
        if run_name(run)[:-9] not in recorded and prepared.strategy.takes != "counts":
            prepared.check_strategy()
    scored = ("validation", "test") if runs[0].score_test else ("validation",)
    floors = [floor for fold in dict.fromkeys(folds) for floor in corpus_floors(corpora[fold], scored)]
    # a second thread hardly speeds up a small model on the CPU, so each core makes its own run
    many = available_device(runs[0].device) == "cpu" and runs[0].model in (MINI, *RANDOM)
    workers = 1 if world_size() > 1 else workers or (cores() if many else 1)
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()  # which shows stderr like a warning
    options = {"disable": not (progress and is_first()), "file": sys.stdout if shell else sys.stderr}
    with tqdm(total=len(runs), delay=1, desc=f"{runs[0].corpus} on {runs[0].model}, runs", **options) as bar:
        def advance(run: RunConfig, outcome: dict | Exception) -> None:
            f1 = "failed" if isinstance(outcome, Exception) else f"{outcome['scores']['validation']['macro_f1']:.3f}"
            bar.set_postfix_str(f"{run.method}, seed {run.seed}: macro F1 {f1}", refresh=False)
            bar.update()
        return _make(runs, strategies, corpora, budget, output, workers, scheduler, advance), floors


def planned_runs(
    methods: Sequence[Method], seeds: int | Sequence[int], folds: Sequence[int], budget: str = "equal",
    rates: Mapping[str, float] | None = None, **settings: object) -> list[RunConfig]:  # fmt: skip
    """Return the runs of a comparison before budgets and model settings are set. InputError for bad budget or seeds."""
    if budget not in ("equal", "own"):
        raise InputError(f"budget is {budget!r}; give equal or own")
    if not seeds:
        raise InputError("no seeds are given; give 1 or more")
    base, runs, rates = RunConfig.of(settings), [], rates or {}
    named = {method: rates.get(method, base.learning_rate) for method in _named(methods)}
    for index, fold in enumerate(dict.fromkeys(folds)):
        first = FIRST_SEED + index * seeds if isinstance(seeds, int) else None
        for seed in dict.fromkeys(seeds) if first is None else range(first, first + seeds):
            runs += [replace(base, method=m, learning_rate=r, fold=fold, seed=seed) for m, r in named.items()]
    return runs


def with_budget(config: RunConfig, leader: dict | None, budget: str = "equal") -> RunConfig:
    """Return a run with a budget copied from the leading run: its mean share of layers, or its count at each step."""
    if leader is None or not takes_budget(config, budget):
        return config
    if as_strategy(config.method).takes == "counts":
        if (unit := "block" if leader["run"].get("candidate_blocks") else "layer") != as_strategy(config.method).unit:
            raise InputError(f"{config.method} must count as the run that it follows does; add :unit={unit} to it")
        return replace(config, counts=tuple(len(chosen(s)) for s in leader["train"]["steps"]))
    of_candidates = mean_share(leader) * leader["run"]["depth"] / len(leader["run"]["candidate_layers"])
    return replace(config, share=round(of_candidates, 4))


def takes_budget(config: RunConfig, budget: str = "equal") -> bool:
    """Return whether a run's budget depends on how many layers the leading method used."""
    takes, own = as_strategy(config.method).takes, config.share is not None or ":share=" in config.method
    return takes == "counts" or (takes == "share" and budget == "equal" and not own)


def run_name(config: RunConfig) -> str:
    """Return the folder name of a run within its comparison. Each configuration has a name of its own."""
    digest = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode()).hexdigest()
    method = config.method.replace(":", "_").replace("=", "-").replace("/", "-")
    return f"{method}-fold{config.fold}-seed{config.seed}-{digest[:8]}"


def corpus_floors(corpus: Corpus, splits: Sequence[str] = ("validation",)) -> list[dict]:
    """Return the scores of both floors on each split, then those of the human ceiling. Each corpus is scored once."""
    from irtuning.analysis.ceiling import human_ceiling
    from irtuning.corpora.floors import edit_aware_floor, operation_floor
    key = corpus.checksum, corpus.fold, *splits
    if key not in _FLOORS:
        scores = [asdict(floor(corpus, split)) for split in splits for floor in (operation_floor, edit_aware_floor)]
        for row in scores:  # the predictions let a method be compared with the floor
            answers = zip(corpus.split(row["split"]), row["predictions"], strict=True)
            row["predictions"] = [{"id": r.id, "group": r.group, "intention": r.intention, "predicted": predicted}
                                  for r, predicted in answers]  # fmt: skip
        scores += [asdict(ceiling) for split in splits for ceiling in human_ceiling(corpus, split)]
        _FLOORS[key] = [row | {"corpus": corpus.name, "fold": corpus.fold} for row in scores]
    return _FLOORS[key]


def _named(methods: Sequence[Method]) -> dict[str, Strategy]:
    """Return the strategies by their names in records, with the leading methods first."""
    named = {}
    for method in methods:
        strategy, known = as_strategy(method), isinstance(method, str) and method.split(":")[0] in METHODS
        named[method if known else method_text(strategy)] = strategy
    if not named:
        raise InputError("no methods to compare; name some, such as full,ir,rst")
    waiting = [name for name, strategy in named.items() if strategy.takes == "counts"]
    if waiting and not any(strategy.leads for strategy in named.values()):
        raise InputError(f"{waiting[0]} takes its layer counts from IR-Tuning: add ir to the methods")
    return dict(sorted(named.items(), key=lambda item: not item[1].leads))


def _make(runs, strategies, corpora, budget, output, workers, scheduler, advance) -> list[dict]:
    """Return the record of every run. A run that copies its budget from another one is made after it."""
    records, failed, indices, work = {}, {}, [], []
    leading = next((name for name, strategy in strategies.items() if strategy.leads), None)
    def add(index: int, leader: dict | None = None) -> None:
        config = with_budget(runs[index], leader, budget)
        indices.append(index)
        folder = output and Path(output) / run_name(config)
        work.append((config, corpora[config.fold], strategies[config.method], folder))
    later = [i for i, run in enumerate(runs) if leading is not None and takes_budget(run, budget)]
    for index in sorted({*range(len(runs))} - {*later}):
        add(index)
    for at, outcome in _outcomes(work, workers, scheduler):
        advance(config := work[at][0], outcome)
        if isinstance(outcome, Exception):
            failed[run_name(config)] = outcome
            continue
        records[indices[at]] = outcome
        for index in later if config.method == leading else ():
            if (runs[index].fold, runs[index].seed) == (config.fold, config.seed):
                add(index, outcome)
    if failed:
        texts = [f"{name}: {error if isinstance(error, InputError) else repr(error)}" for name, error in failed.items()]
        cure = "an output folder keeps all other runs, and repeating the command makes those that are missing"
        text = f"{len(failed)} of {len(runs)} runs failed; {cure}. {'; '.join(texts[:3])}"
        raise InputError(text) from next(iter(failed.values()))
    return [records[i] for i in range(len(runs))]


def _outcomes(work: Sequence[tuple], workers: int, scheduler: str | None) -> Iterator[tuple[int, object]]:
    """Yield the index of each run with its record or its error. Recorded runs are read here. `work` may grow."""
    missing, calls, known = [], [], 0
    def recorded() -> Iterator[tuple[int, object]]:
        """Yield the new runs that have a record, and note the others as calls to make."""
        nonlocal known
        while (i := known) < len(work):
            config, corpus, strategy, folder = work[i]
            known += 1
            if folder is None or not has_record(folder):
                missing.append(i)
                calls.append((config, corpus, strategy, None if scheduler else folder))  # workers may lack this disk
                continue
            # its record must match, except that the precision may be that of another machine
            same = replace(config, precision=config.precision or read_record(folder)["run"]["config"].get("precision"))
            yield i, finished_run(folder, prepare(same, corpus=corpus, strategy=strategy))
    yield from recorded()
    if not calls:
        return
    here = scheduler is None and workers == 1
    if not here and (folder := work[missing[0]][-1]) is not None:  # fail before any worker starts if it is read-only
        write_text(folder.parent / "writable", "")
        (folder.parent / "writable").unlink(missing_ok=True)
    for at, made in _one_by_one(calls) if here else outcomes(_run_one, calls, workers=workers, scheduler=scheduler):
        if scheduler and (folder := work[missing[at]][-1]) is not None and not isinstance(made, Exception):
            with new_folder(folder) as temporary:
                write_record(temporary, made)
        yield missing[at], made
        yield from recorded()


def _one_by_one(calls: Sequence[tuple]) -> Iterator[tuple[int, object]]:
    for at, call in enumerate(calls):
        try:
            yield at, _run_one(*call)
        except Exception as error:  # the other runs continue
            yield at, error


def _run_one(config: RunConfig, corpus: Corpus, strategy: Strategy, folder: Path | None) -> dict:
    """Make one run. The strategy itself is passed, because another process may not know its name."""
    from irtuning.training.run import train  # records can be read without what trains
    return train(prepare(config, corpus=corpus, strategy=strategy), output=folder, progress=False).record
