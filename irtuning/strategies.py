"""Which layers learn now: IR-Tuning and what it is compared with, one small class each."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np

from irtuning.errors import InputError, unknown
from irtuning.selector import MIDDLE, split_scores

Scores = Sequence[float | None]
LossesWithout = Callable[[list[list[int]]], list[float]]


@dataclass
class Strategy:
    """Chooses positions among `count` candidate layers, lowest first; every layer learns unless a subclass says else.

    `scope` is `adapters`, or `parameters` where the layers' own weights learn and the model carries no adapter.
    `importance` names what the callback measures each step: gradient, weight, cosine or nothing.
    """

    min_layer: int = 0  # never choose a layer below: backprop ends there

    scope: ClassVar[str] = "adapters"
    importance: ClassVar[str | None] = None
    about: ClassVar[str] = "every adapter learns at every step: the plain PEFT baseline"

    def begin(self, count: int, steps: int) -> None:
        """Called once before training with the number of candidates and of optimizer steps."""
        self.count = count

    def choose(self, step: int, scores: Scores, rng: np.random.Generator) -> list[int]:
        """The positions that learn at this step (from 0), ascending."""
        return list(range(self.count))

    def probe_due(self, step: int) -> bool:
        """Whether `probe` wants to measure losses before this step (IST alone does)."""
        return False

    def update(self, scores: Scores, fresh: Scores) -> list[float | None]:
        """The scores after a step: the fresh ones where a layer was measured, else the old."""
        return [old if new is None else new for old, new in zip(scores, fresh, strict=True)]


@dataclass
class FullTuning(Strategy):
    """Full fine-tuning: every parameter learns, no adapters."""

    scope = "parameters"
    about = "every parameter learns, no adapters: full fine-tuning"


@dataclass
class IRTuningStrategy(Strategy):
    """The layers on one side of the cut of the importance scores learn (the abstract; details: authors' code)."""

    score: str = "reference"  # gradient: reference | l2
    variant: str = "reference"  # of the cut: reference | exact
    splits: int = 1
    refresh_every: int = 0  # ours: all layers learn on every K-th step, so that no score goes stale
    smoothing: float = 0.0  # ours: share of the old score kept when a layer is measured again

    importance = "gradient"
    about = "IR-Tuning: the layers with high gradient norms learn"

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise InputError(f"smoothing is {self.smoothing}; give a share of 0 or more, below 1")
        if self.refresh_every < 0 or self.splits < 1:
            raise InputError(f"refresh_every is {self.refresh_every}, splits {self.splits}; give >= 0 and >= 1")
        if self.score not in self.score_forms():
            raise unknown(f"score of {self.importance} importance", self.score, self.score_forms())
        split_scores([0.0, 1.0], variant=self.variant)

    @classmethod
    def score_forms(cls) -> tuple[str, ...]:
        """The forms of this importance; the first is the authors'."""
        return ("reference", "l2")

    def choose(self, step: int, scores: Scores, rng: np.random.Generator) -> list[int]:
        if self.refresh_every and (step + 1) % self.refresh_every == 0:
            return list(range(self.count))
        return self.cut(scores, rng)

    def cut(self, scores: Scores, rng: np.random.Generator) -> list[int]:
        """The positions on the kept side of the cut."""
        return split_scores(scores, variant=self.variant, splits=self.splits, rng=rng)

    def update(self, scores: Scores, fresh: Scores) -> list[float | None]:
        def blend(old: float | None, new: float | None) -> float | None:
            if old is None or new is None:
                return old if new is None else new
            return self.smoothing * old + (1 - self.smoothing) * new

        return [blend(old, new) for old, new in zip(scores, fresh, strict=True)]


@dataclass
class WeightTuning(IRTuningStrategy):
    """IR-Tuning by the norm of each layer's attention output projection; the choice stays the same all along."""

    importance = "weight"
    about = "IR-Tuning by weight norm: one fixed choice"

    @classmethod
    def score_forms(cls) -> tuple[str, ...]:
        return ("reference",)

    def cut(self, scores: Scores, rng: np.random.Generator) -> list[int]:
        first, last = (int(share * len(scores)) for share in MIDDLE)
        window = (first + 1, last) if self.variant == "reference" else None
        return split_scores(scores, variant=self.variant, splits=self.splits, window=window, rng=rng)


@dataclass
class CosineTuning(IRTuningStrategy):
    """IR-Tuning by cosine similarity: a layer that changes its input much, so has a low score, learns."""

    importance = "cosine"
    about = "IR-Tuning by cosine similarity of a layer's input and output"

    @classmethod
    def score_forms(cls) -> tuple[str, ...]:
        return ("reference", "token")

    def cut(self, scores: Scores, rng: np.random.Generator) -> list[int]:
        return split_scores(scores, variant=self.variant, splits=self.splits, keep="low", rng=rng)


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
    """The top layers learn."""

    about = "the last k layers learn, always the same"

    def choose(self, step: int, scores: Scores, rng: np.random.Generator) -> list[int]:
        return list(range(self.count - self.size, self.count))


@dataclass
class MiddleLayers(ShareStrategy):
    """The layers around the middle learn."""

    about = "the middle k layers learn, always the same"

    def choose(self, step: int, scores: Scores, rng: np.random.Generator) -> list[int]:
        first = (self.count - self.size) // 2
        return list(range(first, first + self.size))


@dataclass
class RandomSparseTuning(ShareStrategy):
    """RST: a uniform random subset learns, drawn anew each step; 4 of 32 layers in the authors' code."""

    share: float = 4 / 32
    about = "RST: a random subset, drawn at every step"

    def choose(self, step: int, scores: Scores, rng: np.random.Generator) -> list[int]:
        return self.draw(rng, self.size)


@dataclass
class LisaAdapters(ShareStrategy):
    """LISA's schedule over adapters: a random set of layers, switched every `every` steps. Not the original."""

    share: float = 0.0  # 0: LISA's own 2 layers
    every: int = 20
    about = "LISA's schedule over adapters: random layers, switched every 20 steps"

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or self.every < 1:
            raise InputError(f"share is {self.share}, every {self.every}; give 0 to 1, and 1 step or more")
        self._now: list[int] = []

    @property
    def size(self) -> int:
        return max(1, round(self.share * self.count)) if self.share else min(2, self.count)

    def choose(self, step: int, scores: Scores, rng: np.random.Generator) -> list[int]:
        if step % self.every == 0:
            self._now = self.draw(rng, self.size)
        return self._now


@dataclass
class Lisa(LisaAdapters):
    """LISA as published: full parameters of 2 random layers, embeddings, final norm and head; no adapters."""

    scope = "parameters"
    about = "LISA: full parameters of 2 random layers plus embeddings and head, switched every 20 steps"


@dataclass
class RandomCounts(ShareStrategy):
    """As many random layers at each step as IR-Tuning chose there: does the choice matter, or the number?"""

    counts: tuple[int, ...] = ()
    about = "random layers, as many at each step as IR-Tuning chose (needs its record)"

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
    about = "IST: layers drawn by an importance learned from suppressing random halves"

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
        p = _sigmoid(self.values)
        for layers, reward in zip(halves, rewards - rewards.mean(), strict=True):
            self.values[layers] += reward * (p * (1 - p))[layers] * self.step_size


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


METHODS: dict[str, type[Strategy]] = {
    "full": Strategy,
    "ir": IRTuningStrategy,
    "ir-weight": WeightTuning,
    "ir-cosine": CosineTuning,
    "rst": RandomSparseTuning,
    "ist": ImportanceSparseTuning,
    "lisa": Lisa,
    "lisa-adapters": LisaAdapters,
    "last-k": LastLayers,
    "middle-k": MiddleLayers,
    "random-counts": RandomCounts,
    "full-ft": FullTuning,
}
EQUAL_BUDGET = ("rst", "lisa-adapters", "last-k", "middle-k")  # take IR-Tuning's mean share where it is known


def make_strategy(spec: str, **options: object) -> Strategy:
    """Make the strategy a text such as `ir` or `ir:variant=exact:splits=2` names; `options` are its defaults.

    Raises:
        InputError: an unknown method or option, or a value the method refuses.
    """
    name, *pairs = spec.split(":")
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    kinds = {f.name: f.type for f in fields(METHODS[name])}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if key not in kinds or not equals:
            raise unknown(f"option of method {name!r} (written name:option=value)", pair, kinds)
        options[key] = _parse(name, key, text, kinds[key])
    return METHODS[name](**options)


def _parse(method: str, key: str, text: str, kind: type) -> object:
    if kind not in (int, float, str):
        raise InputError(f"method {method!r}: {key} cannot be given as text; pass it from Python")
    try:
        return kind(text)
    except ValueError:
        raise InputError(f"method {method!r}: {key}={text!r} is not of type {kind.__name__}") from None
