"""Optional accelerations of a training step, put into a model that has its adapters."""

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

ACCELERATIONS = {
    "float8": "the base's frozen weights are kept and multiplied in float8, which changes the numbers a little",
    "uncast": "adapters read their input itself, not a float32 copy, so that autocast works in bfloat16",
    "compile": "each layer's forward and backward pass is compiled; the first steps take a minute or more",
    "recompute": "with compile: layers keep 80 % of their activations, and compute the rest anew where that is cheap",
}  # fmt: skip
KEPT = 0.8  # reports/benchmarks/tables.md: 5.4 GiB less and 1 % slower at the shape of Llama-3.1-8B
GRAPHS = 64  # per layer: it learns or not, its input has a gradient or not, and so on


def accelerate(model: "nn.Module", names: Collection[str], device: str | None = None) -> None:
    """Switch on accelerations, keys of `ACCELERATIONS`, in a classifier with adapters that will be on `device`."""
    import torch
    from irtuning.method.layers import adapter_modules, find_layers
    for _, module in adapter_modules(model) if "uncast" in names else ():
        module.cast_input_dtype_enabled = False  # an option of peft
    if "float8" in names:
        from irtuning.models.float8 import freeze_in_float8
        freeze_in_float8(model, device)
    if "compile" not in names:
        return
    budget = KEPT if "recompute" in names else 1.0
    if budget != torch._functorch.config.activation_memory_budget:
        torch._dynamo.reset()  # or layers would use what an earlier run of this process compiled
        torch._functorch.config.activation_memory_budget = budget
    model.config.use_cache = False  # with a cache, each layer would need its own graph
    # All layers share the compiled code. There is one graph for each combination of what requires gradients, so a new
    # choice of layers finds its graphs compiled already.
    torch._dynamo.config.recompile_limit = max(GRAPHS, torch._dynamo.config.recompile_limit)
    for layer in find_layers(model):
        layer.forward = torch.compile(layer.forward)  # the layer's hooks stay outside
