"""A revision as one text, in which deleted words stand in <del> ... </del> and inserted ones in <ins> ... </ins>."""

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from itertools import groupby
from operator import itemgetter

from irtuning.corpora.base import Revision

Hunk = tuple[str, list[str]]  # "del", "ins" or "" for unchanged words; the words, each with the whitespace before it


def hunks_of(revision: Revision) -> list[Hunk]:
    """Return the unchanged, deleted and inserted words in text order, by the marked edit or else by the word diff."""
    before, after = (re.findall(r"\s*\S+", text) for text in (revision.before, revision.after))
    old, new = revision.before_span, revision.after_span
    if old or new:
        words, (start, end) = (after, new) if new else (before, old)
        changed = [("del", before[slice(*old or (0, 0))]), ("ins", after[slice(*new or (0, 0))])]
        hunks = [("", words[:start]), *changed, ("", words[end:])]
    else:
        matcher, hunks = SequenceMatcher(None, revision.before.split(), revision.after.split(), autojunk=False), []
        for operation, i, j, k, m in matcher.get_opcodes():
            hunks += [("", after[k:m])] if operation == "equal" else [("del", before[i:j]), ("ins", after[k:m])]
    return [(kind, words) for kind, words in hunks if words]


def marked_text(hunks: Sequence[Hunk]) -> str:
    """Return hunks as one text. The whitespace between words is kept, that at both ends of the text is not.

    >>> marked_text(hunks_of(Revision("1", "He go  home.", "He goes  home.", "grammar")))
    'He <del> go </del> <ins> goes </ins>  home.'
    """
    text = ""
    for kind, words in hunks:
        bare = (joined := "".join(words)).lstrip()
        space = joined[: len(joined) - len(bare)] or " "
        text += space + (f"<{kind}> {bare} </{kind}>" if kind else bare)
    return text.strip()


def fitting_text(hunks: Sequence[Hunk], fits: Callable[[str], bool]) -> str:
    """Return a marked text that is too long, shortened until it fits: first without unchanged words far from the edits.

    The farther a word is from the next edited one, the earlier it goes. If all unchanged words are gone and the text
    is still too long, the longest edits lose their ends.
    """
    flat = [(n, kind, word) for n, (kind, of) in enumerate(hunks) for word in of]
    edited = [i for i, (_, kind, _) in enumerate(flat) if kind]
    distances = [min((abs(i - j) for j in edited), default=i) for i in range(len(flat))]
    order = sorted((i for i, (_, kind, _) in enumerate(flat) if not kind), key=lambda i: -distances[i])
    def without(count: int) -> list[Hunk]:
        gone = set(order[:count])
        groups = groupby((word for i, word in enumerate(flat) if i not in gone), key=itemgetter(0, 1))
        return [(kind, [word for *_, word in group]) for (_, kind), group in groups]
    count = bisect_left(range(len(order)), True, key=lambda n: fits(marked_text(without(n))))
    if (text := marked_text(without(count))) and fits(text):
        return text
    edits = [(kind, "".join(words).strip()) for kind, words in hunks if kind or not edited]
    longest = max(len(text) for _, text in edits)
    def cut(less: int) -> str:
        return marked_text([(kind, [text[: longest - less]]) for kind, text in edits])
    return cut(bisect_left(range(longest), True, key=lambda less: fits(cut(less))))
