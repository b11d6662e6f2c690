"""The synthetic corpus: the shipped file is what its generator writes; it is balanced, disjoint, and not easy."""

import importlib
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from irtuning.companion.paths import REPOSITORY
from irtuning.corpora.base import SPLITS
from irtuning.corpora.floors import edit_aware_floor, macro_f1, operation_floor
from irtuning.corpora.load import load_corpus
from irtuning.corpora.tabular import ITERATER_LABELS as LABELS
from irtuning.corpora.tabular import SYNTHETIC_FILE

GENERATOR = REPOSITORY / "reports" / "synthetic" / "generate.py"
CHECKSUM = "c7b3e4e2ea1189a0ecc0c4e914a228decf05bc21479df76340bd28b3184883bb"
CORPUS = load_corpus("synthetic")
ROWS = [r for split in SPLITS for r in CORPUS.split(split)]


def test_the_corpus_is_the_recorded_one_that_the_generator_writes_and_says_what_it_is(tmp_path):
    assert CORPUS.checksum == CHECKSUM
    assert (CORPUS.name, CORPUS.synthetic, CORPUS.licence, CORPUS.labels) == ("synthetic", True, "Apache-2.0", LABELS)
    assert {split: len(CORPUS.split(split)) for split in SPLITS} == {"train": 1600, "validation": 200, "test": 200}
    subprocess.run([sys.executable, GENERATOR, tmp_path / "made.csv"], check=True)
    assert (tmp_path / "made.csv").read_bytes() == SYNTHETIC_FILE.read_bytes()


@pytest.mark.parametrize("split", SPLITS)
def test_true_intentions_and_their_kinds_are_equally_frequent_and_noise_is_three_percent(split):
    rows = CORPUS.split(split)
    assert Counter(r.extra["true_intention"] for r in rows) == dict.fromkeys(LABELS, len(rows) // 5)
    for label in LABELS:
        counts = Counter(r.extra["kind"] for r in rows if r.extra["true_intention"] == label)
        assert len(counts) >= 6 and max(counts.values()) - min(counts.values()) <= 1
    assert sum(r.intention != r.extra["true_intention"] for r in rows) == round(0.03 * len(rows))


def test_splits_share_kinds_of_edit_but_no_template_and_no_content_word(monkeypatch):
    monkeypatch.syspath_prepend(GENERATOR.parent)
    generator = importlib.import_module("generate")
    templates = [{r.group for r in CORPUS.split(split)} for split in SPLITS]
    kinds = [{r.extra["kind"] for r in CORPUS.split(split)} for split in SPLITS]
    assert sum(map(len, templates)) == len(set.union(*templates)) and kinds[0] == kinds[1] == kinds[2]
    assert kinds[0] == {kind.name for kind in generator.kinds()} and len(kinds[0]) == len(generator.kinds()) == 45
    assert len({frozenset(generator.WORDS[split]) for split in SPLITS}) == 1
    entries = [[pair for text in generator.WORDS[split].values() for pair in generator._pool(text)] for split in SPLITS]
    pools = [{word for pair in pairs for word in pair.split(":")} for pairs in entries]
    assert sum(map(len, pools)) == len(set.union(*pools))


def test_texts_are_tidy_short_and_different():
    pairs = [(r.before, r.after) for r in ROWS]
    assert len(set(pairs)) == len(pairs) and all(before != after for before, after in pairs)
    for text in filter(None, (text for pair in pairs for text in pair)):
        assert (text[0].isupper() or text[0].isdigit()) and text[-1] in ".!?"
        assert not set("[]{}()<>|/:~") & set(text.replace(": ", " ")), text
        assert text == " ".join(text.split()) and " ," not in text and " ." not in text
    words = [len(f"{before} {after}".split()) for before, after in pairs]
    assert np.percentile(words, 95) <= 42 and max(words) <= 60


@pytest.mark.parametrize("split", ["validation", "test"])
def test_edited_words_do_not_solve_it_and_the_kind_of_edit_does(split):
    assert 0.4 < edit_aware_floor(CORPUS, split).macro_f1 <= 0.75 and operation_floor(CORPUS, split).macro_f1 <= 0.35
    counts: dict[str, Counter] = {}
    for r in CORPUS.train:
        counts.setdefault(r.extra["kind"], Counter())[r.intention] += 1
    answers = [counts[r.extra["kind"]].most_common(1)[0][0] for r in CORPUS.split(split)]
    assert macro_f1(LABELS, [r.extra["true_intention"] for r in CORPUS.split(split)], answers) >= 0.97
