"""Strategies that choose the layers that learn: the base class, Full PEFT, IR-Tuning and its variants."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from irtuning.errors import InputError, unknown
from irtuning.method.selector import MIDDLE, split_scores

Scores = Sequence[float | None]
CHOICES = {"importance": (None, "gradient", "weight", "cosine"), "scope": ("adapters", "parameters")}
LossesWithout = Callable[[list[list[int]], float], list[float]]  # of sets of positions, and the factor that suppresses


@dataclass
class Strategy:
    """Base class of all strategies. By itself it lets every layer learn at every step.

    A strategy counts the candidate layers from 0 (the lowest) to `count - 1` and returns positions in that range. A
    subclass usually defines `choose` alone. Its class attributes tell the rest of the package what it is.
    """

    min_layer: int = 0  # no layer below this one learns, so backpropagation ends there
    name: ClassVar[str] = ""  # on the command line, in records, tables and figures; if empty, the class's own name
    colour: ClassVar[str] = ""  # in figures, as `#rrggbb`; derived from the name if empty
    scope: ClassVar[str] = "adapters"  # or `parameters`: the layers' own weights learn, and there are no adapters
    importance: ClassVar[str | None] = None  # what scores a layer at each step: `gradient`, `weight` or `cosine`
    score: ClassVar[str] = "l2"  # form of that score, see `irtuning.method.scores`
    keep: ClassVar[str] = "high"  # whether `high` or `low` scores mark the layers that learn
    leads: ClassVar[bool] = False  # whether other methods may take their budget of layers from this method's run
    takes: ClassVar[str | None] = None  # what it takes from that run under an equal budget: `share` or `counts`
    smoothing: ClassVar[float] = 0.0  # share of the old score that stays when a layer is measured again
    changing: ClassVar[tuple[str, ...]] = ()  # attributes, lists or arrays, that change during training
    limits: ClassVar[dict[str, tuple[float, float]]] = {}  # the lowest and the highest value of an option

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                raise unknown(f"{name} of {type(self).__name__}", value, map(str, choices))
        for name, (low, high) in self.limits.items():
            if not low <= getattr(self, name) <= high:
                most = f", at most {high}" if high < math.inf else ""
                raise InputError(f"{name} is {getattr(self, name)}; give {low} or more{most}")

    def begin(self, count: int, steps: int | None) -> None:
        """Prepare for a run with `count` candidate layers and `steps` optimizer steps (None if not known)."""
        self.count = count

    def choose(self, step: int, scores: Scores, rng: np.random.Generator) -> list[int]:
        """Return the positions of the layers that learn at this step, ascending. `step` counts from 0."""
        return self.worst_case(self.count)[0]

    def update(self, scores: Scores, fresh: Scores) -> list[float | None]:
        """Return the scores after a step. `fresh` has None for layers that were not measured."""
        s, pairs = self.smoothing, zip(scores, fresh, strict=True)
        smoothed = [(old, new if None in (old, new) else s * old + (1 - s) * new) for old, new in pairs]
        return [old if new is None else new for old, new in smoothed]

    def probe_due(self, step: int) -> bool:
        """Return whether to measure losses before this step (only IST does)."""
        return False

    def probe(self, losses_without: LossesWithout, rng: np.random.Generator) -> None:
        """Measure losses of the last training batch with layers suppressed, before `choose`, if it is due."""

    def size(self, count: int) -> int:
        """Return how many of `count` layers learn at a step, at most."""
        return count

    def worst_case(self, count: int) -> tuple[list[int], list[int]]:
        """Return the positions that learn at the most demanding step, and those that ever learn, to predict memory."""
        return [0, *range(count - self.size(count) + 1, count)], list(range(count))

    def state(self) -> dict:
        """Return what changes during training, as a JSON object for a checkpoint."""
        return {name: np.asarray(getattr(self, name)).tolist() for name in self.changing}

    def restore(self, state: dict) -> None:
        """Continue from the state of a checkpoint. It is called after `begin`."""
        vars(self).update({name: np.array(values) for name, values in state.items()})


class FullPeft(Strategy):
    """Full PEFT: every adapter learns at every step. This is the plain baseline."""

    name, colour = "full", "#0173b2"


class FullTuning(Strategy):
    """Full fine-tuning: every parameter learns, without adapters."""

    name, colour, scope = "full-ft", "#56b4e9", "parameters"


@dataclass
class IRTuningStrategy(Strategy):
    """IR-Tuning: the layers with high gradient norms learn, as in the paper's abstract and the authors' public code."""

    score: str = "reference"  # form of the score; the first of `forms` is the authors'
    variant: str = "reference"  # of the cut: `reference` or `exact`, see `split_scores`
    splits: int = 1  # how often the cut is applied
    refresh_every: int = 0  # ours: every so many steps all layers learn, so that no score goes stale; 0: never
    smoothing: float = 0.0  # ours: share of the old score that stays when a layer is measured again
    name, colour, importance, leads = "ir", "#de8f05", "gradient", True
    forms: ClassVar[tuple[str, ...]] = ("reference", "l2")
    limits = {"smoothing": (0, 0.999), "refresh_every": (0, math.inf), "splits": (1, math.inf)}
    shift: ClassVar[int] = 0  # the authors' first cut leaves so many indices of the middle out

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.score not in self.forms:
            raise unknown(f"score of {self.importance} importance", self.score, self.forms)
        split_scores([0.0, 1.0], variant=self.variant)

    def choose(self, step: int, scores: Scores, rng: np.random.Generator) -> list[int]:
        if self.refresh_every and (step + 1) % self.refresh_every == 0:
            return list(range(self.count))
        first, last = (int(share * len(scores)) for share in MIDDLE)
        window = (first + self.shift, last) if self.shift and self.variant == "reference" else None
        return split_scores(scores, variant=self.variant, splits=self.splits, keep=self.keep, window=window, rng=rng)

    def size(self, count: int) -> int:
        for _ in range(self.splits if self.variant == "reference" and not self.refresh_every else 0):  # else: all
            count = max(1, count - int(MIDDLE[0] * count) if self.keep == "high" else int(MIDDLE[1] * count))
        return count


class WeightTuning(IRTuningStrategy):
    """IR-Tuning by the weight norm of each layer's attention output projection: one choice for the whole run."""

    name, importance, forms, shift = "ir-weight", "weight", ("reference",), 1
    limits = IRTuningStrategy.limits | {"smoothing": (0, 0)}  # the weights are measured once


