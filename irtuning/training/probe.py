"""A choice of layers before training: all layers are measured on a few batches, and peft is told the best ones."""

import copy
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas
from peft import PeftConfig
from torch import nn
from torch.nn.attention import sdpa_kernel
from transformers import set_seed

from irtuning.errors import InputError, TrainingStopped
from irtuning.method.layers import adapter_modules, candidate_layers, find_layers, let_backprop_end_early
from irtuning.method.processes import world_size
from irtuning.method.scores import gradient_score, tensor_norms
from irtuning.training.build import build
from irtuning.training.prepare import Prepared, prepare
from irtuning.training.record import new_folder, versions, write_text
from irtuning.training.resume import ResumableTrainer
from irtuning.training.trainer import ATTENTION


@dataclass
class Probe:
    """The result of `probe_layers`: a peft configuration for the chosen layers alone, and the scores of all layers."""
    config: PeftConfig
    table: pandas.DataFrame  # a row per layer: score, the mean over the batches, and learns, whether it is chosen
    layers = property(lambda self: self.table.index[self.table.learns].tolist(), doc="Numbers of the chosen layers.")


def probe_layers(
    prepared: Prepared | None = None, *, output: str | Path | None = None, share: float = 0.5, batches: int = 5,
    score: str = "rms", chunk: int | None = None, **settings: object) -> Probe:  # fmt: skip
    """Measure all layers on the first training batches, without any update, and choose the share with the best scores.

    The scores and the choice are those of the method `probe`. The configuration that is returned has only the chosen
    layers in `layers_to_transform`, so that any trainer of peft models can use it, also with FSDP and DeepSpeed.

    Args:
        prepared: the result of `prepare` with the method `probe`, in place of share, batches, score and settings.
        output: a new folder for adapter_config.json, which `PeftConfig.from_pretrained` reads, and probe.json.
        share, batches, score: see the options of the method `probe`. The share leaves at least one layer.
        chunk: how many layers have gradients at a time, to save memory; None for all. The scores are the same.
        settings: the keywords of `irtuning.training.run.train`, such as corpus, model, adapter and batch_size.

    Raises:
        InputError: a setting cannot work, or the corpus has fewer batches. It is raised before the model is loaded.
        TrainingStopped: a layer's gradient is not finite.
    """
    prepared = prepared or prepare(method=f"probe:score={score}:batches={batches}", share=share, **settings)
    _refuse_early(prepared, chunk)
    if output is None:
        return _probe(prepared, chunk)
    with new_folder(Path(output)) as temporary:
        probe = _probe(prepared, chunk)
        probe.config.save_pretrained(temporary)
        scores = json.loads(probe.table.reset_index().to_json(orient="records", double_precision=15))
        result = {"layers": probe.layers, "scores": scores, "config": prepared.config.to_dict(), "versions": versions()}
        write_text(temporary / "probe.json", json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return probe


def _refuse_early(prepared: Prepared, chunk: int | None) -> None:
    """Raise InputError for what can be seen before the model is loaded."""
    run, wanted = prepared.config, prepared.strategy.batches
    if chunk is not None and chunk < 1:
        raise InputError(f"chunk is {chunk}; give a number of layers, 1 or more")
    file = Path(run.adapter) / "adapter_config.json"
    if run.adapter == "bottleneck" or (file.exists() and "layers_to_transform" not in file.read_text("utf-8")):
        raise InputError(f"adapter {run.adapter!r} cannot be limited to layers by a peft configuration, which needs "
                         "layers_to_transform; use lora or dora, or train with the method probe")  # fmt: skip
    examples = len(prepared.corpus.train_part(run.train_share, run.seed))
    if wanted > (known := -(-examples // run.batch_size)):
        raise InputError(f"{wanted} batches were asked for, but {run.corpus} has {known} of {run.batch_size} training "
                         "examples; lower batches or batch_size")  # fmt: skip
    if world_size() > 1:
        raise InputError(f"a probe runs in one process, not in {world_size()}; start it without torchrun, and give "
                         "chunk if memory is short")  # fmt: skip


def _probe(prepared: Prepared, chunk: int | None) -> Probe:
    trainer, _ = build(prepared, progress=False, callbacks=(), report_to=(), output=None, save_every=0)
    strategy = copy.deepcopy(prepared.strategy)
    candidates = candidate_layers(trainer.model, strategy.min_layer)
    strategy.begin(count := len(candidates.indices), None)
    let_backprop_end_early(trainer.model)
    measured, size = np.empty((strategy.batches, count)), chunk or count
    for start in range(0, count, size):
        positions = range(start, min(start + size, count))
        candidates.freeze_all_but(positions)
        for batch, norms in enumerate(_gradients(trainer, strategy.batches, prepared.config.accumulation)):
            for position in positions:
                tensors = candidates.parameters[position]
                values = [norms[id(p)] for p in tensors if id(p) in norms]
                measured[batch, position] = gradient_score(values, strategy.score, sum(p.numel() for p in tensors))
    if not np.isfinite(measured).all():
        layers = [candidates.indices[i] for i in np.flatnonzero(~np.isfinite(measured).all(axis=0))]
        raise TrainingStopped(f"the gradient of layers {layers} is not finite; use precision=fp32, or look at the data")
    scores = [None] * count
    for row in measured.tolist():
        scores = strategy.update(scores, row)
    chosen = strategy.choose(strategy.batches, scores, np.random.default_rng(prepared.config.seed))
    index = pandas.Index(candidates.indices, name="layer")
    table = pandas.DataFrame({"score": scores, "learns": [i in chosen for i in range(count)]}, index)
    config = _limited(trainer.model, [candidates.indices[i] for i in chosen])
    config.base_model_name_or_path = prepared.config.model
    return Probe(config, table)


@sdpa_kernel(ATTENTION)
def _gradients(trainer: ResumableTrainer, batches: int, accumulation: int):
    """Yield for each of the first training batches the norm of every gradient by the id of its parameter.

    The batches and the dropout are the same at every call, and those of a training run.
    """
    set_seed(trainer.args.seed)
    model, micro_batches = trainer.accelerator.prepare_model(trainer.model), iter(trainer.get_train_dataloader())
    for _ in range(batches):
        parts, examples = trainer.get_batch_samples(micro_batches, accumulation, trainer.args.device)
        for inputs in parts:
            trainer.training_step(model, inputs, examples)
        learning = [p for p in model.parameters() if p.grad is not None]
        yield dict(zip(map(id, learning), tensor_norms([p.grad for p in learning]).tolist(), strict=True))
        model.zero_grad()


def _limited(model: nn.Module, layers: list[int]) -> PeftConfig:
    """Return the configuration of the model's adapter, limited to these layers."""
    config, stack = copy.deepcopy(model.peft_config["default"]), find_layers(model)
    if not hasattr(config, "layers_to_transform"):
        raise InputError(f"{type(config).__name__} has no layers_to_transform; use lora or dora")
    modules = model.get_base_model().named_modules()
    lists = {name: module for name, module in modules if isinstance(module, nn.ModuleList)}
    path = next(name for name, module in lists.items() if module is stack)
    last = path.rpartition(".")[2]
    config.layers_to_transform = layers
    config.layers_pattern = [path if sum(name.rpartition(".")[2] == last for name in lists) > 1 else last]
    config.target_modules = sorted({name for layer in stack for name, _ in adapter_modules(layer)})
    ends = tuple(f".{name}" for name in config.target_modules)  # peft compares the ends of names
    others = {name for layer in stack for name, _ in layer.named_modules() if name.endswith(ends)}
    config.exclude_modules = sorted(others - {*config.target_modules}) or None
    return config
