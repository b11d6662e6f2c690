"""A choice of layers before training: all layers are measured on a few batches, and peft is told the best ones."""

import copy
import json
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
    score: str = "rms", chunk: int | None = None, **settings: object
) -> tuple[PeftConfig, pandas.DataFrame]:  # fmt: skip
    """Measure all layers on the first training batches, without any update, and choose the share with the best scores.

    Scores and choice are those of the method `probe`. Any trainer of peft models can use them, also FSDP's.

    Args:
        prepared: the result of `prepare` with the method `probe`, in place of share, batches, score and settings.
        output: a new folder for adapter_config.json, which `PeftConfig.from_pretrained` reads, and probe.json.
        share, batches, score: see the options of the method `probe`. The share leaves at least one layer.
        chunk: how many layers have gradients at a time, to save memory; None for all. The scores are the same.
        settings: the keywords of `irtuning.training.run.train`, such as corpus, model, adapter and batch_size.

    Returns:
        The adapter's configuration with the chosen layers in `layers_to_transform`, and a table with a row per layer:
        score, the mean over the batches, and learns, whether it is chosen.

    Raises:
        InputError: a setting cannot work, or the corpus has fewer batches. It is raised before the model is loaded.
        TrainingStopped: a layer's gradient is not finite.
    """
    prepared = prepared or prepare(method=f"probe:score={score}:batches={batches}", share=share, **settings)
    run, file = prepared.config, Path(prepared.config.adapter) / "adapter_config.json"
    known = -(-len(prepared.corpus.train_part(run.train_share, run.seed)) // run.batch_size)
    if prepared.strategy.batches > known:
        raise InputError(f"{prepared.strategy.batches} batches were asked for, but {run.corpus} has {known} of "
                         f"{run.batch_size} training examples; lower batches or batch_size")  # fmt: skip
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
    model = trainer.accelerator.prepare_model(trainer.model)  # autocast, if bf16
    measured = np.full((strategy.batches, count), np.nan)
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
    scores = [None] * count
    for row in measured.tolist():
        scores = strategy.update(scores, row)
    chosen = [layers.indices[i] for i in strategy.choose(strategy.batches, scores, np.random.default_rng(0))]
    table = pandas.DataFrame({"score": scores, "learns": np.isin(layers.indices, chosen)}, layers.indices)
    config = limited(trainer.model, chosen)
    config.base_model_name_or_path = prepared.config.model
    return config, table.rename_axis("layer")


def limited(model: nn.Module, layers: list[int]) -> PeftConfig:
    """Return the configuration of the model's adapter, limited to the layers with these numbers."""
    config, stack = copy.deepcopy(model.peft_config["default"]), find_layers(model)
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
