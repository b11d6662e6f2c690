"""Strategies by name: how the text of a method is read, and how a user's own strategy is registered."""

import copy
import json
import re
import runpy
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path

from irtuning.errors import InputError, read_as, unknown
from irtuning.method import baselines, strategies
from irtuning.method.strategies import Strategy

BUILT_IN: tuple[type[Strategy], ...] = (
    strategies.FullPeft, strategies.IRTuningStrategy, strategies.WeightTuning, strategies.CosineTuning,
    strategies.UpperTuning, baselines.RandomSparseTuning, baselines.ImportanceSparseTuning, baselines.Lisa,
    baselines.LisaAdapters, baselines.LastLayers, baselines.MiddleLayers, baselines.RandomCounts,
    baselines.RandomStatic, baselines.FixedLayers, baselines.Transplant, baselines.ProbeTuning,
    baselines.SampledTuning, strategies.FullTuning)  # fmt: skip
METHODS: dict[str, type[Strategy]] = {kind.name: kind for kind in BUILT_IN}
IN_A_FILE = re.compile(r"(.+\.py):(\w+)((?::.*)?)", re.DOTALL)  # FILE.py:Class, then options


def register(kind: type[Strategy]) -> str:
    """Add a strategy class to `METHODS` and return its name. InputError if the name is taken or malformed."""
    name = kind.__dict__.get("name") or kind.__name__
    taken = any(name == known.name and kind is not known for known in BUILT_IN)
    if taken or not re.fullmatch(r"[\w-]+", name):
        wrong = "belongs to a method of this package" if taken else "has more than letters, digits, - and _"
        raise InputError(f"{kind.__name__} has the name {name!r}, which {wrong}; give it another name")
    METHODS[name] = kind
    return name


def as_strategy(spec: "str | type[Strategy] | Strategy", **options: object) -> Strategy:
    """Return the strategy for a text, a class or an instance, and register its name. InputError if there is none.

    Args:
        spec: a name with options, `ir:variant=exact:splits=2`; a class in a file, `FILE.py:Class:option=value`; a
            subclass of `Strategy`; or an instance of one, which is copied.
        options: values for options that the text does not set; for an instance they replace its own values.
    """
    if isinstance(spec, str):
        kind, options = _read(spec, options)
        return kind(**options)
    kind = spec if isinstance(spec, type) else type(spec)
    if not issubclass(kind, Strategy):
        raise InputError(f"{spec!r} is not a method: give a name, or a subclass or an instance of Strategy")
    register(kind)
    strategy = kind(**options) if isinstance(spec, type) else copy.deepcopy(spec)
    vars(strategy).update(options)
    strategy.__post_init__()
    return strategy


def _read(text: str, options: dict) -> tuple[type[Strategy], dict]:
    """Return the class that a text names, and its options. If the text names a Python file, that file is run."""
    name, *pairs = text.split(":")
    if match := IN_A_FILE.fullmatch(text):
        file, name, pairs = match[1], match[2], match[3].split(":")[1:]
        kind = runpy.run_path(file).get(name) if Path(file).is_file() else None  # workers get it by value
        if not (isinstance(kind, type) and issubclass(kind, Strategy)):
            raise InputError(f"no file {file!r} defines a subclass of Strategy named {name!r}; check both names")
        name = register(kind)
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    kinds = {f.name: f.type for f in fields(METHODS[name])}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if key not in kinds or not equals:
            raise unknown(f"option of method {name!r} (written name:option=value)", pair, kinds)
        options[key] = read_as(f"{name}:{key}", value, kinds[key])
    return METHODS[name], options


make_strategy = as_strategy  # its public name


def method_text(strategy: Strategy) -> str:
    """Return a strategy's name and those of its options that differ from their defaults, such as `ir:splits=2`."""
    given = [f for f in fields(strategy) if f.default is not MISSING and getattr(strategy, f.name) != f.default]
    return ":".join([register(type(strategy)), *(f"{f.name}={getattr(strategy, f.name)}" for f in given)])


def describe(strategy: Strategy) -> dict:
    """Return a strategy's name and options as a JSON object. `make_strategy(**description)` makes it again."""
    return {"spec": register(type(strategy))} | json.loads(json.dumps(asdict(strategy)))


def facts(method: str, recorded: Mapping | None = None) -> dict:
    """Return a method's scope, importance, keep, leads and colour. `recorded` is used if it is not registered here."""
    kind = METHODS.get(method.split(":")[0], Strategy)
    known = {name: getattr(kind, name) for name in ("scope", "importance", "keep", "leads", "colour")}
    if kind not in BUILT_IN:
        known["colour"] = kind.__dict__.get("colour", "")  # its parent's colour would hide the difference
    return known if kind is not Strategy or recorded is None else known | dict(recorded)
