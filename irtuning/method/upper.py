"""Our variant: IR-Tuning among the upper layers."""

from dataclasses import dataclass

import numpy as np

from irtuning.errors import InputError
from irtuning.method.strategies import Scores
from irtuning.method.ir import IRTuningStrategy


@dataclass
class UpperTuning(IRTuningStrategy):
    """Ours: IR-Tuning among the upper layers alone, no score older than `horizon` steps.

    What a step saves depends on how far down backprop runs, and the authors' cut nearly always takes the lowest layer;
    there a layer that was once cut off also keeps its last score for ever. Here the lowest `floor` of the layers never
    learn, and a layer that has not learned for `horizon` steps does, whatever its score.
    """

    score: str = "l2"
    variant: str = "exact"
    floor: float = 0.5
    horizon: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.floor < 1 or self.horizon < 1:
            raise InputError(f"floor is {self.floor}, give 0 or more, below 1; horizon is {self.horizon}, give 1 or more")
        if self.refresh_every:
            raise InputError(f"refresh_every is {self.refresh_every}: here horizon refreshes, one layer at a time; leave it out")

    def begin(self, count: int, steps: int) -> None:
        super().begin(count, steps)
        self.first = int(self.floor * count)
        self.learned = [-1] * count  # the last step of each layer

    def choose(self, step: int, scores: Scores, rng: np.random.Generator) -> list[int]:
        """The high part of the upper layers, and whichever of them has not learned for too long."""
        high = {self.first + position for position in super().choose(step, scores[self.first :], rng)}
        due = {p for p in range(self.first, self.count) if step - self.learned[p] > self.horizon}
        for position in high | due:
            self.learned[position] = step
        return sorted(high | due)

    def state(self) -> dict:
        return {"learned": self.learned}

    def restore(self, state: dict) -> None:
        self.learned = state["learned"]
