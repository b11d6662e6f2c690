"""Construction of what a prepared run trains with: tokenizer, model, examples and Trainer, in a fixed order."""

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import special
from transformers import DataCollatorWithPadding, PrinterCallback, ProgressCallback, TrainingArguments, set_seed
from transformers.integrations import TensorBoardCallback

from irtuning.corpora.base import Revision
from irtuning.errors import InputError
from irtuning.memory.predict import ADAPTER_SETTINGS
from irtuning.method.processes import world_size
from irtuning.models.adapters import adapted_classifier
from irtuning.models.backward import skip_backward
from irtuning.models.loading import context_length, load_classifier, load_tokenizer
from irtuning.models.prompts import encode
from irtuning.models.speed import accelerate
from irtuning.training.callback import LayerwiseTuning
from irtuning.training.idle import IdleStates
from irtuning.training.metrics import balanced_weights, score
from irtuning.training.prepare import Prepared
from irtuning.training.record import versions
from irtuning.training.resume import Checkpoints, Progress, ResumableTrainer, unfinished_folder


@dataclass
class Split:
    """A split's revisions, their encoded examples in another order, and each revision's position in it, shape (n,)."""
    revisions: Sequence[Revision]
    examples: list[dict]
    order: np.ndarray


def build(prepared: Prepared, *, progress, callbacks, report_to, output, save_every) -> tuple[ResumableTrainer, dict]:
    """Return a run's Trainer and, by name, the `Split` it trains on and those it scores. Arguments: see `train`."""
    config, corpus = prepared.config, prepared.corpus
    if config.idle == "offload" and prepared.device == "cpu":
        raise InputError("idle is 'offload', and this run has no GPU whose memory it could save; use keep or drop")
    if prepared.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    set_seed(config.seed)  # from here on, the order of the calls decides the random numbers and the results
    tokenizer = load_tokenizer(prepared.source)
    model = _model(prepared, tokenizer)
    revisions = {"train": corpus.train_part(config.train_share, config.seed), "validation": corpus.validation}
    revisions |= {"test": corpus.test} if config.score_test else {}
    splits = {name: _encoded(rows, prepared, tokenizer, name != "train") for name, rows in revisions.items()}
    layerwise = LayerwiseTuning(copy.deepcopy(prepared.strategy), config.seed)
    clock, weights = Progress(save_every if output else 0), None
    if config.class_weights == "balanced":
        weights = torch.from_numpy(balanced_weights([r.intention for r in revisions["train"]], corpus.labels)).float()
    identity = config.to_dict() | {"corpus_checksum": corpus.checksum, "processes": world_size()} | versions()
    checkpoints = Checkpoints(unfinished_folder(output), identity) if output and save_every else None
    def scores(prediction) -> dict[str, float]:
        """Return the scores of an evaluation, and keep its class probabilities for the record."""
        outputs = prediction.predictions  # the logits, shape (n, K), are a model's first output
        logits = np.asarray(outputs[0] if isinstance(outputs, tuple) else outputs, dtype=np.float64)
        trainer.probabilities = special.softmax(logits, axis=1)  # of the last evaluation
        values = score(prediction.label_ids, trainer.probabilities, corpus.labels)
        return {name: value for name, value in values.items() if name != "per_class"}
    eights = 8 if "compile" in (config.speed or ()) else None  # otherwise every new length would be compiled
    trainer = ResumableTrainer(
        model, _arguments(prepared, checkpoints, progress, report_to), train_dataset=splits["train"].examples,
        eval_dataset=splits["validation"].examples, compute_metrics=scores, class_weights=weights,
        data_collator=DataCollatorWithPadding(tokenizer, pad_to_multiple_of=eights),
        callbacks=[clock, layerwise, IdleStates(config.idle), *callbacks],  # the clock times the choice of layers too
        checkpoints=checkpoints, layerwise=layerwise, progress=clock)  # fmt: skip
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = f"{output or 'runs/unsaved'}.tensorboard"
    trainer.remove_callback(PrinterCallback)
    clock.shows_bar = progress and trainer.pop_callback(ProgressCallback) is not None  # a notebook has a table instead
    return trainer, splits


def examples_each(batch_size: int, accumulation: int) -> int:
    """Return the number of examples in a micro-batch of each process. Raise InputError if they cannot be even."""
    shares = accumulation * world_size()
    if batch_size % shares or not batch_size:
        raise InputError(f"batch_size {batch_size} cannot be shared by {world_size()} processes with accumulation "
                         f"{accumulation}; give a multiple of {shares}")  # fmt: skip
    return batch_size // shares


def _model(prepared: Prepared, tokenizer) -> torch.nn.Module:
    config, adapted = prepared.config, prepared.strategy.scope == "adapters"
    loading = {"precision": config.precision, "quantize": config.quantize}
    model = load_classifier(prepared.source, prepared.corpus.labels, tokenizer, **loading)
    limit = context_length(model, tokenizer)
    if config.max_length > limit:
        raise InputError(f"max_length is {config.max_length}, but {config.model} has a context of {limit} tokens")
    model.config.use_cache = False
    given = {name: getattr(config, name) for name in (*ADAPTER_SETTINGS, "checkpointing")}
    model = adapted_classifier(model, config.adapter if adapted else None, freeze_head=config.head == "frozen", **given)
    accelerate(model, config.speed or (), prepared.device)
    if config.backward == "skip":  # outside of the compiled layers
        skip_backward(model)
    return model


def _arguments(prepared: Prepared, checkpoints: Checkpoints | None, progress: bool, report_to) -> TrainingArguments:
    config, on_gpu = prepared.config, prepared.device == "cuda"
    folder = checkpoints.new if checkpoints else f"{tempfile.gettempdir()}/irtuning-unused"  # the argument is required
    arguments = TrainingArguments(
        str(folder), seed=config.seed, max_steps=config.max_steps, gradient_accumulation_steps=config.accumulation,
        per_device_train_batch_size=examples_each(config.batch_size, config.accumulation),
        per_device_eval_batch_size=64 if on_gpu else 16, max_grad_norm=config.clip, learning_rate=config.learning_rate,
        warmup_steps=config.warmup_steps, weight_decay=config.weight_decay, bf16=config.precision == "bf16",
        use_cpu=not on_gpu, dataloader_pin_memory=on_gpu, label_names=["labels"],
        ddp_backend="gloo" if world_size() > 1 and not on_gpu else None, ddp_find_unused_parameters=True,  # if frozen
        eval_strategy="steps", eval_steps=config.eval_every, save_strategy="no",
        logging_strategy="steps" if report_to else "no", logging_steps=1, report_to=list(report_to) or "none",
        logging_nan_inf_filter=False,  # the filter would wait for the device at every micro-batch
        run_name=f"{config.method} {config.corpus} seed {config.seed}", disable_tqdm=not progress)  # fmt: skip
    arguments._n_gpu = min(1, arguments.n_gpu)  # otherwise the Trainer would spread a batch over all GPUs
    return arguments


def _encoded(revisions: Sequence[Revision], prepared: Prepared, tokenizer, by_length: bool) -> Split:
    """Return a split with encoded examples. If it is scored, they are sorted by length, which saves padding."""
    labels, config = prepared.corpus.labels, prepared.config
    ids = encode(revisions, tokenizer, labels, config.form, config.max_length)
    indices = sorted(range(len(ids)), key=lambda i: len(ids[i])) if by_length else range(len(ids))
    examples = [{"input_ids": ids[i], "labels": labels.index(revisions[i].intention)} for i in indices]
    return Split(revisions, examples, np.argsort(indices))
