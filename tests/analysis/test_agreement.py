"""Agreement of annotators against other implementations, and what it refuses."""

import numpy as np
import pandas
import pytest
from sklearn.metrics import cohen_kappa_score

from irtuning.analysis.agreement import agreement
from irtuning.errors import InputError

LABELS = ["a", "b", "c"]


def fleiss_kappa(codes, count):
    """Return Fleiss' kappa by the formula of 1971, from codes of shape (items, annotators)."""
    given = np.array([np.bincount(row, minlength=count) for row in codes])
    people = codes.shape[1]
    alike = ((given**2).sum(1) - people) / (people * (people - 1))
    chance = ((given.sum(0) / given.sum()) ** 2).sum()
    return (alike.mean() - chance) / (1 - chance)


def answers(items=200, people=3, right=0.7, seed=0):
    rng, rows = np.random.default_rng(seed), []
    for item, true in enumerate(rng.choice(LABELS, items, p=[0.6, 0.3, 0.1])):
        for person in range(people):
            label = true if rng.random() < right else rng.choice(LABELS)
            rows.append({"id": f"i{item}", "annotator": f"p{person}", "label": label, "before": f"b{item}", "note": ""})
    return pandas.DataFrame(rows)


@pytest.mark.parametrize("people", [2, 3])
def test_kappas_are_those_of_scikit_learn_and_of_the_human_ceiling(people):
    given = answers(people=people)
    table, wide = agreement(given, LABELS, draws=50), given.pivot(index="id", columns="annotator", values="label")
    pairs = [(a, b) for a in range(people) for b in range(a)]
    for name in ("all", *LABELS):
        of = wide if name == "all" else wide == name
        codes = of.apply(lambda column: column.map({"a": 0, "b": 1, "c": 2, False: 0, True: 1})).to_numpy().astype(int)
        expected = np.mean([cohen_kappa_score(codes[:, a], codes[:, b]) for a, b in pairs])
        assert table.cohen[name] == pytest.approx(expected, abs=1e-12)
        assert table.fleiss[name] == pytest.approx(fleiss_kappa(codes, codes.max() + 1), abs=1e-12)
        assert table.agreement[name] == pytest.approx(np.mean([(codes[:, a] == codes[:, b]).mean() for a, b in pairs]))
    assert table["items"]["all"] == 200 and table["items"]["c"] == (wide == "c").any(axis=1).sum()


def test_intervals_hold_the_true_value_as_often_as_they_say():
    truth = agreement(answers(items=20_000, people=2, seed=99), LABELS, draws=2).loc["all"]
    tables = [agreement(answers(items=100, people=2, seed=seed), LABELS, draws=200).loc["all"] for seed in range(60)]
    for name in ("agreement", "cohen", "fleiss"):
        held = sum(table[f"{name}_low"] <= truth[name] <= table[f"{name}_high"] for table in tables)
        assert 52 <= held, name  # 57 in the mean


def test_groups_are_drawn_as_a_whole_and_few_have_no_interval():
    given = answers(items=60, people=2, right=0.6, seed=3)
    alone = agreement(given, LABELS, draws=300).loc["all"]
    copies = pandas.concat([given.assign(id=f"copy{i}-" + given.id, group=given.id) for i in range(9)])
    grouped, free = agreement(copies, LABELS, draws=300).loc["all"], agreement(copies.drop(columns="group"), LABELS, draws=300).loc["all"]
    for name in ("agreement", "cohen", "fleiss"):
        width, narrow = grouped[f"{name}_high"] - grouped[f"{name}_low"], free[f"{name}_high"] - free[f"{name}_low"]
        assert grouped[name] == pytest.approx(alone[name]) and 2.4 < width / narrow < 3.6, name  # the root of nine is 3
        assert (grouped[f"{name}_low"], grouped[f"{name}_high"]) == pytest.approx((alone[f"{name}_low"], alone[f"{name}_high"]), abs=0.03)
    part = agreement(given.assign(group=given.id.where(given.id < "i3")), LABELS, draws=300)  # some have none
    assert part.cohen_low["all"] == pytest.approx(alone.cohen_low)
    few = agreement(given.assign(group=["w1", "w1", "w2", "w2"] * 30), LABELS, draws=50)
    assert few.cohen_low.isna().all() and few.cohen.notna().all()


def test_full_agreement_and_a_label_that_nobody_gives():
    table = agreement(answers(right=1.0), [*LABELS, "never"], draws=20)
    assert table.loc["all":"c", ["cohen", "cohen_low", "cohen_high", "fleiss", "fleiss_low"]].to_numpy() == pytest.approx(1)
    assert np.isnan(table.cohen["never"]) and np.isnan(table.fleiss_high["never"]) and table.agreement["never"] == pytest.approx(1) and table["items"]["never"] == 0


@pytest.mark.parametrize(("change", "message"), [
    (lambda t: t[t.annotator == "p0"], "1 annotator"), (lambda t: t.assign(label="A"), "unknown label of an annotator 'A'"),
    (lambda t: t.assign(id=t.id + t.annotator), "no item in common"), (lambda t: pandas.concat([t, t[:1]]), "two answers with one id"),
])  # fmt: skip
def test_what_cannot_be_compared_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        agreement(change(answers()), LABELS)
