"""How important a layer is: by its gradient, by its weights, or by what it does to the hidden states."""

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
    """Return the L2 norm of each tensor in float32, shape (n,), on the device of the first one."""
    norms = torch._foreach_norm(list(tensors), 2, dtype=torch.float32)  # as clip_grad_norm_ computes them
    return torch.stack([norm.to(norms[0].device) for norm in norms])


def gradient_score(norms: Sequence[float], form: str = "l2") -> float:
    """Return a layer's score from the L2 norms ||g_i|| of its gradient tensors.

    `l2` is the norm of the layer's gradient, sqrt(sum ||g_i||^2). `reference` is what the authors' code computes,
    sqrt(sum sqrt(||g_i||)), where a norm that is not finite counts as 1000.

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
    """Return the L2 norm of each candidate's attention output projection (the authors' `weight` importance)."""
    stack = find_layers(model)
    weights = [attention_output(stack[index])[1].weight.detach() for index in candidates.indices]
    if not all(weight.is_floating_point() for weight in weights):
        raise InputError("weight importance needs the weights themselves, and these are quantized; use quantize=none")
    return tensor_norms(weights).tolist()


class CosineMeter:
    """Meter of the cosine similarity between each candidate layer's input and output hidden states.

    A high value means that the layer changes little. `token` is the mean over all tokens, without padding, of the
    training batches since the last reading. `reference` follows the description of the authors' code: hidden states
    are averaged over the batch, padding included, before the cosine is taken at each position. It looks only at the
    first forward pass since the last reading, which after an evaluation is an evaluation batch. With several
    processes the result is the mean of theirs. Nothing is copied to the host.
    """

    def __init__(self, model: nn.Module, candidates: CandidateLayers, form: str = "token"):
        if form not in ("token", "reference"):
            raise unknown("cosine form", form, ("token", "reference"))
        self._form, self._mask = form, None
        # sum and weight of each layer's similarities since the last reading, two scalars on the device
        self._seen: list[tuple[torch.Tensor, torch.Tensor] | None] = [None] * len(candidates.indices)
        stack = find_layers(model)
        self._handles = [model.register_forward_pre_hook(self._keep_mask, with_kwargs=True)]
        for position, index in enumerate(candidates.indices):
            self._handles.append(stack[index].register_forward_hook(self._measure(position), with_kwargs=True))

    def read(self) -> torch.Tensor | None:
        """Return the similarities, shape (candidates,), and start anew; None if a layer has not been seen."""
        if any(seen is None for seen in self._seen):
            return None
        totals, weights = summed(torch.stack([torch.stack(seen) for seen in self._seen], dim=1))
        self._seen = [None] * len(self._seen)
        return totals / weights

    def state(self) -> list[tuple[float, float] | None]:
        """Return what was seen since the last reading, as a JSON list for a checkpoint."""
        return [None if seen is None else (seen[0].item(), seen[1].item()) for seen in self._seen]

    def restore(self, state: list[tuple[float, float] | None], device: torch.device) -> None:
        """Continue from a `state`, on `device`."""
        self._seen = [None if seen is None else tuple(torch.tensor(v, device=device) for v in seen) for seen in state]

    def remove(self) -> None:
        """Remove the hooks from the model."""
        for handle in self._handles:
            handle.remove()

    def _keep_mask(self, module, args, kwargs) -> None:
        self._mask = kwargs.get("attention_mask")

    def _measure(self, position: int):
        @torch.no_grad()
        def hook(layer, args, kwargs, output) -> None:
            old = self._seen[position]
            if not layer.training if self._form == "token" else old is not None:
                return
            before = args[0] if args else kwargs["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            new = self._similarity(before.detach().float(), after.detach().float())
            self._seen[position] = new if old is None else (old[0] + new[0], old[1] + new[1])

        return hook

    def _similarity(self, before: torch.Tensor, after: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the sum and the weight of the similarities of hidden states of shape (batch, length, width)."""
        if self._form == "reference":
            cosine = torch.cosine_similarity(before.mean(0), after.mean(0), dim=-1).mean()
            return cosine, torch.ones_like(cosine)
        cosine = torch.cosine_similarity(before, after, dim=-1)
        if self._mask is None or self._mask.shape != cosine.shape:
            return cosine.sum(), torch.ones_like(cosine).sum()
        return (cosine * self._mask).sum(), self._mask.sum().float()


@torch.no_grad()
def losses_without(model: nn.Module, batch: Mapping, layers: Sequence[Sequence[int]], factor: float) -> list[float]:
    """Return the loss of a batch, dropout off, with the adapters of each set of layers suppressed in turn.

    The output of a suppressed adapter is multiplied by `factor`. With several processes a loss is the mean of theirs.
    """
    stack, was_training, losses = find_layers(model), model.training, []
    model.eval()
    for indices in layers:  # in eager mode, since compiled layers would not run the hooks that suppress
        with _suppressed([stack[i] for i in indices], factor), torch.compiler.set_stance("force_eager"):
            losses.append(model(**batch).loss.float())
    model.train(was_training)
    return mean(torch.stack(losses)).tolist()


@contextmanager
def _suppressed(layers: list[nn.Module], factor: float) -> Iterator[None]:
    """Multiply the output of every adapter inside these layers by `factor`, whatever its kind."""

    def scale(module, args, kwargs, output):
        base = module.get_base_layer()(*args, **kwargs)
        return base + factor * (output - base)

    modules = [module for layer in layers for _, module in adapter_modules(layer)]
    handles = [module.register_forward_hook(scale, with_kwargs=True) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
