"""A choice of layers before training: all layers are measured on a few batches, and peft is told the best ones."""

import copy
import json
from functools import reduce
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
from irtuning.training.trainer import ATTENTION


def probe_layers(
    prepared: Prepared | None = None, *, output: str | Path | None = None, share: float = 0.5, batches: int = 5,
    score: str = "rms", chunk: int | None = None, **settings: object) -> tuple[PeftConfig, pandas.DataFrame]:
    """Choose layers as the method `probe` does, without training, and return them as a peft configuration.

    Any trainer of peft models can use it, also FSDP's. The second result is a table with a row per layer: its score,
    and whether it learns. InputError is raised before the model is loaded, TrainingStopped for no finite gradient.

    Args:
        prepared: the result of `prepare` with the method `probe`, in place of share, batches, score and settings.
        output: a new folder for adapter_config.json, which `PeftConfig.from_pretrained` reads, and probe.json.
        share, batches, score: see the options of the method `probe`. At least one layer is chosen.
        chunk: how many layers have gradients at a time, to save memory; None for all. The scores are the same.
        settings: the keywords of `irtuning.training.run.train`, such as corpus, model, adapter and batch_size.
    """
    prepared = prepared or prepare(method=f"probe:score={score}:batches={batches}", share=share, **settings)
    run, file = prepared.config, Path(prepared.config.adapter) / "adapter_config.json"
    known = -(-len(prepared.corpus.train_part(run.train_share, run.seed)) // run.batch_size)
    if (asked := prepared.strategy.batches) > known:
        raise InputError(f"batches is {asked}, but {run.corpus} has {known} of {run.batch_size} examples; lower one")
    if run.adapter == "bottleneck" or (file.exists() and "layers_to_transform" not in file.read_text("utf-8")):
        raise InputError(f"adapter {run.adapter!r} has no layers_to_transform; use lora or dora, or the method probe")
    if world_size() > 1 or (chunk is not None and chunk < 1):
        raise InputError(f"chunk is {chunk}, processes {world_size()}; give 1 or more layers and start one process")
    if output is None:
        return _probe(prepared, chunk)
    with new_folder(Path(output)) as temporary:
        config, table = _probe(prepared, chunk)
        config.save_pretrained(temporary)
        result = {"layers": config.layers_to_transform, "scores": table.score.to_dict(), "config": run.to_dict()}
        write_text(temporary / "probe.json", json.dumps(result | {"versions": versions()}, indent=1) + "\n")
    return config, table


@sdpa_kernel(ATTENTION)
def _probe(prepared: Prepared, chunk: int | None) -> tuple[PeftConfig, pandas.DataFrame]:
    trainer, _ = build(prepared, progress=False, callbacks=(), report_to=(), output=None, save_every=0)
    strategy, layers = copy.deepcopy(prepared.strategy), candidate_layers(trainer.model, prepared.strategy.min_layer)
    strategy.begin(count := len(layers.indices), None)
    let_backprop_end_early(trainer.model)
    model, measured = trainer.accelerator.prepare_model(trainer.model), np.zeros((strategy.batches, count))
    for start in range(0, count, chunk or count):
        positions = range(count)[start : start + (chunk or count)]
        layers.freeze_all_but(positions)
        set_seed(trainer.args.seed)  # so that dropout is the same for every chunk, and that of a training run
        loader = iter(trainer.get_train_dataloader())
        for row in measured:
            parts, examples = trainer.get_batch_samples(loader, prepared.config.accumulation, trainer.args.device)
            for inputs in parts:
                trainer.training_step(model, inputs, examples)
            for position in positions:
                tensors = [p for p in layers.parameters[position] if p.grad is not None]
                norms = tensor_norms([p.grad for p in tensors]).tolist()
                row[position] = gradient_score(norms, strategy.score, sum(p.numel() for p in tensors))
            model.zero_grad()
    if not np.isfinite(measured).all():
        raise TrainingStopped("a gradient is not finite; use precision=fp32, or look at the first training examples")
    scores = reduce(strategy.update, measured.tolist(), [None] * count)
    chosen = [layers.indices[i] for i in strategy.choose(strategy.batches, scores, np.random.default_rng(0))]
    table = pandas.DataFrame({"score": scores, "learns": np.isin(layers.indices, chosen)}, layers.indices)
    config = limited(trainer.model, chosen)
    config.base_model_name_or_path = prepared.config.model
    return config, table.rename_axis("layer")


def limited(model: nn.Module, layers: list[int]) -> PeftConfig:
    """Return the configuration of the model's adapter, limited to the layers with these numbers."""
    config, stack = copy.deepcopy(model.peft_config["default"]), find_layers(model)
    lists = {name: m for name, m in model.get_base_model().named_modules() if isinstance(m, nn.ModuleList)}
    path = next(name for name, module in lists.items() if module is stack)
    alike = [name for name in lists if name.rpartition(".")[2] == path.rpartition(".")[2]]
    config.layers_to_transform, config.layers_pattern = layers, [path if alike[1:] else path.rpartition(".")[2]]
    config.target_modules = sorted({name for layer in stack for name, _ in adapter_modules(layer)})
    ends = tuple(f".{name}" for name in config.target_modules)  # peft compares the ends of names
    others = {name for layer in stack for name, _ in layer.named_modules() if name.endswith(ends)}
    config.exclude_modules = sorted(others - {*config.target_modules}) or None
    return config
