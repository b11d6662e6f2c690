"""The error that this package raises for bad input, and the small texts that messages are made of."""

import difflib
import reprlib
import types
from collections.abc import Iterable, Mapping


class InputError(ValueError):
    """Error about what the user gave, raised before any work starts, with the problem, the value and the cure."""


class TrainingStopped(InputError):
    """Error that ends a training that went wrong. Checkpoints written before it are kept."""


_SHORT = reprlib.Repr()
_SHORT.maxlist = _SHORT.maxdict = _SHORT.maxstring = _SHORT.maxother = 60


def brief(value: object) -> str:
    """Return the repr of a value for a message, shortened if it is long or deep."""
    return _SHORT.repr(value)


def unknown(kind: str, value: object, choices: Iterable[str], meant: Iterable[str] = ()) -> InputError:
    """Return the error for a name that does not exist, with the names that are `meant` and the most similar ones.

    >>> print(unknown("method", "rts", ["full", "ir", "rst"]))
    unknown method 'rts'; did you mean 'rst'? Choose one of: full, ir, rst
    """
    choices = list(choices)
    near = dict.fromkeys([*meant, *difflib.get_close_matches(str(value)[:60], choices, n=2, cutoff=0.5)])
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
    return InputError(f"unknown {kind} {brief(value)}{hint} Choose one of: {', '.join(choices)}")


def read_as(name: str, text: str, kind: object) -> object:
    """Return a setting's text as the type its field is annotated with, such as `int | None` or `tuple[str, ...]`."""
    kind = kind.__args__[0] if isinstance(kind, types.UnionType) else kind
    if kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if str(kind) == "tuple[str, ...]":
        return tuple(text.split(","))
    try:
        return {int: int, float: float, str: str}[kind](text)
    except (ValueError, KeyError):
        raise InputError(f"{name}={text!r} cannot be read as {getattr(kind, '__name__', kind)}") from None


def differences(one: Mapping, other: Mapping) -> list[str]:
    """Return a text for each key in which two recorded configurations differ."""
    return [f"{k}: {one.get(k)!r} / {other.get(k)!r}" for k in sorted({*one, *other}) if one.get(k) != other.get(k)]
