"""Importance scores of layers, from their gradients, their weights, or their effect on the hidden states."""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import nn

from irtuning.errors import InputError, unknown
from irtuning.method.layers import CandidateLayers, adapter_modules, attention_output, find_layers
from irtuning.method.processes import summed, world_size
from irtuning.method.selector import REFERENCE_UNMEASURED


def tensor_norms(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the L2 norm of each tensor in float32, as clip_grad_norm_ computes it, shape (n,), on one device."""
    norms = torch._foreach_norm(list(tensors), 2, dtype=torch.float32)
    return torch.stack([norm.to(norms[0].device) for norm in norms])


def gradient_score(norms: Sequence[float], form: str = "l2", weights: int = 1) -> float:
    """Return a layer's score from the L2 norms ||g_i|| of its gradient tensors, which have so many `weights` in all.

    `l2` is the norm of the layer's gradient, sqrt(sum ||g_i||^2). `rms` divides it by sqrt(weights), so that layers of
    different size compare. `reference` is what the authors' code computes, sqrt(sum sqrt(||g_i||)), where a norm that
    is not finite counts as 1000. Any other form raises InputError.

    >>> gradient_score([3.0, 4.0]), gradient_score([4.0, 4.0], "reference")
    (5.0, 2.0)
    """
    if form in ("l2", "rms"):
        return math.sqrt(sum(norm * norm for norm in norms) / (weights if form == "rms" else 1))
    if form != "reference":
        raise unknown("gradient score", form, ("reference", "l2", "rms"))
    return math.sqrt(sum(math.sqrt(n if math.isfinite(n) else REFERENCE_UNMEASURED) for n in norms))


def weight_scores(model: nn.Module, candidates: CandidateLayers) -> list[float]:
    """Return the L2 norm of each layer's attention output projection. InputError if the weights are quantized."""
    weights = [attention_output(find_layers(model)[index])[1].weight.detach() for index in candidates.indices]
    if not all(weight.is_floating_point() for weight in weights):
        raise InputError("weight importance cannot be computed from quantized weights; use quantize=none")
    return tensor_norms(weights).tolist()


class CosineMeter:
    """Meter of the cosine similarity between each candidate layer's input and output hidden states.

    `token` is the mean over all tokens, without padding, of the training batches since the last reading. `reference`
    follows the description of the authors' code: hidden states are averaged over the batch, padding included, before
    the cosine is taken at each position. It sees the first forward pass since its last reading, even of an evaluation.
    """
    def __init__(self, model: nn.Module, candidates: CandidateLayers, form: str = "token"):
        if form not in ("token", "reference"):
            raise unknown("cosine form", form, ("token", "reference"))
        self._form, self._mask, self._count, stack = form, None, len(candidates.indices), find_layers(model)
        self._seen: dict[int, torch.Tensor] = {}  # sum and weight of each layer's similarities, on the device
        self._handles = [model.register_forward_pre_hook(self._keep_mask, with_kwargs=True)]
        self._handles += [stack[index].register_forward_hook(partial(self._measure, position), with_kwargs=True)
                          for position, index in enumerate(candidates.indices)]  # fmt: skip

    def read(self) -> torch.Tensor | None:
        """Return and reset the mean similarities over all processes, shape (candidates,). None if a layer has none."""
        if len(self._seen) < self._count:
            return None
        totals, weights = summed(torch.stack([self._seen[position] for position in range(self._count)], dim=1))
        self._seen = {}
        return totals / weights

    def state(self) -> list:
        """Return the sums so far as a JSON object for a checkpoint."""
        return [(position, seen.tolist()) for position, seen in self._seen.items()]

    def restore(self, state: list, device: torch.device) -> None:
        """Continue from the sums in a checkpoint."""
        self._seen = {position: torch.tensor(seen, device=device) for position, seen in state}

    def remove(self) -> None:
        """Remove all hooks from the model."""
        for handle in self._handles:
            handle.remove()

    def _keep_mask(self, module, args, kwargs) -> None:
        self._mask = kwargs.get("attention_mask")

    @torch.no_grad()
    def _measure(self, position: int, layer: nn.Module, args: tuple, kwargs: dict, output) -> None:
        """Add the similarities of a layer's hidden states, shape (batch, length, width), without waiting."""
        if not layer.training if self._form == "token" else position in self._seen:
            return
        before = (args[0] if args else kwargs["hidden_states"]).float()
        after = (output[0] if isinstance(output, tuple) else output).float()
        if self._form == "reference":
            before, after = before.mean(0), after.mean(0)
        cosine = torch.cosine_similarity(before, after, dim=-1)
        cosine = cosine.mean() if self._form == "reference" else cosine
        weight = self._mask if getattr(self._mask, "shape", None) == cosine.shape else torch.ones_like(cosine)
        seen = torch.stack([(cosine * weight).sum(), weight.sum().float()])
        self._seen[position] = self._seen[position] + seen if position in self._seen else seen


@torch.no_grad()
def losses_without(model: nn.Module, batch: Mapping, layers: Sequence[Sequence[int]], factor: float) -> list[float]:
    """Return a batch's loss, without dropout, for each set of layers whose adapters' output is scaled by `factor`."""
    def suppress(module, args, kwargs, output):
        base = module.get_base_layer()(*args, **kwargs)
        return base + factor * (output - base)
    stack, was_training, losses = find_layers(model), model.training, []
    model.eval()
    for indices in layers:
        with ExitStack() as hooks, torch.compiler.set_stance("force_eager"):  # compiled layers skip hooks
            for _, module in [pair for index in indices for pair in adapter_modules(stack[index])]:
                hooks.enter_context(module.register_forward_hook(suppress, with_kwargs=True))
            losses.append(model(**batch).loss.float())
    model.train(was_training)
    return (summed(torch.stack(losses)) / world_size()).tolist()
