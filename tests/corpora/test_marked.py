"""A revision as one text with marked edits: what it keeps, and what it loses first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irtuning import Revision
from irtuning.corpora.marked import fitting_text, hunks_of, marked_text

WORDS = st.lists(st.sampled_from(["a", "the", "red", "car,", "stops."]), max_size=12)
SPACES = st.sampled_from([" ", "  ", "\n\n", "\t", "\u3000"])


def marked(before, after, **spans):
    return marked_text(hunks_of(Revision("1", before, after, "a", **spans)))


@pytest.mark.parametrize(("before", "after", "spans", "text"), [
    ("He go home.", "He goes home.", {}, "He <del> go </del> <ins> goes </ins> home."),
    ("A,  b;\n\nc", "A,  b;\n\nnew\tword c", {}, "A,  b;\n\n<ins> new\tword </ins> c"),
    ("Old. Same", "Same", {}, "<del> Old. </del> Same"), ("", "all new", {}, "<ins> all new </ins>"),
    ("all old", " ", {}, "<del> all old </del>"), ("same", "same", {}, "same"),
    ("a x b y", "a z b w", {"before_span": (1, 2), "after_span": (1, 2)}, "a <del> x </del> <ins> z </ins> b w"),
    ("a b  c", "a c", {"before_span": (1, 2)}, "a <del> b </del>  c"),
    ("a c", "a b c", {"after_span": (1, 2)}, "a <ins> b </ins> c"),
])  # fmt: skip
def test_edits_stand_in_marks(before, after, spans, text):
    assert marked(before, after, **spans) == text


@given(WORDS, WORDS, SPACES, SPACES)
def test_no_word_and_no_space_is_lost(before, after, one, other):
    before, after = one.join(before), other.join(after)
    hunks = hunks_of(Revision("1", before, after, "a"))
    assert [w.strip() for kind, words in hunks if kind != "ins" for w in words] == before.split()
    assert "".join(w for kind, words in hunks if kind != "del" for w in words) == after
    assert all(hunk[0] in ("", "del", "ins") and hunk[1] for hunk in hunks)


def test_far_words_go_first_and_no_word_of_an_edit_goes_before_all_unchanged_ones():
    before = " ".join(f"w{i}" for i in range(100))
    hunks = hunks_of(Revision("1", before, before.replace("w40 ", "NEW WORDS ").replace("w90", "w90 ADDED"), "a"))
    for words in (40, 20, 13, 12):
        text = fitting_text(hunks, lambda text, words=words: len(text.split()) <= words)
        assert "<del> w40 </del> <ins> NEW WORDS </ins>" in text and "<ins> ADDED </ins>" in text
        assert len(text.split()) == words
        near = {abs(int(w[1:]) - (40 if int(w[1:]) < 66 else 90.5)) for w in text.split() if w[0] == "w"}
        assert max(near) <= (words - 10) / 4 + 1  # four sides of two edits share the room
    text = fitting_text(hunks, lambda text: len(text) <= 50)
    assert text == "<del> w40 </del> <ins> NEW </ins> <ins> ADD </ins>"
    assert fitting_text([("", [" one", " two", " three"])], lambda text: len(text) < 9) == "one two"
    assert fitting_text([("", ["unbroken"])], lambda text: len(text) < 3) == "un"
