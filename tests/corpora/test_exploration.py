"""Edits, tables and floors: diffs rebuild both sides, numbers mean what they say, floors find what is given away."""

import math
import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irtuning.analysis.figures.corpus import intentions
from irtuning.corpora import explore
from irtuning.corpora.argrewrite import FINE_LABELS
from irtuning.corpora.base import Corpus, Revision
from irtuning.corpora.floors import edit_aware_floor, macro_f1, operation_floor
from irtuning.corpora.html import quiz_html, word_diff
from irtuning.corpora.load import load_corpus
from irtuning.corpora.marked import SHAPE_NAMES, Edit, edit_of, shape_of
from irtuning.corpora.sources import CORPORA
from irtuning.corpora.tabular import ITERATER_LABELS
from irtuning.errors import InputError

# Few different words, so that the two sides share some and repeat some.
TEXTS = st.lists(st.sampled_from(["the", "cat", "sat", "on", "a", "mat.", "Mat", "7", "é"]), max_size=30).map(" ".join)


def revision(before: str, after: str, **fields) -> Revision:
    return Revision("r", before, after, "any", **fields)


@given(TEXTS, TEXTS)
def test_word_diff_rebuilds_both_sides_and_the_shape_is_finite_and_within_bounds(before, after):
    hunks = word_diff(before, after)
    assert [word for _, old, _ in hunks for word in old] == before.split()
    assert [word for _, _, new in hunks for word in new] == after.split()
    sides = {"equal": (True, True), "replace": (True, True), "delete": (True, False), "insert": (False, True)}
    for operation, old, new in hunks:
        assert (bool(old), bool(new), old == new) == (*sides[operation], operation == "equal")
    assert edit_of(revision(before, before)) == Edit((), (), 0)
    if before or after:
        shape = shape_of(revision(before, after))
        assert all(math.isfinite(value) for value in shape.values())
        assert all(0 <= shape[name] <= 1 for name in ("kept_share", "similarity", "word_likeness"))


def test_a_frequent_word_is_still_matched_in_a_long_text():
    """difflib's autojunk would drop words that make up more than 1 % of 200 or more."""
    shared = " the cat" * 150
    assert edit_of(revision(f"old{shared}", f"new{shared}")) == Edit(("new",), ("old",), 1)


@pytest.mark.parametrize(("texts", "spans", "expected"), [
    (("a car", "a red car"), {}, Edit(("red",), (), 1)), (("a red car", "a car"), {}, Edit((), ("red",), 1)),
    (("one red car is here", "one car is there"), {}, Edit(("there",), ("red", "here"), 2)),
    (("", "All new."), {}, Edit(("All", "new."), (), 1)), (("All old.", ""), {}, Edit((), ("All", "old."), 1)),
    (("a red car", "the blue van"), {"before_span": (1, 2), "after_span": (1, 2)}, Edit(("blue",), ("red",), 1)),
    (("a car stops", "the blue car halts"), {"after_span": (1, 2)}, Edit(("blue",), (), 1)),
])  # fmt: skip
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


TRAIN = [Revision(f"t{i}", "We went home .", "We went home , however .", "link") for i in range(12)]
TRAIN += [Revision(f"c{i}", "We went home .", "", "cut") for i in range(6)]
TRAIN += [Revision(f"d{i}", "We went very home .", "We went home .", "cut") for i in range(18)]
VALIDATION = [Revision("v1", "It is .", "It is , however .", "link"), Revision("v2", "It is .", "", "cut")]
TEST = [Revision("x", "a", "b", "cut"), Revision("y", "a", "", "link")]
CORPUS = Corpus("own", ("link", "cut"), TRAIN, VALIDATION, TEST)


def test_words_of_an_edit_and_log_odds_by_hand_with_rare_words_left_out():
    assert explore.edited_words(TRAIN[0]) == {"inserted": {",", "however"}, "deleted": set()}
    assert explore.edited_words(TRAIN[-1]) == {"inserted": set(), "deleted": {"very"}}
    odds = explore.log_odds(CORPUS, "inserted")
    # 12 of 12 against 0 of 24, half a count added to each
    assert odds.loc["however", "link"] == pytest.approx(math.log(12.5 / 0.5) - math.log(0.5 / 24.5))
    assert odds.loc["however", "cut"] == pytest.approx(-odds.loc["however", "link"])
    assert list(explore.log_odds(CORPUS, "deleted").index) == ["very"]  # "We", "went", "home" are in six revisions only
    inserted = explore.cue_table(CORPUS).inserted
    assert inserted["link"].startswith(", (") and inserted["cut"] == ""


def test_tables_and_the_figures_that_show_them():
    sizes = explore.size_table(CORPUS)
    assert len(sizes) == 36 and sizes.iloc[0].tolist() == ["link", 4, 6, 2]
    assert explore.operation_table(CORPUS).loc["cut"].to_dict() == {"add": 0, "delete": 0.25, "modify": 0.75}
    assert explore.label_table(CORPUS).loc["cut", "train"] == 24
    assert [r.id for r in explore.first_of_each(CORPUS)] == ["t0", "c0"]
    left, middle, right = intentions(explore.label_table(CORPUS), explore.operation_table(CORPUS), sizes).axes
    assert [bar.get_width() for bar in left.containers[0]] == [12, 24] and right.get_xlabel().startswith("words")
    assert [bar.get_width() for bar in middle.containers[2]] == [1.0, 0.75]
    assert [text.get_text() for text in left.get_yticklabels()] == ["link", "cut"]
    floor = operation_floor(CORPUS)
    assert explore.floor_table([floor]).loc["operation", "macro F1"] == floor.macro_f1


