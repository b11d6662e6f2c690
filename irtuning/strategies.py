"""Which layers learn now: IR-Tuning and what it is compared with, one small class each."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import ClassVar

import numpy as np

from irtuning.errors import InputError, read_as, unknown
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

    def begin(self, count: int, steps: int) -> None:
        """Called once before training with the number of candidates and of optimizer steps."""
        self.count = count

    def choose(self, step: int, scores: Scores, rng: np.random.Generator) -> list[int]:
        """The positions that learn at this step (from 0), ascending."""
        return list(range(self.count))

    def probe_due(self, step: int) -> bool:
        """Whether `probe` wants to measure losses before this step (IST alone does)."""
        return False

    def state(self) -> dict:
        """What changes while training, for JSON."""
        return {}

    def restore(self, state: dict) -> None:
        """Go on from a `state`, after `begin`."""


@dataclass
class FullPeft(Strategy):
    """Full PEFT: every adapter learns at every step; the plain baseline."""


@dataclass
class FullTuning(Strategy):
    """Full fine-tuning: every parameter learns, no adapters."""

    scope = "parameters"


@dataclass
class IRTuningStrategy(Strategy):
    """IR-Tuning: the layers with high gradient norms learn (the abstract; details: the authors' code)."""

    score: str = "reference"  # form of the importance: the first of `forms` is the authors'
    variant: str = "reference"  # of the cut: reference | exact
    splits: int = 1
    refresh_every: int = 0  # ours: all layers learn on every K-th step, so that no score goes stale
    smoothing: float = 0.0  # ours: share of the old score kept when a layer is measured again

    importance = "gradient"
    forms: ClassVar[tuple[str, ...]] = ("reference", "l2")
    keep: ClassVar[str] = "high"

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1 or self.refresh_every < 0:
            raise InputError(f"smoothing is {self.smoothing}, give 0 or more, below 1; refresh_every is "
                             f"{self.refresh_every}, give 0 or more")  # fmt: skip
        if self.score not in self.forms:
            raise unknown(f"score of {self.importance} importance", self.score, self.forms)
        split_scores([0.0, 1.0], variant=self.variant, splits=self.splits)

    def choose(self, step: int, scores: Scores, rng: np.random.Generator) -> list[int]:
        if self.refresh_every and (step + 1) % self.refresh_every == 0:
            return list(range(self.count))
        window = None
        if self.importance == "weight" and self.variant == "reference":  # the authors' window starts one later there
            window = int(MIDDLE[0] * len(scores)) + 1, int(MIDDLE[1] * len(scores))
        return split_scores(scores, variant=self.variant, splits=self.splits, keep=self.keep, window=window, rng=rng)

    def update(self, scores: Scores, fresh: Scores) -> list[float | None]:
        """The scores after a step: fresh where a layer was measured, blended with the old by `smoothing`."""

        def blend(old: float | None, new: float | None) -> float | None:
            if old is None or new is None:
                return old if new is None else new
            return self.smoothing * old + (1 - self.smoothing) * new

        return [blend(old, new) for old, new in zip(scores, fresh, strict=True)]


@dataclass
class WeightTuning(IRTuningStrategy):
    """IR-Tuning by the weight norm of each layer's attention output projection: one choice for the whole run."""

    importance = "weight"
    forms = ("reference",)


@dataclass
class CosineTuning(IRTuningStrategy):
    """IR-Tuning by cosine similarity: a layer that changes its input much, so has a low score, learns."""

    importance = "cosine"
    forms = ("reference", "token")
    keep = "low"


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
        p = _sigmoid(self.values)
        for layers, reward in zip(halves, rewards - rewards.mean(), strict=True):
            self.values[layers] += reward * (p * (1 - p))[layers] * self.step_size

    def state(self) -> dict:
        return {"values": self.values.tolist()}

    def restore(self, state: dict) -> None:
        self.values = np.array(state["values"])


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


METHODS: dict[str, type[Strategy]] = {
    "full": FullPeft,
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


def describe(strategy: Strategy) -> dict:
    """A strategy's name and settings, for JSON; `make_strategy(**description)` makes it again."""
    name = next((name for name, kind in METHODS.items() if kind is type(strategy)), type(strategy).__name__)
    return {"spec": name} | {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(strategy).items()}


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
        options[key] = read_as(f"{name}:{key}", text, kinds[key])
    return METHODS[name](**options)
