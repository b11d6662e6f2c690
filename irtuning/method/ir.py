"""IR-Tuning: the layers with high gradient norms learn; and the same by other measures of importance."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from irtuning.errors import InputError, unknown
from irtuning.method.selector import MIDDLE, split_scores
from irtuning.method.strategies import Scores, Strategy


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
        """The part of the sorted scores that the cut keeps."""
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
