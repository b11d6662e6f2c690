"""The floors find what a corpus gives away, do not find what it does not, and score as documented."""

import random

import pytest

from irtuning.corpora.base import Corpus, Revision
from irtuning.errors import InputError
from irtuning.corpora.floors import edit_aware_floor, macro_f1, operation_floor

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
def test_a_floor_finds_what_gives_the_intention_away(floor, make, split):
    found = floor(corpus(make), split)
    assert (found.macro_f1, found.accuracy, found.split) == (1.0, 1.0, split)
    assert found.predictions == [r.intention for r in corpus(make).split(split)]


@pytest.mark.parametrize("floor", [operation_floor, edit_aware_floor])
def test_a_floor_finds_nothing_where_there_is_nothing_and_refuses_an_unknown_split(floor):
    assert floor(corpus(by_chance, sizes=(150, 150, 150)), "test").accuracy < 0.5
    with pytest.raises(InputError, match="unknown split 'dev'"):
        floor(corpus(by_length), "dev")


def test_predictions_do_not_depend_on_the_order_of_labels():
    """scikit-learn sorts the classes, the corpus does not."""
    names = {"zebra": "first", "mouse": "second", "ant": "third"}
    made = corpus(lambda label, generator: by_length(names[label], generator), tuple(names))
    assert edit_aware_floor(made).macro_f1 == 1.0


def test_operation_floor_answers_an_unseen_operation_with_the_commonest_intention():
    train = [Revision(f"t{n}", "a b", "a c", label) for n, label in enumerate([*LABELS, "second", "third", "second"])]
    made = Corpus("made", LABELS, train, [Revision("v", "", "a", "first")], [Revision("u", "a", "b", "second")])
    assert operation_floor(made).predictions == ["second"]


def test_strength_is_chosen_on_validation_whichever_split_is_scored():
    made = corpus(by_chance)
    assert edit_aware_floor(made, "test").settings == edit_aware_floor(made, "validation").settings


def test_edit_aware_floor_works_where_one_side_never_exists_and_reads_the_marked_edit():
    assert edit_aware_floor(corpus(lambda label, generator: ("", f"{words(generator)} {label}"))).macro_f1 == 1.0
    # The same texts with the mark in another place: only the mark tells the intentions apart.
    texts, spans = ("one two three four",) * 2, [((n, n + 1), (3, 4)) for n in range(3)]
    splits = [[Revision(f"{name}{n}", *texts, LABELS[n % 3], "", *spans[n % 3]) for n in range(size)]
              for name, size in (("t", 30), ("v", 9), ("u", 9))]  # fmt: skip
    assert edit_aware_floor(Corpus("made", LABELS, *splits)).macro_f1 == 1.0


def test_macro_f1_counts_an_absent_label_as_zero():
    assert macro_f1(LABELS, ["first", "second"], ["first", "second"]) == pytest.approx(2 / 3)
    assert macro_f1(LABELS, ["first", "first"], ["first", "third"]) == pytest.approx((2 / 3) / 3)
