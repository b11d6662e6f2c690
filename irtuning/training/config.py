"""The configuration of one run: what the user gives, and how the model's own settings complete it."""

import dataclasses
import difflib
import inspect
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from irtuning.errors import InputError, read_as, unknown
from irtuning.memory.predict import CHOICES as PREDICTED
from irtuning.method.registry import as_strategy, method_text
from irtuning.models.loading import ModelSource
from irtuning.models.prompts import FORMS
from irtuning.models.speed import ACCELERATIONS

CHOICES = PREDICTED | {"head": ("learns", "frozen"), "class_weights": ("none", "balanced"), "device": ("auto", "cpu"),
                       "form": FORMS}  # fmt: skip
RANGES = {"learning_rate": "a number above 0 and below 1", "epochs": "more than 0",
          "dropout": "0 or more and below 1", "train_share": "more than 0, at most 1", "seed": "less than 2**32"}
WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "tuple": "names with commas"}
OTHER_NAMES = {  # of settings, in other libraries
    "learning_rate": "lr", "batch_size": "bs batch per_device_train_batch_size", "rank": "r lora_r",
    "max_steps": "steps", "epochs": "num_epochs num_train_epochs", "accumulation": "gradient_accumulation_steps",
    "alpha": "lora_alpha", "dropout": "lora_dropout", "weight_decay": "wd", "warmup_steps": "warmup warmup_ratio",
    "clip": "max_grad_norm", "max_length": "length max_seq_length", "eval_every": "eval_steps", "quantize":
    "load_in_4bit", "checkpointing": "gradient_checkpointing", "precision": "fp16 bf16 dtype",
    "speed": "torch_compile"}  # fmt: skip
