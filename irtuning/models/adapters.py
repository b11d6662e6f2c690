"""Adapters: LoRA, DoRA and any other peft tuner, and the paper's parallel bottleneck as a peft tuner of our own."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from peft import LoraConfig, PeftConfig, PeftModel, TaskType, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import nn

from irtuning.errors import InputError, unknown
from irtuning.method.layers import adaptable_modules, candidate_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADAPTERS = {
    "lora": "low-rank update of each linear map (r, alpha, dropout)",
    "dora": "LoRA with the weight's magnitude learned apart",
    "bottleneck": "parallel bottleneck with tanh beside each linear map (width)",
}
BOTTLENECK = "IRTUNING_BOTTLENECK"  # a name peft does not know: without irtuning imported it refuses to load it


def add_adapter(model: "PreTrainedModel", adapter: str | PeftConfig, **settings: object) -> PeftModel:
    """Wrap a classifier with adapters in every layer; the classification head learns and is saved with them.

    Args:
        model: any Hugging Face sequence classifier.
        adapter: `lora`, `dora`, `bottleneck`, or any peft configuration whose tuner lives inside the layers,
            itself or the folder of its adapter_config.json.
        settings: r, alpha, dropout (LoRA, DoRA), width (bottleneck), target_modules (all; names or suffixes,
            the reference's five kinds of linear map by default).

    Raises:
        InputError: an unknown adapter, or one that matches no module inside the layers.
    """
    config = adapter if isinstance(adapter, PeftConfig) else _config(adapter, model, settings)
    try:
        with no_rename_warning():
            wrapped = get_peft_model(model, config)
    except ValueError as error:  # peft's own: no module of that name
        raise InputError(f"adapter {adapter!r} cannot be put on {type(model).__name__}: {error}") from None
    candidate_layers(wrapped)
    return wrapped


@contextmanager
def no_rename_warning() -> Iterator[None]:
    """Peft reads a property that transformers has since renamed: nothing a reader could mend."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        yield


def _config(adapter: str, model: nn.Module, settings: dict) -> PeftConfig:
    if (Path(adapter) / "adapter_config.json").exists():
        return PeftConfig.from_pretrained(adapter)
    if adapter not in ADAPTERS:
        raise unknown("adapter (nor a folder with an adapter_config.json)", adapter, ADAPTERS)
    targets = settings.get("target_modules") or adaptable_modules(model)
    if adapter == "bottleneck":
        return BottleneckConfig(task_type=TaskType.SEQ_CLS, target_modules=targets, width=settings.get("width", 256))
    return LoraConfig(
        task_type=TaskType.SEQ_CLS,
        target_modules=targets,
        r=settings.get("r", 32),
        lora_alpha=settings.get("alpha", 64),
        lora_dropout=settings.get("dropout", 0.05),
        use_dora=adapter == "dora",
    )


@dataclass
class BottleneckConfig(PeftConfig):
    """The parallel bottleneck: y = Wx + scaling * up(tanh(down(x))), no bias, `up` starts at zero."""

    target_modules: list[str] | None = None
    exclude_modules: list[str] | None = None
    layers_to_transform: list[int] | None = None
    layers_pattern: str | None = None
    modules_to_save: list[str] | None = None
    width: int = field(default=256, metadata={"help": "units between down and up"})
    scaling: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = BOTTLENECK
        if self.width < 1:
            raise InputError(f"bottleneck width is {self.width}; give 1 or more")


class BottleneckLayer(nn.Module, BaseTunerLayer):
    """A linear map with the bottleneck beside it."""

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: BottleneckConfig):
        super().__init__()
        self.base_layer, self.scaling = base_layer, {}
        self.bottleneck_down, self.bottleneck_up = nn.ModuleDict(), nn.ModuleDict()
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: BottleneckConfig) -> None:
        """Make the bottleneck's two maps and place them where the base layer is."""
        base = self.get_base_layer()
        inputs, outputs = (base.in_features, base.out_features) if isinstance(base, nn.Linear) else base.weight.shape
        self.bottleneck_down[adapter_name] = nn.Linear(inputs, config.width, bias=False)
        self.bottleneck_up[adapter_name] = nn.Linear(config.width, outputs, bias=False)
        nn.init.zeros_(self.bottleneck_up[adapter_name].weight)
        self.scaling[adapter_name] = config.scaling
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters)

    def forward(self, x: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        """The base layer's output plus the bottleneck's, shape (..., out features)."""
        result = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return result
        for name in self.active_adapters:
            if name in self.bottleneck_down:
                down, up = self.bottleneck_down[name], self.bottleneck_up[name]
                inputs = self._cast_input_dtype(x, down.weight.dtype)
                result = result + self.scaling[name] * up(torch.tanh(down(inputs))).to(result.dtype)
        return result


class BottleneckModel(BaseTuner):
    """Puts a `BottleneckLayer` in place of each target module."""

    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer
    target_module_mapping: dict = {}

    def _create_and_replace(self, config, adapter_name, target, target_name, parent, current_key, **kwargs) -> None:
        if isinstance(target, BottleneckLayer):
            target.update_layer(adapter_name, config)
        else:
            self._replace_module(parent, target_name, BottleneckLayer(target, adapter_name, config), target)


PEFT_TYPE_TO_CONFIG_MAPPING[BOTTLENECK] = BottleneckConfig
PEFT_TYPE_TO_TUNER_MAPPING[BOTTLENECK] = BottleneckModel
PEFT_TYPE_TO_PREFIX_MAPPING[BOTTLENECK] = BottleneckModel.prefix
