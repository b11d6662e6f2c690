"""A Trainer that averages the loss over all examples of an optimizer step and groups examples by length."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import Sampler
from transformers import Trainer

from irtuning.method.processes import summed, world_size

MEGABATCH = 8  # examples are sorted by length within this many batches
# cuDNN's attention is left out: it gives NaN gradients for some padded batches (length 192, an H200, torch 2.11)
ATTENTION = [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]


def batch_order(seed: int, epoch: int, lengths: Sequence[int], batch_size: int) -> list[int]:
    """Return the order of the examples in an epoch: random batches of similar length, a short last batch at the end.

    `batch_size` counts all examples of an optimizer step, so that a step has the same ones, however it is divided.
    """
    rng = np.random.default_rng([seed, epoch])
    order, lengths = rng.permutation(len(lengths)), np.asarray(lengths)
    full, batches = len(order) // batch_size * batch_size, []
    for start in range(0, full, MEGABATCH * batch_size):
        part = order[start : min(start + MEGABATCH * batch_size, full)]
        part = part[np.argsort(-lengths[part], kind="stable")]
        batches += np.split(part, len(part) // batch_size)
    shuffled = [batches[i] for i in rng.permutation(len(batches))]
    return np.concatenate([*shuffled, order[full:]]).astype(int).tolist()


class LengthGroupedBatches(Sampler):
    """Sampler that yields examples in the order of `batch_order`. The Trainer calls `set_epoch`."""
    def __init__(self, seed: int, lengths: Sequence[int], batch_size: int):
        self.seed, self.lengths, self.batch_size, self.epoch = seed, lengths, batch_size, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which decides the order."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        return iter(batch_order(self.seed, self.epoch, self.lengths, self.batch_size))


class LayerwiseTrainer(Trainer):
    """Trainer for classifiers whose loss is the mean cross-entropy over all examples of an optimizer step.

    `class_weights` holds one weight per class, shape (K,), preferably with mean 1 over the examples. None: all are 1.
    """
    def __init__(self, *args, class_weights: torch.Tensor | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = True  # so that compute_loss is told the number of examples in the step
        self._class_weights, self._losses = class_weights, []

    def step_losses(self) -> list[float]:
        """Return the training loss of each optimizer step so far, the mean over its examples."""
        losses, sums = [loss for _, loss in self._losses], {}
        values = (summed(torch.stack(losses)) / world_size()).tolist() if losses else []
        for (step, _), value in zip(self._losses, values, strict=True):
            sums[step] = sums.get(step, 0.0) + value
        return list(sums.values())

    @sdpa_kernel(ATTENTION)
    def train(self, *args, **kwargs):
        """Train as the Trainer does, with the kernels in `ATTENTION`, and without walks through all modules."""
        model, set_mode = self.model, self.model.train  # a step sets the mode, clears gradients and counts operations
        model.train = lambda mode=True: model if mode == model.training else set_mode(mode)
        model.zero_grad = lambda set_to_none=True: self.optimizer.zero_grad(set_to_none)
        self.floating_point_ops = lambda inputs: 0
        try:
            return super().train(*args, **kwargs)
        finally:
            del model.train, model.zero_grad, self.floating_point_ops

    def training_step(self, *args, **kwargs) -> torch.Tensor:
        """Process a micro-batch as the Trainer does, and keep its loss for `step_losses`."""
        loss = super().training_step(*args, **kwargs)
        self._losses.append((self.state.global_step, loss.detach().float()))
        return loss

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Return the weighted cross-entropy of the micro-batch, divided by the number of examples in the step."""
        outputs, labels, weights = model(**inputs), inputs["labels"], self._class_weights
        weights = None if weights is None else weights.to(outputs.logits.device)
        options = {"weight": weights, "label_smoothing": self.args.label_smoothing_factor, "reduction": "sum"}
        loss = torch.nn.functional.cross_entropy(outputs.logits.float(), labels, **options)
        loss = loss / (len(labels) if num_items_in_batch is None else num_items_in_batch)
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes  # the number covers all processes; DDP takes a mean
        return (loss, outputs) if return_outputs else loss

    def _get_grad_norm(self, *args, **named):
        clip = self.args.max_grad_norm  # 0: a callback measures and clips the gradient
        return super()._get_grad_norm(*args, **named) if clip else self.accelerator.unscale_gradients()

    def _get_train_sampler(self, train_dataset=None) -> Sampler:
        lengths = [len(example["input_ids"]) for example in (train_dataset or self.train_dataset)]
        size = self._train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return LengthGroupedBatches(self.args.seed, lengths, size)
