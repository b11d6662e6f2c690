"""Tests of the bootstrap over writers, of t intervals and of adjusted p values."""

import math

import numpy as np
import pandas
import pytest
from records import LABELS
from records import predicted_run as record

from irtuning.analysis.statistics import (
    against_all, compare_methods, comparisons_table, f1_of_seeds, half_width, holm, interval, paired_confusions,
)  # fmt: skip
from irtuning.errors import InputError
from irtuning.training.metrics import score

def runs(right, method, seeds=(1, 2), folds=(0, 1)):
    return [record(method, seed + 10 * fold, right, fold) for fold in folds for seed in seeds]


def test_two_methods_that_are_one_do_not_differ():
    records = runs([0.7], "ir")
    same = [r | {"run": r["run"] | {"config": r["run"]["config"] | {"method": "full"}}} for r in records]
    found = compare_methods(records + same, "ir", "full", draws=500)
    assert (found.difference, found.low, found.high, found.p_value, found.effect_size) == (0, 0, 0, 1, 0)
    assert (found.clusters, found.seeds) == (24, 2)


def test_a_better_method_is_found_and_the_sign_is_its_own():
    records = runs([0.9], "ir") + runs([0.6], "full")
    found, turned = compare_methods(records, "ir", "full", draws=500), compare_methods(records, "full", "ir", draws=500)
    assert found.low > 0.15 and found.p_value < 0.01 and found.effect_size > 0
    assert turned.difference == pytest.approx(-found.difference)
    assert 0 < found.detectable < found.difference


def test_writers_that_differ_make_the_interval_wider_than_items_would():
    """Half of the writers gain and half lose: items alone would hide how much depends on who is asked."""
    uneven = compare_methods(runs([0.95, 0.35], "ir") + runs([0.35, 0.95], "full"), "ir", "full", draws=1000)
    even = compare_methods(runs([0.65], "ir") + runs([0.65], "full"), "ir", "full", draws=1000)
    assert uneven.high - uneven.low > 2 * (even.high - even.low)


def test_an_interval_covers_no_difference_about_nineteen_times_in_twenty():
    covered = 0
    for trial in range(100):
        records = [record(m, 100 * trial + s, [0.6], items=10) for m in ("ir", "full") for s in (1, 2)]
        result = compare_methods(records, "ir", "full", draws=300)
        covered += result.low <= 0 <= result.high
    assert covered >= 88  # 95 expected; fewer than 88 of 100 has a probability of 0.2 %


def test_pooled_macro_f1_is_that_of_the_scores():
    records = runs([0.7], "ir", seeds=(1,)) + runs([0.5], "full", seeds=(1,))
    first, _, clusters = paired_confusions(records, "ir", "full", "test")
    rows = [row for r in records[:2] for row in r["predictions"]["test"]]
    chances = np.array([[float(row["predicted"] == label) for label in LABELS] for row in rows])
    expected = score([LABELS.index(row["intention"]) for row in rows], chances, LABELS)["macro_f1"]
    assert f1_of_seeds(first, np.ones((1, clusters)))[0, 0] == pytest.approx(expected)


def test_what_cannot_be_compared_is_said():
    records = runs([0.7], "ir") + runs([0.5], "full")
    with pytest.raises(InputError, match="do not have the same folds and seeds"):
        compare_methods(records[:-1], "ir", "full")
    with pytest.raises(InputError, match="train it with score_test"):
        compare_methods(records, "ir", "full", split="validation")
    other = [r | {"run": r["run"] | {"config": r["run"]["config"] | {"model": "n"}}} for r in records]
    with pytest.raises(InputError, match="several corpora or models"):
        compare_methods(records + other, "ir", "full")
    with pytest.raises(InputError, match="ir has several runs of one fold and seed"):
        compare_methods(runs([0.7], "ir") + records, "ir", "ir")
    alone = [record(m, 1, [0.5], writers=1) for m in ("ir", "full")]
    with pytest.raises(InputError, match="1 writer or paper"):
        compare_methods(alone, "ir", "full")


def test_holm_never_orders_otherwise_and_a_table_is_adjusted_as_a_whole():
    p = [0.001, 0.01, 0.02, 0.04, 0.5]
    assert holm(p) == pytest.approx([0.005, 0.04, 0.06, 0.08, 0.5])
    records = runs([0.9], "ir") + runs([0.6], "full") + runs([0.88], "rst")
    assert against_all(records) == [("ir", "full"), ("ir", "rst")]
    table = comparisons_table(records, against_all(records), draws=300)
    assert list(table.against) == ["full", "rst"] and (table.p_holm >= table.p_value).all()
    assert table.p_holm[0] == pytest.approx(2 * table.p_value[0])
    other = [r | {"run": r["run"] | {"config": r["run"]["config"] | {"model": "n"}}} for r in records]
    table = comparisons_table(records + other, [("ir", "full")], draws=300)
    assert table.model.tolist() == ["m", "n"] and table.difference.nunique() == 1


def test_a_t_interval_is_that_of_the_mean():
    # mean 0.1, standard error 0.1, t quantile of one degree of freedom 12.706
    found = interval(pandas.Series([0.0, 0.2]))
    assert found["difference"] == pytest.approx(0.1) and found["high"] - 0.1 == pytest.approx(1.2706, abs=1e-3)
    assert found["low"] == pytest.approx(0.2 - found["high"]) and math.isnan(half_width([1.0]))
