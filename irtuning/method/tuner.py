"""Layer-wise tuning in any PyTorch loop: choose, freeze, (your forward and backward passes), score, clip."""

import copy
import logging
import math
import operator
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from irtuning.errors import InputError, brief, differences
from irtuning.method.layers import candidate_layers, let_backprop_end_early
from irtuning.method.processes import check_votes, votes
from irtuning.method.registry import as_strategy, describe
from irtuning.method.scores import CosineMeter, gradient_score, losses_without, tensor_norms, weight_scores
from irtuning.method.strategies import Strategy

logger = logging.getLogger(__name__)


class LayerTuner:
    """Tuner that lets only the layers chosen by a strategy learn at each optimizer step; the head always learns.

    It works in any PyTorch loop:

        tuner = LayerTuner(model, "ir", optimizer)
        for batch in batches:
            tuner.begin_step()
            model(**batch).loss.backward()
            tuner.end_backward(max_norm=1.0)
            optimizer.step()
            optimizer.zero_grad()

    A step may have several backward passes. Scores come from the gradient as it is at the end of them, before
    clipping, so divide each loss by their number for the gradient of a mean. Unscale a GradScaler's gradients first.
    With DDP, pass the model inside the wrapper, make the wrapper with `find_unused_parameters=True`, and give all
    processes the same seed, so that they choose the same layers.

    Args:
        model: a classifier with peft adapters; without them for a strategy whose scope is `parameters`.
        strategy: a text such as "ir:variant=exact", a subclass of `Strategy`, or an instance, which is copied.
        optimizer: it must hold the parameters of all candidate layers.
        seed: seed of the strategy's random generator.
        steps: number of optimizer steps of the run, for strategies that need it (`random-counts`).

    Attributes:
        strategy, layers, scores: the strategy, its candidate layers, and one score per candidate (None: not measured).
        history: one dict per step: step (from 1), layers (numbers of those that learned, ascending), scores (from
            which they were chosen), learning_rate, gradient_norm (before clipping), skipped.

    Raises:
        InputError: the model does not suit the strategy, the adapters match no layer, or the optimizer lacks one.
    """

    def __init__(self, model: nn.Module, strategy: str | type[Strategy] | Strategy, optimizer: torch.optim.Optimizer,
                 seed: int = 171, steps: int | None = None):  # fmt: skip
        self.model, self.strategy, self.optimizer = model, as_strategy(strategy), optimizer
        self._check_scope()
        self.layers = candidate_layers(model, self.strategy.min_layer)
        self.layers.check_optimizer(optimizer)
        self.strategy.begin(len(self.layers.indices), steps)
        self.rng = np.random.default_rng(seed)
        self.history: list[dict] = []
        self.scores: list[float | None] = [None] * len(self.layers.indices)
        self.batch: dict | None = None  # keyword arguments of the last training forward pass
        self.passes = 0  # training forward passes of this step
        self._chosen: list[int] | None = None  # positions among the candidates, between begin_step and end_backward
        self._hooks, self._meter = [model.register_forward_pre_hook(self._keep_batch, with_kwargs=True)], None
        if self.strategy.importance == "weight":
            self.scores = weight_scores(model, self.layers)
        elif self.strategy.importance == "cosine":
            self._meter = CosineMeter(model, self.layers, self.strategy.score)
            self._hooks.append(self._meter)
        let_backprop_end_early(model)

    def begin_step(self) -> list[int]:
        """Choose the layers that learn at the next step, freeze the others and return the numbers of the chosen.

        Raises:
            InputError: the strategy chose positions that do not exist, or it measures losses (IST) and the last
                training batch cannot be measured.
        """
        step = len(self.history)
        if self.strategy.probe_due(step):
            self.strategy.probe(self._losses_without, self.rng)
        self.batch, self.passes = None, 0
        self._chosen = self._checked(self.strategy.choose(step, self.scores, self.rng))
        self.layers.freeze_all_but(self._chosen)
        return self._numbers(self._chosen)

    @torch.no_grad()
    def end_backward(self, max_norm: float | None = 1.0, scale: float = 1.0) -> float:
        """Score the layers by the step's gradient, clip it and return its norm before clipping.

        If the gradient is not finite, all gradients become None, so that the optimizer changes nothing; the step is
        recorded as skipped and no score changes. One tensor is read back to the host.

        Args:
            max_norm: the gradient is scaled down to this norm; None or 0 for no clipping.
            scale: factor by which the gradient is multiplied before it is scored and clipped.

        Raises:
            InputError: `begin_step` was not called before, or there is no gradient.
            TrainingStopped: the processes chose different layers.
        """
        learning = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        if self._chosen is None or not learning:
            raise InputError("no step to end: call begin_step() and loss.backward() before end_backward(), and "
                             "optimizer.step() and zero_grad() after it")  # fmt: skip
        norms, similarities = self._read(learning)
        total = scale * math.sqrt(sum(norm * norm for norm in norms.values()))
        chosen, self._chosen, finite = self._chosen, None, math.isfinite(total)
        self.history.append({
            "step": len(self.history) + 1, "layers": self._numbers(chosen),
            "scores": list(self.scores) if self.strategy.importance else None,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "gradient_norm": total if finite else None, "skipped": not finite,
        })  # fmt: skip
        if not finite:
            logger.warning("step %d skipped: its gradient is not finite", len(self.history))
            for parameter in learning:
                parameter.grad = None
            return total
        if self.strategy.importance:
            self.scores = self.strategy.update(self.scores, similarities or self._gradient_scores(chosen, norms, scale))
        if max_norm:
            scale *= min(1.0, max_norm / (total + 1e-6))
        if scale != 1.0:
            torch._foreach_mul_([p.grad for p in learning], scale)
        return total

    def state_dict(self) -> dict:
        """Return all that changes during training as a JSON object; take it between two steps."""
        state = {
            "identity": self._identity(), "history": self.history, "scores": self.scores,
            "generator": self.rng.bit_generator.state, "strategy": self.strategy.state(),
            "hidden_states": self._meter.state() if self._meter else [], "batch": self._batch_state(),
        }  # fmt: skip
        return copy.deepcopy(state)

    def load_state_dict(self, state: Mapping) -> None:
        """Continue from a `state_dict` as if training had never been interrupted.

        Raises:
            InputError: it is the state of another strategy or of other layers.
        """
        if different := differences(state["identity"], self._identity()):
            raise InputError(f"the checkpoint is another strategy's ({'; '.join(different)}); continue with that one "
                             "or start over")  # fmt: skip
        state = copy.deepcopy(dict(state))
        self.history, self.scores = state["history"], state["scores"]
        self.rng.bit_generator.state = state["generator"]
        self.strategy.restore(state["strategy"])
        device = next(self.model.parameters()).device
        if self._meter:
            self._meter.restore(state["hidden_states"], device)
        tensors = {n: torch.tensor(v, dtype=getattr(torch, d), device=device) for n, d, v in state["batch"]}
        self.batch, self._chosen = tensors or None, None

    def detach(self) -> None:
        """Remove all hooks from the model and let all its layers require gradients again."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self.layers.unfreeze_all()

    def _check_scope(self) -> None:
        name, adapted = type(self.strategy).__name__, hasattr(self.model, "peft_config")
        if self.strategy.scope == "parameters" and adapted:
            raise InputError(f"{name} tunes the layers' own weights: pass a model without peft")
        if self.strategy.scope == "adapters" and not adapted:
            raise InputError(f"{name} chooses among adapters: wrap the model with peft first")

    def _checked(self, chosen: Sequence[int]) -> list[int]:
        """Return the positions that a strategy chose as a list of integers."""
        count = len(self.layers.indices)
        try:
            positions = [operator.index(position) for position in chosen]
            valid = positions == sorted({*positions} & {*range(count)})
        except TypeError:  # None, or something that is not an integer
            valid = False
        if not valid:
            raise InputError(f"{type(self.strategy).__name__}.choose returned {brief(chosen)}; return different "
                             f"positions from 0 to {count - 1} in ascending order")  # fmt: skip
        return positions

    def _numbers(self, positions: Sequence[int]) -> list[int]:
        return [self.layers.indices[position] for position in positions]

    def _read(self, learning: list[nn.Parameter]) -> tuple[dict[int, float], list[float]]:
        """Return the gradient norm of every tensor that learns, by id, and the cosine similarities, if any."""
        parts = [tensor_norms([p.grad for p in learning])]
        if self._meter and (similarities := self._meter.read()) is not None:
            parts.append(similarities.to(parts[0].device))
        count = sum(map(len, parts))
        parts.append(votes(self._chosen, len(self.layers.indices), parts[0].device))
        values = torch.cat(parts).tolist()  # the only wait for the device
        check_votes(values[count:], self.layers.indices)
        return {id(p): norm for p, norm in zip(learning, values, strict=False)}, values[len(learning) : count]

    def _gradient_scores(self, chosen: list[int], norms: dict[int, float], scale: float) -> list[float | None]:
        """Return one score per candidate from the gradient; None for the layers that did not learn."""
        fresh: list[float | None] = [None] * len(self.scores)
        for position in chosen if self.strategy.importance == "gradient" else ():
            if layer := [norms[id(p)] * scale for p in self.layers.parameters[position] if id(p) in norms]:
                fresh[position] = gradient_score(layer, self.strategy.score)
        return fresh

    def _keep_batch(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if module.training and torch.is_grad_enabled():
            self.batch, self.passes = dict(kwargs), self.passes + 1

    def _losses_without(self, sets: list[list[int]], factor: float) -> list[float]:
        """Return the losses of the last training batch with each set of positions suppressed in turn."""
        if "labels" not in (self.batch or {}):
            name = self.strategy.name or type(self.strategy).__name__
            raise InputError(
                f"{name} measures the model's own loss, and the last training batch has no labels: call "
                "model(**batch) with labels in the batch, without label smoothing or a loss function of your own"
            )
        batch = {name: value for name, value in self.batch.items() if name != "num_items_in_batch"}
        return losses_without(self.model, batch, [self._numbers(positions) for positions in sets], factor)

    def _batch_state(self) -> list[tuple[str, str, list]]:
        """Return name, dtype and values of the last batch's tensors, if the next step measures losses on it."""
        batch = self.batch if self.batch and self.strategy.probe_due(len(self.history)) else {}
        tensors = {name: value for name, value in batch.items() if torch.is_tensor(value)}
        return [(name, str(t.dtype).removeprefix("torch."), t.tolist()) for name, t in tensors.items()]

    def _identity(self) -> dict:
        return describe(self.strategy) | {"candidate_layers": self.layers.indices}
