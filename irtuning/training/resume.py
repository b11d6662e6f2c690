"""Going on exactly: when a checkpoint is due, what is in it beside the Trainer's own, and how it is read again."""

import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from irtuning.method.callback import LayerwiseTuning
from irtuning.training.checkpoints import Checkpoints
from irtuning.training.curve import ValidationCurve
from irtuning.errors import InputError
from irtuning.method.processes import from_first, is_first, summed, wait_for_all, world_size
from irtuning.training.tracking import layer_figures
from irtuning.method.trainer import LayerwiseTrainer

TENSORS = "tensors.safetensors"


class Saving(TrainerCallback, ExportableState):
    """Asks for a checkpoint every so many steps and, once, when the process is asked to end (SIGTERM).

    Attributes:
        starts: the step each process of this run began after; [0] for a run never interrupted.
        earlier: seconds of training in the processes before this one.
    """

    def __init__(self, every: int = 0):
        self.every, self.ending, self.starts, self.earlier = every, False, [], 0.0

    def state(self) -> dict:
        """What a checkpoint holds."""
        spent = self.earlier + (time.perf_counter() - self._began if self.starts else 0.0)
        return {"args": {"every": self.every}, "attributes": {"starts": self.starts, "earlier": spent}}

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step:
            vars(self).update(state.stateful_callbacks[type(self).__name__]["attributes"])
        self.starts, self._began = [*self.starts, state.global_step], time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        if world_size() > 1:  # a launcher asks them all to end, which each notices in a step of its own
            self.ending = bool(summed(torch.tensor([float(self.ending)], device=args.device)).item())
        if self.every and state.global_step < state.max_steps:  # after the last step the run itself is written
            control.should_save |= self.ending or state.global_step % self.every == 0

    def on_evaluate(self, args, state, control, **kwargs):
        control.should_save |= self.ending and state.global_step < state.max_steps

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGTERM as a wish to end after the step; in the main thread, where alone that can be."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, lambda *_: setattr(self, "ending", True))
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


class ResumableTrainer(LayerwiseTrainer):
    """Writes a checkpoint of what learns, whole or not at all, and goes on from it exactly.

    The Trainer's own files (optimizer, schedule, random generators, state with that of the callbacks) lie in it
    beside one of tensors: the learning weights, the losses of the steps and the curve's best weights. No
    pickled arguments, no base model: that one is made again from the seed.

    Args:
        checkpoints: where they go, `args.output_dir` being its `new`; None for nowhere.
        layerwise: the callback whose layers are logged.
        saving: the callback that asks for them.
        curve: the callback whose best weights are kept.
    """

    def __init__(self, *args, checkpoints: Checkpoints | None, layerwise: LayerwiseTuning, saving: Saving, curve: ValidationCurve, **kwargs):
        super().__init__(*args, **kwargs)
        self._layerwise = layerwise
        self._checkpoints, self._saving, self._curve = checkpoints, saving, curve
        self._earlier: list[float] = []

    def go_on(self) -> None:
        """Train from the newest whole checkpoint, or from the beginning.

        Raises:
            InputError: that checkpoint is another run's.
            SystemExit: 143, when asked to end; a checkpoint is written.
        """
        if self._checkpoints is None:
            self.train()
            return
        newest = from_first(self._checkpoints.newest)
        with self._saving.listening():
            self.train(resume_from_checkpoint=str(newest) if newest else None)

    def log(self, logs, *args, **kwargs) -> None:
        of_step = layer_figures(self._layerwise.history, self._layerwise.layers.indices) if "loss" in logs else {}
        super().log(logs | of_step, *args, **kwargs)

    def step_losses(self) -> list[float]:
        return self._earlier + super().step_losses()

    def save_model(self, output_dir=None, _internal_call=False) -> None:
        """Write what learns, the losses and the best weights; every process sums the losses, the first one writes."""
        held = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        found = {f"weight.{n}": p.detach().contiguous() for n, p in self.model.named_parameters() if id(p) in held}
        found |= {f"best.{i:06}": kept for i, kept in enumerate(self._curve.best)}
        losses = torch.tensor(self.step_losses(), dtype=torch.float64)
        if is_first():
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            save_file(found | {"losses": losses}, Path(output_dir) / TENSORS)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None) -> None:
        found = load_file(Path(resume_from_checkpoint) / TENSORS)
        self._earlier = found.pop("losses").tolist()
        self._curve.best = [found.pop(name) for name in sorted(found) if name.startswith("best.")]
        weights = {name.removeprefix("weight."): value for name, value in found.items()}
        (model or self.model).load_state_dict(weights, strict=False)

    def _save_checkpoint(self, model, trial) -> None:
        step = self.state.global_step
        from_first(lambda: shutil.rmtree(self._checkpoints.new, ignore_errors=True))
        try:
            super()._save_checkpoint(model, trial)
            wait_for_all()  # every process has a file of random states in it
            from_first(lambda: self._checkpoints.seal(step))
        except (OSError, RuntimeError, SafetensorError, InputError) as error:  # torch.save has no other for a full disk
            shutil.rmtree(self._checkpoints.new, ignore_errors=True)
            raise InputError(
                f"no checkpoint can be written at step {step}: {error}; free some space and start again, the run goes "
                "on from its last whole one"
            ) from error
        if self._saving.ending:
            raise SystemExit(128 + signal.SIGTERM)
