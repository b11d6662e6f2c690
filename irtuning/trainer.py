"""Our thin Trainer: batches of like length in an order that is a pure function, and losses kept per step."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler
from transformers import Trainer

from irtuning.speed import few_walks, finite_attention

MEGABATCH = 8  # batches are made of like lengths within this many batches


def batch_order(seed: int, epoch: int, lengths: Sequence[int], batch_size: int) -> list[int]:
    """The order of examples in an epoch: random batches of like length, a short last batch last.

    A pure function of its arguments; `batch_size` is the global one, over processes and accumulated micro-batches,
    so that every way to split a batch sees the same examples in a step.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    lengths = np.asarray(lengths)
    whole = len(order) // batch_size * batch_size
    batches = []
    for start in range(0, whole, MEGABATCH * batch_size):
        part = order[start : min(start + MEGABATCH * batch_size, whole)]
        part = part[np.argsort(-lengths[part], kind="stable")]
        batches += np.split(part, len(part) // batch_size)
    shuffled = [batches[i] for i in rng.permutation(len(batches))]
    return np.concatenate([*shuffled, order[whole:]]).astype(int).tolist()


class LengthGroupedBatches(Sampler):
    """`batch_order` as a sampler; the Trainer tells it the epoch."""

    def __init__(self, seed: int, lengths: Sequence[int], batch_size: int):
        self.seed, self.lengths, self.batch_size, self.epoch = seed, lengths, batch_size, 0

    def set_epoch(self, epoch: int) -> None:
        """Called before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        return iter(batch_order(self.seed, self.epoch, self.lengths, self.batch_size))


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
        values = torch.stack([loss for _, loss in self._losses]).tolist()
        sums: dict[int, float] = {}
        for (step, _), value in zip(self._losses, values, strict=True):
            sums[step] = sums.get(step, 0.0) + value
        return list(sums.values())

    def train(self, *args, **kwargs):
        with few_walks(self), finite_attention():
            return super().train(*args, **kwargs)

    def floating_point_ops(self, inputs) -> int:
        """Not counted: it would name every parameter of the model at each step, and nobody reads it."""
        return 0

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
        loss = total / (len(labels) if num_items_in_batch is None else num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def _get_train_sampler(self, train_dataset=None) -> Sampler:
        lengths = [len(example["input_ids"]) for example in (train_dataset or self.train_dataset)]
        whole = self._train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return LengthGroupedBatches(self.args.seed, lengths, whole)
