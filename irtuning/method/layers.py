"""The layers of any Hugging Face classifier, and the parameters in each layer that can learn."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers.pytorch_utils import Conv1D  # GPT-2's linear map

from irtuning.errors import InputError

ON_PURPOSE = "modules_to_save|trainable_tokens"  # in the names of what peft was told to train outside its adapters
UNFIT = {"POLY": "needs the ids of tasks in every batch", "SHADOW": "changes what the layers return"}  # tuners of peft


@dataclass(frozen=True)
class CandidateLayers:
    """The layers that a strategy may choose from, or the blocks of layers."""
    indices: list[int]  # their numbers in the stack, ascending, from 0; two blocks of a layer have the same one
    parameters: list[list[nn.Parameter]]  # those of each layer that can learn
    below: list[nn.Parameter]  # those of the layers under the lowest one allowed, which never learn
    blocks: list[str]  # the names of the blocks, such as `3.attention` and `3.mlp`; empty for whole layers

    def freeze_all_but(self, chosen: Sequence[int]) -> None:
        """Let only the layers at these positions learn. The others' gradients become None."""
        for position, parameters in enumerate([*self.parameters, self.below]):
            for parameter in parameters:
                parameter.requires_grad_(position in chosen)
                parameter.grad = parameter.grad if position in chosen else None


def find_layers(model: nn.Module) -> nn.ModuleList:
    """Return the transformer stack of a decoder or encoder classifier, wrapped by peft or not.

    The stack is a ModuleList of modules of one class, not inside another, as long as the configuration says the model
    is deep (of any length without a configuration). Of several such lists it is the one with most parameters.
    InputError says if there is none, or two as in an encoder-decoder.
    """
    config, kind = getattr(model, "config", None), type(model).__name__
    if getattr(config, "is_encoder_decoder", False):
        raise InputError(f"{kind} is an encoder-decoder with two stacks; use a decoder or an encoder")
    config = config.get_text_config() if hasattr(config, "get_text_config") else config  # it may be inside another
    depth = getattr(config, "num_hidden_layers", None)
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)
             and len(module) == (depth or len(module)) and len({*map(type, module)}) == 1}  # fmt: skip
    outer = [name for name in lists if not any(name.startswith(other + ".") for other in lists)]
    if not outer:
        raise InputError(f"no transformer stack in {kind}: looked for a ModuleList of {depth or 'one or more'} layers "
                         "of one class; a model whose depths share one layer's weights has none")  # fmt: skip
    return max((lists[name] for name in outer), key=lambda stack: sum(p.numel() for p in stack.parameters()))


def candidate_layers(model: nn.Module, min_layer: int = 0, unit: str = "layer") -> CandidateLayers:
    """Return the layers from `min_layer` on that can learn: those with adapters, or all if the model has none.

    The unit `block` cuts each of them in two: the attention block, and as `mlp` the rest with the norms.
    """
    stack, adapted = find_layers(model), has_adapters(model)
    others = ([p for p in layer.parameters() if p.requires_grad or not adapted] for layer in stack)  # such as biases
    layers = [[*dict.fromkeys([*adapter_parameters(layer), *ps])] for layer, ps in zip(stack, others, strict=True)]
    if not any(layers):
        raise InputError(f"the adapters match no module inside the {len(stack)} layers; check target_modules")
    if any(module.merged for _, module in adapter_modules(stack)):
        raise InputError("the adapters are merged into the weights, so they would not learn; call unmerge_adapter()")
    _refuse_strays(model, stack, layers)
    allowed = [i for i, parameters in enumerate(layers) if parameters and i >= min_layer]
    if len(allowed) < 2:
        raise InputError(f"{len(allowed)} of {len(stack)} layers with min_layer {min_layer}; a split needs 2 or more")
    below = [p for layer in layers[:min_layer] for p in layer]
    if unit == "block":
        inside = {id(p) for i in allowed for p in attention_block(stack[i])[1].parameters()}
        parts = [(f"{i}.{part}", [p for p in layers[i] if (id(p) in inside) == (part == "attention")])
                 for i in allowed for part in ("attention", "mlp")]  # fmt: skip
        names, values = zip(*(part for part in parts if part[1]), strict=True)
        return CandidateLayers([int(name.split(".")[0]) for name in names], [*values], below, [*names])
    return CandidateLayers(allowed, [layers[i] for i in allowed], below, [])


def has_adapters(model: nn.Module) -> bool:
    """Return whether the model, or a part of it such as the encoder, is wrapped by peft."""
    return any(hasattr(module, "peft_config") for module in model.modules())


