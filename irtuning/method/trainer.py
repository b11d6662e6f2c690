"""Our thin Trainer: batches in the order of `irtuning.method.batches`, a loss that is a mean over a step's examples, kept."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils.data import Sampler
from transformers import Trainer

from irtuning.method.batches import LengthGroupedBatches
from irtuning.method.processes import mean


class LayerwiseTrainer(Trainer):
    """A Trainer for classifiers: cross-entropy as the mean over a step's examples, class weights, the order above.

    However a step is cut into micro-batches, each example counts the same.

    Args:
        class_weights: one weight per class, shape (K,), best with mean 1 over the examples; None for 1 each.
    """

    def __init__(self, *args, class_weights: torch.Tensor | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = True  # so that compute_loss is told the size of the whole step
        self._class_weights = class_weights
        self._losses: list[tuple[int, torch.Tensor]] = []

    def step_losses(self) -> list[float]:
        """Training loss of each optimizer step so far: the mean over its examples."""
        if not self._losses:
            return []
        values = mean(torch.stack([loss for _, loss in self._losses])).tolist()
        sums: dict[int, float] = {}
        for (step, _), value in zip(self._losses, values, strict=True):
            sums[step] = sums.get(step, 0.0) + value
        return list(sums.values())

    def train(self, *args, **kwargs):
        with few_walks(self), finite_attention():
            return super().train(*args, **kwargs)

    def step_examples(self, step: int) -> list[int]:
        """Positions in the training set of the examples of an optimizer step, from 0."""
        sampler = self._get_train_sampler()
        epoch, batch = divmod(step, -(-len(sampler) // sampler.batch_size))
        sampler.set_epoch(epoch)
        return list(sampler)[batch * sampler.batch_size : (batch + 1) * sampler.batch_size]

    def training_step(self, *args, **kwargs) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        self._losses.append((self.state.global_step, loss.detach().float()))
        return loss

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Weighted cross-entropy summed over the micro-batch, divided by the examples of the whole step."""
        outputs = model(**inputs)
        labels = inputs["labels"]
        weights = None if self._class_weights is None else self._class_weights.to(outputs.logits.device)
        total = torch.nn.functional.cross_entropy(outputs.logits.float(), labels, weight=weights, reduction="sum")
        if num_items_in_batch is None:
            loss = total / len(labels)
        else:  # counted over all processes, whose gradients are averaged
            together = self.args.average_tokens_across_devices
            loss = total / num_items_in_batch * (self.accelerator.num_processes if together else 1)
        return (loss, outputs) if return_outputs else loss

    def _get_train_sampler(self, train_dataset=None) -> Sampler:
        lengths = [len(example["input_ids"]) for example in (train_dataset or self.train_dataset)]
        whole = self._train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return LengthGroupedBatches(self.args.seed, lengths, whole)


@contextmanager
def finite_attention() -> Iterator[None]:
    """Keep cuDNN's attention out: its gradients of a padded batch are NaN at some lengths (192 on an H200, torch 2.11)."""
    from torch.backends import cuda

    before = cuda.cudnn_sdp_enabled()
    cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        cuda.enable_cudnn_sdp(before)


@contextmanager
def few_walks(trainer: Trainer) -> Iterator[None]:
    """Spare the walks through all modules, thousands of them, that the Trainer takes at each step.

    It sets train mode, which is set already, empties gradients by looking for parameters, which the optimizer has at
    hand, and counts operations that nobody reads. A GPU waits meanwhile: choosing layers needs the step's norms, so
    that no step is queued ahead.
    """
    model, train = trainer.model, trainer.model.train
    model.train = lambda mode=True: model if mode == model.training else train(mode)
    model.zero_grad = lambda set_to_none=True: trainer.optimizer.zero_grad(set_to_none)
    trainer.floating_point_ops = lambda inputs: 0
    try:
        yield
    finally:
        del model.train, model.zero_grad, trainer.floating_point_ops
