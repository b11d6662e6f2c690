"""Tests of two-way errors, of what is decided by them and of adjusted p values."""

import math

import numpy as np
import pandas
import pytest
from records import LABELS
from records import predicted_run as record

from irtuning.analysis.statistics import (
    against_all, compare_methods, comparisons_table, contributions, f1_of_seeds, holm, mean_of_corpora,
    method_scores, two_way_error,
)  # fmt: skip
from irtuning.errors import InputError
from irtuning.training.metrics import score


def runs(right, method, seeds=(1, 2, 3), folds=(0, 1), **more):
    return [record(method, seed + 10 * fold, right, fold, **more) for fold in folds for seed in seeds]


def renamed(records, **config):
    return [r | {"run": r["run"] | {"config": r["run"]["config"] | config}} for r in records]


def with_chances(records):
    """The same runs with class probabilities: 0.6 for the predicted class, 0.3 for the next, 0.1 for the last."""
    chances = {LABELS[i]: np.roll([0.6, 0.3, 0.1], i).tolist() for i in range(3)}
    return [r | {"predictions": {"test": [row | {"probabilities": chances[row["predicted"]]} for row in r["predictions"]["test"]]}}
            for r in records]  # fmt: skip


# spread between clusters, of a whole run, and of a cell; the standard deviation of the sum follows from them
@pytest.mark.parametrize("spread", [(1, 0, 3), (1, 0.4, 3), (1, 0, 0), (0, 0.5, 1), (0.5, 0, 1)])
@pytest.mark.parametrize(("folds", "seeds", "clusters"), [(1, 10, 70), (5, 2, 17), (5, 4, 60)])
def test_the_two_way_error_recovers_a_known_standard_deviation_within_ten_per_cent(spread, folds, seeds, clusters):
    (between, of_run, of_cell), rng, errors = spread, np.random.default_rng(3), []
    for _ in range(150):
        shape = folds, seeds, clusters
        cells = between * rng.normal(size=(folds, 1, clusters)) + of_run * rng.normal(size=(folds, seeds, 1)) + of_cell * rng.normal(size=shape)
        errors.append(two_way_error([([f"{fold}-{i}" for i in range(clusters)], part) for fold, part in enumerate(cells)]))
    variance = folds * (clusters * between**2 + clusters**2 * of_run**2 / seeds + clusters * of_cell**2 / seeds)
    assert np.mean(errors) == pytest.approx(math.sqrt(variance), rel=0.1)


def test_contributions_of_f1_agree_with_leaving_out_one_writer_at_a_time():
    records = runs([0.9, 0.5, 0.7], "ir", folds=(0, 1))
    whole, cells = contributions(records, "test")
    names, groups = zip(*cells, strict=True), {row["group"] for r in records for row in r["predictions"]["test"]}
    sums = {name: value for of, part in cells for name, value in zip(of, part.mean(0), strict=True)}
    assert len(groups) == 24 and names
    left = {name: contributions([r | {"predictions": {"test": [row for row in r["predictions"]["test"] if row["group"] != name]}}
                                 for r in records], "test")[0] for name in sorted(groups)}  # fmt: skip
    jackknife = math.sqrt(23 / 24 * sum((value - np.mean(list(left.values()))) ** 2 for value in left.values()))
    assert math.sqrt(24 * pandas.Series(sums).var()) == pytest.approx(jackknife, rel=0.03)
    assert all(whole - value == pytest.approx(sums[name], abs=0.003) for name, value in left.items())


def test_two_methods_that_are_one_do_not_differ_and_are_equivalent():
    records = runs([0.7], "ir")
    found = compare_methods(records + renamed(records, method="full"), "ir", "full")
    assert (found.difference, found.error, found.low, found.high, found.p_value, found.equivalent) == (0, 0, 0, 0, 1, True)
    assert (found.clusters, found.runs) == (24, 6)


def test_a_better_method_is_found_and_the_sign_is_its_own():
    records = runs([0.9], "ir") + runs([0.6], "full")
    found, turned = compare_methods(records, "ir", "full"), compare_methods(records, "full", "ir")
    assert found.low > 0.15 and found.p_value < 0.01 and not found.equivalent
    assert turned.difference == pytest.approx(-found.difference) and turned.high == pytest.approx(-found.low)
    assert found.detectable == pytest.approx(2.8016 * found.error, rel=1e-4)  # 1.9600 + 0.8416
    first_of_twelve = compare_methods(records, "ir", "full", tests=12)
    assert first_of_twelve.detectable == pytest.approx((2.8653 + 0.8416) * found.error, rel=1e-4)


