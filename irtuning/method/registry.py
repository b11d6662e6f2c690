"""Which layers learn now: IR-Tuning and what it is compared with. A method is a small class and its name in METHODS."""

from dataclasses import asdict, fields

from irtuning.errors import read_as, unknown
from irtuning.method.strategies import FullPeft, FullTuning, Strategy
from irtuning.method.baselines import (
    ImportanceSparseTuning,
    LastLayers,
    Lisa,
    LisaAdapters,
    MiddleLayers,
    RandomCounts,
    RandomSparseTuning,
)
from irtuning.method.ir import CosineTuning, IRTuningStrategy, WeightTuning
from irtuning.method.upper import UpperTuning

METHODS: dict[str, type[Strategy]] = {
    "full": FullPeft,
    "ir": IRTuningStrategy,
    "ir-weight": WeightTuning,
    "ir-cosine": CosineTuning,
    "ir-upper": UpperTuning,
    "rst": RandomSparseTuning,
    "ist": ImportanceSparseTuning,
    "lisa": Lisa,
    "lisa-adapters": LisaAdapters,
    "last-k": LastLayers,
    "middle-k": MiddleLayers,
    "random-counts": RandomCounts,
    "full-ft": FullTuning,
}
EQUAL_BUDGET = ("rst", "lisa-adapters", "last-k", "middle-k")  # take IR-Tuning's mean share where it is known


def describe(strategy: Strategy) -> dict:
    """A strategy's name and settings, for JSON; `make_strategy(**description)` makes it again."""
    name = next((name for name, kind in METHODS.items() if kind is type(strategy)), type(strategy).__name__)
    return {"spec": name} | {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(strategy).items()}


def make_strategy(spec: str, **options: object) -> Strategy:
    """Make the strategy a text such as `ir` or `ir:variant=exact:splits=2` names; `options` are its defaults.

    Raises:
        InputError: an unknown method or option, or a value the method refuses.
    """
    name, *pairs = spec.split(":")
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    kinds = {f.name: f.type for f in fields(METHODS[name])}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if key not in kinds or not equals:
            raise unknown(f"option of method {name!r} (written name:option=value)", pair, kinds)
        options[key] = read_as(f"{name}:{key}", text, kinds[key])
    return METHODS[name](**options)
