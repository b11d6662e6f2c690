"""The edit of a revision: marked in one text by <del> ... </del> and <ins> ... </ins>, as words, and as numbers."""

import re
import string
from bisect import bisect_left
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from irtuning.corpora.base import Revision

Hunk = tuple[str, list[str]]  # "del", "ins" or "" for unchanged words; the words, each with the whitespace before it
COUNTED = {"punctuation": string.punctuation, "digit": string.digits, "capital": string.ascii_uppercase}


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


class Edit(NamedTuple):
    """Words that an edit inserts and deletes, in text order, and `hunks`, the number of places that it changes."""
    inserted: tuple[str, ...]
    deleted: tuple[str, ...]
    hunks: int


def edit_of(revision: Revision) -> Edit:
    """Return the edit of a revision: the marked one if it has spans, otherwise the difference of its texts."""
    hunks = hunks_of(revision)
    sides = (tuple(word.strip() for kind, words in hunks if kind == side for word in words) for side in ("ins", "del"))
    return Edit(*sides, hunks=sum(changed for changed, _ in groupby(hunks, key=lambda hunk: hunk[0] != "")))


def shape_of(revision: Revision) -> dict[str, float]:
    """Return the numbers that are named in `SHAPE_NAMES`, as floats.

    Lengths count words, shares lie in [0, 1], truth values are 1 and 0, differences are after minus before. Lengths,
    similarity and order describe the full texts. All other numbers describe the edit that `edit_of` returns.
    """
    edit, before, after = edit_of(revision), revision.before.split(), revision.after.split()
    inserted, deleted = " ".join(edit.inserted), " ".join(edit.deleted)
    old, new = _without_punctuation(deleted), _without_punctuation(inserted)
    bare = [_without_punctuation(text).casefold().split() for text in (revision.before, revision.after)]
    values = {
        "before_words": len(before), "after_words": len(after),
        "length_difference": len(edit.inserted) - len(edit.deleted),
        "before_empty": revision.operation == "add", "after_empty": revision.operation == "delete",
        "kept_share": 1 - len(edit.deleted) / len(before) if before else 0.0,
        "similarity": SequenceMatcher(None, before, after, autojunk=False).ratio(),
        "hunks": edit.hunks, "inserted_words": len(edit.inserted), "deleted_words": len(edit.deleted),
        "reordered": bare[0] != bare[1] and sorted(bare[0]) == sorted(bare[1]),
        "only_punctuation": inserted != deleted and old == new,
        "only_case": inserted != deleted and inserted.casefold() == deleted.casefold()}  # fmt: skip
    for kind, characters in COUNTED.items():
        values[f"{kind}_difference"] = sum(c in characters for c in inserted) - sum(c in characters for c in deleted)
    likeness = SequenceMatcher(None, deleted, inserted, autojunk=False).ratio() if old and new else 0.0
    return {name: float(value) for name, value in (values | {"word_likeness": likeness}).items()}


def _without_punctuation(text: str) -> str:
    return " ".join(text.translate(str.maketrans("", "", string.punctuation)).split())


SHAPE_NAMES = tuple(shape_of(Revision("", "", "a", "")))
