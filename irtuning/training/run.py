"""One run from configuration to record, read where it is finished already and gone on with where it was interrupted."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import TrainerCallback

from irtuning.training.checkpoints import place_of, unfinished
from irtuning.training.config import RunConfig, corpus_of, strategy_of
from irtuning.corpora.base import Corpus
from irtuning.errors import InputError, differences
from irtuning.training.build import Job
from irtuning.models.loading import load_shape, resolve
from irtuning.method.processes import examples_each, is_first, refuse_sharding, wait_for_all
from irtuning.training.record import has_record, new_folder, read_record, write_record
from irtuning.training.saved import seal
from irtuning.training.speed import fused_kernels
from irtuning.training.tracking import trackers

logger = logging.getLogger(__name__)


@dataclass
class Run:
    """A finished run: its record, and where it is saved (None when it was not). Shows itself as its curve."""

    record: dict = field(repr=False)
    folder: Path | None = None

    @property
    def config(self) -> dict:
        """The completed configuration."""
        return self.record["run"]["config"]

    @property
    def scores(self) -> dict:
        """Scores by split."""
        return self.record["scores"]

    @property
    def layers(self) -> list[list[int]]:
        """The layers that learned at each step."""
        return [step["layers"] for step in self.record["train"]["steps"]]

    def _repr_png_(self) -> bytes:
        from irtuning.analysis.figures.runs import run_curve
        from irtuning.analysis.figures.style import to_image

        return to_image(run_curve(self.record))


def train(
    config: RunConfig | None = None,
    *,
    corpus: Corpus | str | None = None,
    data_dir: str | Path | None = None,
    output: str | Path | None = None,
    save_every: int | None = None,
    report_to: Sequence[str] = (),
    progress: bool = True,
    callbacks: Sequence[TrainerCallback] = (),
    **settings: object,
) -> Run:
    """Fine-tune a classifier of revision intentions and return its run.

    Args:
        config: the configuration; or give its fields as keywords: `train(corpus="synthetic", method="ir")`.
        corpus: a loaded corpus, which must be the one a `config` names; without a `config` also a name.
        data_dir: where the corpus's files are.
        output: folder for record, adapter with head, and tokenizer; it appears whole at the end. A folder that
            holds the very same run is read instead of trained again; a run that was interrupted goes on, exactly.
        save_every: steps between two checkpoints of a run with an `output`: the evaluations' where None; 0: none.
        report_to: trackers by the Trainer's names, such as `tensorboard`; they get losses, scores, the number of layers
            that learn and every layer's score. TensorBoard's files go to TENSORBOARD_LOGGING_DIR, or beside the output.
        progress: show a progress bar.
        callbacks: the Trainer's, called after ours; none is called where a finished run is read.

    Raises:
        InputError: anything that cannot work, before training starts; nothing is overwritten.
        TrainingStopped: the gradient is not finite, step after step.
        SystemExit: 143, after SIGTERM and a checkpoint.
    """
    if save_every is not None and save_every < 0:
        raise InputError(f"save_every is {save_every}; give a number of steps, or 0 for no checkpoints")
    config = _config(config, corpus, settings)
    strategy, source = strategy_of(config), resolve(config.model, config.form)
    if not isinstance(corpus, Corpus):
        corpus = corpus_of(config, data_dir)
    device = "cuda" if torch.cuda.is_available() and config.device == "auto" else "cpu"
    config = config.complete(
        source, len(corpus.train_part(config.train_share, config.seed)), strategy.scope == "parameters", device
    )
    refuse_sharding()
    examples_each(config.batch_size, config.accumulation)
    if output is not None and has_record(Path(output)):
        return _finished(Path(output), config, corpus)
    with ExitStack() as stack:
        stack.enter_context(trackers(report_to, output))
        if "liger" in (config.speed or ()):
            stack.enter_context(fused_kernels(load_shape(config.model).model_type))
        if output is None:
            return Run(Job(config, corpus, strategy, source, progress, callbacks, report_to=report_to).work())
        every = config.eval_every if save_every is None else save_every
        if not is_first():
            record = Job(config, corpus, strategy, source, False, callbacks, place_of(Path(output)), every, report_to).work()
            wait_for_all()
            return Run(record, Path(output))
        place = stack.enter_context(unfinished(Path(output)))
        if has_record(Path(output)):  # by the process that was training here a moment ago
            return _finished(Path(output), config, corpus)
        folder = stack.enter_context(new_folder(Path(output), within=place))
        job = Job(config, corpus, strategy, source, progress, callbacks, place, every, report_to)
        job.check_space()
        record = job.work()
        job.save(folder)
        write_record(folder, record)
        seal(folder)
    wait_for_all()
    return Run(record, Path(output))


def _config(config: RunConfig | None, corpus: Corpus | str | None, settings: dict) -> RunConfig:
    """The configuration, which says no other corpus than the one that is used."""
    loaded = isinstance(corpus, Corpus)
    if config is None:
        named = {"corpus": corpus.name, "fold": corpus.fold} if loaded else {"corpus": corpus} if corpus else {}
        return RunConfig.of(settings | named)
    if settings or isinstance(corpus, str):
        raise InputError(f"beside a config nothing else is read: put {', '.join(settings) or 'corpus'} into it")
    if loaded and (corpus.name, corpus.fold) != (Path(config.corpus).stem, config.fold):
        raise InputError(
            f"the corpus is {corpus.name}, fold {corpus.fold}, and the config says {config.corpus}, fold {config.fold}"
        )
    return config


def _finished(folder: Path, config: RunConfig, corpus: Corpus) -> Run:
    record = read_record(folder)
    different = differences(record["run"]["config"], config.to_dict())
    if record["run"]["corpus_checksum"] != corpus.checksum:
        different.append("corpus_checksum (the texts changed)")
    if different:
        raise InputError(f"{folder} holds another run ({'; '.join(different)}); give another folder")
    logger.info("%s holds this run already", folder)
    return Run(record, folder)
