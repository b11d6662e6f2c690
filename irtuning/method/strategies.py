"""Strategies that choose the layers that learn: the base class, Full PEFT, IR-Tuning and its variants."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from irtuning.errors import InputError, unknown
from irtuning.method.selector import MIDDLE, split_scores

Scores = Sequence[float | None]
LossesWithout = Callable[[list[list[int]], float], list[float]]  # of sets of positions, and the factor that suppresses


@dataclass
class Strategy:
    """Base class of all strategies; by itself it lets every layer learn at every step.

    A strategy counts the candidate layers from 0 (the lowest) to `count - 1` and returns positions in that range. A
    subclass usually defines `choose` alone. Its class attributes tell the rest of the package what it is:

    Attributes:
        name: the method's name on the command line, in records, tables and figures; the class's own name if empty.
        colour: colour of the method in figures, as `#rrggbb`; derived from the name if empty.
        scope: `adapters`, or `parameters` if the layers' own weights learn and the model carries no adapter.
        importance: what is measured at each step to score a layer: `gradient`, `weight`, `cosine` or None.
        score: form of that score; see `irtuning.method.scores`.
        keep: whether `high` or `low` scores mark the layers that learn.
        leads: whether other methods may take their budget of layers from this method's run.
        takes: what the method takes from the leading run under an equal budget: `share`, `counts` or None.
    """

    min_layer: int = 0  # no layer below this one learns, so backpropagation ends there

    name: ClassVar[str] = ""
    colour: ClassVar[str] = ""
    scope: ClassVar[str] = "adapters"
    importance: ClassVar[str | None] = None
    score: ClassVar[str] = "l2"
    keep: ClassVar[str] = "high"
    leads: ClassVar[bool] = False
    takes: ClassVar[str | None] = None

    def begin(self, count: int, steps: int | None) -> None:
        """Prepare for a run with `count` candidate layers and `steps` optimizer steps (None if not known)."""
        self.count = count

    def choose(self, step: int, scores: Scores, rng: np.random.Generator) -> list[int]:
        """Return the positions of the layers that learn at this step, ascending; `step` counts from 0."""
        return list(range(self.count))

    def update(self, scores: Scores, fresh: Scores) -> list[float | None]:
        """Return the scores after a step: the new one if a layer was measured (not None), else the old one."""
        return [old if new is None else new for old, new in zip(scores, fresh, strict=True)]

    def probe_due(self, step: int) -> bool:
        """Return whether to measure losses before this step (only IST does)."""
        return False

    def probe(self, losses_without: LossesWithout, rng: np.random.Generator) -> None:
        """Measure losses of the last training batch with layers suppressed; called before `choose` if it is due."""

    def worst_case(self, count: int) -> tuple[list[int], list[int]]:
        """Return the positions that learn at the most demanding step, and those that will ever have learned.

        The prediction of memory rests on it. A subclass that never lets all layers learn may say so here.
        """
        return list(range(count)), list(range(count))

    def state(self) -> dict:
        """Return what changes during training, as a JSON object for a checkpoint."""
        return {}

    def restore(self, state: dict) -> None:
        """Continue from the state of a checkpoint; called after `begin`."""


def drawn_worst_case(count: int, size: int) -> tuple[list[int], list[int]]:
    """Return the worst case of a draw of `size` of `count` layers: the lowest and the highest; all learn in time."""
    return [0, *range(count - size + 1, count)], list(range(count))


@dataclass
class FullPeft(Strategy):
    """Full PEFT: every adapter learns at every step. This is the plain baseline."""

    name = "full"
    colour = "#0173b2"


@dataclass
class FullTuning(Strategy):
    """Full fine-tuning: every parameter learns, without adapters."""

    name = "full-ft"
    colour = "#56b4e9"
    scope = "parameters"


@dataclass
class IRTuningStrategy(Strategy):
    """IR-Tuning: the layers with high gradient norms learn.

    Source: the paper's abstract; the details are the behaviour of the authors' public code.
    """

    score: str = "reference"  # form of the score; the first of `forms` is the authors'
    variant: str = "reference"  # of the cut: `reference` or `exact`, see `split_scores`
    splits: int = 1  # how often the cut is applied
    refresh_every: int = 0  # ours: every so many steps all layers learn, so that no score goes stale; 0: never
    smoothing: float = 0.0  # ours: share of the old score that stays when a layer is measured again
    name = "ir"
    colour = "#de8f05"
    importance = "gradient"
    leads = True
    forms: ClassVar[tuple[str, ...]] = ("reference", "l2")

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1 or self.refresh_every < 0:
            raise InputError(f"smoothing is {self.smoothing}, give 0 or more, below 1; refresh_every is "
                             f"{self.refresh_every}, give 0 or more")  # fmt: skip
        if self.score not in self.forms:
            raise unknown(f"score of {self.importance} importance", self.score, self.forms)
        split_scores([0.0, 1.0], variant=self.variant, splits=self.splits)

    def choose(self, step: int, scores: Scores, rng: np.random.Generator) -> list[int]:
        """Return the part of the sorted scores that the cut keeps."""
        if self.refresh_every and (step + 1) % self.refresh_every == 0:
            return list(range(self.count))
        window = self.window(len(scores))
        return split_scores(scores, variant=self.variant, splits=self.splits, keep=self.keep, window=window, rng=rng)

    def window(self, count: int) -> tuple[int, int] | None:
        """Return the first and last index of the first cut, or None for the middle of the list."""
        return None

    def update(self, scores: Scores, fresh: Scores) -> list[float | None]:
        """Return the scores after a step; a layer measured again keeps a share `smoothing` of its old score."""
        s, pairs = self.smoothing, zip(scores, fresh, strict=True)
        return super().update(scores, [new if None in (old, new) else s * old + (1 - s) * new for old, new in pairs])

    def worst_case(self, count: int) -> tuple[list[int], list[int]]:
        """Return the most layers the cut can keep; `exact` and refreshing let all layers learn now and then."""
        size = count
        if not self.refresh_every and self.variant == "reference":
            for _ in range(self.splits):
                size = size - int(MIDDLE[0] * size) if self.keep == "high" else max(1, int(MIDDLE[1] * size))
        return drawn_worst_case(count, max(1, size))


@dataclass
class WeightTuning(IRTuningStrategy):
    """IR-Tuning by the weight norm of each layer's attention output projection: one choice for the whole run."""

    name = "ir-weight"
    importance = "weight"
    forms = ("reference",)

    def window(self, count: int) -> tuple[int, int] | None:
        """Return the authors' window for this importance, which starts one index later than the middle."""
        return (int(MIDDLE[0] * count) + 1, int(MIDDLE[1] * count)) if self.variant == "reference" else None


