"""The order of examples: batches of like length, a pure function of seed and epoch."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

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
