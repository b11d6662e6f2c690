"""Exact resume: when a checkpoint is written, what it holds, and how training continues from it."""

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

from irtuning.errors import InputError
from irtuning.method.callback import LayerwiseTuning
from irtuning.method.processes import from_first, is_first, summed, wait_for_all, world_size
from irtuning.method.trainer import LayerwiseTrainer
from irtuning.training.checkpoints import Checkpoints
from irtuning.training.speed import few_walks
from irtuning.training.tracking import layer_numbers

TENSORS = "tensors.safetensors"


class Progress(TrainerCallback, ExportableState):
    """Callback that times the steps, evaluates after the last one, and asks for checkpoints.

    A checkpoint is due every `every` steps, and once when the process receives SIGTERM.

    Attributes:
        starts: the step after which each process of this run began; [0] for a run that was never interrupted.
        earlier: seconds of training in the processes before this one.
        seconds: duration of each optimizer step, without evaluation.
    """

    def __init__(self, every: int = 0):
        self.every, self.ending, self.starts, self.earlier, self.seconds = every, False, [], 0.0, []

    def state(self) -> dict:
        """Return what a checkpoint holds."""
        spent = self.earlier + (time.perf_counter() - self._began if self.starts else 0.0)
        kept = {"starts": self.starts, "earlier": spent, "seconds": self.seconds}
        return {"args": {"every": self.every}, "attributes": kept}

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step:
            vars(self).update(state.stateful_callbacks[type(self).__name__]["attributes"])
        self.starts, self._began = [*self.starts, state.global_step], time.perf_counter()

    def on_step_begin(self, args, state, control, **kwargs):
        self._started = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        self.seconds.append(time.perf_counter() - self._started)
        if world_size() > 1:  # a launcher signals all processes, and each may notice in another step
            self.ending = bool(summed(torch.tensor([float(self.ending)], device=args.device)).item())
        if state.global_step >= state.max_steps:
            control.should_evaluate = True
        elif self.every:  # after the last step the run itself is written
            control.should_save |= self.ending or state.global_step % self.every == 0

    def on_evaluate(self, args, state, control, **kwargs):
        control.should_save |= self.ending and state.global_step < state.max_steps

    @contextmanager
    def until_sigterm(self) -> Iterator[None]:
        """On SIGTERM, finish the step, save a checkpoint and exit. Only the main thread can set signal handlers."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, lambda *_: setattr(self, "ending", True))
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


class ResumableTrainer(LayerwiseTrainer):
    """Trainer that writes complete checkpoints of what learns and continues from them exactly.

    A checkpoint holds the Trainer's own files (optimizer, schedule, random generators, its state with that of the
    callbacks) and one file of tensors: the weights that learn and the losses of the steps. The base model is not in
    it, since the seed makes it again.

    Args:
        checkpoints: where they are written (`args.output_dir` is its `new`); None for no checkpoints.
        layerwise: the callback whose layers are logged.
        progress: the callback that asks for checkpoints.
    """

    def __init__(self, *args, checkpoints: Checkpoints | None, layerwise: LayerwiseTuning, progress: Progress, **named):
        super().__init__(*args, **named)
        self._checkpoints, self._layerwise, self._progress = checkpoints, layerwise, progress
        self._earlier: list[float] = []

    def train_or_resume(self) -> None:
        """Train from the newest checkpoint, or from the beginning.

        Raises:
            InputError: the checkpoint belongs to another run.
            SystemExit: 143, after SIGTERM and a checkpoint.
        """
        if self._checkpoints is None:
            self.train()
            return
        newest = from_first(self._checkpoints.newest)
        with self._progress.until_sigterm():
            self.train(resume_from_checkpoint=str(newest) if newest else None)

    def train(self, *args, **kwargs):
        with few_walks(self):
            return super().train(*args, **kwargs)

    def log(self, logs, *args, **kwargs) -> None:
        step = layer_numbers(self._layerwise.history, self._layerwise.layers.indices) if "loss" in logs else {}
        super().log(logs | step, *args, **kwargs)

    def step_losses(self) -> list[float]:
        return self._earlier + super().step_losses()

    def save_model(self, output_dir=None, _internal_call=False) -> None:
        """Write the weights that learn and the losses. Every process adds its losses, the first one writes."""
        learning = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        weights = {name: p.detach().contiguous() for name, p in self.model.named_parameters() if id(p) in learning}
        tensors = {f"weight.{name}": value for name, value in weights.items()}
        losses = torch.tensor(self.step_losses(), dtype=torch.float64)
        if is_first():
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            save_file(tensors | {"losses": losses}, Path(output_dir) / TENSORS)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None) -> None:
        tensors = load_file(Path(resume_from_checkpoint) / TENSORS)
        self._earlier = tensors.pop("losses").tolist()
        weights = {name.removeprefix("weight."): value for name, value in tensors.items()}
        (model or self.model).load_state_dict(weights, strict=False)

    def _save_checkpoint(self, model, trial) -> None:
        step = self.state.global_step
        from_first(lambda: shutil.rmtree(self._checkpoints.new, ignore_errors=True))
        try:
            super()._save_checkpoint(model, trial)
            wait_for_all()  # every process writes its random generators' state
            from_first(lambda: self._checkpoints.publish(step))
        except (OSError, RuntimeError, SafetensorError, InputError) as error:  # torch.save: RuntimeError on a full disk
            shutil.rmtree(self._checkpoints.new, ignore_errors=True)
            raise InputError(
                f"no checkpoint can be written at step {step}: {error}; free some space and start again, then the run "
                "resumes from its last checkpoint"
            ) from error
        if self._progress.ending:
            raise SystemExit(128 + signal.SIGTERM)
