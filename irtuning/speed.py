"""Opt-in accelerations of a training step: the same numbers up to rounding, in less time or memory."""

import importlib
import importlib.util
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from irtuning.errors import InputError

if TYPE_CHECKING:
    from torch import nn

ACCELERATIONS = {
    "uncast": "adapters read their input as it is instead of a float32 copy; autocast then works in bfloat16",
    "compile": "each layer's forward and backward compiled; the first steps take a minute or more",
    "liger": "RMSNorm, SwiGLU and RoPE as liger-kernel's fused kernels (NVIDIA GPUs)",
    "lean": "activations recomputed in backprop, in the layers at and above the lowest that learns",
}
GRAPHS = 64  # learns or not x input needs a gradient or not x training or not x padded or not x shapes fixed or not


def problems(names: Collection[str], checkpointing: bool = False) -> list[str]:
    """What is wrong with a choice of accelerations, a text each."""
    known = ", ".join(ACCELERATIONS)
    found = [f"speed is {name!r}, give some of {known}" for name in names if name not in ACCELERATIONS]
    if checkpointing and "lean" in names:
        found.append("speed is 'lean' and checkpointing is True, which recompute the same activations; give one")
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


def accelerate(model: "nn.Module", names: Collection[str]) -> None:
    """Switch accelerations on in a classifier that has its adapters already (`liger`: see `fused_kernels`).

    Raises:
        InputError: an unknown name.
    """
    from irtuning.layers import adapter_modules, find_layers

    if wrong := problems(names):
        raise InputError("; ".join(wrong))
    if "uncast" in names:
        for _, module in adapter_modules(model):
            module.cast_input_dtype_enabled = False  # peft's own switch
    model.config.use_cache = False  # a cache of keys is filled twice by a recomputed layer, and tells layers apart
    for layer in find_layers(model):
        if "compile" in names:
            layer.forward = compiled(layer.forward)
        if "lean" in names:  # outside of what is compiled
            layer.forward = recomputed(layer)


def compiled(forward: Callable) -> Callable:
    """A layer's forward as compiled code that all layers share.

    What is compiled depends on which parameters and inputs require gradients, so that a changed choice of layers
    finds its graphs compiled already, at most one for each kind of layer: below the lowest that learns, the lowest,
    and above it frozen or learning. The layer's own hooks stay outside.
    """
    import torch

    torch._dynamo.config.recompile_limit = max(GRAPHS, torch._dynamo.config.recompile_limit)
    return torch.compile(forward)


def recomputed(layer: "nn.Module") -> Callable:
    """A layer's forward that keeps its inputs only, wherever backprop will come by: checkpointing, but not below."""
    import torch
    from torch.utils.checkpoint import checkpoint

    forward, parameters = layer.forward, list(layer.parameters())

    def lean(*args, **kwargs):
        tensors = (value for value in (*args, *kwargs.values(), *parameters) if isinstance(value, torch.Tensor))
        if layer.training and torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            return checkpoint(forward, *args, use_reentrant=False, **kwargs)
        return forward(*args, **kwargs)

    return lean
