"""What changed in a revision: the words it inserted and deleted, and its shape in numbers."""

import difflib
import string
from dataclasses import dataclass

from irtuning.corpora.base import Revision
from irtuning.corpora.diff import word_diff


@dataclass(frozen=True, slots=True)
class Edit:
    """Words that an edit inserted and deleted, in text order, and the number of places where it did so."""

    inserted: tuple[str, ...]
    deleted: tuple[str, ...]
    hunks: int


def edit_of(revision: Revision) -> Edit:
    """Return the inserted and deleted words of a revision, those of the marked edit where it has spans."""
    if revision.before_span is not None or revision.after_span is not None:
        inserted = _marked(revision.after, revision.after_span)
        return Edit(inserted, _marked(revision.before, revision.before_span), hunks=1)
    changed = [hunk for hunk in word_diff(revision.before, revision.after) if hunk[0] != "equal"]
    deleted = tuple(word for _, old, _ in changed for word in old)
    return Edit(tuple(word for _, _, new in changed for word in new), deleted, len(changed))


def shape_of(revision: Revision) -> dict[str, float]:
    """Return the numbers that `SHAPE_NAMES` lists, as floats.

    Lengths are in words, shares lie in [0, 1], yes and no are 1 and 0, differences are after minus before. Lengths,
    similarity and order are those of the full texts. All other numbers are about the edit that `edit_of` returns.
    """
    edit = edit_of(revision)
    before, after = revision.before.split(), revision.after.split()
    inserted, deleted = " ".join(edit.inserted), " ".join(edit.deleted)
    old, new = _without_punctuation(deleted), _without_punctuation(inserted)
    likeness = difflib.SequenceMatcher(None, deleted, inserted, autojunk=False).ratio() if old and new else 0.0
    bare = [_without_punctuation(text).casefold().split() for text in (revision.before, revision.after)]
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
        "reordered": bare[0] != bare[1] and sorted(bare[0]) == sorted(bare[1]),
        "only_punctuation": inserted != deleted and old == new,
        "only_case": inserted != deleted and inserted.casefold() == deleted.casefold(),
        "punctuation_difference": _count(inserted, string.punctuation) - _count(deleted, string.punctuation),
        "digit_difference": _count(inserted, string.digits) - _count(deleted, string.digits),
        "capital_difference": _count(inserted, string.ascii_uppercase) - _count(deleted, string.ascii_uppercase),
        "word_likeness": likeness,
    }
    return {name: float(value) for name, value in values.items()}


def _marked(text: str, span: tuple[int, int] | None) -> tuple[str, ...]:
    return tuple(text.split()[slice(*span)]) if span is not None else ()


def _without_punctuation(text: str) -> str:
    return " ".join(text.translate(str.maketrans("", "", string.punctuation)).split())


def _count(text: str, characters: str) -> int:
    return sum(character in characters for character in text)


SHAPE_NAMES = tuple(shape_of(Revision("", "", "a", "")))
