"""Layer-wise tuning in any PyTorch loop: choose, freeze, (your forward and backward passes), score, clip."""

import copy
import logging
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from irtuning.errors import InputError, TrainingStopped, brief, differences
from irtuning.method.layers import candidate_layers, frozen_head, has_adapters, let_backprop_end_early
from irtuning.method.processes import summed, world_size
from irtuning.method.registry import as_strategy, describe, method_text
from irtuning.method.scores import CosineMeter, gradient_score, losses_without, tensor_norms, weight_scores
from irtuning.method.strategies import Strategy


class LayerTuner:
    """Tuner that lets only the layers chosen by a strategy learn at each optimizer step. The head always learns.

        tuner = LayerTuner(model, "ir", optimizer)
        for batch in batches:
            tuner.begin_step()
            model(**batch).loss.backward()
            tuner.end_backward(max_norm=1.0)
            optimizer.step()
            optimizer.zero_grad()

    A step may have several backward passes; divide each loss by their number to average the gradients. Unscale
    the gradients of a GradScaler before `end_backward`. With DDP, pass the unwrapped model, create the wrapper with
    `find_unused_parameters=True`, and give all processes the same seed, so that they choose the same layers.

    Args:
        model: a classifier with peft adapters, or without them if the strategy's scope is `parameters`.
        strategy: a text such as "ir:variant=exact", a subclass of `Strategy`, or an instance, which is copied.
        optimizer: it must hold the parameters of all candidate layers; otherwise InputError is raised.
        seed, steps: seed of the strategy's random generator; number of optimizer steps, if known.

    Attributes:
        strategy, layers, scores: the strategy, its `CandidateLayers`, and the score of each (None: not measured).
        history: one dict per step: step (from 1), layers (numbers of those that learned, ascending), scores (from
            which they were chosen), learning_rate, gradient_norm (before clipping; None: not finite), skipped (the
            optimizer changed nothing, since the gradient was not finite or the step only measured); and with unit=block
            also blocks, the names of those that learned.
    """
    def __init__(self, model: nn.Module, strategy: str | type[Strategy] | Strategy, optimizer: torch.optim.Optimizer,
                 seed: int = 171, steps: int | None = None):  # fmt: skip
        self.model, self.strategy, self.optimizer = model, as_strategy(strategy), optimizer
        if (self.strategy.scope == "adapters") != has_adapters(model):
            cure = {"adapters": "wrap the model with peft first", "parameters": "pass a model without peft"}
            raise InputError(f"{type(self.strategy).__name__} tunes {self.strategy.scope}: {cure[self.strategy.scope]}")
        self.layers = candidate_layers(model, self.strategy.min_layer, self.strategy.unit)
        if head := frozen_head(model):
            logging.getLogger(__name__).warning("the head %r is frozen and stays as it is; give the peft configuration "
                                                "task_type='SEQ_CLS' or modules_to_save=[%r]", head, head)  # fmt: skip
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        self._names, count = self.layers.blocks or self.layers.indices, len(self.layers.indices)
        layers = zip(self._names, self.layers.parameters, strict=True)
        if missing := [index for index, layer in layers if not {*map(id, layer)} <= held]:
            raise InputError(f"the optimizer lacks parameters of layers {missing}, so that they would never learn; "
                             "make it while all can learn (a loaded PeftModel needs is_trainable=True)")  # fmt: skip
        self._identity = describe(self.strategy) | {"candidate_layers": self._names}
        self.strategy.numbers = self.layers.indices
        self.strategy.begin(count, steps)
        self.rng, self.history = np.random.default_rng(seed), []
        importance, unmeasured = self.strategy.importance, [None] * count
        self.scores = weight_scores(model, self.layers) if importance == "weight" else unmeasured
        self.batch = {}  # inputs of the last training forward pass
        self._is_mean = "SequenceClass" in (getattr(model, "loss_type", None) or "")  # the model's own loss
        self.full_batch: int | None = None  # of a micro-batch; with it, shorter ones count less, for `mean_scale`
        self._weights = []  # for each backward pass: gradient with respect to the model's own loss, share of examples
        self._required = [(p, p.requires_grad) for part in (*self.layers.parameters, self.layers.below) for p in part]
        self._chosen: list[int] | None = None  # positions of the layers that learn; None outside a step
        self._meter = CosineMeter(model, self.layers, self.strategy.score) if importance == "cosine" else None
        let_backprop_end_early(model)
        self._hook = model.register_forward_hook(self._keep_batch, with_kwargs=True)

    def begin_step(self) -> list[int]:
        """Let the strategy choose layers, freeze the others, and return the chosen. InputError for a bad choice."""
        step, count = len(self.history), len(self.layers.indices)
        if self.strategy.probe_due(step):
            self.strategy.probe(self._losses_without, self.rng)
        self.batch, self._weights = {}, []
        chosen = self.strategy.choose(step, self.scores, self.rng)
        self._chosen = [position for position in range(count) if chosen is not None and position in list(chosen)]
        if chosen is None or list(chosen) != self._chosen:
            raise InputError(f"{type(self.strategy).__name__}.choose returned {brief(chosen)}; return different "
                             f"positions from 0 to {count - 1} in ascending order")  # fmt: skip
        self.layers.freeze_all_but(self._chosen)
        return self._numbers(self._chosen)

    @torch.no_grad()
    def end_backward(self, max_norm: float | None = 1.0, scale: float = 1.0) -> float:
        """Score the layers by the step's gradient, clip it and return its norm before clipping.

        If the gradient is not finite, all gradients become None, so that the optimizer changes nothing; the step is
        recorded as skipped and no score changes.

        Args:
            max_norm: a gradient with a larger norm is scaled down to it; None or 0 for no clipping.
            scale: factor by which the gradient is multiplied before it is scored and clipped.

        Raises:
            InputError: no step has begun, or nothing has a gradient.
            TrainingStopped: the processes chose different layers.
        """
        learning = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        if self._chosen is None or not learning:
            raise InputError("no step to end: call begin_step() and loss.backward() before end_backward(), and "
                             "optimizer.step() and zero_grad() after it")  # fmt: skip
        if type(self.strategy).probe is not Strategy.probe and "labels" not in self.batch:
            raise InputError(f"{method_text(self.strategy)} measures the model's own loss, and a batch has no labels: "
                             "call model(**batch) with labels, no label smoothing and no loss of your own")  # fmt: skip
        norms, similarities = self._read(learning)
        total = scale * math.sqrt(sum(norm * norm for norm in norms.values()))
        finite, chosen, self._chosen = math.isfinite(total), self._chosen, None
        blocks = {"blocks": [self.layers.blocks[position] for position in chosen]} if self.layers.blocks else {}
        skipped = not finite or self.strategy.measures(len(self.history))
        row = {"step": len(self.history) + 1, "layers": self._numbers(chosen), **blocks}
        row |= {"scores": list(self.scores) if self.strategy.importance else None}
        row |= {"learning_rate": self.optimizer.param_groups[0]["lr"], "gradient_norm": total if finite else None}
        self.history.append(row | {"skipped": skipped})
        if not finite:
            logging.getLogger(__name__).warning("step %d skipped: its gradient is not finite", len(self.history))
        elif self.strategy.importance:
            learned = self.layers.parameters if self.strategy.importance == "gradient" else [[]] * len(self.scores)
            layers = [[p for p in parameters if id(p) in norms] for parameters in learned]
            fresh = [gradient_score([norms[id(p)] * scale for p in layer], self.strategy.score,
                                    sum(p.numel() for p in layer)) if layer else None for layer in layers]  # fmt: skip
            self.scores = self.strategy.update(self.scores, similarities or fresh)
        if skipped:
            for parameter in learning:
                parameter.grad = None
            return total
        if max_norm:
            scale *= min(1.0, max_norm / (total + 1e-6))
        if scale != 1.0:
            torch._foreach_mul_([p.grad for p in learning], scale)
        return total

    def mean_scale(self, unit: float = 1.0) -> float:
        """Return the `scale` with which the step's loss becomes a mean. `unit` is the factor of a GradScaler.

        A Trainer may sum the micro-batches' losses, since it expects a model to divide by the examples of the step. A
        sequence classifier's own loss is a mean over the micro-batch. What the backward passes gave to it tells.
        """
        weights = [(g.item(), share) for g, share in self._weights if g is not None]  # DDP: None for a loss not used
        if not self._is_mean or len(weights) * world_size() <= 1:
            return 1.0
        given = sum(weight for weight, _ in weights)
        return given / sum(weight * share for weight, share in weights) / max(1.0, given / unit)

    def state_dict(self) -> dict:
        """Return everything that changes during training as a JSON object. Call it only between two steps."""
        batch = self.batch if self.strategy.probe_due(len(self.history)) else {}  # only a probe needs it
        state = {"identity": self._identity, "history": self.history, "scores": self.scores}
        state |= {"generator": self.rng.bit_generator.state, "strategy": self.strategy.state()}
        state |= {"hidden_states": self._meter.state() if self._meter else []}
        return copy.deepcopy(state | {"batch": {n: v.tolist() for n, v in batch.items() if torch.is_tensor(v)}})

    def load_state_dict(self, state: Mapping) -> None:
        """Restore a `state_dict`, to continue as if never interrupted. InputError if the strategy or layers differ."""
        if different := differences(state["identity"], self._identity):
            raise InputError(f"the checkpoint is of another strategy ({'; '.join(different)}); start a new run")
        state, device, self._chosen = copy.deepcopy(dict(state)), next(self.model.parameters()).device, None
        self.history, self.scores, self.rng.bit_generator.state = state["history"], state["scores"], state["generator"]
        self.strategy.restore(state["strategy"])
        if self._meter:
            self._meter.restore(state["hidden_states"], device)
        self.batch = {name: torch.tensor(value, device=device) for name, value in state["batch"].items()}

    def detach(self) -> None:
        """Remove all hooks from the model, and let its layers require gradients as before."""
        for hook in filter(None, (self._hook, self._meter)):
            hook.remove()
        for parameter, required in self._required:
            parameter.requires_grad_(required)

    def _numbers(self, positions: Sequence[int]) -> list[int]:
        return list(dict.fromkeys(self.layers.indices[position] for position in positions))

    def _read(self, learning: list[nn.Parameter]) -> tuple[dict[int, float], list[float | None]]:
        """Return the gradient norm of every tensor that learns, by id, and the cosine similarities, if any."""
        parts, votes = [tensor_norms([p.grad for p in learning])], []
        if self._meter and (similarities := self._meter.read()) is not None:
            parts.append(similarities.to(parts[0].device))
        if world_size() > 1:
            votes = [float(position in self._chosen) for position in range(len(self.layers.indices))]
            parts.append(summed(torch.tensor(votes, device=parts[0].device)))
        values = torch.cat(parts).tolist()  # the only synchronisation with the device
        end = len(values) - len(votes)
        counts = zip(self._names, values[end:], strict=False)
        if split := [layer for layer, count in counts if count not in (0, world_size())]:
            raise TrainingStopped(f"the processes chose different layers and disagree on {split}: their seeds, data or "
                                  "versions differ; start all with the same command on the same corpus")  # fmt: skip
        measured = [v if math.isfinite(v) else None for v in values[len(learning) : end]]  # else it says nothing
        return {id(p): norm for p, norm in zip(learning, values, strict=False)}, measured

    def _keep_batch(self, module: nn.Module, args: tuple, kwargs: dict, output: object) -> None:
        """Keep the last training batch, and weigh the gradient of its loss by its share of a full batch."""
        if module.training and torch.is_grad_enabled():
            self.batch = dict(kwargs)
            if (loss := getattr(output, "loss", None)) is not None and loss.requires_grad:
                full = self.full_batch if self._is_mean and "labels" in kwargs else None
                share = len(kwargs["labels"]) / full if full else 1.0
                loss.register_hook(lambda g: self._weights.append((g, share)) or (g if g is None else g * share))

    def _losses_without(self, sets: list[list[int]], factor: float) -> list[float]:
        """Return the losses of the last training batch with each set of positions suppressed in turn."""
        batch = {name: value for name, value in self.batch.items() if name != "num_items_in_batch"}
        return losses_without(self.model, batch, [self._numbers(positions) for positions in sets], factor)
