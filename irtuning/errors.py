"""The error that this package raises for bad input, and helpers that word its messages."""

import difflib
import reprlib
import types
from collections.abc import Iterable, Mapping


class InputError(ValueError):
    """Error for bad input. Its message names the problem, the value that was given, and how to correct it."""


class TrainingStopped(InputError):
    """Error that ends a training run which went wrong. Checkpoints written before it are kept."""


_SHORT = reprlib.Repr()
_SHORT.maxlist = _SHORT.maxdict = _SHORT.maxstring = _SHORT.maxother = 60


def brief(value: object) -> str:
    """Return the `repr` of a value for a message, shortened if it is long or deeply nested."""
    return _SHORT.repr(value)


def unknown(kind: str, value: object, choices: Iterable[str], meant: Iterable[str] = ()) -> InputError:
    """Return an error for an unknown name. The names that are `meant` come first, then similar ones.

    >>> print(unknown("method", "rts", ["full", "ir", "rst"]))
    unknown method 'rts'; did you mean 'rst'? Choose one of: rst, full, ir
    """
    choices = list(choices)
    near = dict.fromkeys([*meant, *difflib.get_close_matches(str(value)[:60], choices, n=2, cutoff=0.5)])
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
    ordered = sorted(choices, key=lambda name: [*near, name].index(name))
    return InputError(f"unknown {kind} {brief(value)}{hint} Choose one of: {', '.join(ordered)}")


def read_as(name: str, text: str, kind: object) -> object:
    """Convert a setting's text to the type of its field, such as `int | None`. InputError if that is not possible."""
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
    """Return one text per setting in which two recorded configurations differ, with both values."""
    return [f"{k}: {one.get(k)!r} / {other.get(k)!r}" for k in sorted({*one, *other}) if one.get(k) != other.get(k)]
