"""The cut: against an independent reading of the reference's description, and what must hold for any scores."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irtuning import InputError, split_scores

finite = st.floats(0, 50, allow_nan=False).map(lambda x: round(x, 3))


def reference_by_hand(scores, splits=1):
    """method.md section 3 step by step, with plain Python numbers."""

    def variance(values):
        mean = math.fsum(values) / len(values)
        return math.fsum((v - mean) ** 2 for v in values) / len(values)

    kept = sorted(range(len(scores)), key=lambda i: (scores[i], i))
    for _ in range(splits):
        if len(kept) < 2:
            break
        s, depth = [scores[i] for i in kept], len(kept)
        sums = [variance(s[:k]) + variance(s[k:]) for k in range(1, depth)]
        middle = sums[int(0.35 * depth) : int(0.65 * depth) + 1]
        kept = kept[sums.index(min(middle)) :]
    return sorted(kept)


@pytest.mark.parametrize("depth", [4, 5, 12, 20, 32, 40])
@pytest.mark.parametrize("splits", [1, 2])
def test_reference_follows_its_description(depth, splits):
    for seed in range(20):
        scores = np.random.default_rng(seed).integers(0, 500, depth).astype(float).tolist()
        assert split_scores(scores, splits=splits) == reference_by_hand(scores, splits)


@pytest.mark.parametrize(("scores", "options", "exact", "reference"), [
    ([1.0] * 6 + [9.0] * 6, {}, [6, 7, 8, 9, 10, 11], [5, 6, 7, 8, 9, 10, 11]),  # one layer more than the best cut
    ([9.0] * 6 + [1.0] * 6, {"keep": "low"}, [6, 7, 8, 9, 10, 11], [6, 7, 8, 9, 10]),
    ([5.0] * 8, {}, [3, 4, 5, 6, 7], list(range(8))),  # an earlier equal value outside the window
    ([0.0, 0.0, 1.0, 1.0, 1.0, 1.0], {"window": (1, 1)}, [2, 3, 4, 5], None),
    ([1.0] * 11 + [100.0], {"window": (10, 10)}, [11], None),
])  # fmt: skip
def test_cuts_by_hand(scores, options, exact, reference):
    assert split_scores(scores, variant="exact", **options) == exact
    assert reference is None or split_scores(scores, **options) == reference
    assert 3 <= len(split_scores([1.0] * 11 + [100.0], variant="exact")) <= 8  # the window bounds the cut


def test_unmeasured_layers():
    scores = [1.0, None, 1.1, None, 5.0, None, 5.1, 1.2]
    assert {1, 3, 5} <= set(split_scores(scores, variant="exact"))
    assert {1, 3, 5} <= set(split_scores(scores))  # counted as 1000
    assert split_scores([None] * 5, variant="exact") == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match="rng"):
        split_scores([None] * 5)
    drawn = split_scores([None] * 32, rng=np.random.default_rng(0))
    assert drawn == split_scores([None] * 32, rng=np.random.default_rng(0)) and 12 <= len(drawn) <= 21
    # the sentinel is a score like any other
    assert split_scores([1000.0, 2000.0, None, 2001.0]) == reference_by_hand([1000, 2000, 1000, 2001])


@given(st.lists(finite | st.none(), min_size=2, max_size=48), st.sampled_from([1, 2, 3]))
def test_any_scores_give_a_proper_choice(scores, splits):
    for variant, keep in itertools.product(("reference", "exact"), ("high", "low")):
        chosen = split_scores(scores, variant=variant, keep=keep, splits=splits, rng=np.random.default_rng(0))
        assert chosen and chosen == sorted(set(chosen)) and set(chosen) <= set(range(len(scores)))
        if variant == "exact":
            assert {i for i, s in enumerate(scores) if s is None} <= set(chosen)
    known = [s for s in scores if s is not None]
    if len(known) >= 2:  # exact keeps the part beyond the cut
        chosen = split_scores(known, variant="exact")
        rest = [s for i, s in enumerate(known) if i not in chosen]
        assert not rest or max(rest) <= min(known[i] for i in chosen)


@pytest.mark.parametrize("call", [
    {"scores": []}, {"variant": "reff"}, {"keep": "top"}, {"splits": 0}, {"scores": [1.0, math.nan, 2.0]},
    {"scores": [1.0, math.inf], "variant": "exact"}], ids=str)  # fmt: skip
def test_bad_input(call):
    with pytest.raises(InputError):
        split_scores(**({"scores": [1.0, 2.0]} | call))
