"""Methods x folds x seeds as a list of independent runs, the recorded ones skipped, and their table."""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from irtuning.config import RunConfig, corpus_of, strategy_of
from irtuning.corpora.base import Corpus
from irtuning.errors import InputError
from irtuning.models import resolve
from irtuning.run import train
from irtuning.strategies import EQUAL_BUDGET
from irtuning.tables import mean_share, summary_table

if TYPE_CHECKING:
    import pandas

logger = logging.getLogger(__name__)
FIRST_SEED = 171  # the reference's


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
    output: str | Path | None = None,
    data_dir: str | Path | None = None,
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
        output: folder of the runs; what it holds already is not run again.
        data_dir, progress: as for `train`.
        settings: fields of `RunConfig`, the same for all.

    Raises:
        InputError: anything that cannot work, before the first run where it can be seen there.
    """
    from tqdm import tqdm

    methods, seeds = _order(methods, seeds, budget)
    base = RunConfig.of(settings)
    corpora = {fold: corpus_of(dataclasses.replace(base, fold=fold), data_dir) for fold in folds}
    runs = [dataclasses.replace(base, fold=f, seed=s, method=m) for f in folds for s in seeds for m in methods]
    _check(runs, corpora)
    floors = [floor for fold in folds for floor in corpus_floors(corpora[fold])]
    records, leaders = [], {}
    with tqdm(runs, desc="runs", disable=not progress) as bar:
        for config in bar:
            bar.set_postfix_str(f"{config.method}, fold {config.fold}, seed {config.seed}")
            place = config.fold, config.seed
            config = with_budget(config, leaders.get(place), budget)
            folder = None if output is None else Path(output) / run_name(config)
            try:
                records.append(train(config, corpus=corpora[config.fold], output=folder, progress=False).record)
            except KeyboardInterrupt:
                logger.warning("stopped after %d of %d runs; the same command goes on", len(records), len(runs))
                raise
            if config.method.startswith("ir"):
                leaders.setdefault(place, records[-1])
    return records, floors


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
    """Scores of both floors on validation."""
    from irtuning.floors import edit_aware_floor, operation_floor

    names = ("name", "split", "macro_f1", "accuracy")
    floors = operation_floor(corpus), edit_aware_floor(corpus)
    return [{name: getattr(floor, name) for name in names} | {"fold": corpus.fold} for floor in floors]


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
