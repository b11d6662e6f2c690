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
        assert (bool(old), bool(new)) == sides[operation]
        assert (old == new) == (operation == "equal")


@given(TEXTS)
def test_a_text_against_itself_has_no_edit(text):
    assert edit_of(revision(text, text)) == Edit((), (), 0)


def test_a_frequent_word_is_still_matched_in_a_long_text():
    """difflib's autojunk would drop words that make up more than 1 % of 200 or more."""
    shared = ["the", "cat"] * 150
    changed = [hunk for hunk in word_diff(" ".join(["old", *shared]), " ".join(["new", *shared])) if hunk[0] != "equal"]
    assert changed == [("replace", ["old"], ["new"])]


CASES = {
    "insertion": ("a car", "a red car", Edit(("red",), (), 1)),
    "deletion": ("a red car", "a car", Edit((), ("red",), 1)),
    "two places": ("one red car is here", "one car is there", Edit(("there",), ("red", "here"), 2)),
    "addition": ("", "All new.", Edit(("All", "new."), (), 1)),
    "removal": ("All old.", "", Edit((), ("All", "old."), 1)),
}


@pytest.mark.parametrize(("before", "after", "expected"), CASES.values(), ids=CASES)
def test_edit_of_the_diff(before, after, expected):
    assert edit_of(revision(before, after)) == expected


def test_edit_of_a_marked_revision_is_the_marked_words_only():
    marked = revision("a red car stops", "the blue car halts", before_span=(1, 2), after_span=(1, 2))
    assert edit_of(marked) == Edit(("blue",), ("red",), 1)
    assert edit_of(revision("a car stops", "the blue car halts", after_span=(1, 2))) == Edit(("blue",), (), 1)


def test_shape_of_a_replacement():
    shape = shape_of(revision("a red car stops", "a red car halts now"))
    assert list(shape) == list(SHAPE_NAMES)
    assert (shape["before_words"], shape["after_words"], shape["length_difference"]) == (4, 5, 1)
    assert (shape["inserted_words"], shape["deleted_words"], shape["hunks"]) == (2, 1, 1)
    assert shape["kept_share"] == 0.75
    assert shape["similarity"] == pytest.approx(2 * 3 / 9)
    assert (shape["before_empty"], shape["after_empty"]) == (0, 0)


def test_shape_of_empty_sides():
    added, deleted = shape_of(revision("", "Quite new.")), shape_of(revision("Quite old.", ""))
    assert (added["before_empty"], added["after_empty"], added["length_difference"]) == (1, 0, 2)
    assert (deleted["before_empty"], deleted["after_empty"], deleted["length_difference"]) == (0, 1, -2)
    assert added["similarity"] == deleted["kept_share"] == 0


def test_shape_of_a_marked_insertion_counts_the_marked_edit():
    shape = shape_of(revision("a car stops", "the blue car halts", after_span=(1, 2)))
    assert (shape["before_empty"], shape["inserted_words"], shape["deleted_words"], shape["hunks"]) == (1, 1, 0, 1)


FLAGS = {
    "reordered": ("we often meet here", "we meet often here"),
    "only_punctuation": ("all cars, new", "all cars new"),
    "only_case": ("the paris road", "the Paris road"),
    None: ("a red car", "a blue car"),
}


@pytest.mark.parametrize("flag", FLAGS)
def test_shape_tells_punctuation_case_and_order_from_words(flag):
    shape = shape_of(revision(*FLAGS[flag]))
    assert {name for name in FLAGS if name and shape[name]} == ({flag} if flag else set())


def test_shape_counts_characters():
    shape = shape_of(revision("about ten cars", "about 10 Cars!"))
    assert (shape["digit_difference"], shape["capital_difference"], shape["punctuation_difference"]) == (2, 1, 1)


@given(TEXTS, TEXTS.filter(bool))
def test_shape_is_finite_and_shares_stay_within_bounds(before, after):
    shape = shape_of(revision(before, after))
    assert all(math.isfinite(value) for value in shape.values())
    assert all(0 <= shape[name] <= 1 for name in ("kept_share", "similarity", "word_likeness"))
