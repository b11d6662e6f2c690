"""Baselines that IR-Tuning is compared with. Most have a budget: how many layers learn at a step."""

import json
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from irtuning.errors import InputError, brief
from irtuning.method.selector import MIDDLE
from irtuning.method.strategies import IRTuningStrategy, LossesWithout, Scores, Strategy


def draw(rng: np.random.Generator, count: int, size: int, weights: np.ndarray | None = None) -> list[int]:
    """Draw `size` different positions below `count`, in ascending order. `weights` sets their probabilities."""
    shares = None if weights is None else weights / weights.sum()
    return sorted(rng.choice(count, size=size, replace=False, p=shares).tolist())


@dataclass
class ShareStrategy(Strategy):
    """Base class of strategies with a budget: a share of the candidate layers, at least one layer."""
    share: float = 0.5  # share of the layers that learn
    takes, limits = "share", {"share": (1e-6, 1)}

    def size(self, count: int) -> int:
        """Return the share of `count` layers, at least 1."""
        return max(1, round(self.share * count))


@dataclass
class FixedLayers(Strategy):
    """Exactly the given layers learn, for a whole run, as in `fixed:layers=8-15+20`."""
    layers: str = "all"  # numbers of layers in the model, ranges and single ones joined by +; or all
    name, colour = "fixed", "#7f6d5f"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers != "all" and not re.fullmatch(r"\d+(-\d+)?(\+\d+(-\d+)?)*", self.layers):
            raise InputError(f"layers is {self.layers!r}; give numbers and ranges joined by +, as in 8-15+20, or all")

    def worst_case(self, count: int) -> tuple[list[int], list[int]]:
        """Return the given layers as both lists. InputError if one of them is no candidate."""
        numbers = list(self.numbers) or list(range(count))
        ends = [part.split("-") for part in self.layers.split("+") if self.layers != "all"]
        wanted = {n for end in ends for n in range(int(end[0]), int(end[-1]) + 1)} if ends else {*numbers}
        if missing := sorted(wanted - set(numbers)) or (not wanted and [self.layers]):
            problem = f"{self.name} wants layers {brief(missing)}, but those that can learn are {brief(numbers)}"
            raise InputError(f"{problem}; give some of these")
        return ([position for position, number in enumerate(numbers) if number in wanted],) * 2


@dataclass
class Transplant(FixedLayers):
    """The layers learn that learned at the last step of another run: of another seed, or on another corpus."""
    run: str = ""  # folder of that run
    name, colour = "transplant", "#b3a08d"

    def __post_init__(self) -> None:
        if self.layers == "all":  # otherwise they were read before
            with suppress(OSError, ValueError, LookupError, TypeError):  # a finished run can do without the other one
                steps = json.loads((Path(self.run) / "record.json").read_text())["train"]["steps"]
                self.layers = "+".join(map(str, steps[-1]["layers"]))
        super().__post_init__()

    def worst_case(self, count: int) -> tuple[list[int], list[int]]:
        """Return the other run's layers as both lists. InputError if they are unknown, or one is no candidate."""
        if self.layers == "all":
            raise InputError(f"{self.run!r} is not the folder of a finished run; write transplant:run=FOLDER")
        return super().worst_case(count)


class LastLayers(ShareStrategy):
    """The last k layers learn, the same ones at every step."""
    name, colour = "last-k", "#ca9161"
    sides: ClassVar[int] = 1  # 1: all other layers lie below those that learn; 2: half of them lie above

    def worst_case(self, count: int) -> tuple[list[int], list[int]]:
        """Return the same layers as both lists, because no other layer ever learns."""
        lowest = (count - self.size(count)) // self.sides
        return (list(range(lowest, lowest + self.size(count))),) * 2


class MiddleLayers(LastLayers):
    """The middle k layers learn, the same ones at every step."""
    name, colour, sides = "middle-k", "#949494", 2


@dataclass
class RandomSparseTuning(ShareStrategy):
    """RST: a random subset of layers learns, drawn anew at each step. The authors' code draws 4 of 32 layers."""
    share: float = 4 / 32
    name, colour, changing = "rst", "#d55e00", ("now",)
    every: ClassVar[int] = 1
    now: ClassVar[Sequence[int]] = ()  # the last draw

    def choose(self, step: int, scores: Scores, rng: np.random.Generator) -> list[int]:
        """Return the last draw. A new one is made every `every` steps."""
        if step % self.every == 0:
            self.now = draw(rng, self.count, self.size(self.count))
        return list(self.now)