def _refuse_strays(model: nn.Module, stack: nn.ModuleList, layers: list[list[nn.Parameter]]) -> None:
    """Raise InputError if what can learn belongs to several layers, or lies in adapters, lists or biases outside."""
    configs = [(m, c) for m in model.modules() for c in getattr(m, "peft_config", {}).values()]
    if unfit := [f"{kind} {why}" for kind, why in UNFIT.items() if any(c.peft_type == kind for _, c in configs)]:
        raise InputError(f"peft's {unfit[0]}, so that no classifier trains with it here; use another adapter")
    names, inside = {id(p): name for name, p in model.named_parameters()}, [id(p) for layer in layers for p in layer]
    if shared := [names[key] for key, count in Counter(inside).items() if count > 1]:
        raise InputError(f"{shared[0]} is shared by several layers, so it cannot be frozen with one of them; use "
                         "an adapter that shares no weights between layers")  # fmt: skip
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == len(stack)]
    able = {p for _, module in adapter_modules(model) for p in module.parameters()}
    able |= {p for m, c in configs if getattr(c, "bias", "") == "all" for n, p in m.named_parameters() if "bias" in n}
    able = [p for n, p in model.named_parameters() if p in able and not re.search(ON_PURPOSE, n)]
    if stray := [names[id(p)] for p in (*able, *(p for module in lists for p in module.parameters()))
                 if p.requires_grad and id(p) not in inside]:  # fmt: skip
        raise InputError(f"{stray[0]} can learn and is outside the {len(stack)} layers, so it would learn at every "
                         "step; choose target_modules in one list of layers, and no bias='all'")  # fmt: skip


def frozen_head(model: nn.Module) -> str | None:
    """Return the name of the head if peft froze it, told of no task, and nothing else outside the layers learns."""
    base, inside = getattr(model, "get_base_model", lambda: model)(), {id(p) for p in find_layers(model).parameters()}
    task = getattr(getattr(model, "active_peft_config", None), "task_type", None)
    known = task in ("SEQ_CLS", "CAUSAL_LM") or not has_adapters(model)
    if known or not hasattr(base, getattr(base, "base_model_prefix", "eval")):
        return None
    *_, (name, last) = ((n, {*map(id, m.parameters())}) for n, m in base.named_children() if [*m.parameters()])
    return None if last & inside or any(p.requires_grad and id(p) not in inside for p in model.parameters()) else name


def adapter_modules(layer: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Return every peft tuner module inside a layer, with its name there."""
    return ((name, module) for name, module in layer.named_modules() if isinstance(module, BaseTunerLayer))


def adapter_parameters(layer: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of the active adapters inside a layer, each once."""
    found = ((module, *item) for _, module in adapter_modules(layer) for item in module.named_parameters())
    return list({id(p): p for module, name, p in found if name.split(".")[0] in module.adapter_layer_names
                 and {*name.split(".")} & {*module.active_adapters}}.values())  # fmt: skip


def linear_modules(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the linear maps inside a module in the order of their definition, without those of adapters."""
    linears = []
    for name, child in module.named_children():
        child = child.get_base_layer() if isinstance(child, BaseTunerLayer) else child
        is_linear = isinstance(child, (nn.Linear, Conv1D))
        linears += [(name, child)] if is_linear else [(f"{name}.{n}", linear) for n, linear in linear_modules(child)]
    return linears


def attention_output(layer: nn.Module) -> tuple[str, nn.Module]:
    """Return the name and the module of the attention output projection, the attention block's last linear map."""
    name, block = attention_block(layer)
    inside, linear = linear_modules(block)[-1]
    return f"{name}.{inside}", linear


def attention_block(layer: nn.Module) -> tuple[str, nn.Module]:
    """Return the name and the module of a layer's attention block, its first child named *att* with a linear map."""
    for name, child in layer.named_children():
        if "att" in name.lower() and linear_modules(child):
            return name, child
    raise InputError(f"no attention block with a linear map in {type(layer).__name__}; looked for a child named *att*")


def let_backprop_end_early(model: nn.Module) -> None:
    """Let backpropagation end at the lowest layer that learns, also with gradient checkpointing."""
    # Checkpointing makes the embeddings' output require a gradient, which the reentrant kind alone needs.
    checkpoint = getattr(find_layers(model)[0], "_gradient_checkpointing_func", None)
    if not getattr(checkpoint, "keywords", {}).get("use_reentrant"):
        for module in filter(lambda module: hasattr(module, "disable_input_require_grads"), [*model.modules()]):
            module.disable_input_require_grads()
