"""What IR-Tuning is compared with: strategies with a budget of layers."""

import math
from dataclasses import dataclass

import numpy as np

from irtuning.errors import InputError
from irtuning.method.strategies import LossesWithout, Scores, Strategy


@dataclass
class ShareStrategy(Strategy):
    """A strategy with a budget: this share of the candidate layers, at least one."""

    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise InputError(f"share is {self.share}; give a share of the layers above 0, at most 1")

    @property
    def size(self) -> int:
        """How many layers learn at a step."""
        return max(1, round(self.share * self.count))

    def draw(self, rng: np.random.Generator, size: int, weights: np.ndarray | None = None) -> list[int]:
        """`size` different positions, ascending, each as likely as its weight says."""
        shares = None if weights is None else weights / weights.sum()
        return sorted(int(i) for i in rng.choice(self.count, size=size, replace=False, p=shares))


@dataclass
class LastLayers(ShareStrategy):
    """The last k layers learn, always the same."""

    def choose(self, step: int, scores: Scores, rng: np.random.Generator) -> list[int]:
        return list(range(self.count - self.size, self.count))


@dataclass
class MiddleLayers(ShareStrategy):
    """The middle k layers learn, always the same."""

    def choose(self, step: int, scores: Scores, rng: np.random.Generator) -> list[int]:
        first = (self.count - self.size) // 2
        return list(range(first, first + self.size))


@dataclass
class RandomSparseTuning(ShareStrategy):
    """RST: a uniform random subset learns, drawn anew each step; 4 of 32 layers in the authors' code."""

    share: float = 4 / 32

    def choose(self, step: int, scores: Scores, rng: np.random.Generator) -> list[int]:
        return self.draw(rng, self.size)


@dataclass
class LisaAdapters(ShareStrategy):
    """LISA's schedule over adapters: random layers, switched every `every` steps. Not the original."""

    share: float = 0.0  # 0: LISA's own 2 layers
    every: int = 20

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or self.every < 1:
            raise InputError(f"share is {self.share}, every {self.every}; give 0 to 1, and 1 step or more")
        self._now: list[int] = []

    @property
    def size(self) -> int:
        return max(1, round(self.share * self.count)) if self.share else min(2, self.count)

    def choose(self, step: int, scores: Scores, rng: np.random.Generator) -> list[int]:
        if step % self.every == 0 or not self._now:
            self._now = self.draw(rng, self.size)
        return self._now

    def state(self) -> dict:
        return {"now": self._now}

    def restore(self, state: dict) -> None:
        self._now = state["now"]


@dataclass
class Lisa(LisaAdapters):
    """LISA as published: full parameters of 2 random layers, embeddings, final norm and head; no adapters."""

    scope = "parameters"


@dataclass
class RandomCounts(ShareStrategy):
    """As many random layers at each step as IR-Tuning chose there: does the choice matter, or the number?"""

    counts: tuple[int, ...] = ()

    def begin(self, count: int, steps: int) -> None:
        super().begin(count, steps)
        if len(self.counts) < steps:
            raise InputError(
                f"random-counts has {len(self.counts)} layer counts for {steps} steps; "
                "give the IR-Tuning run of the same seed and length (--like RUN, or compare with ir among the methods)"
            )

    def choose(self, step: int, scores: Scores, rng: np.random.Generator) -> list[int]:
        return self.draw(rng, min(self.counts[step], self.count))


@dataclass
class ImportanceSparseTuning(ShareStrategy):
    """IST: layers that can be suppressed without harm are drawn less (the behaviour of the authors' baseline).

    Importance starts at 0. Every 10 steps 3 different random halves of the layers are suppressed (their adapters'
    output times 0.25) and the loss of one training batch is measured without gradient; reward = exp(-loss) minus
    the mean reward; a suppressed layer's importance gains reward * p (1 - p) * 10, p = sigmoid(importance).
    """

    share: float = 0.25
    every: int = 10
    trials: int = 3
    factor: float = 0.25
    step_size: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.every < 1 or self.trials < 1:
            raise InputError(f"every is {self.every}, trials {self.trials}; give 1 or more")

    @property
    def size(self) -> int:
        return max(1, int(self.share * self.count))

    def begin(self, count: int, steps: int) -> None:
        super().begin(count, steps)
        self.values = np.zeros(count)

    def choose(self, step: int, scores: Scores, rng: np.random.Generator) -> list[int]:
        return self.draw(rng, self.size, _sigmoid(-self.values))

    def probe_due(self, step: int) -> bool:
        return step > 0 and step % self.every == 0

    def probe(self, losses_without: LossesWithout, rng: np.random.Generator) -> None:
        """Update the importance from the losses with random halves of the layers suppressed."""
        half, halves = max(1, self.count // 2), []
        while len(halves) < min(self.trials, math.comb(self.count, half)):
            drawn = self.draw(rng, half, _sigmoid(self.values))
            if drawn not in halves:
                halves.append(drawn)
        rewards = np.exp(-np.array(losses_without(halves)))
        if not np.isfinite(rewards).all():  # a batch that was skipped: nothing to learn from
            return
        p = _sigmoid(self.values)
        for layers, reward in zip(halves, rewards - rewards.mean(), strict=True):
            self.values[layers] += reward * (p * (1 - p))[layers] * self.step_size

    def state(self) -> dict:
        return {"values": self.values.tolist()}

    def restore(self, state: dict) -> None:
        self.values = np.array(state["values"])


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))
