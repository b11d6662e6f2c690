"""The plan's rules on hand-made records: who is better, not worse, faster, smaller; what a mistake and a run cost."""

import sys

import numpy as np
import pandas
import pytest
from records import predicted_run

from irtuning.analysis.figures.runs import score_comparison
from irtuning.analysis.tables import models_of
from irtuning.companion.paths import REPOSITORY
from irtuning.companion.profiles import VARIANT
from irtuning.errors import InputError

sys.path.append(str(REPOSITORY / "reports" / "study" / "first"))
import first_edition as study  # noqa: E402

ALIKE = dict.fromkeys(("ir", "full", "rst", "ist", "lisa-adapters", "last-k", "random-counts", "full-ft"), 0.6)  # how often each is right


def record(method, right, seed=1, fold=0, corpus="argrewrite", share=1.0, losses=None, peak=100, kind="GPU allocated by this run", rate=1e-3):
    """Return a run whose predictions are right with the probability `right`, with what the other tables read."""
    predicted = predicted_run(method, seed, [right], fold, corpus=corpus)
    rng = np.random.default_rng([seed, fold, len(method)])
    scores = dict.fromkeys(("macro_f1", "macro_precision", "macro_recall", "auprc", "accuracy"), right + rng.normal(0, 0.01))
    config = {"method": method, "seed": seed, "fold": fold, "corpus": corpus, "model": "mini", "train_share": share,
              "learning_rate": rate}
    losses = losses or [3.0, 2.0, 1.0]
    steps = [{"step": i + 1, "loss": loss, "layers": [0, 2]} for i, loss in enumerate(losses)]
    return {
        "run": predicted["run"] | {"synthetic_corpus": corpus == "synthetic", "random_weights": False, "parameters": 2_300_000, "config": config,
                                   "layer_parameters": [100_000] * 3, "depth": 3, "candidate_layers": [0, 1, 2], "split_sizes": {"train": int(100 * share)}},
        "train": {"steps": steps, "validation": [{"step": i + 1, "loss": loss} for i, loss in enumerate(losses)]},
        "scores": {"validation": scores, "test": scores, "test_scored": 1},
        "predictions": predicted["predictions"],
        "meta": {"step_seconds": [0.1] * len(losses), "peak_memory_bytes": (peak + rng.integers(3)) * 2**20, "peak_memory_kind": kind},
    }


def runs(right, corpora=("argrewrite", "arxivedits"), **more):
    """Two seeds on five folds of each corpus, for every method and how often it is right."""
    return [record(method, chance, seed + 2 * fold, fold, corpus, **more)
            for corpus in corpora for method, chance in right.items() for fold in range(5) for seed in (1, 2)]  # fmt: skip


def verdicts(scores, loss=(-9.0, -1.0), steps=(-9.0, -1.0), memory=(-9.0, -1.0), peft=(-0.4, -0.35), choice=(4, 4, 9), small=(0.1, 0.2), equal=True):
    """The verdicts when the other tables hold these intervals."""
    words = {"corpus": "argrewrite", "loss": "training", "unit": "steps", "share": -0.1, "difference": 0.0, "reached": 1.0, "against": "rst", "equal_rates": equal}
    tables = {name: pandas.DataFrame([words | {"low": low, "high": high, "share_low": low, "share_high": high}])
              for name, (low, high) in {"loss": loss, "convergence": steps, "memory": memory, "peft": peft}.items()}  # fmt: skip
    tables["choice"] = pandas.DataFrame([{"corpus": "argrewrite", "layers": 12, "steady": choice[0], "frozen": choice[1], "changes": choice[2]}])
    tables["sizes"] = pandas.DataFrame({"train": ["5%", "100%"], "against": "full", "difference": [0, 0], "low": [small[0], -9], "high": [small[1], 9]})
    table = study.verdicts(tables | {"scores": scores}, "mini, two corpora", "mini, one corpus")
    assert [text.split(": ")[0] for text in table.verdict] == ["on mini, two corpora"] * 7 + ["on mini, one corpus"]
    return [text.split(": ")[1] for text in table.verdict]


@pytest.mark.parametrize(("changed", "said"), [({"ir": 0.9}, "consistent"), ({}, "inconclusive"), ({"ir": 0.9, "last-k": 0.97}, "inconsistent"),
                                               ({"ir": 0.9, "full": 0.99}, "consistent")])  # fmt: skip
def test_better_means_better_than_every_papers_baseline_on_every_corpus(changed, said):
    table = study.primary_comparisons(runs(ALIKE | changed))
    assert len(table) == 12 and verdicts(table)[0] == said and (table.p_holm >= table.p_value).all()


