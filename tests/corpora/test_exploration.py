"""Tables about corpora, on a corpus made by hand."""

import math

import pytest

from irtuning.corpora.base import Corpus, Revision
from irtuning.analysis.figures.corpus import confusions, edit_sizes, label_counts, operation_shares
from irtuning.corpora.explore import (
    corpora_table, cue_table, edited_words, first_of_each, floor_table, label_table, log_odds, operation_table, size_table,
)  # fmt: skip
from irtuning.corpora.floors import operation_floor
from irtuning.corpora.load import corpus_names, load_corpus

TRAIN = [Revision(f"t{i}", "We went home .", "We went home , however .", "link") for i in range(12)]
TRAIN += [Revision(f"c{i}", "We went home .", "", "cut") for i in range(6)]
TRAIN += [Revision(f"d{i}", "We went very home .", "We went home .", "cut") for i in range(18)]
VALIDATION = [Revision("v1", "It is .", "It is , however .", "link"), Revision("v2", "It is .", "", "cut")]
TEST = [Revision("x", "a", "b", "cut"), Revision("y", "a", "", "link")]
CORPUS = Corpus("own", ("link", "cut"), TRAIN, VALIDATION, TEST)


def test_words_of_an_edit_and_log_odds_by_hand_with_rare_words_left_out():
    assert edited_words(TRAIN[0]) == {"inserted": {",", "however"}, "deleted": set()}
    assert edited_words(TRAIN[-1]) == {"inserted": set(), "deleted": {"very"}}
    odds = log_odds(CORPUS, "inserted")
    # 12 of 12 against 0 of 24, half a count added to each
    assert odds.loc["however", "link"] == pytest.approx(math.log(12.5 / 0.5) - math.log(0.5 / 24.5))
    assert odds.loc["however", "cut"] == pytest.approx(-odds.loc["however", "link"])
    assert list(log_odds(CORPUS, "deleted").index) == ["very"]  # "We", "went", "home" are in six revisions only
    inserted = cue_table(CORPUS).inserted
    assert inserted["link"].startswith(", (") and inserted["cut"] == ""


def test_sizes_operations_counts_and_examples():
    sizes = size_table(CORPUS)
    assert len(sizes) == 36 and sizes.iloc[0].tolist() == ["link", 4, 6, 2]
    shares = operation_table(CORPUS)
    assert shares.loc["cut"].to_dict() == {"add": 0, "delete": 0.25, "modify": 0.75}
    assert label_table(CORPUS).loc["cut", "train"] == 24
    assert [r.id for r in first_of_each(CORPUS)] == ["t0", "c0"]


def test_every_corpus_is_listed_with_its_licence_loaded_or_not():
    table = corpora_table([load_corpus("synthetic")])
    assert list(table.index) == list(corpus_names())
    assert table.licence["argrewrite"] == "CC BY 4.0" and table.revisions["argrewrite"] == "not loaded"
    assert int(table.revisions["synthetic"]) > 1000
    assert all(table["how to get it"].str.contains("load_corpus"))


def test_figures_show_the_tables():
    bars = label_counts(label_table(CORPUS), "own").axes[0].containers[0]
    assert [bar.get_width() for bar in bars] == [12, 24]
    assert len(edit_sizes(size_table(CORPUS), "own").axes) == 3
    modify = operation_shares(operation_table(CORPUS), "own").axes[0].containers[2]
    assert [bar.get_width() for bar in modify] == [1.0, 0.75]
    floor = operation_floor(CORPUS)
    figure = confusions([r.intention for r in VALIDATION], {"floor": floor.predictions}, CORPUS.labels)
    assert figure.axes[0].collections[0].get_array().sum(axis=1).tolist() == [100, 100]
    assert floor_table([floor]).loc["operation", "macro F1"] == floor.macro_f1
