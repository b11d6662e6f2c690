"""What changed in a revision: the words it inserted and deleted, and its shape in numbers."""

import string
from dataclasses import dataclass
from difflib import SequenceMatcher

from irtuning.corpora.base import Revision
from irtuning.corpora.diff import word_diff

COUNTED = {"punctuation": string.punctuation, "digit": string.digits, "capital": string.ascii_uppercase}


@dataclass(frozen=True, slots=True)
class Edit:
    """Words that an edit inserted and deleted, in text order, and the number of places where it did so."""

    inserted: tuple[str, ...]
    deleted: tuple[str, ...]
    hunks: int


def edit_of(revision: Revision) -> Edit:
    """Return the inserted and deleted words of a revision, those of the marked edit where it has spans."""
    if revision.before_span or revision.after_span:
        sides = ((revision.after, revision.after_span), (revision.before, revision.before_span))
        return Edit(*(tuple(text.split()[slice(*span)]) if span else () for text, span in sides), hunks=1)
    changed = [hunk for hunk in word_diff(revision.before, revision.after) if hunk[0] != "equal"]
    return Edit(*(tuple(word for hunk in changed for word in hunk[side]) for side in (2, 1)), hunks=len(changed))


def shape_of(revision: Revision) -> dict[str, float]:
    """Return the numbers that `SHAPE_NAMES` lists, as floats.

    Lengths are in words, shares lie in [0, 1], yes and no are 1 and 0, differences are after minus before. Lengths,
    similarity and order are those of the full texts. All other numbers are about the edit that `edit_of` returns.
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
        "only_case": inserted != deleted and inserted.casefold() == deleted.casefold(),
    }  # fmt: skip
    for kind, characters in COUNTED.items():
        values[f"{kind}_difference"] = sum(c in characters for c in inserted) - sum(c in characters for c in deleted)
    likeness = SequenceMatcher(None, deleted, inserted, autojunk=False).ratio() if old and new else 0.0
    return {name: float(value) for name, value in (values | {"word_likeness": likeness}).items()}


def _without_punctuation(text: str) -> str:
    return " ".join(text.translate(str.maketrans("", "", string.punctuation)).split())


SHAPE_NAMES = tuple(shape_of(Revision("", "", "a", "")))
