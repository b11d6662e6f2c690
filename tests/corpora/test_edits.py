"""Word diffs rebuild both sides; edits follow marked spans; shape numbers mean what they say."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irtuning.corpora.base import Revision
from irtuning.corpora.diff import word_diff
from irtuning.corpora.edits import SHAPE_NAMES, Edit, edit_of, shape_of

# Few different words, so that the two sides share some and repeat some.
TEXTS = st.lists(st.sampled_from(["the", "cat", "sat", "on", "a", "mat.", "Mat", "7", "é"]), max_size=30).map(" ".join)


def revision(before: str, after: str, **fields) -> Revision:
    return Revision("r", before, after, "any", **fields)


@given(TEXTS, TEXTS)
def test_word_diff_rebuilds_both_sides_and_says_which_have_words(before, after):
    hunks = word_diff(before, after)
    assert [word for _, old, _ in hunks for word in old] == before.split()
    assert [word for _, _, new in hunks for word in new] == after.split()
    sides = {"equal": (True, True), "replace": (True, True), "delete": (True, False), "insert": (False, True)}
    for operation, old, new in hunks:
        assert (bool(old), bool(new), old == new) == (*sides[operation], operation == "equal")
    assert edit_of(revision(before, before)) == Edit((), (), 0)


def test_a_frequent_word_is_still_matched_in_a_long_text():
    """difflib's autojunk would drop words that make up more than 1 % of 200 or more."""
    shared = ["the", "cat"] * 150
    changed = [hunk for hunk in word_diff(" ".join(["old", *shared]), " ".join(["new", *shared])) if hunk[0] != "equal"]
    assert changed == [("replace", ["old"], ["new"])]


CASES = {
    "insertion": (("a car", "a red car"), {}, Edit(("red",), (), 1)),
    "deletion": (("a red car", "a car"), {}, Edit((), ("red",), 1)),
    "two places": (("one red car is here", "one car is there"), {}, Edit(("there",), ("red", "here"), 2)),
    "addition": (("", "All new."), {}, Edit(("All", "new."), (), 1)),
    "removal": (("All old.", ""), {}, Edit((), ("All", "old."), 1)),
    "marked": (("a red car", "the blue van"), {"before_span": (1, 2), "after_span": (1, 2)}, Edit(("blue",), ("red",), 1)),
    "marked insertion": (("a car stops", "the blue car halts"), {"after_span": (1, 2)}, Edit(("blue",), (), 1)),
}


@pytest.mark.parametrize(("texts", "spans", "expected"), CASES.values(), ids=CASES)
def test_edit_of_the_diff_or_of_the_marked_words_only(texts, spans, expected):
    assert edit_of(revision(*texts, **spans)) == expected


FLAGS = ("reordered", "only_punctuation", "only_case")
SHAPES = [  # texts, spans, numbers of the shape, the flag that is set
    (("a red car stops", "a red car halts now"), {}, {
        "before_words": 4, "after_words": 5, "length_difference": 1, "inserted_words": 2, "deleted_words": 1, "hunks": 1,
        "kept_share": 0.75, "similarity": pytest.approx(2 * 3 / 9), "before_empty": 0, "after_empty": 0}, None),
    (("", "Quite new."), {}, {"before_empty": 1, "after_empty": 0, "length_difference": 2, "similarity": 0}, None),
    (("Quite old.", ""), {}, {"before_empty": 0, "after_empty": 1, "length_difference": -2, "kept_share": 0}, None),
    (("a car stops", "the blue car halts"), {"after_span": (1, 2)},
     {"before_empty": 1, "inserted_words": 1, "deleted_words": 0, "hunks": 1}, None),
    (("we often meet here", "we meet often here"), {}, {}, "reordered"),
    (("all cars, new", "all cars new"), {}, {}, "only_punctuation"),
    (("the paris road", "the Paris road"), {}, {}, "only_case"),
    (("a red car", "a blue car"), {}, {}, None),
    (("about ten cars", "about 10 Cars!"), {},
     {"digit_difference": 2, "capital_difference": 1, "punctuation_difference": 1}, None),
]  # fmt: skip


@pytest.mark.parametrize(("texts", "spans", "expected", "flag"), SHAPES)
def test_shape_of_an_edit(texts, spans, expected, flag):
    shape = shape_of(revision(*texts, **spans))
    assert list(shape) == list(SHAPE_NAMES) and {name: shape[name] for name in expected} == expected
    assert [name for name in FLAGS if shape[name]] == ([flag] if flag else [])


@given(TEXTS, TEXTS.filter(bool))
def test_shape_is_finite_and_shares_stay_within_bounds(before, after):
    shape = shape_of(revision(before, after))
    assert all(math.isfinite(value) for value in shape.values())
    assert all(0 <= shape[name] <= 1 for name in ("kept_share", "similarity", "word_likeness"))
