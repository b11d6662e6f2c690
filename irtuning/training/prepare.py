"""Preparation of a run: the one place where its configuration, corpus, strategy, model and device are decided."""

import copy
import dataclasses
import re
from pathlib import Path

from irtuning.corpora.base import Corpus
from irtuning.corpora.load import load_corpus
from irtuning.errors import InputError, differences
from irtuning.memory.predict import ADAPTER_SETTINGS, MemoryPrediction, predict_memory, refuse_packed
from irtuning.method.baselines import Transplant
from irtuning.method.registry import METHODS, as_strategy, method_text
from irtuning.method.strategies import Strategy
from irtuning.models.loading import ModelSource, known_depth, resolve
from irtuning.training.config import RunConfig
from irtuning.training.record import read_record


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Everything that a run needs before its model is loaded, made by `prepare`."""
    config: RunConfig  # complete and checked
    corpus: Corpus
    strategy: Strategy  # with its budget of layers set
    source: ModelSource  # where the model comes from
    device: str  # cuda or cpu

    def predicted_memory(self) -> MemoryPrediction:
        """Predict the peak GPU memory."""
        run = self.config
        names = *ADAPTER_SETTINGS, *"checkpointing accumulation precision backward idle speed quantize".split()
        options = {name: value for name in names if (value := getattr(run, name)) is not None}
        return predict_memory(run.model, self.strategy, run.adapter, run.batch_size, run.max_length, **options)

    def check_strategy(self) -> None:
        """Raise InputError if the strategy cannot begin with this model, as far as that is known unloaded."""
        refuse_packed(self.strategy, self.config.quantize)
        if (depth := known_depth(self.source)) is None:
            return
        trial, given = copy.deepcopy(self.strategy), self.config.target_modules or Path(self.config.adapter).is_dir()
        trial.numbers = trial.all_numbers(depth)
        if trial.scope == "parameters" or not given:  # otherwise some layers may have no adapter
            trial.begin(len(trial.numbers), self.config.max_steps)


def prepare(
    config: RunConfig | None = None, *, corpus: Corpus | str | None = None, data_dir: str | Path | None = None,
    strategy: type[Strategy] | Strategy | None = None, on_device: str | None = None,
    **settings: object) -> Prepared:  # fmt: skip
    """Complete and check a configuration, and load its corpus. Raise InputError if something cannot work.

    Args:
        config, corpus, data_dir, settings: see `irtuning.training.run.train`.
        strategy: the strategy that the configuration's method names, in case this process does not know the name.
        on_device: `cuda` or `cpu`, to prepare a run for another machine.
    """
    loaded = isinstance(corpus, Corpus)
    named = corpus.reading | {"corpus": corpus.name, "fold": corpus.fold} if loaded else {}
    said = settings if config is None else vars(config) | {"corpus": Path(config.corpus).stem}
    if loaded and (wrong := [name for name, value in named.items() if said.get(name, value) != value]):
        problem = f"the corpus was read with {wrong[0]}={named[wrong[0]]!r}, but the run says {said[wrong[0]]!r}"
        raise InputError(f"{problem}; make them agree, or leave it out of the run")
    if config is None:
        settings |= named if loaded else {"corpus": corpus} if corpus else {}
        strategy, config = strategy or settings.get("method"), RunConfig.of(settings)
    elif settings or isinstance(corpus, str):
        raise InputError(f"settings beside config are not read; put {', '.join(settings) or 'corpus'} into the config")
    given = strategy or config.method
    budget = {name: value for name in ("share", "counts") if (value := getattr(config, name)) is not None}
    if refused := sorted(set(budget) - {field.name for field in dataclasses.fields(as_strategy(given))}):
        raise InputError(f"method {config.method!r} takes no {', '.join(refused)}; leave it out")
    strategy = as_strategy(given, **budget)
    if config.method.split(":")[0] not in METHODS or isinstance(strategy, Transplant):  # FILE.py:Class, or a folder
        config = dataclasses.replace(config, method=method_text(as_strategy(config.method)))
    source, device = resolve(config.model, config.form), on_device or available_device(config.device)
    if not loaded:
        corpus = corpus_of(config, data_dir)
    examples = len(corpus.train_part(config.train_share, config.seed))
    completed = config.complete(source, examples, strategy.scope == "parameters", device)
    return Prepared(completed, corpus, strategy, source, device)


def finished_run(folder: Path, prepared: Prepared) -> dict:
    """Return the record in a folder. If it belongs to another run, InputError lists the differences."""
    record = read_record(folder)
    # an older version may have had fewer settings or more
    recorded = {name: record["run"]["config"].get(name, usual) for name, usual in RunConfig().to_dict().items()}
    if isinstance(asked := prepared.strategy, Transplant) and asked.layers == "all":  # the other run is gone
        recorded["method"] = re.sub(r":layers=[\d+-]+", "", recorded["method"])
    different = differences(recorded, prepared.config.to_dict())
    if record["run"]["corpus_checksum"] != prepared.corpus.checksum:
        different.append("corpus_checksum (the texts changed)")
    if different:
        raise InputError(f"{folder} holds another run ({'; '.join(different)}); give another folder")
    return record


def available_device(wanted: str = "auto") -> str:
    """Return `cuda` if this machine has a GPU and `wanted` is not `cpu`, otherwise `cpu`."""
    if wanted == "cpu":  # then PyTorch need not be imported
        return wanted
    import torch
    return "cuda" if torch.cuda.is_available() else "cpu"


def corpus_of(config: RunConfig, data_dir: str | Path | None = None) -> Corpus:
    """Load the corpus that a configuration names."""
    columns = {name: getattr(config, name) for name in ("before", "after", "label", "group")}
    return load_corpus(config.corpus, data_dir, config.fold, labels=config.label_set, split=config.split, **columns)