def test_intervals_on_all_corpora_decide_a_claim_which_names_what_it_is_about_and_what_was_not_run():
    records = runs(ALIKE | {"ir": 0.9}, ("argrewrite",)) + runs(ALIKE, ("arxivedits",))  # one corpus is not enough
    table = study.primary_comparisons(records)
    assert verdicts(table) == ["inconclusive"] * 2 + ["consistent"] * 6
    turned = verdicts(table, loss=(1, 2), steps=(-1, 1), memory=(1, 2), peft=(-0.26, -0.24), choice=(0, 0, 0), small=(-0.1, 0.1))
    assert turned[2:] == ["inconsistent", "inconclusive", "inconsistent", "inconsistent", "inconsistent", "inconclusive"]
    # across learning rates a loss decides nothing, but memory does; a choice that never changes shows half of the claim
    assert verdicts(table, loss=(1, 2), choice=(8, 4, 0), equal=False)[2:7] == ["inconclusive"] * 2 + ["consistent"] * 2 + ["inconclusive"]
    table = study.claims(runs(ALIKE), [])
    assert table.verdict[0] == "on mini (2.0 M parameters), argrewrite and arxivedits: inconclusive"
    assert table.verdict.iloc[-1].endswith(": not run") and table.evidence.iloc[-1] == ""
    assert table.evidence[0].startswith("0 of 8 above zero at 5 %, 0 below it by Holm; ")
    assert models_of([record("full-ft", 0.6)]) == "mini (2.3 M parameters)"  # no adapters to leave out
    half, whole = (runs({"ir": 0.6, "full": 0.5}, ("argrewrite",), share=share) for share in (0.5, 1.0))
    assert study.claims(runs(ALIKE), whole + half).verdict.iloc[-1] == "on mini (2.0 M parameters), argrewrite: not run"  # its own corpus
    with pytest.raises(InputError, match="needs real corpora"):
        study.claims(runs({"ir": 0.5}, ("synthetic",)), [])


def test_not_worse_by_more_than_the_margin_is_non_inferior():
    table = study.non_inferiority(runs({"ir": 0.7, VARIANT: 0.9, "last-k:share=0.5": 0.3, "last-k:share=0.33": 0.9}, ("argrewrite",)))
    assert table.set_index("method").non_inferior.to_dict() == {VARIANT: True, "last-k:share=0.5": False, "last-k:share=0.33": True}
    assert not {"p_value", "p_holm"} & set(table)
    records = runs({"ir": 0.7, VARIANT: 0.6, "last-k:share=0.5": 0.6, "last-k:share=0.33": 0.6}, ("argrewrite",))
    floors = [{"name": "edit-aware", "corpus": "argrewrite", "split": split, "macro_f1": f1} for split, f1 in (("validation", 0.1), ("test", 0.2))]
    (axis,) = score_comparison(records, floors, split="test").axes  # takes the floors of its split
    assert axis.get_xlabel() == "test macro F1" and [line.get_xdata()[0] for line in axis.lines if line.get_label() == "edit-aware floor"] == [0.2]


def test_convergence_counts_a_run_that_never_gets_there_with_its_whole_length():
    full = [record("full", 0.5, seed, losses=[3.0] * 12 + [1.0] * 10) for seed in (1, 2)]
    fast = [record("ir", 0.5, seed, losses=[3.0] * 2 + [1.0] * 20) for seed in (1, 2)]
    table = study.convergence_differences(full + fast).set_index(["loss", "unit"])
    assert table.difference["training", "steps"] == -10 and table.difference["validation", "steps"] == -10
    assert table.difference["training", "seconds"] == pytest.approx(-1)
    never = [record("ir", 0.5, seed, losses=[3.0] * 22) for seed in (1, 2)]
    table = study.convergence_differences(full + never).set_index(["loss", "unit"])
    assert table.reached["training", "steps"] == 0 and table.difference["training", "steps"] == 0
    assert table.difference["validation", "steps"] == 22 - 13


def test_sizes_are_compared_share_by_share_and_the_slope_is_over_doublings():
    gains = {0.25: 0.3, 0.5: 0.2, 1.0: 0.1}
    records = [r for share, gain in gains.items() for r in runs({"ir": 0.6 + gain, "full": 0.6}, ("argrewrite",), share=share)]
    table = study.size_differences(records).set_index("train")
    assert list(table.index) == ["25%", "50%", "100%", "slope per doubling"]
    assert table.difference["25%"] > table.difference["100%"] > 0 and table.low["25%"] > 0
    assert table.difference["slope per doubling"] == pytest.approx(-0.1, abs=0.01)


