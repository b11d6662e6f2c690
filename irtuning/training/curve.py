"""The validation curve of a run, and the weights it ends with."""

import time

import torch
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState


class ValidationCurve(TrainerCallback, ExportableState):
    """Keeps the validation scores over training, each step's duration, and with `best` the best weights.

    A checkpoint of the Trainer holds the scores and durations; `best` is the caller's to keep.

    Attributes:
        points: one dict per evaluation: step, loss and the scores.
        seconds: duration of each optimizer step, evaluation apart.
        best: with `best`, the best weights so far, on the CPU.
    """

    def __init__(self, keep: str = "last"):
        self.keep, self.points, self.seconds = keep, [], []
        self.best: list[torch.Tensor] = []

    @property
    def kept_step(self) -> int:
        """The step whose weights the run ends with."""
        if self.keep == "last":
            return self.points[-1]["step"]
        return max(self.points, key=lambda point: point["macro_f1"])["step"]

    def state(self) -> dict:
        """What a checkpoint holds."""
        return {"args": {"keep": self.keep}, "attributes": {"points": self.points, "seconds": self.seconds}}

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step:
            vars(self).update(state.stateful_callbacks[type(self).__name__]["attributes"])
        self._learning = [p for p in model.parameters() if p.requires_grad]

    def on_step_begin(self, args, state, control, **kwargs):
        self._started = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        self.seconds.append(time.perf_counter() - self._started)
        if state.global_step >= state.max_steps:
            control.should_evaluate = True

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        """Keep the scores, and a copy of the weights where they are the best so far."""
        names = ("loss", "macro_f1", "auprc", "accuracy", "macro_precision", "macro_recall")
        best = max((point["macro_f1"] for point in self.points), default=-1.0)
        self.points.append({"step": state.global_step} | {n: metrics[f"eval_{n}"] for n in names})
        if self.keep == "best" and metrics["eval_macro_f1"] > best:
            self.best = [p.detach().to("cpu", copy=True) for p in self._learning]

    @torch.no_grad()
    def on_train_end(self, args, state, control, **kwargs):
        for parameter, kept in zip(self._learning, self.best, strict=False):
            parameter.copy_(kept)
