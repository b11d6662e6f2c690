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
from irtuning.training.prepare import available_device, corpus_of, prepare
from irtuning.training.record import has_record, new_folder, read_record, write_record, write_text
from irtuning.training.run import finished_run, train

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
    for run in runs:
        prepare(run, corpus=corpora[run.fold], strategy=strategies[run.method], on_device="cpu")
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
        strategy = as_strategy(method)
        known = isinstance(method, str) and method.split(":")[0] in METHODS
        named[method if known else method_text(strategy)] = strategy
    if not named:
        raise InputError("no methods to compare; name some, such as full,ir,rst")
    waiting = [name for name, strategy in named.items() if strategy.takes == "counts"]
    if waiting and not any(strategy.leads for strategy in named.values()):
        raise InputError(f"{waiting[0]} takes its layer counts from IR-Tuning: add ir to the methods")
    return dict(sorted(named.items(), key=lambda item: not item[1].leads))


def _make(runs, strategies, corpora, budget, output, workers, scheduler, advance) -> list[dict]:
    """Return the record of every run. Runs that copy their budget from a leading run are made after it."""
    records, failed = {}, {}
    leading = next((name for name, strategy in strategies.items() if strategy.leads), None)
    for later in (False, True):
        leaders = {(runs[i].fold, runs[i].seed): r for i, r in records.items() if runs[i].method == leading}
        stage = [i for i, run in enumerate(runs) if (leading is not None and takes_budget(run, budget)) == later
                 and (not later or (run.fold, run.seed) in leaders)]  # fmt: skip
        configs = [with_budget(runs[i], leaders.get((runs[i].fold, runs[i].seed)), budget) for i in stage]
        work = [(c, corpora[c.fold], strategies[c.method], output and Path(output) / run_name(c)) for c in configs]
        for index, outcome in _outcomes(work, workers, scheduler):
            advance(configs[index], outcome)
            if isinstance(outcome, Exception):
                failed[run_name(configs[index])] = outcome
            else:
                records[stage[index]] = outcome
    if failed:
        texts = [f"{name}: {error if isinstance(error, InputError) else repr(error)}" for name, error in failed.items()]
        cure = "an output folder keeps all other runs, and repeating the command makes those that are missing"
        text = f"{len(failed)} of {len(runs)} runs failed; {cure}. {'; '.join(texts[:3])}"
        raise InputError(text) from next(iter(failed.values()))
    return [records[i] for i in range(len(runs))]


def _outcomes(work: Sequence[tuple], workers: int, scheduler: str | None) -> Iterator[tuple[int, object]]:
    """Yield the index of each run with its record or its error. Recorded runs are read in this process."""
    missing = [i for i, (*_, folder) in enumerate(work) if folder is None or not has_record(folder)]
    for i, (config, corpus, strategy, folder) in enumerate(work):
        if i not in missing:  # its record must match, except that the precision may be that of another machine
            same = replace(config, precision=config.precision or read_record(folder)["run"]["config"].get("precision"))
            yield i, finished_run(folder, prepare(same, corpus=corpus, strategy=strategy))
    if scheduler is None and workers == 1:
        for i in missing:
            try:
                yield i, _run_one(*work[i])
            except Exception as error:  # the other runs continue
                yield i, error
        return
    folder = work[missing[0]][-1] if missing else None
    if folder is not None:  # fail before any worker starts if records cannot be written here
        write_text(folder.parent / "writable", "")
        (folder.parent / "writable").unlink(missing_ok=True)
    calls = [(*work[i][:-1], None) if scheduler else work[i] for i in missing]  # workers may not share this disk
    for at, made in outcomes(_run_one, calls, workers=workers, scheduler=scheduler) if missing else ():
        if scheduler and folder is not None and not isinstance(made, Exception):
            with new_folder(work[missing[at]][-1]) as temporary:
                write_record(temporary, made)
        yield missing[at], made


def _run_one(config: RunConfig, corpus: Corpus, strategy: Strategy, folder: Path | None) -> dict:
    """Make one run. The strategy itself is passed, because another process may not know its name."""
    return train(prepare(config, corpus=corpus, strategy=strategy), output=folder, progress=False).record