def test_memory_is_compared_run_by_run_and_a_run_of_two_experiments_costs_once():
    table = study.memory_differences(runs({"full": 0.5}, peak=200) + runs({"ir": 0.5}, peak=100))
    assert (table.high < -95).all() and table.share.between(-0.52, -0.48).all() and (table.share_low < table.share).all()
    on_cpu = study.memory_differences(runs({"full": 0.5, "ir": 0.5}, kind="resident set of the process"))
    assert on_cpu.difference.isna().all()
    table = study.costs({"methods": runs({"ir": 0.5}), "sizes": runs({"ir": 0.5, "full": 0.5})})
    assert table.runs.to_dict() == {"methods": 20, "sizes": 20, "all": 40}
    assert table.steps["all"] == 120 and table.training_hours["methods"] == pytest.approx(20 * 0.3 / 3600)


def test_the_upper_half_saves_a_share_and_mistakes_are_shares_of_the_intention():
    rows = [("a", "14 scattered", 100, 40), ("a", "14, none below 16", 80, 40), ("b", "14 scattered", 100, 40), ("b", "14, none below 16", 90, 38)]
    steps = pandas.DataFrame(rows, columns=["engine", "layers", "step_ms", "peak_gib"])
    table = study.upper_half_savings(steps).set_index("engine")
    assert table.cheaper.to_dict() == {"a": True, "b": False} and table.time_saved["a"] == pytest.approx(0.2)
    records = [record(m, 0.0, seed) for m in ("ir", "full") for seed in (1, 2)]
    table = study.mistakes(records)
    assert table.share.tolist() == [1, 1, 1] and table.every_run.tolist() == [1, 1, 1]
    half = study.mistakes(records[:2] + [record("full", 1.0, 1)])  # every_run tells what nobody gets right
    assert half.every_run.tolist() == [0, 0, 0]
    assert set(zip(half.intention, half.predicted, strict=True)) == {("a", "b"), ("b", "c"), ("c", "a")}


def test_runs_differ_by_their_own_numbers_and_rates_are_told():
    records = runs({"ir": 0.5}, losses=[1.0] * 12, rate=2e-3) + runs({"full": 0.5, "rst": 0.5}, losses=[3.0] * 12, rate=1e-3)
    table = study.run_differences(records, "loss", [("ir", "full"), ("full", "rst")])
    assert table.difference.tolist() == [-2, 0] * 2 and table.equal_rates.tolist() == [False, True] * 2 and set(table.runs) == {10}
    assert study.run_differences(records, "auprc", [("ir", "full")]).low.notna().all()


def test_what_changes_after_a_quarter_is_counted_by_corpus():
    run = record("ir", 0.5, losses=[1.0] * 8)
    for step, chosen in zip(run["train"]["steps"], [[1]] * 2 + [[0, 2], [0, 2], [0, 1], [0, 2], [0, 2], [0, 2]], strict=True):
        step["layers"] = chosen
    (row,) = study.choice_over_time([run, record("full", 0.5)]).itertuples()
    assert (row.layers, row.steady, row.frozen, row.changes, row.runs) == (3, 1, 0, 2, 1) and row.one_set == pytest.approx(5 / 6)


def test_groups_that_were_validation_items_in_another_fold_are_left_out():
    records = runs({"ir": 0.6, "full": 0.6}, ("argrewrite",))
    for r in records:
        r["predictions"]["validation"] = [{"group": "argrewrite1-0"}, {"group": "argrewrite1-3"}]
    left = {row["group"] for r in study.on_untouched(records) for row in r["predictions"]["test"]}
    assert len(left) == 5 * 12 - 2 and not {"argrewrite1-0", "argrewrite1-3"} & left


def test_the_best_rate_is_the_one_with_the_highest_mean_over_corpora_and_the_lower_of_equals():
    scores = {("ir", 1e-3): (0.4, 0.6), ("ir", 2e-3): (0.7, 0.3), ("full", 1e-3): (0.1, 0.2), ("full", 2e-3): (0.2, 0.3)}
    records = []
    for (method, rate), found in scores.items():
        for corpus, score in zip(("argrewrite", "arxivedits"), found, strict=True):
            made = record(method, 0.5, corpus=corpus, rate=rate)
            made["scores"]["validation"] = dict.fromkeys(made["scores"]["validation"], score)
            records.append(made)
    table = study.best_rates(records)
    assert table.best.to_dict() == {"ir": "0.001", "full": "0.002"} and set(table.runs) == {4}
    assert table.loc["full", 2e-3] == pytest.approx(0.25)


def test_a_t_interval_is_that_of_the_mean_and_needs_five_values():
    # mean 0.2, standard error 0.07071, t quantile of four degrees of freedom 2.7764
    found = study.interval(pandas.Series([0.0, 0.1, 0.2, 0.3, 0.4]))
    assert found["difference"] == pytest.approx(0.2) and found["high"] - 0.2 == pytest.approx(0.19632, abs=1e-4)
    assert found["low"] == pytest.approx(0.4 - found["high"])
    assert np.isnan(study.half_width(pandas.Series([1.0, 2, 3, 4]))) and study.half_width(pandas.Series([1.0, 2, 3, 4, 5])) > 0
