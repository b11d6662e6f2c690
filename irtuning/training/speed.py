"""Optional accelerations of a training step."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from irtuning.errors import InputError

if TYPE_CHECKING:
    from torch import nn
    from transformers import Trainer

ACCELERATIONS = {
    "float8": "the base's frozen weights are kept and multiplied in float8, which changes the numbers a little",
    "uncast": "adapters read their input itself, not a float32 copy, so that autocast works in bfloat16",
    "compile": "each layer's forward and backward pass is compiled; the first steps take a minute or more"}  # fmt: skip
GRAPHS = 64  # per layer: it learns or not, its input has a gradient or not, and so on


def problems(names: Collection[str], activation_budget: float = 1.0) -> list[str]:
    """Return what is wrong with a choice of accelerations, one text for each problem."""
    texts = [f"speed is {n!r}, give some of {', '.join(ACCELERATIONS)}" for n in names if n not in ACCELERATIONS]
    if not 0 <= activation_budget <= 1:
        texts.append(f"activation_budget is {activation_budget}, give 0 (keep least) to 1 (recompute nothing costly)")
    elif activation_budget < 1 and "compile" not in names:
        texts.append(f"activation_budget is {activation_budget}, which only compiled layers use; add compile to speed")
    return texts


def accelerate(model: "nn.Module", names: Collection[str], activation_budget: float = 1.0) -> None:
    """Switch on accelerations by name in a classifier that already has its adapters. InputError if one cannot work.

    `activation_budget` is the share of activations that a compiled layer keeps for backward; it recomputes the rest.
    """
    import torch
    from torch._functorch import config
    from irtuning.method.layers import adapter_modules, find_layers
    if wrong := problems(names, activation_budget):
        raise InputError("; ".join(wrong))
    if 0 < activation_budget < 1 and not _can_weigh(model.config):
        problem = "this torch cannot weigh the cost of attention with fewer key heads than query heads (2.13 can)"
        raise InputError(f"activation_budget is {activation_budget}, but {problem}; give 0 or 1, or update torch")
    for _, module in adapter_modules(model) if "uncast" in names else ():
        module.cast_input_dtype_enabled = False  # an option of peft
    if "float8" in names:
        from irtuning.models.float8 import freeze_in_float8
        freeze_in_float8(model)
    if "compile" not in names:
        return
    model.config.use_cache = False  # with a cache, each layer would need its own graph
    # All layers share the compiled code. There is one graph for each combination of what requires gradients, so a new
    # choice of layers finds its graphs compiled already.
    torch._dynamo.config.recompile_limit = max(GRAPHS, torch._dynamo.config.recompile_limit)
    if config.activation_memory_budget != activation_budget:
        torch._dynamo.reset()  # otherwise graphs for another budget would be used
        config.activation_memory_budget = activation_budget
    for layer in find_layers(model):
        layer.forward = torch.compile(layer.forward)  # the layer's hooks stay outside


def _can_weigh(config: object) -> bool:
    """Return whether torch can count the operations of this model's attention, as an activation budget requires."""
    from torch.utils.flop_counter import sdpa_flop_count
    heads = getattr(config, "num_attention_heads", 1)
    queries, keys = ((1, count, 8, 8) for count in (heads, getattr(config, "num_key_value_heads", None) or heads))
    try:
        return sdpa_flop_count(queries, keys, keys) > 0
    except AssertionError:
        return False


@contextmanager
def few_walks(trainer: "Trainer") -> Iterator[None]:
    """Skip three traversals of all modules that the Trainer makes at each step while the GPU waits.

    The Trainer sets train mode, which is set already. It searches for all parameters to clear their gradients, although
    the optimizer knows them. It counts operations that nobody reads.
    """
    model, train = trainer.model, trainer.model.train
    model.train = lambda mode=True: model if mode == model.training else train(mode)
    model.zero_grad = lambda set_to_none=True: trainer.optimizer.zero_grad(set_to_none)
    trainer.floating_point_ops = lambda inputs: 0
    try:
        yield
    finally:
        del model.train, model.zero_grad, trainer.floating_point_ops