AT_LEAST = {"rank": 1, "width": 1, "batch_size": 1, "accumulation": 1, "max_length": 16, "seed": 0, "weight_decay": 0,
            "clip": 0, "max_steps": 1, "eval_every": 1, "warmup_steps": 0}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """All settings that decide the result of a run. None stands for the model's own value, which `complete` puts in."""
    corpus: str = "synthetic"
    label_set: str | None = None  # fine or coarse; None: the corpus decides
    split: str | None = None  # published or folds; None: the corpus decides
    fold: int = 0
    before: str = "before"  # before, after, label and group name the columns of the user's own file
    after: str = "after"
    label: str = "label"
    group: str | None = None
    model: str = "mini"
    form: str | None = None  # form of the input: pair, instruction, marked or instruction-marked
    adapter: str = "lora"
    rank: int | None = None  # of the lora and dora adapters
    alpha: int | None = None  # their update is scaled by alpha / rank
    dropout: float | None = None  # in the adapters
    width: int | None = None  # of the bottleneck
    target_modules: tuple[str, ...] | None = None  # the linear layers with an adapter; None for those of the model
    method: str = "ir"
    share: float | None = None  # share of layers that learn, for methods with a budget; None: the method's own
    counts: tuple[int, ...] | None = None  # number of layers that learn at each step, for random-counts
    seed: int = 171
    epochs: float | None = None  # passes over the training examples
    max_steps: int | None = None  # replaces epochs
    batch_size: int | None = None  # examples in an optimizer step
    accumulation: int = 1  # micro-batches in a step, each of batch_size / accumulation examples
    learning_rate: float | None = None  # the highest, after the warm-up
    warmup_steps: int | None = None  # in which the learning rate rises; None for a tenth of the steps
    weight_decay: float = 0.0  # of AdamW
    clip: float = 1.0  # the highest norm of the gradient; 0 for no clipping
    max_length: int | None = None  # tokens in an example
    eval_every: int | None = None  # steps between two evaluations on validation; None for four in a run
    head: str = "learns"  # whether the classification head learns; the authors' code freezes it
    class_weights: str = "none"  # balanced lets the loss count rare labels more
    precision: str | None = None  # of the frozen weights; None for bf16 on a GPU
    quantize: str = "none"  # the frozen weights, which needs bitsandbytes
    checkpointing: bool = False  # recompute the activations in the backward pass, which saves memory
    speed: tuple[str, ...] | None = None  # some of float8, uncast, compile and recompute, see `irtuning.models.speed`
    backward: str = "exact"  # skip: layers that do not learn hand the gradient on as it is; cheaper, and approximate
    idle: str = "keep"  # the optimizer's state of layers that do not learn: kept, dropped or, in offload, on the host
    train_share: float = 1.0  # of the training examples, the same share of every class
    device: str = "auto"  # auto is the GPU if there is one
    score_test: bool = False

    @classmethod
    def of(cls, given: Mapping[str, object]) -> "RunConfig":
        """Return the configuration with these settings, texts such as `"1e-3"` converted. InputError if one is bad."""
        kinds = {f.name: f.type for f in dataclasses.fields(cls)}
        if wrong := [name for name in given if name not in kinds]:
            raise unknown("setting", wrong[0], kinds, meant(wrong[0]))
        given = {n: read_as(n, v, kinds[n]) if isinstance(v, str) else v for n, v in given.items()}
        given |= {n: tuple(v) for n, v in given.items() if isinstance(v, list)}  # so that it can be hashed
        if not isinstance(given.get("method", ""), str):
            given["method"] = method_text(as_strategy(given["method"]))
        return cls(**given)

    def complete(self, source: ModelSource, examples: int, full_parameters: bool, device: str) -> "RunConfig":
        """Return the configuration with the model's own settings in place of None. One InputError lists all problems.

        `examples` is the number of training examples. The device decides the precision. `full_parameters` says that
        the layers' own weights learn, at a learning rate for them.
        """
        own = source.settings | {"precision": "fp32" if device == "cpu" else "bf16"}
        own["learning_rate"] = own["full_learning_rate" if full_parameters else "learning_rate"]
        values = {name: value for name, value in own.items() if getattr(self, name, "") is None}
        config = dataclasses.replace(self, corpus=Path(self.corpus).name, form=source.form, **values)
        now = {name: value for name, value in dataclasses.asdict(config).items() if value is not None}
        problems = [f"{n} is {now.get(n)!r}, give one of {c}" for n, c in CHOICES.items() if now.get(n) not in c]
        problems += [f"{n} is {now[n]}, give {c} or more" for n, c in AT_LEAST.items() if now.get(n, c) < c]
        possible = {"learning_rate": 0 < config.learning_rate < 1, "dropout": 0 <= config.dropout < 1,
                    "epochs": config.max_steps is not None or config.epochs > 0,
                    "seed": config.seed < 2**32, "train_share": 0 < config.train_share <= 1}  # fmt: skip
        problems += [f"{name} is {now[name]}, give {RANGES[name]}" for name, good in possible.items() if not good]
        if config.accumulation > 0 and config.batch_size % config.accumulation:
            problems.append(f"batch_size {config.batch_size} is not a multiple of accumulation {config.accumulation}")
        floats = {name: value for name, value in now.items() if isinstance(value, float)}
        problems += [f"{n} is {v}, give a finite number" for n, v in floats.items() if not math.isfinite(v)]
        unknown_names = [name for name in config.speed or () if name not in ACCELERATIONS]
        problems += [f"speed is {name!r}, give some of {', '.join(ACCELERATIONS)}" for name in unknown_names]
        if "recompute" in (config.speed or ()) and "compile" not in config.speed:
            problems.append("speed has 'recompute' without 'compile', whose layers it is for; add compile")
        if problems:
            raise InputError("; ".join(problems))
        steps = config.max_steps or int(config.epochs * -(-examples // config.batch_size))
        warmup = config.warmup_steps  # of the model, at most a tenth of the steps, unless it is given
        if self.warmup_steps is None:
            warmup = min(steps // 10, steps if warmup is None else warmup)
        if warmup >= steps:
            problem = f"warm-up of {warmup} steps is as long as the run ({steps} steps)"
            raise InputError(f"{problem}, so the learning rate never reaches its value; lower warmup_steps")
        epochs, every = round(steps * config.batch_size / examples, 3), config.eval_every or max(1, steps // 4)
        return dataclasses.replace(config, max_steps=steps, epochs=epochs, eval_every=every, warmup_steps=warmup)

    def to_dict(self) -> dict:
        """Return the configuration as a JSON object, as the record has it."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}


def parse_settings(texts: list[str]) -> dict[str, str]:
    """Return the settings in texts such as `rank=8`. InputError if a text is not of this form."""
    for text in (text for text in texts if "=" not in text):
        names = [f.name for f in dataclasses.fields(RunConfig)]
        near = meant(text) or difflib.get_close_matches(text, names, n=1)
        raise InputError(f"{text!r} is not name=value{f', such as {near[0]}=...' if near else ''}")
    return dict(text.split("=", 1) for text in texts)


def meant(name: str) -> list[str]:
    """Return the setting that has another name elsewhere, such as `["learning_rate"]` for `lr`."""
    return [setting for setting, names in OTHER_NAMES.items() if name.lower() in names.split()]


def allowed(name: str) -> str:
    """Return in words what values a setting takes."""
    kind = RunConfig.__dataclass_fields__[name].type
    known = next((text for k, text in WORDS.items() if str(getattr(kind, "__name__", kind)).startswith(k)), "")
    text = RANGES.get(name) or " or ".join(CHOICES.get(name, ())) or known
    return f"{text}, {AT_LEAST[name]} or more" if name in AT_LEAST else text


def comments(kind: type) -> dict[str, str]:
    """Return the comment beside each field of a dataclass, also those of its base classes: the field's meaning."""
    found = {}
    for base in reversed(kind.__mro__[:-1]):
        with suppress(OSError, TypeError):  # the source of a class in a user's own script may not be found
            found |= dict(re.findall(r"^    (\w+): [^#\n]*# (.+)$", inspect.getsource(base), re.MULTILINE))
    return found
