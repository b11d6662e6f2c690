"""Strategies that choose the layers that learn: the base class, Full PEFT, IR-Tuning and its variants."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from irtuning.errors import InputError, unknown
from irtuning.method.selector import MIDDLE, split_scores

Scores = Sequence[float | None]
CHOICES = {"importance": (None, "gradient", "weight", "cosine"), "scope": ("adapters", "parameters"),
           "unit": ("layer", "block")}  # fmt: skip
LossesWithout = Callable[[list[list[int]], float], list[float]]  # (sets of positions, suppressing factor) -> losses


@dataclass
class Strategy:
    """Base class of all strategies. By itself it lets every layer learn at every step.

    A strategy counts the candidate layers from 0 (the lowest) to `count - 1` and returns positions in that range. A
    subclass usually defines `choose` alone. Its class attributes tell the rest of the package how to treat it.
    """
    min_layer: int = 0  # no layer below this one learns, so backpropagation ends there
    unit: str = "layer"  # what is chosen: layers, or as `block` the attention and the rest of each layer apart
    name: ClassVar[str] = ""  # in commands, records, tables and figures; if empty, the name of the class
    colour: ClassVar[str] = ""  # in figures, as `#rrggbb`; if empty, it is derived from the name
    scope: ClassVar[str] = "adapters"  # `parameters` if the layers' own weights learn and there are no adapters
    importance: ClassVar[str | None] = None  # what a score measures: `gradient`, `weight` or `cosine`; None: no scores
    score: ClassVar[str] = "l2"  # formula of that score, see `irtuning.method.scores`
    forms: ClassVar[tuple[str, ...]] = ()  # the formulas that it may have; any, if empty
    keep: ClassVar[str] = "high"  # whether layers with `high` or with `low` scores learn
    leads: ClassVar[bool] = False  # whether other methods may take their budget of layers from this method's run
    takes: ClassVar[str | None] = None  # what it copies from such a run under an equal budget: `share` or `counts`
    smoothing: ClassVar[float] = 0.0  # weight of the old score when a layer is measured again, from 0 to 1
    changing: ClassVar[tuple[str, ...]] = ()  # attributes (lists or arrays) that a checkpoint must store
    blocks: ClassVar[bool] = True  # whether it can choose blocks; it cannot if it measures whole layers
    limits: ClassVar[dict[str, tuple[float, float]]] = {}  # the lowest and the highest valid value of an option
    numbers: ClassVar[Sequence[int]] = ()  # the candidate layers' numbers in the model, set before `begin`

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                raise unknown(f"{name} of {type(self).__name__}", value, map(str, choices))
        if self.forms and self.score not in self.forms:
            raise unknown(f"score of {self.importance} importance", self.score, self.forms)
        if self.unit == "block" and not self.blocks:
            raise InputError(f"{type(self).__name__} measures whole layers, not their blocks; use unit=layer")
        for name, (low, high) in self.limits.items():
            if not low <= getattr(self, name) <= high:
                valid = f"a value from {low} to {high}" if high < math.inf else f"{low} or more"
                raise InputError(f"{name} is {getattr(self, name)}; give {valid}")

    def begin(self, count: int, steps: int | None) -> None:
        """Prepare for a run with `count` candidate layers and `steps` optimizer steps (None if not known)."""
        self.count = count
        self.worst_case(count)  # it raises InputError if a layer does not exist

    def all_numbers(self, depth: int) -> list[int]:
        """Return the `numbers` if all `depth` layers can learn. InputError if fewer than 2 may."""
        layers = range(low := self.min_layer, depth)
        if len(layers) < 2:
            raise InputError(f"{len(layers)} of {depth} layers with min_layer {low}; a split needs 2 or more")
        return [layer for layer in layers for _ in range(2 if self.unit == "block" else 1)]

    def choose(self, step: int, scores: Scores, rng: np.random.Generator) -> list[int]:
        """Return the positions of the layers that learn at this step, in ascending order. `step` counts from 0."""
        return self.worst_case(self.count)[0]

    def update(self, scores: Scores, fresh: Scores) -> list[float | None]:
        """Return the scores after a step. `fresh` holds its measurements, with None for layers without one."""
        s, pairs = self.smoothing, zip(scores, fresh, strict=True)
        smoothed = [(old, new if None in (old, new) else s * old + (1 - s) * new) for old, new in pairs]
        return [old if new is None else new for old, new in smoothed]

    def measures(self, step: int) -> bool:
        """Return whether this step only scores the layers, so that the optimizer changes nothing."""
        return False

    def probe_due(self, step: int) -> bool:
        """Return whether `probe` must run before this step. Only IST needs it."""
        return False

    def probe(self, losses_without: LossesWithout, rng: np.random.Generator) -> None:
        """Measure the loss of the last training batch with sets of layers suppressed. It runs before `choose`."""

    def size(self, count: int) -> int:
        """Return the largest number of layers, out of `count`, that learn at one step."""
        return count

    def worst_case(self, count: int) -> tuple[list[int], list[int]]:
        """Return, to predict memory, the positions that learn at the costliest step and those that ever learn."""
        return [0, *range(count - self.size(count) + 1, count)], list(range(count))

    def state(self) -> dict:
        """Return the attributes in `changing` as a JSON object for a checkpoint."""
        return {name: np.asarray(getattr(self, name)).tolist() for name in self.changing}

    def restore(self, state: dict) -> None:
        """Restore the state of a checkpoint. `begin` must be called first."""
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
    score: str = "reference"  # formula of the score; the first of `forms` is the authors'
    variant: str = "reference"  # kind of cut: `reference` or `exact`, see `split_scores`
    splits: int = 1  # how many times the cut is applied
    refresh_every: int = 0  # ours: all layers learn every this many steps, so that no score goes stale; 0: never
    smoothing: float = 0.0  # ours: weight of the old score when a layer is measured again
    name, colour, importance, forms, leads = "ir", "#de8f05", "gradient", ("reference", "l2", "rms"), True
    limits = {"smoothing": (0, 0.999), "refresh_every": (0, math.inf), "splits": (1, math.inf)}
    shift: ClassVar[int] = 0  # how many indices at the start of the middle the authors' first cut skips

    def __post_init__(self) -> None:
        super().__post_init__()
        split_scores([0.0, 1.0], variant=self.variant)

    def choose(self, step: int, scores: Scores, rng: np.random.Generator) -> list[int]:
        """Return the layers that the cut keeps, or all layers at a refresh step."""
        if self.refresh_every and (step + 1) % self.refresh_every == 0:
            return list(range(self.count))
        first, last = (int(share * len(scores)) for share in MIDDLE)
        window = (first + self.shift, last) if self.shift and self.variant == "reference" else None
        return split_scores(scores, variant=self.variant, splits=self.splits, keep=self.keep, window=window, rng=rng)

    def size(self, count: int) -> int:
        """Return the largest number of layers that the cut keeps, or `count` if all layers may learn."""
        for _ in range(self.splits if self.variant == "reference" and not self.refresh_every else 0):  # otherwise all
            count = max(1, count - int(MIDDLE[0] * count) if self.keep == "high" else int(MIDDLE[1] * count))
        return count


class WeightTuning(IRTuningStrategy):
    """IR-Tuning by the weight norm of each layer's attention output projection: one choice of layers per run."""
    name, importance, forms, shift, blocks = "ir-weight", "weight", ("reference",), 1, False
    limits = IRTuningStrategy.limits | {"smoothing": (0, 0)}  # the weights are measured once