@dataclass
class RandomStatic(RandomSparseTuning):
    """As many random layers learn as IR-Tuning chose, drawn once for the run: does it matter which layers learn?"""
    share: float = 0.0  # 0 stands for the most layers that IR-Tuning can choose
    name, colour, every, limits = "random-static", "#8c564b", math.inf, {"share": (0, 1)}

    def size(self, count: int) -> int:
        """Return the share of `count` layers, or the most layers that IR-Tuning's cut keeps if the share is 0."""
        return super().size(count) if self.share else count - int(MIDDLE[0] * count)

    def worst_case(self, count: int) -> tuple[list[int], list[int]]:
        return (super().worst_case(count)[0],) * 2


@dataclass
class LisaAdapters(RandomSparseTuning):
    """LISA's schedule with adapters, unlike the original: random layers learn, drawn anew every `every` steps."""
    share: float = 0.0  # 0 stands for LISA's own 2 layers
    every: int = 20  # steps between two draws
    name, colour, limits = "lisa-adapters", "#cc78bc", {"share": (0, 1), "every": (1, math.inf)}

    def size(self, count: int) -> int:
        """Return the share of `count` layers, or 2 layers if the share is 0."""
        return super().size(count) if self.share else min(2, count)


class Lisa(LisaAdapters):
    """LISA as published: the parameters of 2 random layers, embeddings, final norm and head learn, without adapters."""
    name, colour, scope, takes = "lisa", "#ece133", "parameters", None


@dataclass
class SampledTuning(RandomSparseTuning):
    """Layers with large gradients are drawn more often, and no layer is left out for good.

    Every `every` steps, layers are drawn with probability (1 - epsilon) softmax(s / temperature) + epsilon / L, where s
    is a layer's score divided by the mean score. The score is a running mean of the RMS of the layer's gradient; a
    layer that was not measured yet counts as the highest. Related: GRASS (2604.07808), AdaGradSelect (2512.15764).
    """
    share: float = 0.5
    every: int = 20  # steps between two draws
    temperature: float = 0.5  # the higher, the more equal the probabilities
    epsilon: float = 0.1  # part of the probability that all layers share equally, from 0 to 1
    smoothing: float = 0.9  # weight of the old score when a layer is measured again
    name, colour, importance, score = "sampled", "#17becf", "gradient", "rms"
    limits = ShareStrategy.limits | {"every": (1, math.inf), "temperature": (0.01, math.inf), "epsilon": (0, 1),
                                     "smoothing": (0, 0.999)}  # fmt: skip

    def choose(self, step: int, scores: Scores, rng: np.random.Generator) -> list[int]:
        """Return the last draw. A new one, by the scores, is made every `every` steps."""
        if step % self.every == 0:
            highest = max((score for score in scores if score is not None), default=1.0)
            values = np.array([highest if score is None else score for score in scores])
            powers = np.exp((values - values.max()) / (values.mean() or 1.0) / self.temperature)
            shares = (1 - self.epsilon) * powers / powers.sum() + self.epsilon / self.count
            self.now = draw(rng, self.count, self.size(self.count), np.maximum(shares, 1e-12))
        return list(self.now)


@dataclass
class ProbeTuning(ShareStrategy):
    """One share of layers learns for the whole run: the best one, as measured on the first batches."""
    score: str = "rms"  # formula of the score: rms, l2 or reference
    batches: int = 5  # so many steps only measure, and the scores are averaged over them
    name, colour, importance, forms = "probe", "#2ca02c", "gradient", IRTuningStrategy.forms
    changing, measured, limits = ("measured",), 0, ShareStrategy.limits | {"batches": (1, math.inf)}

    def begin(self, count: int, steps: int | None) -> None:
        """Raise InputError if no step is left to learn in."""
        super().begin(count, steps)
        if steps is not None and steps <= self.batches:
            raise InputError(f"probe measures for {self.batches} steps of {steps}; lower batches or train longer")

    def measures(self, step: int) -> bool:
        return step < self.batches

    def update(self, scores: Scores, fresh: Scores) -> list[float | None]:
        """Return the mean of the measurements so far, and after the first `batches` steps the same for ever."""
        self.measured += 1
        if self.measured > self.batches:
            return list(scores)
        return [new if old is None else old + (new - old) / self.measured
                for old, new in zip(scores, fresh, strict=True)]  # fmt: skip

    def choose(self, step: int, scores: Scores, rng: np.random.Generator) -> list[int]:
        """Return all layers in the first steps, and later those with the highest scores."""
        best = np.argsort([-(score or 0.0) for score in scores], kind="stable")[: self.size(self.count)]
        return list(range(self.count)) if self.measures(step) else sorted(best.tolist())

    def worst_case(self, count: int) -> tuple[list[int], list[int]]:
        """Return all layers, which are measured together, and as many as learn."""
        return list(range(count)), list(range(count - self.size(count), count))


