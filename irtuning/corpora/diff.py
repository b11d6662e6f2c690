"""Differences between two texts, word by word."""

import difflib


def word_diff(before: str, after: str) -> list[tuple[str, list[str], list[str]]]:
    """Return the differences of two texts, word by word, as (operation, before_words, after_words) in text order.

    Operations are those of difflib: equal, replace, delete, insert. Two empty texts give an empty list.

    >>> word_diff("a red car", "a car stops")
    [('equal', ['a'], ['a']), ('delete', ['red'], []), ('equal', ['car'], ['car']), ('insert', [], ['stops'])]
    """
    old, new = before.split(), after.split()
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    return [(operation, old[i:j], new[k:m]) for operation, i, j, k, m in matcher.get_opcodes()]
