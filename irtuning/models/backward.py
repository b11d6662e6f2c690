"""A cheaper, approximate backward pass: layers of which nothing learns hand the gradient on as it is."""

import torch
from torch import nn
from torch.autograd.graph import get_gradient_edge

from irtuning.errors import InputError
from irtuning.method.layers import find_layers

# Operations that hand on their gradient as it is. A reshape does so where the shape is the first one again in the end.
SUMS = {"AddBackward0", "ToCopyBackward0", "ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0"}


class _Straight(torch.autograd.Function):
    """A layer's output, whose gradient becomes the gradient of the layer's input."""
    @staticmethod
    def forward(ctx, hidden: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        return output.detach()

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient, None


def skip_backward(model: nn.Module) -> None:
    """Let backpropagation pass layers of which nothing learns through their residual connection alone.

    Such a layer h + f(h) keeps no activations, and its backward pass takes the derivative of f for zero. All outputs
    stay the same to the last bit, but the gradients of what learns below are approximate. Which layers learn is read
    from `requires_grad` at each call. Set up adapters and compilation before. Related: LCSB (arXiv 2602.13073), where
    random layers are skipped. InputError: the layers do not add to their input, such as post-norm layers.
    """
    layers = find_layers(model)
    if not _is_residual(model, layers[0]):
        raise InputError(f"backward=skip needs layers that add to their input; {type(layers[0]).__name__} does not, "
                         "as a post-norm layer, which normalises the sum; use backward=exact")  # fmt: skip
    for layer in layers:
        layer.forward = _skipping(layer)


def _skipping(layer: nn.Module):
    forward, parameters = layer.forward, list(layer.parameters())
    def skipping(*args, **kwargs):
        """Run the layer as it is where anything in it learns, and otherwise without its graph."""
        hidden = args[0] if args else kwargs["hidden_states"]
        if not (torch.is_grad_enabled() and hidden.requires_grad) or any(p.requires_grad for p in parameters):
            return forward(*args, **kwargs)
        with torch.no_grad():
            output = forward(*args, **kwargs)
        if torch.is_tensor(output):
            return _Straight.apply(hidden, output)
        return _Straight.apply(hidden, output[0]), *output[1:]
    return skipping


def _is_residual(model: nn.Module, layer: nn.Module) -> bool:
    """Return whether the autograd graph of one run shows a layer's output as a sum with its input as one term."""
    ends, training = [], model.training
    def before(layer: nn.Module, args: tuple, kwargs: dict) -> None:
        ends.append((args[0] if args else kwargs["hidden_states"]).requires_grad_())
    def after(layer: nn.Module, args: tuple, output: object) -> None:
        ends.append(output if torch.is_tensor(output) else output[0])
    ids = torch.ones(1, 4, dtype=torch.long, device=next(layer.parameters()).device)
    with (torch.enable_grad(), torch.autocast(ids.device.type, torch.bfloat16), layer.register_forward_hook(after),
          torch.compiler.set_stance("force_eager"), layer.register_forward_pre_hook(before, with_kwargs=True)):
        model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids))
    model.train(training)
    terms = [ends[1].grad_fn]
    for term in terms:  # the list grows by the terms of each sum in it
        terms += [node for node, _ in term.next_functions if node] if term.name() in SUMS else []
    return terms.count(get_gradient_edge(ends[0]).node) == 1
