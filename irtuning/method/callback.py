"""The `LayerTuner` as one line in a Trainer: `trainer.add_callback(IRTuning())`."""

from collections.abc import Mapping

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from irtuning.errors import InputError, TrainingStopped
from irtuning.method.layers import CandidateLayers, base_model
from irtuning.method.processes import refuse_sharding
from irtuning.method.registry import as_strategy, describe, make_strategy
from irtuning.method.strategies import IRTuningStrategy, Strategy
from irtuning.method.tuner import LayerTuner


class LayerwiseTuning(TrainerCallback, ExportableState):
    """Callback that lets only the layers chosen by a strategy learn at each optimizer step.

    Add it to any Trainer whose model carries peft adapters: `trainer.add_callback(LayerwiseTuning("ist"))`. It clips
    gradients in place of the Trainer, so that scores come from the unclipped gradient of the mean loss over the
    accumulated micro-batches. All its state is in the Trainer's checkpoints: a resumed run continues as if it had
    never been interrupted.

    Args:
        strategy: a text such as "ir:variant=exact", a subclass of `Strategy`, an instance, or a dict from `describe`.
        seed: seed of the strategy's random generator; None for the Trainer's seed.

    Attributes:
        tuner: the `LayerTuner` that does the work, from the beginning of training on.
        history, layers, strategy: the tuner's.
        bad_steps: number of skipped steps in a row that ends the training.

    Raises:
        InputError: at the beginning of training; see `LayerTuner`. Also if the checkpoint is another strategy's.
        TrainingStopped: after `bad_steps`.
    """

    bad_steps = 5

    def __init__(self, strategy: str | type[Strategy] | Strategy | Mapping, seed: int | None = None):
        self.strategy = make_strategy(**strategy) if isinstance(strategy, Mapping) else as_strategy(strategy)
        self.seed = seed
        self.tuner: LayerTuner | None = None

    @property
    def history(self) -> list[dict]:
        """One dict per optimizer step; see `LayerTuner`."""
        return self.tuner.history if self.tuner else []

    @property
    def layers(self) -> CandidateLayers:
        """The candidate layers; known from the beginning of training on."""
        return self.tuner.layers

    def on_train_begin(self, args, state, control, model=None, optimizer=None, **kwargs):
        """Make the tuner, or restore it from a checkpoint, and take clipping over from the Trainer."""
        refuse_sharding(args.fsdp, args.deepspeed, args.n_gpu)
        if getattr(state, "_layerwise", self) is not self:
            raise InputError("two layerwise callbacks on one Trainer would undo each other; remove one")
        state._layerwise = self
        if self.tuner:  # of an earlier run, which may have been interrupted
            self.tuner.detach()
        seed = args.seed if self.seed is None else self.seed
        self.tuner = LayerTuner(model, self.strategy, optimizer, seed, state.max_steps)
        self.strategy = self.tuner.strategy
        self._classifies = "Classification" in (getattr(base_model(model), "loss_type", None) or "")
        # kept in the arguments too, since an interrupted run never comes to `on_train_end`
        self._clip = args._clip_taken_over = getattr(args, "_clip_taken_over", args.max_grad_norm)
        args.max_grad_norm = 0.0
        if state.global_step:
            kept = state.stateful_callbacks.get(type(self).__name__, {}).get("attributes", {}).get("kept")
            if kept is None:
                raise InputError("the checkpoint holds no state of this callback: it was made without; start over")
            self.tuner.load_state_dict(kept)

    def on_step_begin(self, args, state, control, **kwargs):
        """Choose the layers that learn at this step."""
        self.tuner.begin_step()

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        """Score and clip; end the training if too many steps in a row had no finite gradient."""
        self.tuner.end_backward(self._clip, scale=self._scale(args))
        last = self.history[-self.bad_steps :]
        if len(last) == self.bad_steps and all(row["skipped"] for row in last):
            self.on_train_end(args, state, control)
            raise TrainingStopped(
                f"{self.bad_steps} steps in a row had no finite gradient, the last is step {last[-1]['step']}, in "
                f"which layers {last[-1]['layers']} learned; the weights are those before. Lower the learning rate, "
                "or look at the batch"
            )

    def on_train_end(self, args, state, control, **kwargs):
        """Give clipping back and let all layers require gradients again."""
        args.max_grad_norm = self._clip
        del args._clip_taken_over
        self.tuner.detach()

    def state(self) -> dict:
        """Return what the Trainer writes into a checkpoint."""
        kept = self.tuner.state_dict() if self.tuner else None
        return {"args": {"strategy": describe(self.strategy), "seed": self.seed}, "attributes": {"kept": kept}}

    def _scale(self, args) -> float:
        """Return the factor that makes the gradient that of the mean loss over the micro-batches.

        The Trainer does not divide the loss by their number if it passes `num_items_in_batch`, and a classifier's own
        loss ignores that number. A loss function of the user's own is given labels and number, and divides by itself.
        """
        batch = self.tuner.batch or {}
        computed_by_model = "labels" in batch or args.label_smoothing_factor > 0
        is_summed = self._classifies and computed_by_model and batch.get("num_items_in_batch") is not None
        return 1 / self.tuner.passes if is_summed else 1.0


class IRTuning(LayerwiseTuning):
    """IR-Tuning as a callback: at each step only the layers with high gradient norms learn.

    `trainer.add_callback(IRTuning())` does what the authors' code does. The options are those of `IRTuningStrategy`:
    `score`, `variant`, `splits`, `refresh_every`, `smoothing`, `min_layer`.
    """

    def __init__(self, seed: int | None = None, *, strategy: Mapping | None = None, **options):
        super().__init__(strategy or IRTuningStrategy(**options), seed)  # a checkpoint gives the strategy as a dict
