"""The `LayerTuner` as one line in a Trainer: `trainer.add_callback(IRTuning())`."""

import functools
from collections.abc import Mapping

from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import ExportableState

from irtuning.errors import InputError, TrainingStopped
from irtuning.method.processes import refuse_sharding
from irtuning.method.registry import as_strategy, describe, method_text
from irtuning.method.strategies import IRTuningStrategy, Strategy
from irtuning.method.tuner import LayerTuner

TRAINER_LOOP = Trainer._inner_training_loop


class LayerwiseTuning(TrainerCallback, ExportableState):
    """Callback that lets only the layers chosen by a strategy learn at each optimizer step.

    Add it to any Trainer whose model carries peft adapters: `trainer.add_callback(LayerwiseTuning("ist"))`. It clips
    gradients in place of the Trainer, so that scores come from the unclipped gradient of the mean loss over the
    accumulated micro-batches. All its state is in the Trainer's checkpoints, so that a run is resumed exactly.

    Args:
        strategy: a text such as "ir:variant=exact", a subclass of `Strategy`, an instance, or a dict from `describe`.
        seed: seed of the strategy's random generator; None for the Trainer's seed.
    """
    bad_steps = 5  # so many skipped steps in a row end the training

    def __init__(self, strategy: str | type[Strategy] | Strategy | Mapping, seed: int | None = None):
        self.strategy = as_strategy(**strategy) if isinstance(strategy, Mapping) else as_strategy(strategy)
        self.seed, self.tuner, self._clip = seed, None, None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({method_text(self.strategy)!r})"

    history = property(lambda self: self.tuner.history if self.tuner else [], doc="See `LayerTuner`.")
    layers = property(lambda self: self.tuner.layers, doc="The `CandidateLayers`, once training has started.")

    def on_train_begin(self, args, state, control, model=None, optimizer=None, **kwargs):
        """Make the tuner, or restore it from a checkpoint. It clips gradients in place of the Trainer."""
        refuse_sharding(args.fsdp, args.deepspeed, args.n_gpu)
        if getattr(state, "_layerwise", self) is not self:
            raise InputError("two layerwise callbacks on one Trainer would undo each other; remove one")
        state._layerwise = self
        seed = args.seed if self.seed is None else self.seed
        self.tuner = LayerTuner(model, self.strategy, optimizer, seed, state.max_steps)
        self.strategy, self.tuner.full_batch = self.tuner.strategy, state.train_batch_size
        self._clip, args.max_grad_norm = args.max_grad_norm, 0.0
        if state.global_step:
            kept = state.stateful_callbacks.get(type(self).__name__, {}).get("attributes", {}).get("kept")
            if kept is None:
                raise InputError("the checkpoint holds no state of this callback: it was made without; start over")
            self.tuner.load_state_dict(kept)

    def on_step_begin(self, args, state, control, **kwargs):
        self.tuner.begin_step()

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        """Score layers and clip. TrainingStopped is raised after `bad_steps` steps without a finite gradient."""
        scaler = getattr(self.tuner.optimizer, "scaler", None)  # of fp16
        self.tuner.end_backward(self._clip, self.tuner.mean_scale(scaler.get_scale() if scaler else 1.0))
        last = self.history[-self.bad_steps :]
        if len(last) == self.bad_steps and all(row["gradient_norm"] is None for row in last):
            raise TrainingStopped(f"{self.bad_steps} steps in a row had no finite gradient, the last is step "
                                  f"{last[-1]['step']}, in which layers {last[-1]['layers']} learned; the weights are "
                                  "those before. Lower the learning rate, or look at the batch")  # fmt: skip

    def on_train_end(self, args, state, control, **kwargs):
        if self._clip is not None:
            args.max_grad_norm, self._clip = self._clip, None
            self.tuner.detach()

    def state(self) -> dict:
        kept = self.tuner.state_dict() if self.tuner else None
        return {"args": {"strategy": describe(self.strategy), "seed": self.seed}, "attributes": {"kept": kept}}


class IRTuning(LayerwiseTuning):
    """IR-Tuning as a callback, as the authors' code does it. The options are those of `IRTuningStrategy`."""
    def __init__(self, seed: int | None = None, *, strategy: Mapping | None = None, **options):
        super().__init__(strategy or IRTuningStrategy(**options), seed)  # a checkpoint gives the strategy as a dict


@functools.wraps(TRAINER_LOOP)
def _loop_with_an_end(trainer, *args, **kwargs):
    """Run the Trainer's loop and call `on_train_end` also after an error or Ctrl-C, of which no callback is told."""
    ours = [callback for callback in trainer.callback_handler.callbacks if isinstance(callback, LayerwiseTuning)]
    try:
        return TRAINER_LOOP(trainer, *args, **kwargs)
    finally:
        for callback in ours:
            callback.on_train_end(trainer.args, trainer.state, trainer.control)


Trainer._inner_training_loop = _loop_with_an_end
