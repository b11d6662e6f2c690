"""Adapters: LoRA, DoRA and other peft tuners, and the paper's parallel bottleneck, written as a peft tuner."""

import copy
import re
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas
import torch
from peft import LoraConfig, PeftConfig, PeftModel, TaskType, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel

from irtuning.errors import InputError, unknown
from irtuning.method.layers import ON_PURPOSE, adapter_modules, adapter_parameters, attention_output
from irtuning.method.layers import candidate_layers, find_layers, linear_modules
from irtuning.models.loading import checkpoint_layers

ADAPTERS = ("lora", "dora", "bottleneck")
BOTTLENECK = "IRTUNING_BOTTLENECK"  # peft does not know this name, and refuses to load it if irtuning is not imported
# This context hides a warning that peft causes: it reads a property that transformers has renamed.
no_rename_warning = partial(warnings.catch_warnings, action="ignore", category=FutureWarning)


def add_adapter(model: nn.Module, adapter: str | PeftConfig, **settings: object) -> PeftModel:
    """Return the classifier with an adapter in every layer. The classification head learns with the adapters.

    `adapter` is `lora`, `dora`, `bottleneck`, a peft configuration, or the folder of its adapter_config.json. The
    settings are `rank` (or `r`), `alpha` and `dropout`, `width` of the bottleneck, and `target_modules`, linear maps by
    name. InputError: the adapter is unknown, or it matches no module inside the layers.
    """
    config = copy.deepcopy(adapter) if isinstance(adapter, PeftConfig) else _config(adapter, model, **settings)
    config.inference_mode = False  # as peft writes it into a saved adapter
    if isinstance(model, PreTrainedModel):
        if not new_modules(model):
            raise InputError(f"{type(model).__name__} has no classification head beside its body, so a new one would "
                             "stay random; choose another model or train all parameters")  # fmt: skip
        config.task_type = TaskType.SEQ_CLS  # else the head would be frozen and not saved
    if hasattr(config, "modules_to_save"):
        known = ("classifier", "score") if config.task_type == TaskType.SEQ_CLS else ()  # peft adds these by itself
        fresh = [name for name in new_modules(model) if not name.endswith(known)]
        config.modules_to_save = [*dict.fromkeys([*(config.modules_to_save or []), *fresh])] or None
    try:
        with no_rename_warning():
            adapted = get_peft_model(model, config)
    except ValueError as error:  # peft found no module of such a name, or joins one with the experts beside it
        names = [name for name in adaptable_modules(model) if re.search(r"att[^.]*\.", name)]
        if names and isinstance(adapter, str) and settings.get("target_modules") is None:
            return add_adapter(model, adapter, **settings | {"target_modules": names})
        inside = dict.fromkeys(name.rpartition(".")[2] for name in names)
        cure = f" Give target_modules, such as {','.join(inside)}" if inside else ""
        named = getattr(adapter, "peft_type", adapter)
        raise InputError(f"adapter {named!s} cannot be put on {type(model).__name__}: {error}{cure}") from None
    inside, by_peft = {*find_layers(adapted).parameters()}, getattr(adapter, "target_modules", adapter) is None
    for name, parameter in adapted.named_parameters():  # as LNTuning's last norm, or biases of embeddings
        if parameter not in inside and (by_peft or "bias" in name) and not re.search(ON_PURPOSE, name):
            parameter.requires_grad_(False)
    candidate_layers(adapted)
    return adapted


def new_modules(model: nn.Module) -> list[str]:
    """Return the names of the modules that a checkpoint without a head does not fill: the head, and a new pooler."""
    stack = find_layers(model)
    body = {name for name, child in model.named_children() if any(module is stack for module in child.modules())}
    head = [name for name, child in model.named_children() if name not in body and [*child.parameters()]]
    return [*head, *getattr(model, "lacking", [])]


def adapted_classifier(model: nn.Module, adapter: str | PeftConfig | None, *, checkpointing: bool = False,
                       freeze_head: bool = False, **settings: object) -> nn.Module:  # fmt: skip
    """Return the classifier ready for training: with its adapter, and in float32 where it learns.

    `adapter` and `settings` are those of `add_adapter`; without an adapter (None) all weights learn. With
    `checkpointing` activations are recomputed in the backward pass, with `freeze_head` the head keeps its first values.
    """
    head = new_modules(model)
    if adapter is not None:
        model = add_adapter(model, adapter, **settings)
    if checkpointing:  # after the adapter: else peft adds a hook, and backpropagation always runs to the lowest layer
        checkpoint_layers(model)
    for name, parameter in model.named_parameters():
        if freeze_head and any(f".{module}." in f".{name}" for module in head):
            parameter.requires_grad_(False)
        elif parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