class CosineTuning(IRTuningStrategy):
    """IR-Tuning by cosine similarity: layers that change their input most have low scores and learn."""
    name, importance, forms, keep, blocks = "ir-cosine", "cosine", ("reference", "token"), "low", False


@dataclass
class UpperTuning(IRTuningStrategy):
    """Our variant: IR-Tuning among the upper layers, where no score is older than `horizon` steps.

    The authors' cut nearly always chooses the lowest layer, so that backpropagation runs through all layers. A layer
    that is not chosen keeps its old score. Here the lowest share `floor` of the layers never learns, and a layer that
    has not learned for `horizon` steps learns again, whatever its score.
    """
    score: str = "l2"
    variant: str = "exact"
    floor: float = 0.5  # share of the layers, the lowest, that never learn
    horizon: int = 10  # a layer that has not learned for so many steps learns
    name, changing = "ir-upper", ("learned",)
    limits = IRTuningStrategy.limits | {"floor": (0, 0.999), "horizon": (1, math.inf), "refresh_every": (0, 0)}

    def begin(self, count: int, steps: int | None) -> None:
        """Find the lowest layer that may learn, and note that no layer has learned yet."""
        super().begin(count, steps)
        self.first, self.learned = int(self.floor * count), np.full(count, -1)  # last step of each layer

    def choose(self, step: int, scores: Scores, rng: np.random.Generator) -> list[int]:
        """Return the upper layers that the cut keeps and those that have not learned for `horizon` steps."""
        high = {self.first + position for position in super().choose(step, scores[self.first :], rng)}
        chosen = sorted(high | {p for p in range(self.first, self.count) if step - self.learned[p] > self.horizon})
        self.learned[chosen] = step
        return chosen

    def worst_case(self, count: int) -> tuple[list[int], list[int]]:
        """Return all upper layers as both lists, because they may all learn at the same step."""
        return (list(range(int(self.floor * count), count)),) * 2
