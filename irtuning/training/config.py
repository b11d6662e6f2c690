"""The configuration of one run: what the user gives, and how the model's own settings complete it."""

import dataclasses
import difflib
import math
from collections.abc import Mapping
from pathlib import Path

from irtuning.errors import InputError, read_as, unknown
from irtuning.method.registry import as_strategy, method_text
from irtuning.models.loading import ModelSource
from irtuning.models.prompts import FORMS
from irtuning.training.speed import problems as speed_problems

CHOICES = {"head": ("learns", "frozen"), "class_weights": ("none", "balanced"), "precision": ("fp32", "bf16"),
           "quantize": ("none", "8bit", "4bit"), "device": ("auto", "cpu"), "form": FORMS}  # fmt: skip
AT_LEAST = {"rank": 1, "width": 1, "batch_size": 1, "accumulation": 1, "max_length": 16, "seed": 0, "weight_decay": 0,
            "clip": 0, "max_steps": 1, "eval_every": 1, "warmup_steps": 0}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything that decides the result of a run. None stands for the model's own setting until `complete`."""
    corpus: str = "synthetic"
    label_set: str | None = None  # fine or coarse; None for the corpus's own choice
    fold: int = 0
    before: str = "before"  # before, after, label and group name the columns of the user's own file
    after: str = "after"
    label: str = "label"
    group: str | None = None
    model: str = "mini"
    form: str | None = None  # of the input: pair or instruction
    adapter: str = "lora"
    rank: int | None = None
    alpha: int | None = None
    dropout: float | None = None
    width: int | None = None  # of the bottleneck
    target_modules: tuple[str, ...] | None = None
    method: str = "ir"
    share: float | None = None  # of the layers, for methods with a budget; None for the method's own
    counts: tuple[int, ...] | None = None  # layers that learn at each step, for random-counts
    seed: int = 171
    epochs: float | None = None
    max_steps: int | None = None  # replaces epochs
    batch_size: int | None = None  # examples in an optimizer step
    accumulation: int = 1  # micro-batches in a step, each of batch_size / accumulation examples
    learning_rate: float | None = None
    warmup_steps: int | None = None
    weight_decay: float = 0.0
    clip: float = 1.0
    max_length: int | None = None  # tokens in an example
    eval_every: int | None = None
    head: str = "learns"  # or frozen, as in the authors' code
    class_weights: str = "none"
    precision: str | None = None
    quantize: str = "none"
    checkpointing: bool = False
    speed: tuple[str, ...] | None = None  # see `irtuning.training.speed`
    activation_budget: float = 1.0  # share of the activations that compiled layers keep; they recompute the others
    train_share: float = 1.0  # of the training examples, the same share of every class
    device: str = "auto"  # the GPU if there is one; or cpu
    score_test: bool = False

    @classmethod
    def of(cls, given: Mapping[str, object]) -> "RunConfig":
        """Return the configuration with the given settings. A text such as `"1e-3"` is read as its field's type."""
        kinds = {f.name: f.type for f in dataclasses.fields(cls)}
        if wrong := [name for name in given if name not in kinds]:
            raise unknown("setting", wrong[0], kinds)
        given = {n: read_as(n, v, kinds[n]) if isinstance(v, str) else v for n, v in given.items()}
        given |= {n: tuple(v) for n, v in given.items() if isinstance(v, list)}  # so that it can be hashed
        if not isinstance(given.get("method", ""), str):
            given["method"] = method_text(as_strategy(given["method"]))
        return cls(**given)

    def complete(self, source: ModelSource, examples: int | None, full_parameters: bool, device: str) -> "RunConfig":
        """Return the configuration with the model's own settings in place of None. One InputError has all problems.

        Without the number of training examples the number of steps stays unknown, unless max_steps is set. The device
        decides the precision. `full_parameters` tells whether the layers' own weights learn, with a rate of their own.
        """
        own = source.settings | {"precision": "fp32" if device == "cpu" else "bf16"}
        own["learning_rate"] = own["full_learning_rate" if full_parameters else "learning_rate"]
        values = {name: value for name, value in own.items() if getattr(self, name, "") is None}
        config = dataclasses.replace(self, corpus=Path(self.corpus).name, form=source.form, **values)
        now = {name: value for name, value in dataclasses.asdict(config).items() if value is not None}
        problems = [f"{n} is {now.get(n)!r}, give one of {c}" for n, c in CHOICES.items() if now.get(n) not in c]
        problems += [f"{n} is {now[n]}, give {c} or more" for n, c in AT_LEAST.items() if now.get(n, c) < c]
        possible = {("learning_rate", "a number above 0 and below 1"): 0 < config.learning_rate < 1,
                    ("epochs", "more than 0"): config.max_steps is not None or config.epochs > 0,
                    ("seed", "less than 2**32"): config.seed < 2**32,
                    ("dropout", "0 or more and below 1"): 0 <= config.dropout < 1,
                    ("train_share", "more than 0, at most 1"): 0 < config.train_share <= 1}  # fmt: skip
        problems += [f"{name} is {now[name]}, give {text}" for (name, text), good in possible.items() if not good]
        if config.accumulation > 0 and config.batch_size % config.accumulation:
            problems.append(f"batch_size {config.batch_size} is not a multiple of accumulation {config.accumulation}")
        floats = {name: value for name, value in now.items() if isinstance(value, float)}
        problems += [f"{n} is {v}, give a finite number" for n, v in floats.items() if not math.isfinite(v)]
        problems += speed_problems(config.speed or (), config.activation_budget)
        if problems:
            raise InputError("; ".join(problems))
        steps = config.max_steps or (examples and int(config.epochs * -(-examples // config.batch_size)))
        if steps is None:
            return config
        warmup = config.warmup_steps  # of the model, at most a tenth of the steps, unless it is given
        if self.warmup_steps is None:
            warmup = min(steps // 10, steps if warmup is None else warmup)
        if warmup >= steps:
            problem = f"warm-up of {warmup} steps is as long as the run ({steps} steps)"
            raise InputError(f"{problem}, so the learning rate never reaches its value; lower warmup_steps")
        times = {"max_steps": steps, "eval_every": config.eval_every or max(1, steps // 4), "warmup_steps": warmup}
        times["epochs"] = round(steps * config.batch_size / examples, 3) if examples else config.epochs
        return dataclasses.replace(config, **times)

    def to_dict(self) -> dict:
        """Return the configuration as a JSON object, as the record has it."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}


def parse_settings(texts: list[str]) -> dict[str, str]:
    """Return the settings that texts such as `rank=8` give."""
    for text in (text for text in texts if "=" not in text):
        near = difflib.get_close_matches(text, [f.name for f in dataclasses.fields(RunConfig)], n=1)
        raise InputError(f"{text!r} is not name=value{f', such as {near[0]}=...' if near else ''}")
    return dict(text.split("=", 1) for text in texts)
