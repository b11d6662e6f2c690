"""The synthetic corpus is balanced, disjoint, short, deterministic; its record solves it, its edited words do not."""

import math
import time
from collections import Counter

import numpy as np
import pytest

from irtuning.corpora.base import SPLITS
from irtuning.corpora.synthetic import LABELS, OPENERS, SHARED, SIZES, WORDS, Word, kinds, load_synthetic
from irtuning.corpora.edits import edit_of
from irtuning.errors import InputError
from irtuning.corpora.floors import edit_aware_floor, length_floor, macro_f1, operation_floor

CHECKSUM = "c7b3e4e2ea1189a0ecc0c4e914a228decf05bc21479df76340bd28b3184883bb"
SEEDS = (0, 1, 2)
CORPORA = {(noise, seed): load_synthetic(noise=noise, seed=seed) for noise in (0, 0.03) for seed in SEEDS}
CLEAN, NOISY = CORPORA[0, 0], CORPORA[0.03, 0]


def rows(corpus=CLEAN):
    return [r for split in SPLITS for r in corpus.split(split)]


def content_words(split: str) -> set[str]:
    """The words that fill slots in a split, closed-class ones left out."""
    slots = [slot for r in CLEAN.split(split) for slot in r.extra["words"].items()]
    return {part for slot, word in slots if slot[0] not in SHARED for part in word.split(":")}


def test_the_corpus_says_what_it_is():
    assert (NOISY.name, NOISY.synthetic, NOISY.licence) == ("synthetic", True, "Apache-2.0")
    assert NOISY.labels == LABELS == ("clarity", "fluency", "coherence", "style", "meaning-changed")
    assert {split: len(NOISY.split(split)) for split in SPLITS} == SIZES


def test_seed_0_is_pinned():
    assert load_synthetic().checksum == CHECKSUM


def test_seeds_and_noise_change_the_corpus_and_nothing_else_does():
    assert load_synthetic(seed=1).checksum == CORPORA[0.03, 1].checksum
    assert len({corpus.checksum for corpus in CORPORA.values()}) == len(CORPORA)


def test_generation_takes_under_a_second():
    start = time.process_time()
    load_synthetic(seed=5)
    assert time.process_time() - start < 1


@pytest.mark.parametrize("split", SPLITS)
def test_intentions_are_equally_frequent_and_kinds_within_them(split):
    size = SIZES[split] // len(LABELS)
    assert Counter(r.intention for r in CLEAN.split(split)) == dict.fromkeys(LABELS, size)
    for label in LABELS:
        counts = Counter(r.extra["kind"] for r in CLEAN.split(split) if r.intention == label)
        assert len(counts) >= 6
        assert max(counts.values()) - min(counts.values()) <= 1


def test_a_kind_of_edit_belongs_to_one_intention():
    names = [kind.name for kind in kinds()]
    assert len(set(names)) == len(names) == 45


def test_templates_are_disjoint_between_splits():
    used = {split: {r.extra["template"] for r in CLEAN.split(split)} for split in SPLITS}
    assert all(used.values())
    assert not used["train"] & used["validation"] and not (used["train"] | used["validation"]) & used["test"]
    assert all(r.group == r.extra["template"] for r in rows())
    assert all(len(kind.templates["train"]) >= 2 for kind in kinds())


def test_content_words_are_disjoint_between_splits():
    """Words of people, things, places, names, adjectives and verbs; the openers too."""
    used = {split: content_words(split) for split in SPLITS}
    assert all(len(words) > 30 for words in used.values())
    assert not used["train"] & used["validation"] and not (used["train"] | used["validation"]) & used["test"]
    openers = [{opener for opener in OPENERS[split].split("|") if opener} for split in SPLITS]
    assert sum(map(len, openers)) == len(set.union(*openers))


def test_every_split_has_every_type_of_content_word():
    assert len({frozenset(WORDS[split]) for split in SPLITS}) == 1


def test_the_same_kinds_occur_in_every_split():
    found = [{r.extra["kind"] for r in CLEAN.split(split)} for split in SPLITS]
    assert found[0] == found[1] == found[2] == {kind.name for kind in kinds()}


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.03, 0.05])
def test_noise_replaces_that_share_of_labels_and_records_it(noise):
    noisy = load_synthetic(noise=noise)
    for split in SPLITS:
        wrong = [r for r in noisy.split(split) if r.intention != r.extra["true_intention"]]
        assert len(wrong) == round(noise * SIZES[split])
        assert wrong == [r for r in noisy.split(split) if r.extra["noisy"]]


def test_noise_changes_labels_only():
    assert [(r.id, r.before, r.after, r.extra["true_intention"]) for r in rows(NOISY)] == [
        (r.id, r.before, r.after, r.intention) for r in rows(CLEAN)
    ]


@pytest.mark.parametrize("noise", [-0.01, 0.051, 0.5, 1, math.nan])
def test_other_noise_is_refused(noise):
    with pytest.raises(InputError, match="share of the labels from 0 to 0"):
        load_synthetic(noise=noise)


