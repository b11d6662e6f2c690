"""The one error this package raises for bad input: it names the problem, the value and the cure."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave cannot be used; raised before any work starts, nothing has been written."""


def unknown(kind: str, value: object, choices: Iterable[str]) -> InputError:
    """Return the error for a name that does not exist, with the nearest ones that do.

    >>> print(unknown("method", "rts", ["full", "ir", "rst"]))
    unknown method 'rts'; did you mean 'rst'? Choose one of: full, ir, rst
    """
    choices = list(choices)
    near = difflib.get_close_matches(str(value), choices, n=2, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
    return InputError(f"unknown {kind} {value!r}{hint} Choose one of: {', '.join(choices)}")