class CosineTuning(IRTuningStrategy):
    """IR-Tuning by cosine similarity: a layer that changes its input much has a low score and learns."""

    name, importance, forms, keep = "ir-cosine", "cosine", ("reference", "token"), "low"


@dataclass
class UpperTuning(IRTuningStrategy):
    """Our variant: IR-Tuning among the upper layers, where no score is older than `horizon` steps.

    The authors' cut nearly always takes the lowest layer, which makes backpropagation long, and a layer that it cut off
    keeps its old score. Here the lowest `floor` of the layers never learn, and a layer that has not learned for
    `horizon` steps does, whatever its score.
    """

    score: str = "l2"
    variant: str = "exact"
    floor: float = 0.5
    horizon: int = 10
    name, changing = "ir-upper", ("learned",)
    limits = IRTuningStrategy.limits | {"floor": (0, 0.999), "horizon": (1, math.inf), "refresh_every": (0, 0)}

    def begin(self, count: int, steps: int | None) -> None:
        super().begin(count, steps)
        self.first, self.learned = int(self.floor * count), np.full(count, -1)  # the step at which each learned last

    def choose(self, step: int, scores: Scores, rng: np.random.Generator) -> list[int]:
        high = {self.first + position for position in super().choose(step, scores[self.first :], rng)}
        chosen = sorted(high | {p for p in range(self.first, self.count) if step - self.learned[p] > self.horizon})
        self.learned[chosen] = step
        return chosen

    def worst_case(self, count: int) -> tuple[list[int], list[int]]:
        return (list(range(int(self.floor * count), count)),) * 2  # all learn at once if none has for long