def _config(adapter: str, model, rank=None, r=32, alpha=64, dropout=0.05, width=256, target_modules=None) -> PeftConfig:
    if (Path(adapter) / "adapter_config.json").exists():
        return PeftConfig.from_pretrained(adapter)
    if adapter not in ADAPTERS:
        raise unknown("adapter (nor a folder with an adapter_config.json)", adapter, ADAPTERS)
    common = {"task_type": TaskType.SEQ_CLS, "target_modules": target_modules or adaptable_modules(model)}
    if width < 1:
        raise InputError(f"bottleneck width is {width}; give 1 or more")
    if adapter == "bottleneck":
        return BottleneckConfig(**common, width=width)
    sizes = {"r": r if rank is None else rank, "lora_alpha": alpha, "lora_dropout": dropout}
    return LoraConfig(**common, **sizes, use_dora=adapter == "dora")


def adaptable_modules(model: nn.Module) -> list[str]:
    """Return the full names of the modules that get an adapter: all linear maps but attention output, gate, router.

    On Llama, Mistral and Qwen these are the authors' five: q_proj, k_proj, v_proj, up_proj, down_proj.
    """
    paths = {module: name for name, module in model.named_modules()}
    return [f"{paths[layer]}.{name}" for layer in find_layers(model) for name, _ in linear_modules(layer)
            if name != attention_output(layer)[0] and not re.search(r"(gate_proj|router|gate\.wg|expert_gate)$", name)]


def describe_layers(model: nn.Module) -> pandas.DataFrame:
    """Return a table of what can learn in each layer, one row per layer, to be checked before training."""
    paths, rows = {module: name for name, module in model.named_modules()}, []
    for layer in find_layers(model):
        names = [name for name, _ in adapter_modules(layer)]
        learning = adapter_parameters(layer) if names else layer.parameters()
        rows.append({"path": paths[layer], "class": type(layer).__name__,
                     "adapters": ", ".join(names) or "none", "attention_output": attention_output(layer)[0],
                     "parameters": sum(p.numel() for p in learning)})  # fmt: skip
    return LayerTable(rows, index=pandas.RangeIndex(len(rows), name="layer"))


class LayerTable(pandas.DataFrame):
    """Table that a terminal shows in full."""
    __repr__ = pandas.DataFrame.to_string


@dataclass
class BottleneckConfig(PeftConfig):
    """Settings of the parallel bottleneck y = Wx + scaling * up(tanh(down(x))), where `up` starts at zero."""
    target_modules: list[str] | None = None
    modules_to_save: list[str] | None = None
    width: int = 256  # units between down and up
    scaling: float = 1.0
    peft_type: str = BOTTLENECK


class BottleneckLayer(nn.Module, BaseTunerLayer):
    """Linear map with a bottleneck beside it. Neither of the bottleneck's two maps has a bias."""
    adapter_layer_names = ("bottleneck_down", "bottleneck_up")

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: BottleneckConfig):
        super().__init__()
        self.base_layer, self.scaling = base_layer, {}
        self.bottleneck_down, self.bottleneck_up = nn.ModuleDict(), nn.ModuleDict()
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: BottleneckConfig) -> None:
        """Make the bottleneck's two maps on the device of the linear map."""
        base = self.get_base_layer()
        inputs, outputs = (base.in_features, base.out_features) if isinstance(base, nn.Linear) else base.weight.shape
        self.bottleneck_down[adapter_name] = nn.Linear(inputs, config.width, bias=False)
        self.bottleneck_up[adapter_name] = nn.Linear(config.width, outputs, bias=False)
        nn.init.zeros_(self.bottleneck_up[adapter_name].weight)
        self.scaling[adapter_name] = config.scaling
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters)

    def forward(self, x: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        """Return the linear map's output plus the bottleneck's, shape (..., out features)."""
        result = self.base_layer(x, *args, **kwargs)
        for name in [] if self.disable_adapters else self.active_adapters:
            if name in self.bottleneck_down:
                down, up = self.bottleneck_down[name], self.bottleneck_up[name]
                inputs = self._cast_input_dtype(x, down.weight.dtype)
                result = result + self.scaling[name] * up(torch.tanh(down(inputs))).to(result.dtype)
        return result


class BottleneckModel(BaseTuner):
    """Tuner that puts a `BottleneckLayer` in the place of each target module."""
    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer
    target_module_mapping: dict = {}

    def _create_and_replace(self, config, adapter_name, target, target_name, parent, current_key, **kwargs) -> None:
        if isinstance(target, BottleneckLayer):
            return target.update_layer(adapter_name, config)
        self._replace_module(parent, target_name, BottleneckLayer(target, adapter_name, config), target)


PEFT_TYPE_TO_CONFIG_MAPPING[BOTTLENECK] = BottleneckConfig
PEFT_TYPE_TO_TUNER_MAPPING[BOTTLENECK] = BottleneckModel
PEFT_TYPE_TO_PREFIX_MAPPING[BOTTLENECK] = BottleneckModel.prefix
