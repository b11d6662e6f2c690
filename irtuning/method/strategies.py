"""What every strategy is: at each step it chooses the layers that learn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

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
