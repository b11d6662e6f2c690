"""Exact resume: the folder of a run's unfinished work, its checkpoints, and how training continues from them."""

import json
import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list, wait_for_everyone
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tqdm import tqdm
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from irtuning.errors import InputError, differences
from irtuning.method.processes import is_first, summed, world_size
from irtuning.training.callback import LayerwiseTuning
from irtuning.training.record import has_record
from irtuning.training.trainer import LayerwiseTrainer

logger = logging.getLogger(__name__)
FORMAT, IDENTITY, TENSORS = 2, "identity.json", "tensors.safetensors"


def unfinished_folder(output: Path) -> Path:
    """Return the folder for a run's unfinished work: `.NAME.unfinished` beside its output."""
    return output.parent / f".{output.name}.unfinished"


@contextmanager
def unfinished(output: Path) -> Iterator[Path]:
    """Lock and yield the folder for a run's unfinished work. After an error it stays. InputError if it is in use."""
    folder, finished = unfinished_folder(output), False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock", timeout=0)  # freed when the process ends, even if it is killed
        lock.acquire()
    except Timeout:
        raise InputError(f"another process is training in {folder}; wait for it, or give another output") from None
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}; give another output") from None
    try:
        _remove_half_written(folder)
        yield folder
        finished = True
    finally:
        _remove_half_written(folder)
        if finished or not any(path.is_dir() for path in folder.iterdir()):
            shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _remove_half_written(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not (path.name.startswith("checkpoint-") or has_record(path)):
            shutil.rmtree(path)


def from_first(make: Callable[[], object]) -> object:
    """Call `make` in the first process only, and return its result in every process."""
    return broadcast_object_list([make() if is_first() else None])[0]


class Checkpoints:
    """The checkpoints of one run, `folder/checkpoint-STEP`, each with the settings that a resumed run must share.

    Each is written to `folder/new` and then renamed, so that a process killed at any moment leaves only complete ones.
    """
    def __init__(self, folder: Path, identity: Mapping[str, object]):
        self.folder, self.new = folder, folder / "new"
        self.identity = json.loads(json.dumps({"format": FORMAT, **identity}))  # as JSON reads it back

    def publish(self, step: int) -> None:
        """Give the complete checkpoint in `new` its final name, then remove the older ones."""
        older, written = list(self.folder.glob("checkpoint-*")), self.new / f"checkpoint-{step}"
        (written / IDENTITY).write_text(json.dumps(self.identity, indent=1) + "\n", encoding="utf-8")
        os.rename(written, self.folder / written.name)
        for checkpoint in older:
            shutil.rmtree(checkpoint)

    def newest(self) -> Path | None:
        """Return the newest checkpoint, or None. InputError if it belongs to another run."""
        if not (steps := [int(path.name.rpartition("-")[2]) for path in self.folder.glob("checkpoint-*")]):
            return None
        checkpoint = self.folder / f"checkpoint-{max(steps)}"
        recorded = json.loads((checkpoint / IDENTITY).read_text(encoding="utf-8"))
        if different := differences(recorded, self.identity):
            raise InputError(f"{self.folder} holds unfinished work of another run ({'; '.join(different)}); give "
                             "another output, or remove that folder")  # fmt: skip
        return checkpoint


class Progress(TrainerCallback, ExportableState):
    """Callback that times the steps, shows their progress, evaluates after the last one, and asks for checkpoints.

    A checkpoint is due every `every` steps, and once when the process receives SIGTERM or Ctrl-C.
    """
    def __init__(self, every: int = 0):
        self.every, self.ending, self.interrupted, self.shows_bar = every, False, False, False
        self.starts: list[int] = []  # the steps after which this run began and resumed
        self.earlier = 0.0  # seconds of training in the processes before this one
        self.seconds: list[float] = []  # of each optimizer step, without evaluation

    def state(self) -> dict:
        """Return the state that a checkpoint stores."""
        spent = self.earlier + (time.perf_counter() - self._began if self.starts else 0.0)
        return {"args": {}, "attributes": {"starts": self.starts, "earlier": spent, "seconds": self.seconds}}

    def on_train_begin(self, args, state, control, **kwargs):
        """Restore the state of a checkpoint, and note at which step this process begins."""
        if state.global_step:
            vars(self).update(state.stateful_callbacks[type(self).__name__]["attributes"])
        self.starts, self._began = [*self.starts, state.global_step], time.perf_counter()
        self._bar = tqdm(total=state.max_steps, initial=state.global_step, disable=not self.shows_bar)

    def on_step_begin(self, args, state, control, **kwargs):
        """Start the clock of the step."""
        self._started = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        """Record the time of the step, and ask for the evaluation or the checkpoint that is due."""
        self.seconds.append(time.perf_counter() - self._started)
        self._bar.update()
        if world_size() > 1:  # a launcher signals all processes, but each may notice it at another step
            self.ending = bool(summed(torch.tensor([float(self.ending)], device=args.device)).item())
        if state.global_step >= state.max_steps:
            control.should_evaluate = True
        elif self.every:  # not after the last step, when the run itself is saved
            control.should_save |= self.ending or state.global_step % self.every == 0

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        """Show the score, and ask for a checkpoint if SIGTERM came during the evaluation."""
        self._bar.set_postfix_str(f"macro F1 {metrics['eval_macro_f1']:.3f}")
        control.should_save |= self.ending and state.global_step < state.max_steps

    def on_train_end(self, args, state, control, **kwargs):
        """End the line of the progress bar."""
        self._bar.close()


class ResumableTrainer(LayerwiseTrainer):
    """Trainer that writes checkpoints of the trainable weights and resumes from them exactly.

    A checkpoint holds the Trainer's own files (optimizer, schedule, random generators, state of Trainer and callbacks)
    and a file with the trainable weights and the losses of the steps. The base model is made again from the seed.
    Without `checkpoints` nothing is saved; with them, `checkpoints.new` must be `args.output_dir`.
    """
    def __init__(self, *args, checkpoints: Checkpoints | None, layerwise: LayerwiseTuning, progress: Progress, **named):
        super().__init__(*args, **named)
        self.checkpoints, self.layerwise, self.progress, self._earlier = checkpoints, layerwise, progress, []

    def train_or_resume(self) -> None:
        """Train from the newest checkpoint, or from the beginning.

        SIGTERM or Ctrl-C ends it after a step and a checkpoint. A second Ctrl-C ends it at once.
        """
        newest, before = self.checkpoints and from_first(self.checkpoints.newest), {}
        if newest:
            logger.info("resuming after step %s of %d", newest.name.rpartition("-")[2], self.args.max_steps)
        def end(number: int, frame: object) -> None:
            if self.progress.interrupted and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.progress.ending, self.progress.interrupted = True, number == signal.SIGINT
        if self.checkpoints and threading.current_thread() is threading.main_thread():  # others cannot set handlers
            before = {signal.SIGTERM: signal.signal(signal.SIGTERM, end)}
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not in a worker, whose parent decides
                before[signal.SIGINT] = signal.signal(signal.SIGINT, end)
        try:
            self.train(resume_from_checkpoint=str(newest) if newest else None)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def log(self, logs, *args, **kwargs) -> None:
        """Log also the gradient's norm, how many layers learned in the last step, and each layer's score before it."""
        if "loss" in logs and self.layerwise.history:
            last, names = self.layerwise.history[-1], self.layerwise.layers.blocks or self.layerwise.layers.indices
            scores = zip(names, last["scores"] or (), strict=False)
            numbers = {f"layer_score/{layer:02}": score for layer, score in scores if score is not None}
            numbers["grad_norm"] = float("nan" if last["gradient_norm"] is None else last["gradient_norm"])
            logs = logs | {"learning_layers": len(last.get("blocks", last["layers"])), **numbers}
        super().log(logs, *args, **kwargs)

    def step_losses(self) -> list[float]:
        """Return the training loss of each optimizer step, including those before the checkpoint."""
        return self._earlier + super().step_losses()

    def step_examples(self, step: int) -> list[int]:
        """Return the positions in the training set of the examples of an optimizer step. Steps count from 0."""
        sampler = self._get_train_sampler()
        sampler.epoch, batch = divmod(step, -(-len(sampler) // sampler.batch_size))
        return list(sampler)[batch * sampler.batch_size : (batch + 1) * sampler.batch_size]

    def save_model(self, output_dir=None, _internal_call=False) -> None:
        """Let the first process write the trainable weights, and the losses of all processes."""
        learning = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        named = self.model.named_parameters()
        tensors = {f"weight.{name}": p.detach().contiguous() for name, p in named if id(p) in learning}
        tensors["losses"] = torch.tensor(self.step_losses(), dtype=torch.float64)
        if is_first():
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            save_file(tensors, Path(output_dir) / TENSORS)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None) -> None:
        tensors = load_file(Path(resume_from_checkpoint) / TENSORS)
        self._earlier = tensors.pop("losses").tolist()
        (model or self.model).load_state_dict({n.removeprefix("weight."): v for n, v in tensors.items()}, strict=False)

    def _save_checkpoint(self, model, trial) -> None:
        step = self.state.global_step
        from_first(lambda: shutil.rmtree(self.checkpoints.new, ignore_errors=True))
        try:
            super()._save_checkpoint(model, trial)
            wait_for_everyone()  # every process writes the state of its random generators
            from_first(lambda: self.checkpoints.publish(step))
        except (OSError, RuntimeError, SafetensorError) as error:  # torch.save raises RuntimeError if the disk is full
            shutil.rmtree(self.checkpoints.new, ignore_errors=True)
            raise InputError(f"the checkpoint of step {step} cannot be written: {error}; free space and start again, "
                             "and the run resumes from its last checkpoint") from error  # fmt: skip
        if self.progress.ending:
            logger.warning("ended after step %d, which is saved; repeat the command to go on", step)
            raise KeyboardInterrupt if self.progress.interrupted else SystemExit(128 + signal.SIGTERM)