@dataclass
class RandomCounts(Strategy):
    """As many random layers learn at each step as IR-Tuning chose: does the choice matter, or only the number?"""
    counts: tuple[int, ...] = ()  # number of layers that learn at each step
    name, colour, takes = "random-counts", "#fbafe4", "counts"

    def begin(self, count: int, steps: int | None) -> None:
        """Raise InputError if there is no count for each step."""
        super().begin(count, steps)
        if steps is None or len(self.counts) < steps:
            raise InputError(f"random-counts has {len(self.counts)} layer counts for {steps} steps; give --like RUN "
                             "with an IR-Tuning run of the same seed and length, or compare with ir")  # fmt: skip

    def choose(self, step: int, scores: Scores, rng: np.random.Generator) -> list[int]:
        """Draw as many layers as IR-Tuning chose at this step."""
        return draw(rng, self.count, min(self.counts[step], self.count))

    def size(self, count: int) -> int:
        """Return the largest of the counts, or without counts the most layers that IR-Tuning can choose."""
        return min(count, max(self.counts, default=count - int(MIDDLE[0] * count)))


@dataclass
class ImportanceSparseTuning(ShareStrategy):
    """IST: layers that can be suppressed without harm are drawn less often.

    The importance of each layer starts at 0. Every 10 steps, the loss of the last training batch is measured with 3
    different random halves of the layers suppressed: their adapters' output is multiplied by 0.25. The reward is
    exp(-loss) minus the mean over the 3. A suppressed layer's importance gains reward * p (1 - p) * 10, where
    p = sigmoid(importance). Source: the behaviour of the authors' baseline.
    """
    share: float = 0.25
    every: int = 10  # steps between two measurements of the layers
    trials: int = 3  # random halves of the layers in a measurement
    factor: float = 0.25  # the output of a suppressed layer's adapters is multiplied by it
    step_size: float = 10.0  # how fast the importance of a layer changes
    name, colour, takes, changing, blocks = "ist", "#029e73", None, ("values",), False
    limits = ShareStrategy.limits | {"every": (1, math.inf), "trials": (1, math.inf)}

    def size(self, count: int) -> int:
        """Return the share of `count` layers, rounded down, at least 1."""
        return max(1, int(self.share * count))

    def begin(self, count: int, steps: int | None) -> None:
        super().begin(count, steps)
        self.values = np.zeros(count)

    def choose(self, step: int, scores: Scores, rng: np.random.Generator) -> list[int]:
        """Draw layers at random. Those that were suppressed without harm are less likely."""
        return draw(rng, self.count, self.size(self.count), 1 / (1 + np.exp(self.values)))

    def probe_due(self, step: int) -> bool:
        """Return whether this is one of every `every` steps, the first one excluded."""
        return step > 0 and step % self.every == 0

    def probe(self, losses_without: LossesWithout, rng: np.random.Generator) -> None:
        """Update the importance of layers from the losses with random halves of the layers suppressed."""
        half, halves, p = max(1, self.count // 2), [], 1 / (1 + np.exp(-self.values))
        while len(halves) < min(self.trials, math.comb(self.count, half)):
            drawn = draw(rng, self.count, half, p)
            if drawn not in halves:
                halves.append(drawn)
        rewards = np.exp(-np.array(losses_without(halves, self.factor)))
        if np.isfinite(rewards).all():  # a loss that is not finite says nothing about layers
            for layers, reward in zip(halves, rewards - rewards.mean(), strict=True):
                self.values[layers] += reward * (p * (1 - p))[layers] * self.step_size