@pytest.mark.parametrize("corpus", CORPORA.values(), ids=map(str, CORPORA))
def test_texts_are_tidy_and_different(corpus):
    pairs = [(r.before, r.after) for r in rows(corpus)]
    assert len(set(pairs)) == len(pairs)
    assert all(before != after for before, after in pairs)
    for text in filter(None, (text for pair in pairs for text in pair)):
        assert text[0].isupper() or text[0].isdigit()
        assert text[-1] in ".!?"
        assert not set("[]{}()<>|/:~") & set(text.replace(": ", " ")), text
        assert text == " ".join(text.split()) and " ," not in text and " ." not in text


def test_prompts_are_short():
    words = [len(r.before.split()) + len(r.after.split()) for r in rows()]
    assert np.percentile(words, 95) <= 42
    assert max(words) <= 60


@pytest.mark.parametrize("label", LABELS)
def test_every_intention_lengthens_shortens_adds_or_deletes(label):
    own = [r for r in CLEAN.train if r.intention == label]
    differences = np.array([len(r.after.split()) - len(r.before.split()) for r in own if r.operation == "modify"])
    assert min((differences > 0).mean(), (differences < 0).mean()) > 0.03
    assert (differences == 0).mean() > 0.2
    assert sum(r.operation != "modify" for r in own) >= 25


def test_additions_and_deletions_occur_under_several_intentions():
    for operation in ("add", "delete"):
        assert len({r.intention for r in CLEAN.train if r.operation == operation}) >= 4


def bare(words: tuple[str, ...]) -> str:
    """The words without case and end marks; an adjective that fills a slot reads ADJECTIVE."""
    text = " ".join(words).casefold().strip(".,")
    return "ADJECTIVE" if text in WORDS["train"]["a"].split() else text


# Edits that occur word for word under two intentions; only the text around them tells which.
SHARED_EDITS = [
    ("so", "but", {"coherence", "meaning-changed"}),
    ("because", "although", {"coherence", "meaning-changed"}),
    ("painted", "paint", {"fluency", "meaning-changed"}),
    ("not", "", {"fluency", "meaning-changed"}),
    ("only", "", {"fluency", "meaning-changed"}),
    ("really", "", {"fluency", "style"}),
    ("", "ADJECTIVE", {"clarity", "meaning-changed"}),
]


@pytest.mark.parametrize(("deleted", "inserted", "intentions"), SHARED_EDITS)
def test_the_same_edit_occurs_under_several_intentions(deleted, inserted, intentions):
    edits = [(edit_of(r), r.intention) for seed in SEEDS for r in CORPORA[0, seed].train]
    found = {intention for edit, intention in edits if (bare(edit.deleted), bare(edit.inserted)) == (deleted, inserted)}
    assert found >= intentions


def test_frequent_edit_words_settle_no_intention():
    """Of the 30 words most often put in or taken out, four fifths occur under three intentions or more."""
    intentions: dict[tuple[str, str], list[str]] = {}
    for r in CLEAN.train:
        edit = edit_of(r)
        changed = [("put in", word) for word in edit.inserted] + [("taken out", word) for word in edit.deleted]
        for side, word in set(changed):
            intentions.setdefault((side, bare((word,))), []).append(r.intention)
    frequent = sorted(intentions, key=lambda key: (-len(intentions[key]), key))[:30]
    spread = [len(set(intentions[key])) for key in frequent]
    assert sum(found >= 3 for found in spread) >= 24


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("corpus", CORPORA.values(), ids=map(str, CORPORA))
def test_edited_words_and_shape_do_not_solve_it(corpus, split):
    assert 0.4 < edit_aware_floor(corpus, split).macro_f1 <= 0.75
    assert length_floor(corpus, split).macro_f1 <= 0.35
    assert operation_floor(corpus, split).macro_f1 <= 0.35


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_edit_record_solves_it(split):
    counts: dict[str, Counter] = {}
    for r in CLEAN.train:
        counts.setdefault(r.extra["kind"], Counter())[r.intention] += 1
    answers = [counts[r.extra["kind"]].most_common(1)[0][0] for r in CLEAN.split(split)]
    assert macro_f1(LABELS, [r.intention for r in CLEAN.split(split)], answers) >= 0.97


FORMS = {
    "carry": {"s": "carries", "ed": "carried", "article": "a"},
    "wash": {"s": "washes", "ed": "washed", "wrong_article": "an"},
    "engine": {"s": "engines", "article": "an", "wrong_article": "a"},
    "store": {"ed": "stored", "misspelt": "stroe"},
    "useful": {"article": "a"},
    "eleven": {"digits": "11"},
    "gave away:donated": {"left": "gave away", "right": "donated"},
}


@pytest.mark.parametrize(("word", "forms"), FORMS.items(), ids=FORMS)
def test_word_forms(word, forms):
    assert {name: getattr(Word(word), name) for name in forms} == forms


def test_no_word_is_misspelt_as_itself():
    words = {part for split in SPLITS for part in content_words(split) if " " not in part}
    assert all(Word(word).misspelt != word for word in words)