@dataclass
class CosineTuning(IRTuningStrategy):
    """IR-Tuning by cosine similarity: a layer that changes its input much has a low score and learns."""

    name = "ir-cosine"
    importance = "cosine"
    forms = ("reference", "token")
    keep = "low"


@dataclass
class UpperTuning(IRTuningStrategy):
    """Our variant: IR-Tuning among the upper layers, where no score is older than `horizon` steps.

    The cost of a step depends on how far down backpropagation runs, and the authors' cut nearly always takes the
    lowest layer. A layer that was once cut off also keeps its last score for ever. Here the lowest `floor` of the
    layers never learn, and a layer that has not learned for `horizon` steps does, whatever its score.
    """

    score: str = "l2"
    variant: str = "exact"
    floor: float = 0.5
    horizon: int = 10
    name = "ir-upper"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.floor < 1 or self.horizon < 1:
            raise InputError(f"floor is {self.floor}, give 0 or more, below 1; horizon is {self.horizon}, give 1 "
                             "or more")  # fmt: skip
        if self.refresh_every:
            raise InputError(f"refresh_every is {self.refresh_every}: here horizon refreshes the scores; leave it out")

    def begin(self, count: int, steps: int | None) -> None:
        super().begin(count, steps)
        self.first = int(self.floor * count)
        self.learned = [-1] * count  # the last step at which each layer learned

    def choose(self, step: int, scores: Scores, rng: np.random.Generator) -> list[int]:
        """Return the high part of the upper layers, and those of them that have not learned for too long."""
        high = {self.first + position for position in super().choose(step, scores[self.first :], rng)}
        due = {p for p in range(self.first, self.count) if step - self.learned[p] > self.horizon}
        for position in high | due:
            self.learned[position] = step
        return sorted(high | due)

    def worst_case(self, count: int) -> tuple[list[int], list[int]]:
        """Return all upper layers: they all learn if none has for long."""
        upper = list(range(int(self.floor * count), count))
        return upper, upper

    def state(self) -> dict:
        return {"learned": self.learned}

    def restore(self, state: dict) -> None:
        self.learned = state["learned"]
