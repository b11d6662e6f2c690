"""How important a layer is: from its gradient, its weights, or what it does to the hidden states."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from irtuning.errors import InputError, unknown
from irtuning.method.layers import CandidateLayers, adapter_modules, attention_output, find_layers
from irtuning.method.processes import mean, summed
from irtuning.method.selector import REFERENCE_UNMEASURED


def tensor_norms(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """L2 norm of each tensor in float32, shape (n,), on the first one's device; nothing is read back."""
    norms = torch._foreach_norm(list(tensors), 2, dtype=torch.float32)  # what clip_grad_norm_ uses itself
    return torch.stack([norm.to(norms[0].device) for norm in norms])


def gradient_score(norms: Sequence[float], form: str = "l2") -> float:
    """A layer's score from the L2 norms ||g_i|| of its gradient tensors.

    `l2` is the norm of the whole gradient, sqrt(sum ||g_i||^2). `reference` is what the authors' code computes,
    sqrt(sum sqrt(||g_i||)), a norm that is not finite counting as 1000.

    >>> gradient_score([3.0, 4.0])
    5.0
    >>> gradient_score([4.0, 4.0], "reference")
    2.0
    """
    if form == "l2":
        return math.sqrt(sum(norm * norm for norm in norms))
    if form != "reference":
        raise unknown("gradient score", form, ("reference", "l2"))
    return math.sqrt(sum(math.sqrt(n if math.isfinite(n) else REFERENCE_UNMEASURED) for n in norms))


def weight_scores(model: nn.Module, candidates: CandidateLayers) -> list[float]:
    """L2 norm of each candidate layer's attention output projection (the authors' `weight` importance)."""
    stack = find_layers(model)
    weights = [attention_output(stack[index])[1].weight.detach() for index in candidates.indices]
    if not all(weight.is_floating_point() for weight in weights):
        raise InputError("weight importance needs the weights themselves, and these are quantized; use quantize=none")
    return tensor_norms(weights).tolist()


class CosineMeter:
    """Cosine similarity between each candidate layer's input and output hidden states; high means redundant.

    `token`: per token, padding masked, mean over the tokens of all training batches since the last reading.
    `reference`: as the authors' code is described: hidden states averaged over the batch first, padding included,
    cosine per position, mean over positions; only the first forward pass since the last reading counts, which
    after an evaluation is an evaluation batch; of several processes, the mean of theirs. Nothing is copied to the host.
    """

    def __init__(self, model: nn.Module, candidates: CandidateLayers, form: str = "token"):
        if form not in ("token", "reference"):
            raise unknown("cosine form", form, ("token", "reference"))
        self._form, self._mask = form, None
        self._sums: list[torch.Tensor | None] = [None] * len(candidates.indices)
        self._weights: list[torch.Tensor | float] = [0.0] * len(candidates.indices)
        stack = find_layers(model)
        self._handles = [model.register_forward_pre_hook(self._keep_mask, with_kwargs=True)]
        for position, index in enumerate(candidates.indices):
            hook = self._measure(position)
            self._handles.append(stack[index].register_forward_hook(hook, with_kwargs=True))

    def read(self) -> torch.Tensor | None:
        """The similarities over all processes, shape (candidates,), on the device; None when nothing was seen. Starts over."""
        if any(total is None for total in self._sums):
            return None
        weights = [torch.as_tensor(w, dtype=t.dtype, device=t.device) for t, w in zip(self._sums, self._weights, strict=True)]
        totals, weights = summed(torch.stack([torch.stack(self._sums), torch.stack(weights)]))
        self._sums, self._weights = [None] * len(self._sums), [0.0] * len(self._weights)
        return totals / weights

    def state(self) -> list[tuple[float, float] | None]:
        """What was seen since the last reading, for JSON."""
        seen = zip(self._sums, self._weights, strict=True)
        return [None if total is None else (total.item(), float(weight)) for total, weight in seen]

    def restore(self, state: list[tuple[float, float] | None], device: torch.device) -> None:
        """Go on from a `state`, the sums on `device`."""
        for position, seen in enumerate(state):
            if seen is not None:
                self._sums[position], self._weights[position] = torch.tensor(seen[0], device=device), seen[1]

    def remove(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()

    def _keep_mask(self, module, args, kwargs) -> None:
        self._mask = kwargs.get("attention_mask")

    def _measure(self, position: int):
        @torch.no_grad()
        def hook(layer, args, kwargs, output) -> None:
            if self._form == "reference" and self._sums[position] is not None:
                return
            if self._form == "token" and not layer.training:
                return
            before = args[0] if args else kwargs["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            total, weight = self._similarity(before.detach().float(), after.detach().float())
            self._sums[position] = total if self._sums[position] is None else self._sums[position] + total
            self._weights[position] = self._weights[position] + weight

        return hook

    def _similarity(self, before: torch.Tensor, after: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | float]:
        """Sum and weight of the similarities of hidden states of shape (batch, length, width)."""
        if self._form == "reference":
            return torch.cosine_similarity(before.mean(0), after.mean(0), dim=-1).mean(), 1.0
        cosine = torch.cosine_similarity(before, after, dim=-1)
        if self._mask is None or self._mask.shape != cosine.shape:
            return cosine.sum(), float(cosine.numel())
        return (cosine * self._mask).sum(), self._mask.sum()


@torch.no_grad()
def losses_without(
    model: nn.Module, batch: Mapping[str, object], layers: Sequence[Sequence[int]], factor: float
) -> list[float]:
    """Loss of a batch, dropout off, with the adapters of each set of layers suppressed in turn."""
    stack, was_training, losses = find_layers(model), model.training, []
    model.eval()
    for indices in layers:  # compiled layers, if any, do not see the hooks that suppress
        with _suppressed([stack[i] for i in indices], factor), torch.compiler.set_stance("force_eager"):
            losses.append(model(**batch).loss.float())
    model.train(was_training)
    return mean(torch.stack(losses)).tolist()


@contextmanager
def _suppressed(layers: list[nn.Module], factor: float) -> Iterator[None]:
    """Scale the output of every adapter inside these layers, whatever its kind."""

    def scale(module, args, kwargs, output):
        base = module.get_base_layer()(*args, **kwargs)
        return base + factor * (output - base)

    handles = [
        module.register_forward_hook(scale, with_kwargs=True)
        for layer in layers
        for _, module in adapter_modules(layer)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
