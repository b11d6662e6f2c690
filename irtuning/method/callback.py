"""The `LayerTuner` as one line in a Trainer: `trainer.add_callback(IRTuning())`."""

from collections.abc import Mapping

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from irtuning.errors import InputError, TrainingStopped
from irtuning.method.layers import CandidateLayers
from irtuning.method.processes import refuse_sharding
from irtuning.method.registry import as_strategy, describe
from irtuning.method.strategies import IRTuningStrategy, Strategy
from irtuning.method.tuner import LayerTuner


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
        self.seed, self.tuner = seed, None

    @property
    def history(self) -> list[dict]:
        return self.tuner.history if self.tuner else []

    @property
    def layers(self) -> CandidateLayers:
        return self.tuner.layers

    def on_train_begin(self, args, state, control, model=None, optimizer=None, **kwargs):
        refuse_sharding(args.fsdp, args.deepspeed, args.n_gpu)
        if getattr(state, "_layerwise", self) is not self:
            raise InputError("two layerwise callbacks on one Trainer would undo each other; remove one")
        state._layerwise = self
        if self.tuner:  # of an earlier run, which may have been interrupted
            self.tuner.detach()
        seed = args.seed if self.seed is None else self.seed
        self.tuner = LayerTuner(model, self.strategy, optimizer, seed, state.max_steps)
        self.strategy = self.tuner.strategy
        # kept in the arguments too, since an interrupted run never comes to `on_train_end`
        self._clip = args._clip_taken_over = getattr(args, "_clip_taken_over", args.max_grad_norm)
        args.max_grad_norm = 0.0
        if state.global_step:
            kept = state.stateful_callbacks.get(type(self).__name__, {}).get("attributes", {}).get("kept")
            if kept is None:
                raise InputError("the checkpoint holds no state of this callback: it was made without; start over")
            self.tuner.load_state_dict(kept)

    def on_step_begin(self, args, state, control, **kwargs):
        self.tuner.begin_step()

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        # The Trainer does not divide the loss by the number of micro-batches if it passes `num_items_in_batch`, which
        # a classifier's own loss ignores. A loss function of the user's own gets that number and divides by itself.
        batch, tuner = self.tuner.batch, self.tuner
        models_own_loss = "labels" in batch or args.label_smoothing_factor > 0
        classifies = "Classification" in (getattr(tuner.model, "loss_type", None) or "")
        is_summed = classifies and models_own_loss and batch.get("num_items_in_batch") is not None
        tuner.end_backward(self._clip, scale=1 / tuner.passes if is_summed else 1.0)
        last = self.history[-self.bad_steps :]
        if len(last) == self.bad_steps and all(row["skipped"] for row in last):
            self.on_train_end(args, state, control)
            raise TrainingStopped(f"{self.bad_steps} steps in a row had no finite gradient, the last is step "
                                  f"{last[-1]['step']}, in which layers {last[-1]['layers']} learned; the weights are "
                                  "those before. Lower the learning rate, or look at the batch")  # fmt: skip

    def on_train_end(self, args, state, control, **kwargs):
        args.max_grad_norm = self._clip
        del args._clip_taken_over
        self.tuner.detach()

    def state(self) -> dict:
        kept = self.tuner.state_dict() if self.tuner else None
        return {"args": {"strategy": describe(self.strategy), "seed": self.seed}, "attributes": {"kept": kept}}


class IRTuning(LayerwiseTuning):
    """IR-Tuning as a callback, as the authors' code does it. The options are those of `IRTuningStrategy`."""

    def __init__(self, seed: int | None = None, *, strategy: Mapping | None = None, **options):
        super().__init__(strategy or IRTuningStrategy(**options), seed)  # a checkpoint gives the strategy as a dict
