"""Opt-in accelerations of a training step: the same numbers up to rounding, in less time or memory."""

import importlib
import importlib.util
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from irtuning.errors import InputError

if TYPE_CHECKING:
    from torch import nn

ACCELERATIONS = {
    "uncast": "adapters read their input as it is instead of a float32 copy; autocast then works in bfloat16",
    "compile": "each layer's forward and backward compiled; the first steps take a minute or more",
    "liger": "RMSNorm, SwiGLU and RoPE as liger-kernel's fused kernels (NVIDIA GPUs)",
}
GRAPHS = 64  # learns or not x input needs a gradient or not x training or not x padded or not x shapes fixed or not


def problems(names: Collection[str], activation_budget: float = 1.0) -> list[str]:
    """What is wrong with a choice of accelerations, a text each."""
    known = ", ".join(ACCELERATIONS)
    found = [f"speed is {name!r}, give some of {known}" for name in names if name not in ACCELERATIONS]
    if not 0 <= activation_budget <= 1:
        found.append(f"activation_budget is {activation_budget}, give 0 (keep least) to 1 (recompute nothing dear)")
    elif activation_budget < 1 and "compile" not in names:
        found.append(f"activation_budget is {activation_budget}, which compiled layers heed: add compile to speed")
    return found


@contextmanager
def fused_kernels(model_type: str) -> Iterator[None]:
    """Models built and used inside take liger-kernel's classes; undone at the end.

    The classes are patched before the model is built, without liger's loss kernels: applied to a finished sequence
    classifier it looks for a language model's head.

    Args:
        model_type: transformers' name of the architecture, `config.model_type`.

    Raises:
        InputError: no GPU, liger-kernel is not installed, or it does not know the architecture.
    """
    patch = _liger_patch(model_type)
    module = importlib.import_module(f"transformers.models.{model_type}.modeling_{model_type}")
    before = dict(vars(module))
    patch()
    try:
        yield
    finally:
        vars(module).update(before)


def _liger_patch(model_type: str) -> Callable[[], None]:
    import torch

    if importlib.util.find_spec("liger_kernel") is None:
        raise InputError("speed=liger needs liger-kernel: pip install 'irtuning[liger]'")
    if not torch.cuda.is_available():
        raise InputError("speed=liger needs a GPU: its kernels do not run on a CPU; leave it out")
    from liger_kernel.transformers import monkey_patch

    if model_type not in (known := monkey_patch.MODEL_TYPE_TO_APPLY_LIGER_FN):
        raise InputError(f"liger-kernel knows no {model_type!r} model, leave it out; it knows: {', '.join(known)}")
    fused = {"rope": True, "swiglu": True, "rms_norm": True}
    losses = {"cross_entropy": False, "fused_linear_cross_entropy": False}
    return lambda: monkey_patch._apply_liger_kernel(model_type, **fused, **losses)  # passes on what it takes there


def accelerate(model: "nn.Module", names: Collection[str], activation_budget: float = 1.0) -> None:
    """Switch accelerations on in a classifier that has its adapters already (`liger`: see `fused_kernels`).

    Args:
        activation_budget: share of the activations that a compiled layer keeps for backprop, which recomputes the
            others: those that cost least first.

    Raises:
        InputError: an unknown name, or a budget that cannot be, or that this torch cannot keep for such a model.
    """
    from irtuning.method.layers import adapter_modules, find_layers

    if wrong := problems(names, activation_budget):
        raise InputError("; ".join(wrong))
    if 0 < activation_budget < 1 and not _can_weigh(model.config):
        raise InputError(
            f"activation_budget is {activation_budget}, and this torch cannot weigh attention whose key heads are fewer "
            "than its query heads (2.11 cannot, 2.13 can); give 0 or 1, or a newer torch"
        )
    if "uncast" in names:
        for _, module in adapter_modules(model):
            module.cast_input_dtype_enabled = False  # peft's own switch
    if "compile" in names:
        model.config.use_cache = False  # the cache's index would tell layers apart
        compile_layers(find_layers(model), activation_budget)


def _can_weigh(config: object) -> bool:
    """Whether torch's count of operations, which a budget is kept by, knows this model's attention."""
    from torch.utils.flop_counter import sdpa_flop_count

    heads = getattr(config, "num_attention_heads", 1)
    queries, keys = ((1, count, 8, 8) for count in (heads, getattr(config, "num_key_value_heads", None) or heads))
    try:
        return sdpa_flop_count(queries, keys, keys) > 0
    except AssertionError:
        return False


def compile_layers(layers: "Iterable[nn.Module]", activation_budget: float = 1.0) -> None:
    """Give each layer a compiled forward; all layers share the compiled code.

    What is compiled depends on which parameters and inputs require gradients, so that a changed choice of layers
    finds its graphs compiled already, at most one for each kind of layer: below the lowest that learns, the lowest,
    and above it frozen or learning. The layers' own hooks stay outside.
    """
    import torch
    from torch._functorch import config

    torch._dynamo.config.recompile_limit = max(GRAPHS, torch._dynamo.config.recompile_limit)
    if config.activation_memory_budget != activation_budget:
        torch._dynamo.reset()  # what was compiled for another budget would be taken
        config.activation_memory_budget = activation_budget
    for layer in layers:
        layer.forward = torch.compile(layer.forward)
