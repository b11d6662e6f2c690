"""What changed in a revision: its word-level diff, the words it inserted and deleted, and its shape in numbers."""

import difflib
import string
from dataclasses import dataclass

from irtuning.corpora.base import Revision

Hunk = tuple[str, list[str], list[str]]


@dataclass(frozen=True, slots=True)
class Edit:
    """The words an edit put in and took out, in text order, and the number of places it touched."""

    inserted: tuple[str, ...]
    deleted: tuple[str, ...]
    hunks: int


def word_diff(before: str, after: str) -> list[Hunk]:
    """Return the differences of two texts, word by word, as (operation, before_words, after_words) in text order.

    Operations are difflib's: equal, replace, delete, insert. The second fields joined give `before.split()`, the
    third ones `after.split()`; two empty texts give an empty list.

    >>> word_diff("a red car", "a car stops")
    [('equal', ['a'], ['a']), ('delete', ['red'], []), ('equal', ['car'], ['car']), ('insert', [], ['stops'])]
    """
    old, new = before.split(), after.split()
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    return [(operation, old[i:j], new[k:m]) for operation, i, j, k, m in matcher.get_opcodes()]


def edit_of(revision: Revision) -> Edit:
    """Return the inserted and deleted words: those of the marked edit where the revision has spans, else the diff's."""
    if revision.before_span is not None or revision.after_span is not None:
        inserted = _marked(revision.after, revision.after_span)
        return Edit(inserted, _marked(revision.before, revision.before_span), hunks=1)
    changed = [hunk for hunk in word_diff(revision.before, revision.after) if hunk[0] != "equal"]
    deleted = tuple(word for _, old, _ in changed for word in old)
    return Edit(tuple(word for _, _, new in changed for word in new), deleted, len(changed))


def shape_of(revision: Revision) -> dict[str, float]:
    """Return the numbers of `SHAPE_NAMES`: lengths in words, shares in [0, 1], yes/no as 1/0, after minus before.

    Lengths, similarity and order are those of the whole texts; everything about the edit follows `edit_of`.
    """
    edit = edit_of(revision)
    before, after = revision.before.split(), revision.after.split()
    inserted, deleted = " ".join(edit.inserted), " ".join(edit.deleted)
    old, new = _without_punctuation(deleted), _without_punctuation(inserted)
    values = {
        "before_words": len(before),
        "after_words": len(after),
        "length_difference": len(edit.inserted) - len(edit.deleted),
        "before_empty": revision.operation == "add",
        "after_empty": revision.operation == "delete",
        "kept_share": 1 - len(edit.deleted) / len(before) if before else 0.0,
        "similarity": difflib.SequenceMatcher(None, before, after, autojunk=False).ratio(),
        "hunks": edit.hunks,
        "inserted_words": len(edit.inserted),
        "deleted_words": len(edit.deleted),
        "reordered": _reordered(revision.before, revision.after),
        "only_punctuation": inserted != deleted and old == new,
        "only_case": inserted != deleted and inserted.casefold() == deleted.casefold(),
        "punctuation_difference": _count(inserted, string.punctuation) - _count(deleted, string.punctuation),
        "digit_difference": _count(inserted, string.digits) - _count(deleted, string.digits),
        "capital_difference": _count(inserted, string.ascii_uppercase) - _count(deleted, string.ascii_uppercase),
        "word_likeness": difflib.SequenceMatcher(None, deleted, inserted, autojunk=False).ratio() if old and new else 0.0,
    }
    return {name: float(value) for name, value in values.items()}


def _marked(text: str, span: tuple[int, int] | None) -> tuple[str, ...]:
    return tuple(text.split()[slice(*span)]) if span is not None else ()


def _reordered(before: str, after: str) -> bool:
    """Whether the two texts hold the same words, case and punctuation aside, in another order."""
    old, new = (_without_punctuation(text).casefold().split() for text in (before, after))
    return old != new and sorted(old) == sorted(new)


def _without_punctuation(text: str) -> str:
    return " ".join(text.translate(str.maketrans("", "", string.punctuation)).split())


def _count(text: str, characters: str) -> int:
    return sum(character in characters for character in text)


SHAPE_NAMES = tuple(shape_of(Revision("", "", "a", "")))
