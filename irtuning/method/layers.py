"""The layers of any Hugging Face classifier, and the parameters in each that can learn."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from irtuning.errors import InputError

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class CandidateLayers:
    """The layers a strategy may choose from: indices in the stack, ascending, and the parameters of each.

    `below` are the parameters of layers under the lowest one allowed; they never learn.
    """

    indices: list[int]
    parameters: list[list[nn.Parameter]]
    below: list[nn.Parameter]

    def freeze_all_but(self, chosen: list[int]) -> None:
        """Let only the layers at these positions learn; gradients of the others are dropped, not zeroed."""
        wanted = set(chosen)
        for position, parameters in enumerate([*self.parameters, self.below]):
            for parameter in parameters:
                parameter.requires_grad_(position in wanted)
                if position not in wanted:
                    parameter.grad = None

    def check_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Raise InputError, naming the layers, if an optimizer lacks what should learn."""
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        found = zip(self.indices, self.parameters, strict=True)
        if missing := [i for i, layer in found if any(id(p) not in held for p in layer)]:
            raise InputError(
                f"layers {missing} have parameters the optimizer does not hold, so they would never learn: let all "
                "adapters require gradients before the Trainer makes its optimizer, and freeze none yourself"
            )


def find_layers(model: nn.Module) -> nn.ModuleList:
    """Return the transformer stack of a decoder or encoder classifier, wrapped by peft or not.

    The rule: the ModuleList of like modules, not inside another, as long as the configuration says the model is
    deep (any length where there is no configuration); of several, the one with most parameters.

    Raises:
        InputError: no such list, or an encoder-decoder, which has two.
    """
    return find_stack(model)[1]


def find_stack(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The stack's module path and the stack itself; see `find_layers`."""
    config = getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        raise InputError(f"{type(model).__name__} is an encoder-decoder with two stacks; use a decoder or an encoder")
    depth = getattr(config, "num_hidden_layers", None)
    lists = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == (depth or len(module)) > 0
        and len({type(layer) for layer in module}) == 1
    }
    outer = [n for n in lists if not any(n.startswith(other + ".") for other in lists)]
    if not outer:
        wanted = f"{depth} (num_hidden_layers)" if depth else "one or more"
        raise InputError(
            f"no transformer stack in {type(model).__name__}: looked for a ModuleList of {wanted} layers of one class; "
            "a model that shares one layer's weights between all depths has none"
        )
    path = max(outer, key=lambda name: sum(p.numel() for p in lists[name].parameters()))
    return path, lists[path]


def candidate_layers(model: nn.Module, min_layer: int = 0) -> CandidateLayers:
    """The layers at or above `min_layer` with something that can learn: adapters where there are any, else all.

    Raises:
        InputError: adapters that live outside the layers, or fewer than two layers to choose from.
    """
    stack = find_layers(model)
    adapted = hasattr(model, "peft_config")
    found = {i: adapter_parameters(layer) if adapted else list(layer.parameters()) for i, layer in enumerate(stack)}
    if not any(found.values()):
        kind = type(next(iter(model.peft_config.values()))).__name__
        raise InputError(f"the adapters ({kind}) match no module inside the {len(stack)} layers; check target_modules")
    kept = {i: parameters for i, parameters in found.items() if parameters and i >= min_layer}
    if len(kept) < 2:
        raise InputError(
            f"{len(kept)} layer(s) to choose from (of {len(stack)}, min_layer {min_layer}); a split needs 2 or more"
        )
    below = [p for i, parameters in found.items() if i < min_layer for p in parameters]
    return CandidateLayers(list(kept), list(kept.values()), below)


def adapter_modules(layer: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every peft tuner module inside a layer, with its name there."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return ((name, module) for name, module in layer.named_modules() if isinstance(module, BaseTunerLayer))


def adapter_parameters(layer: nn.Module) -> list[nn.Parameter]:
    """The active adapters' parameters inside a layer, each once."""
    found = {}
    for _, module in adapter_modules(layer):
        for name, parameter in module.named_parameters():
            parts = name.split(".")
            if parts[0] in module.adapter_layer_names and set(parts) & set(module.active_adapters):
                found[id(parameter)] = parameter
    return list(found.values())


def linear_modules(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The linear maps inside a module in the order they were defined, adapters left out (Conv1D is GPT-2's)."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from transformers.pytorch_utils import Conv1D

    found = []
    for name, child in module.named_children():
        if isinstance(child, BaseTunerLayer):
            child = child.get_base_layer()
        if isinstance(child, (nn.Linear, Conv1D)):
            found.append((name, child))
        else:
            found += [(f"{name}.{inner}", linear) for inner, linear in linear_modules(child)]
    return found


def attention_output(layer: nn.Module) -> tuple[str, nn.Module]:
    """The attention output projection: the last linear map of a layer's attention block, and its name."""
    for name, child in layer.named_children():
        linears = linear_modules(child)
        if "att" in name.lower() and linears:
            return f"{name}.{linears[-1][0]}", linears[-1][1]
    raise InputError(f"no attention block with a linear map in {type(layer).__name__}; looked for a child named *att*")


def adaptable_modules(model: nn.Module) -> list[str]:
    """Full names of the linear maps that get an adapter: all inside the layers but attention output and gate.

    On Llama, Mistral and Qwen these are the reference's five: q_proj, k_proj, v_proj, up_proj, down_proj.
    """
    path, stack = find_stack(model)
    names = []
    for index, layer in enumerate(stack):
        skipped = attention_output(layer)[0]
        names += [
            f"{path}.{index}.{name}"
            for name, _ in linear_modules(layer)
            if name != skipped and not name.endswith("gate_proj")
        ]
    return names


def describe_layers(model: nn.Module) -> "pandas.DataFrame":
    """One row per layer: its path and class, and what in it could learn; to check a match before training."""
    import pandas

    path, stack = find_stack(model)
    rows = []
    for index, layer in enumerate(stack):
        adapters = list(adapter_modules(layer))
        learning = adapter_parameters(layer) if adapters else list(layer.parameters())
        rows.append(
            {
                "layer": index,
                "path": f"{path}.{index}",
                "class": type(layer).__name__,
                "adapters": ", ".join(name for name, _ in adapters) or "none",
                "attention_output": attention_output(layer)[0],
                "parameters": sum(p.numel() for p in learning),
            }
        )
    return pandas.DataFrame(rows).set_index("layer")


def let_backprop_end_early(model: nn.Module) -> None:
    """Checkpointing makes the embeddings' output require a gradient, which drags every frozen layer along."""
    checkpoint = getattr(find_layers(model)[0], "_gradient_checkpointing_func", None)
    if not getattr(checkpoint, "keywords", {}).get("use_reentrant"):  # the reentrant kind cannot do without
        base_model(model).disable_input_require_grads()


def base_model(model: nn.Module) -> nn.Module:
    """The model without peft's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
