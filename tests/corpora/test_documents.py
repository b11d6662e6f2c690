"""Two versions of a document: sentences, their alignment, and what the alignment of ArgRewrite's drafts is worth."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irtuning.companion.paths import REPOSITORY
from irtuning.corpora.documents import align, document_revisions, read_documents, sentences
from irtuning.corpora.html import predictions_page
from irtuning.errors import InputError

sys.path.append(str(REPOSITORY / "reports" / "alignment"))
import alignment

TEXTS = st.lists(st.sampled_from(["The cat sat.", "A dog ran off.", "The cat sat down.", "Why?", "?!"]), max_size=7)


@pytest.mark.parametrize(("text", "expected"), [
    ("One. Two! Three?", ["One.", "Two!", "Three?"]), ("A title\n\nText here.", ["A title", "Text here."]),
    ("Short\nlines", ["Short", "lines"]), ("He said “stop.” Then he left.", ["He said “stop.”", "Then he left."]),
    ("See Fig. 3 by J. Smith et al. 2020. Now.", ["See Fig. 3 by J. Smith et al. 2020.", "Now."]),
    ("This line is long enough to have been wrapped by\nan editor. And so\n", ["This line is long enough to have been wrapped by an editor.", "And so"]),
    ("It is 3.5 km. Élan helps.", ["It is 3.5 km.", "Élan helps."]), (" \n", []),
])  # fmt: skip
def test_a_text_is_split_into_sentences(text, expected):
    assert sentences(text) == expected


@given(TEXTS, TEXTS)
def test_an_alignment_has_every_sentence_once_and_in_order(before, after):
    pairs = align(before, after)
    assert [i for side, _ in pairs for i in side] == list(range(len(before)))
    assert [j for _, side in pairs for j in side] == list(range(len(after)))
    assert align(before, before) == [([i], [i]) for i in range(len(before))]


def test_changes_additions_deletions_splits_and_merges_are_found():
    before = "We met in May. The bus was late, and the road was wet and dark. Nobody spoke."
    after = "It all began well. We met in June. The bus was late. And the road was wet and dark."
    found = {r.id: (r.before, r.after) for r in document_revisions(before, after)}
    assert list(found) == [">1", "1>2", "2>3,4", "3>"] and found["3>"] == ("Nobody spoke.", "")
    assert found["2>3,4"] == ("The bus was late, and the road was wet and dark.", "The bus was late. And the road was wet and dark.")
    assert [r.id for r in document_revisions(after, before)] == ["1>", "2>1", "3,4>2", ">3"]


def test_files_are_read_and_two_equal_texts_are_refused(tmp_path):
    for name, text in (("a.txt", "One. Two."), ("b.txt", "One.  Two.\n"), ("c.txt", "One. Three.")):
        (tmp_path / name).write_text(text)
    assert len(read_documents(tmp_path / "a.txt", tmp_path / "c.txt")) == 3
    with pytest.raises(InputError, match="have the same sentences; give two versions"):
        read_documents(tmp_path / "a.txt", tmp_path / "b.txt")


def test_a_page_stands_alone_and_shows_texts_as_text():
    row = {"before": "a <b>", "after": "a & c", "intention": "x<y", "probabilities": {"z": 0.2, "x<y": 0.8}, "note": ""}
    page = predictions_page([row, {"before": "Same.", "after": "Same.", "intention": None, "probabilities": {}, "note": ""}], "t<u>")
    assert "1 of 2 were revised: 1 x&lt;y." in page and "t&lt;u&gt;" in page and "&lt;b&gt;</del>" in page
    assert page.index("0.80") < page.index("0.20") and "<div style='max-width:60em;margin:0.3em 0'> Same.</div>" in page
    assert not any(word in page for word in ("http", "<script", "<link", "x<y", "<b>a"))


def test_the_alignment_of_argrewrites_drafts_is_as_recorded(real_data):
    """The rule was chosen on half of the writers. It is scored on the other half."""
    recorded = json.loads((REPOSITORY / "reports" / "alignment" / "alignment.json").read_text())
    measured = alignment.measure(alignment.read_drafts(real_data / "argrewrite"))
    assert measured == {name: block for name, block in recorded.items() if name != "meta"}
    held_out = measured["writers held out"]
    assert min(held_out["all pairs"]["precision"], held_out["all pairs"]["recall"]) > 0.97
    assert min(held_out["changed pairs"]["precision"], held_out["changed pairs"]["recall"]) > 0.93
    assert min(measured["ends of sentences"]["precision"], measured["ends of sentences"]["recall"]) > 0.99
