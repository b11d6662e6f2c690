"""The configuration of one run: what the user gave, completed by the model's own settings, checked at once."""

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from irtuning.corpora.base import Corpus
from irtuning.corpora.load import load_corpus
from irtuning.errors import InputError, read_as, unknown
from irtuning.models.loading import Source
from irtuning.models.prompts import FORMS
from irtuning.training.speed import problems as speed_problems
from irtuning.method.strategies import Strategy
from irtuning.method.registry import make_strategy

CHOICES = {
    "head": ("learns", "frozen"),
    "class_weights": ("none", "balanced"),
    "checkpoint": ("last", "best"),
    "precision": ("fp32", "bf16"),
    "quantize": ("none", "8bit", "4bit"),
    "device": ("auto", "cpu"),
    "form": FORMS,
}


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run's result; None stands for the model's own setting until `complete`."""

    corpus: str = "synthetic"
    label_set: str | None = None  # fine or coarse, the corpus's own choice where None
    fold: int = 0
    before: str = "before"  # columns of one's own file
    after: str = "after"
    label: str = "label"
    group: str | None = None
    model: str = "mini"
    form: str | None = None  # of the input: pair, or instruction
    adapter: str = "lora"
    rank: int | None = None
    alpha: int | None = None
    dropout: float | None = None
    width: int | None = None  # of the bottleneck
    target_modules: tuple[str, ...] | None = None
    method: str = "ir"
    share: float | None = None  # of the layers, for methods with a budget; their own where None
    counts: tuple[int, ...] | None = None  # layers per step, for random-counts
    seed: int = 171
    epochs: float | None = None
    max_steps: int | None = None  # instead of epochs
    batch_size: int | None = None
    accumulation: int = 1  # micro-batches a step: each has batch_size / accumulation examples
    learning_rate: float | None = None
    warmup_steps: int | None = None
    weight_decay: float = 0.0
    clip: float = 1.0
    max_length: int | None = None
    eval_every: int | None = None
    head: str = "learns"  # frozen: the reference's behaviour
    class_weights: str = "none"
    checkpoint: str = "last"  # or best macro F1 on validation
    precision: str | None = None
    quantize: str = "none"
    checkpointing: bool = False
    speed: tuple[str, ...] | None = None  # accelerations, see `irtuning.training.speed`
    activation_budget: float = 1.0  # share of the activations compiled layers keep; the others are recomputed
    train_share: float = 1.0  # of the training split's examples, every class alike
    device: str = "auto"  # the GPU where there is one; or cpu
    score_test: bool = False

    @classmethod
    def of(cls, given: Mapping[str, object]) -> "RunConfig":
        """Make a configuration from named settings; texts (`learning_rate="1e-3"`) are read as their field's type.

        Raises:
            InputError: an unknown setting, or a text that cannot be read.
        """
        kinds = {f.name: f.type for f in dataclasses.fields(cls)}
        for name in given:
            if name not in kinds:
                raise unknown("setting", name, kinds)
        given = {n: tuple(v) if isinstance(v, list) else v for n, v in given.items()}  # a configuration can be a key
        return cls(**{n: read_as(n, v, kinds[n]) if isinstance(v, str) else v for n, v in given.items()})

    def complete(self, source: Source, examples: int, full_parameters: bool, device: str) -> "RunConfig":
        """Fill in what was left to the model, for `examples` training examples on `device`; then check it all.

        Raises:
            InputError: every problem in one message.
        """
        own = dict(source.settings)
        if full_parameters:
            own["learning_rate"] = own["full_learning_rate"]
        names = {f.name for f in dataclasses.fields(self)}
        values = {n: v for n, v in own.items() if n in names and getattr(self, n) is None}
        values |= {
            "corpus": Path(self.corpus).name,
            "form": source.form,
            "precision": self.precision or ("fp32" if device == "cpu" else "bf16"),
        }
        config = dataclasses.replace(self, **values)
        config._check()
        steps = config.max_steps or int(config.epochs * -(-examples // config.batch_size))
        config = dataclasses.replace(
            config,
            max_steps=steps,
            epochs=round(steps * config.batch_size / examples, 3),
            warmup_steps=steps // 10 if config.warmup_steps is None else config.warmup_steps,
            eval_every=config.eval_every or max(1, steps // 4),
        )
        if config.warmup_steps >= steps:
            raise InputError(
                f"warm-up of {config.warmup_steps} steps is as long as the run ({steps} steps): the learning rate "
                "would never reach its value; set warmup_steps lower or train longer"
            )
        return config

    def to_dict(self) -> dict:
        """As the record keeps it."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    def _check(self) -> None:
        problems = [
            f"{name} is {getattr(self, name)!r}, give one of {choices}"
            for name, choices in CHOICES.items()
            if getattr(self, name) not in choices
        ]
        at_least = {"rank": 1, "width": 1, "batch_size": 1, "accumulation": 1, "max_length": 16, "seed": 0}
        at_least |= {"weight_decay": 0, "clip": 0, "max_steps": 1, "eval_every": 1, "warmup_steps": 0}
        for name, least in at_least.items():
            value = getattr(self, name)
            if value is not None and value < least:
                problems.append(f"{name} is {value}, give {least} or more")
        if not 0 < self.learning_rate < 1:
            problems.append(f"learning_rate is {self.learning_rate}, give a number above 0 and below 1")
        if self.max_steps is None and not self.epochs > 0:
            problems.append(f"epochs is {self.epochs}, give more than 0")
        if not 0 <= self.dropout < 1:
            problems.append(f"dropout is {self.dropout}, give 0 or more and below 1")
        if not 0 < self.train_share <= 1:
            problems.append(f"train_share is {self.train_share}, give more than 0, at most 1")
        if self.accumulation > 0 and self.batch_size % self.accumulation:
            problems.append(f"batch_size {self.batch_size} is not a multiple of accumulation {self.accumulation}")
        problems += speed_problems(self.speed or (), self.activation_budget)
        for name, value in dataclasses.asdict(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                problems.append(f"{name} is {value}, give a finite number")
        if problems:
            raise InputError("; ".join(problems))


def parse_settings(texts: list[str]) -> dict[str, str]:
    """Split `name=value` texts.

    >>> parse_settings(["rank=8"])
    {'rank': '8'}
    """
    pairs = [text.partition("=") for text in texts]
    wrong = [name for name, equals, _ in pairs if not equals]
    if wrong:
        near = difflib.get_close_matches(wrong[0], [f.name for f in dataclasses.fields(RunConfig)], n=1)
        raise InputError(f"{wrong[0]!r} is not name=value{f', such as {near[0]}=...' if near else ''}")
    return {name: value for name, _, value in pairs}


def corpus_of(config: RunConfig, data_dir: str | Path | None = None) -> Corpus:
    """The corpus a configuration names."""
    columns = {name: getattr(config, name) for name in ("before", "after", "label", "group")}
    return load_corpus(config.corpus, data_dir, config.fold, labels=config.label_set, **columns)


def strategy_of(config: RunConfig) -> Strategy:
    """The strategy a configuration names, with its budget."""
    given = {k: v for k, v in {"share": config.share, "counts": config.counts}.items() if v is not None}
    strategy = make_strategy(config.method)
    taken = {f.name for f in dataclasses.fields(strategy)}
    if set(given) - taken:
        raise InputError(f"method {config.method!r} takes no {', '.join(sorted(set(given) - taken))}")
    return make_strategy(config.method, **given)
