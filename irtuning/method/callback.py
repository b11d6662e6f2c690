"""The one line added to a Trainer: before every optimizer step, freeze all layers but the chosen ones."""

import logging
import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from irtuning.errors import InputError, TrainingStopped, differences
from irtuning.method.scores import CosineMeter, gradient_score, losses_without, tensor_norms, weight_scores
from irtuning.method.layers import base_model, candidate_layers, let_backprop_end_early
from irtuning.method.processes import refuse_sharding, votes, without_votes
from irtuning.method.registry import as_strategy, describe, make_strategy
from irtuning.method.strategies import IRTuningStrategy, Strategy

logger = logging.getLogger(__name__)


class LayerwiseTuning(TrainerCallback, ExportableState):
    """Lets at each optimizer step only the layers a strategy chooses learn; the head always does.

    Add it to any Trainer whose model carries peft adapters: `trainer.add_callback(LayerwiseTuning("ist"))`. It
    takes gradient clipping over from the Trainer, so that scores come from the reduced, unclipped gradient of the
    mean loss over the accumulated micro-batches, and reads one tensor back to the host a step. A step whose
    gradient is not finite is skipped and reported: nothing learns, no score changes. All its state is in the
    Trainer's checkpoints; resumed from one, training goes on as if it had never been interrupted.

    Args:
        strategy: a `Strategy`, a text for `make_strategy` such as "ir:variant=exact", or its arguments.
        seed: of the strategy's own random generator; the Trainer's seed where None.

    Attributes:
        history: one dict per optimizer step: step (from 1), layers that learned, the scores they were chosen from
            (None: not measured yet), learning_rate, gradient_norm (unclipped), skipped.
        bad_steps: so many steps skipped in a row end the training.

    Raises:
        InputError: when training begins, if the adapters match no layer, the optimizer lacks a candidate, or the
            checkpoint is another strategy's.
        TrainingStopped: after `bad_steps`.
    """

    bad_steps = 5

    def __init__(self, strategy: Strategy | str | Mapping, seed: int | None = None):
        self.strategy = make_strategy(**strategy) if isinstance(strategy, Mapping) else as_strategy(strategy)
        self.seed = seed
        self.history: list[dict] = []
        self._model: nn.Module | None = None
        self._hooks: list = []

    def on_train_begin(self, args, state, control, model=None, optimizer=None, **kwargs):
        """Find the layers, check that all can learn, take clipping over, start scores and history anew."""
        self._release()
        refuse_sharding(args.fsdp, args.deepspeed, args.n_gpu)
        if getattr(state, "_layerwise", self) is not self:
            raise InputError("two layerwise callbacks on one Trainer would undo each other; remove one")
        state._layerwise = self
        self._check_scope(model)
        self.layers = candidate_layers(model, self.strategy.min_layer)
        self.layers.check_optimizer(optimizer)
        self.strategy.begin(len(self.layers.indices), state.max_steps)
        self.rng = np.random.default_rng(args.seed if self.seed is None else self.seed)
        self.scores: list[float | None] = [None] * len(self.layers.indices)
        self.history, self._model, self._batch = [], model, None
        self._micro_batches, self._loss_is_summed = 0, False
        self._classifies = "Classification" in (getattr(base_model(model), "loss_type", None) or "")
        self._smooths_labels = args.label_smoothing_factor > 0
        # kept on the arguments, since a run that was interrupted never comes to give it back
        self._clip = args._clip_taken_over = getattr(args, "_clip_taken_over", args.max_grad_norm)
        args.max_grad_norm = 0.0
        self._hooks, self._meter = [model.register_forward_pre_hook(self._watch_batch, with_kwargs=True)], None
        if self.strategy.importance == "weight":
            self.scores = weight_scores(model, self.layers)
        elif self.strategy.importance == "cosine":
            self._meter = CosineMeter(model, self.layers, self.strategy.score)
            self._hooks.append(self._meter)
        let_backprop_end_early(model)
        if state.global_step:
            self._restore(state.stateful_callbacks.get(type(self).__name__, {}).get("attributes", {}).get("kept"))

    def on_step_begin(self, args, state, control, **kwargs):
        """Choose the layers that learn at this step and freeze the others."""
        if self.strategy.probe_due(state.global_step) and self._batch is not None:
            self.strategy.probe(self._losses_without, self.rng)
        self._batch, self._micro_batches = None, 0
        self.chosen = self.strategy.choose(state.global_step, self.scores, self.rng)
        self.layers.freeze_all_but(self.chosen)

    @torch.no_grad()
    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        """Read the norms, remember the step, score the layers, clip; drop a gradient that is not finite."""
        learning = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms, similarities = self._read(learning)
        scale = 1 / max(1, self._micro_batches) if self._loss_is_summed else 1.0
        total = scale * math.sqrt(sum(norm * norm for norm in norms.values()))
        finite = math.isfinite(total)
        self._remember(state.global_step, optimizer.param_groups[0]["lr"], total if finite else None)
        if not finite:
            logger.warning("step %d skipped: its gradient is not finite", state.global_step + 1)
            for parameter in learning:
                parameter.grad = None
            self._stop_if_hopeless(args, state, control)
            return
        if self._clip > 0:
            scale *= min(1.0, self._clip / (total + 1e-6))
        if self.strategy.importance:
            self.scores = self.strategy.update(self.scores, self._fresh_scores(norms, similarities))
        if scale != 1.0:
            torch._foreach_mul_([p.grad for p in learning], scale)

    def on_train_end(self, args, state, control, **kwargs):
        """Give clipping back and let every layer require gradients again."""
        args.max_grad_norm = self._clip
        del args._clip_taken_over
        self.layers.freeze_all_but(list(range(len(self.layers.indices) + 1)))  # those below `min_layer` too
        self._release()

    def state(self) -> dict:
        """What a checkpoint holds; all of it JSON, in which numbers stay what they are."""
        kept = None
        if self._model is not None:
            kept = {
                "identity": self._identity(),
                "history": self.history,
                "scores": self.scores,
                "generator": self.rng.bit_generator.state,
                "strategy": self.strategy.state(),
                "hidden_states": self._meter.state() if self._meter else [],
                "batch": self._batch_state(),
            }
        return {"args": {"strategy": describe(self.strategy), "seed": self.seed}, "attributes": {"kept": kept}}

    def _identity(self) -> dict:
        return describe(self.strategy) | {"candidate_layers": self.layers.indices}

    def _restore(self, kept: dict | None) -> None:
        if kept is None:
            raise InputError("the checkpoint holds no state of this callback: it was made without; start over")
        if different := differences(kept["identity"], self._identity()):
            raise InputError(
                f"the checkpoint is another strategy's ({'; '.join(different)}); go on with that or start over"
            )
        self.history, self.scores = kept["history"], kept["scores"]
        self.rng.bit_generator.state = kept["generator"]
        self.strategy.restore(kept["strategy"])
        device = next(self._model.parameters()).device
        if self._meter:
            self._meter.restore(kept["hidden_states"], device)
        if kept["batch"]:
            self._batch = {n: torch.tensor(v, dtype=getattr(torch, d), device=device) for n, d, v in kept["batch"]}

    def _batch_state(self) -> list[tuple[str, str, list]]:
        """Name, dtype and values of the last micro-batch's tensors, where the next step measures it once more."""
        if self._batch is None or not self.strategy.probe_due(len(self.history)):
            return []
        tensors = {name: value for name, value in self._batch.items() if torch.is_tensor(value)}
        return [(name, str(t.dtype).removeprefix("torch."), t.tolist()) for name, t in tensors.items()]

    def _stop_if_hopeless(self, args, state, control) -> None:
        last = self.history[-self.bad_steps :]
        if len(last) == self.bad_steps and all(row["skipped"] for row in last):
            self.on_train_end(args, state, control)
            raise TrainingStopped(
                f"{self.bad_steps} steps in a row had no finite gradient, the last is step {last[-1]['step']}, in which "
                f"layers {last[-1]['layers']} learned; the weights are those before. Lower the learning rate, or look at "
                "the batch"
            )

    def _check_scope(self, model: nn.Module) -> None:
        adapted = hasattr(model, "peft_config")
        if self.strategy.scope == "parameters" and adapted:
            raise InputError(f"{type(self.strategy).__name__} tunes the layers' own weights: pass a model without peft")
        if self.strategy.scope == "adapters" and not adapted:
            raise InputError(f"{type(self.strategy).__name__} chooses among adapters: wrap the model with peft first")

    def _watch_batch(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if module.training and torch.is_grad_enabled():
            self._micro_batches += 1
            # The Trainer leaves the loss undivided when it passes this, and a classifier's loss ignores it; without
            # labels the loss is a function of the user's own, which is given the number and divides by it.
            computed_here = "labels" in kwargs or self._smooths_labels
            self._loss_is_summed = self._classifies and computed_here and kwargs.get("num_items_in_batch") is not None
            self._batch = {k: v for k, v in kwargs.items() if k != "num_items_in_batch"}

    def _read(self, learning: list[nn.Parameter]) -> tuple[dict[int, float], list[float]]:
        """Gradient norm of every tensor that learns, by id, and the cosine similarities: one wait for the device."""
        parts = [tensor_norms([p.grad for p in learning])]
        similarities = self._meter.read() if self._meter else None
        if similarities is not None:
            parts.append(similarities.to(parts[0].device))
        parts.append(votes(self.layers.indices, self.chosen, parts[0].device))
        values = without_votes(torch.cat(parts).tolist(), self.layers.indices)
        return {id(p): value for p, value in zip(learning, values, strict=False)}, values[len(learning) :]

    def _fresh_scores(self, norms: dict[int, float], similarities: list[float]) -> list[float | None]:
        if self.strategy.importance == "cosine" and similarities:
            return similarities
        fresh: list[float | None] = [None] * len(self.scores)
        if self.strategy.importance == "gradient":
            scale = 1 / self._micro_batches if self._loss_is_summed else 1.0
            for position in self.chosen:
                tensors = [norms[id(p)] * scale for p in self.layers.parameters[position] if id(p) in norms]
                fresh[position] = gradient_score(tensors, self.strategy.score) if tensors else None
        return fresh

    def _remember(self, step: int, learning_rate: float, total: float | None) -> None:
        self.history.append(
            {
                "step": step + 1,
                "layers": [self.layers.indices[position] for position in self.chosen],
                "scores": list(self.scores) if self.strategy.importance else None,
                "learning_rate": learning_rate,
                "gradient_norm": total,
                "skipped": total is None,
            }
        )

    def _losses_without(self, halves: list[list[int]]) -> list[float]:
        """Loss of the last training batch with each set of layers suppressed in turn."""
        if "labels" not in self._batch:
            raise InputError("IST measures the model's own loss: train without label smoothing or a loss function")
        layers = [[self.layers.indices[position] for position in half] for half in halves]
        return losses_without(self._model, self._batch, layers, self.strategy.factor)

    def _release(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []


class IRTuning(LayerwiseTuning):
    """IR-Tuning as a callback: at each step only the layers with high gradient norms learn.

    `trainer.add_callback(IRTuning())` gives what the authors' code does; options are `IRTuningStrategy`'s:
    `score`, `variant`, `splits`, `refresh_every`, `smoothing`, `min_layer`.
    """

    def __init__(self, seed: int | None = None, **options):
        super().__init__(IRTuningStrategy(**options), seed)

    def state(self) -> dict:
        found = super().state()
        options = found["args"].pop("strategy")
        del options["spec"]
        return {"args": found["args"] | options, "attributes": found["attributes"]}
