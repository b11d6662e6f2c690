"""The edit of a revision: the words that it inserts and deletes, and numbers that describe its shape."""

import string
from dataclasses import dataclass
from difflib import SequenceMatcher

from irtuning.corpora.base import Revision
from irtuning.corpora.html import word_diff

COUNTED = {"punctuation": string.punctuation, "digit": string.digits, "capital": string.ascii_uppercase}


@dataclass(frozen=True, slots=True)
class Edit:
    """Words that an edit inserts and deletes, in text order, and `hunks`, the number of places that it changes."""
    inserted: tuple[str, ...]
    deleted: tuple[str, ...]
    hunks: int


def edit_of(revision: Revision) -> Edit:
    """Return the edit of a revision: the marked one if it has spans, otherwise the difference of its texts."""
    if revision.before_span or revision.after_span:
        sides = ((revision.after, revision.after_span), (revision.before, revision.before_span))
        return Edit(*(tuple(text.split()[slice(*span)]) if span else () for text, span in sides), hunks=1)
    changed = [hunk for hunk in word_diff(revision.before, revision.after) if hunk[0] != "equal"]
    return Edit(*(tuple(word for hunk in changed for word in hunk[side]) for side in (2, 1)), hunks=len(changed))


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