def test_writers_that_differ_make_the_interval_wider_than_items_would():
    """Half of the writers gain and half lose: items alone would hide how much depends on who is asked."""
    uneven = compare_methods(runs([0.95, 0.35], "ir") + runs([0.35, 0.95], "full"), "ir", "full")
    even = compare_methods(runs([0.65], "ir") + runs([0.65], "full"), "ir", "full")
    assert uneven.high - uneven.low > 2 * (even.high - even.low)


def test_an_interval_covers_no_difference_about_nineteen_times_in_twenty():
    covered = 0
    for trial in range(100):
        records = [record(m, 100 * trial + s, [0.6], items=10) for m in ("ir", "full") for s in range(5)]
        result = compare_methods(records, "ir", "full")
        covered += result.low <= 0 <= result.high
    assert covered >= 88  # 95 expected; fewer than 88 of 100 has a probability of 0.2 %


def test_the_estimate_is_macro_f1_of_the_mean_counts_pooled_over_folds():
    records = runs([0.7], "ir", seeds=(1,))
    rows = [row for r in records for row in r["predictions"]["test"]]
    chances = np.array([[float(row["predicted"] == label) for label in LABELS] for row in rows])
    expected = score([LABELS.index(row["intention"]) for row in rows], chances, LABELS)["macro_f1"]
    assert contributions(records, "test")[0] == pytest.approx(expected)
    confusions = np.zeros((1, 1, 3, 3))
    for row in rows:
        confusions[0, 0, LABELS.index(row["intention"]), LABELS.index(row["predicted"])] += 1
    assert f1_of_seeds(confusions, np.ones((1, 1)))[0, 0] == pytest.approx(expected)
    table = method_scores(records + runs([0.5], "full", seeds=(1, 2, 3)))
    assert table.macro_f1[0] == pytest.approx(expected) and math.isnan(table.low[0]) and table.low[1] < table.macro_f1[1]


def test_average_precision_is_that_of_the_runs_and_its_error_that_of_their_writers():
    better, worse = with_chances(runs([0.9, 0.7], "ir")), with_chances(runs([0.6], "full"))
    found = compare_methods(better + worse, "ir", "full", metric="auprc")
    of = [[score([LABELS.index(row["intention"]) for row in r["predictions"]["test"]], np.array([row["probabilities"] for row in r["predictions"]["test"]]), LABELS)["auprc"]
           for r in part] for part in (better, worse)]  # fmt: skip
    assert found.difference == pytest.approx(np.mean(of[0]) - np.mean(of[1])) and found.low > 0
    assert 0.003 < found.error < 0.03
    with pytest.raises(InputError, match="no class probabilities"):
        compare_methods(runs([0.9], "ir") + runs([0.6], "full"), "ir", "full", metric="auprc")


def test_fewer_than_five_runs_or_writers_get_no_interval():
    few = [record(m, seed, [0.7]) for m in ("ir", "full") for seed in range(4)]
    found = compare_methods(few, "ir", "full")
    assert math.isnan(found.low) and math.isnan(found.high) and found.error > 0


def test_what_cannot_be_compared_is_said():
    records = runs([0.7], "ir") + runs([0.5], "full")
    with pytest.raises(InputError, match="do not have the same folds and seeds"):
        compare_methods(records[:-1], "ir", "full")
    with pytest.raises(InputError, match="train it with score_test"):
        compare_methods(records, "ir", "full", split="validation")
    with pytest.raises(InputError, match="several corpora or models"):
        compare_methods(records + renamed(records, model="n"), "ir", "full")
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
    table = comparisons_table(records, against_all(records))
    assert list(table.against) == ["full", "rst"] and (table.p_holm >= table.p_value).all()
    assert table.p_holm[0] == pytest.approx(2 * table.p_value[0])
    assert table.detectable[0] == compare_methods(records, "ir", "full", tests=2).detectable
    table = comparisons_table(records + renamed(records, model="n"), [("ir", "full")])
    assert table.model.tolist() == ["m", "n"] and table.difference.nunique() == 1


def test_the_mean_of_two_corpora_has_the_error_of_their_sum():
    records = runs([0.9], "ir") + runs([0.6], "full") + renamed(runs([0.7], "ir") + runs([0.5, 0.6], "full"), corpus="other")
    table = comparisons_table(records, [("ir", "full")])
    (mean,) = mean_of_corpora(table).itertuples()
    assert mean.difference == pytest.approx(table.difference.mean()) and mean.clusters == 48 and mean.runs == 12
    assert mean.error == pytest.approx(math.hypot(*table.error) / 2) and mean.low < mean.difference < mean.high


def test_a_run_is_found_by_its_title():
    records = runs([0.9], "ir") + renamed(runs([0.7], "ir"), adapter="dora")
    assert compare_methods(records, "ir", "ir, dora").difference > 0.1