def test_every_corpus_is_listed_with_its_licence_loaded_or_not():
    table = explore.corpora_table([load_corpus("synthetic")])
    assert list(table.index) == list(CORPORA) and all(table.home.astype(bool))
    assert table.licence["argrewrite"] == "CC BY 4.0" and table.revisions["argrewrite"] == "not loaded"
    assert int(table.revisions["synthetic"]) > 1000


def test_our_own_revisions_have_four_of_each_intention_of_iterater_and_hide_it_until_asked():
    meanings, revisions = explore.examples()
    assert Counter(r.intention for r in revisions) == dict.fromkeys(ITERATER_LABELS, 4)
    assert set(meanings) == {*ITERATER_LABELS, *FINE_LABELS} and {r.group for r in revisions} == {"academic", "essay"}
    assert len({text for r in revisions for text in (r.before, r.after)}) == 40
    first, second, *_ = quiz_html(revisions).split("<li>")[1:]
    assert "<del style=" in first and first.count("fluency") == 1 and "<details><summary>intention</summary><b>fluency" in first
    assert "clarity" in second


LABELS = ("first", "second", "third")


def corpus(make, labels=LABELS, sizes=(90, 30, 27)) -> Corpus:
    """A corpus whose revisions `make(label, generator)` gives as (before, after), labels in turn."""
    generator = random.Random(0)
    rows = [[Revision(f"{s}{n}", *make(label := labels[n % len(labels)], generator), label) for n in range(size)]
            for s, size in enumerate(sizes)]  # fmt: skip
    return Corpus("made", labels, *rows)


def words(generator, count=6) -> str:
    return " ".join(generator.choices("one two three four five six seven eight nine ten".split(), k=count))


def by_operation(label, generator):
    text = words(generator)
    return {"first": ("", text), "second": (text, ""), "third": (text, text + " more")}[label]


def by_length(label, generator):
    return (text := words(generator)), text + " more" * {"first": 1, "second": 3, "third": 5}[label]


def by_inserted_word(label, generator):
    return (text := words(generator)), f"{text} {label}"


def by_chance(label, generator):
    return (text := words(generator)), f"{text} {words(generator, 1)}"


@pytest.mark.parametrize(("floor", "make"), [(operation_floor, by_operation), (edit_aware_floor, by_inserted_word)])
@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_floor_finds_what_gives_the_intention_away_and_nothing_where_there_is_nothing(floor, make, split):
    found = floor(corpus(make), split)
    assert (found.macro_f1, found.accuracy, found.split) == (1.0, 1.0, split)
    assert found.predictions == [r.intention for r in corpus(make).split(split)]
    assert floor(corpus(by_chance, sizes=(150, 150, 150)), split).accuracy < 0.5
    with pytest.raises(InputError, match="unknown split 'dev'"):
        floor(corpus(by_length), "dev")


def test_predictions_do_not_depend_on_the_order_of_labels_nor_the_strength_on_the_split():
    """scikit-learn sorts the classes, the corpus does not. The strength is always chosen on validation."""
    names = {"zebra": "first", "mouse": "second", "ant": "third"}
    made = corpus(lambda label, generator: by_length(names[label], generator), tuple(names))
    assert edit_aware_floor(made).macro_f1 == 1.0
    made = corpus(by_chance)
    other = edit_aware_floor(replace(made, test=[replace(r, intention="third") for r in made.test]), "test")
    assert other.predictions == edit_aware_floor(made, "test").predictions


def test_operation_floor_answers_an_unseen_operation_with_the_commonest_intention():
    train = [Revision(f"t{n}", "a b", "a c", label) for n, label in enumerate([*LABELS, "second", "third", "second"])]
    made = Corpus("made", LABELS, train, [Revision("v", "", "a", "first")], [Revision("u", "a", "b", "second")])
    assert operation_floor(made).predictions == ["second"]
    # an absent label counts as zero
    assert macro_f1(LABELS, ["first", "second"], ["first", "second"]) == pytest.approx(2 / 3)
    assert macro_f1(LABELS, ["first", "first"], ["first", "third"]) == pytest.approx((2 / 3) / 3)


def test_edit_aware_floor_works_where_one_side_never_exists_and_reads_the_marked_edit():
    assert edit_aware_floor(corpus(lambda label, generator: ("", f"{words(generator)} {label}"))).macro_f1 == 1.0
    # The same texts with the mark in another place: only the mark tells the intentions apart.
    texts, spans = ("one two three four",) * 2, [((n, n + 1), (3, 4)) for n in range(3)]
    splits = [[Revision(f"{name}{n}", *texts, LABELS[n % 3], "", *spans[n % 3]) for n in range(size)]
              for name, size in (("t", 30), ("v", 9), ("u", 9))]  # fmt: skip
    assert edit_aware_floor(Corpus("made", LABELS, *splits)).macro_f1 == 1.0
