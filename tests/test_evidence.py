"""Paired differences, verdicts and costs on hand-made records; the store of many records."""

import json

import pytest

from irtuning.comparison.runs import with_budget
from irtuning.training.config import RunConfig
from irtuning.errors import InputError
from irtuning.analysis.convergence import best_rates, paired_differences, step_cost, steps_to_loss
from irtuning.analysis.figures import (
    convergence,
    depth_and_time,
    difference_forest,
    score_by_size,
    score_comparison,
    step_memory,
)
from irtuning.training.run import train
from irtuning.companion.archive import read_store, write_store
from irtuning.analysis.tables import label, summary_table

METRICS = ("macro_f1", "macro_precision", "macro_recall", "auprc", "accuracy")


def record(
    method, score, fold=0, seed=1, corpus="argrewrite", losses=(3.0, 2.0, 1.0), layers=((0, 1, 2),) * 3, **config
):
    """A record with what tables read, three steps long, of a model with three layers of 10, 10 and 20 parameters."""
    settings = {"corpus": corpus, "model": "mini", "method": method, "fold": fold, "seed": seed, "adapter": "lora",
                "head": "learns", "train_share": 1.0, "max_steps": 3, "share": None} | config  # fmt: skip
    steps = [
        {"step": i + 1, "loss": loss, "layers": list(chosen)}
        for i, (loss, chosen) in enumerate(zip(losses, layers, strict=True))
    ]
    return {
        "run": {"config": settings, "synthetic_corpus": corpus == "synthetic", "random_weights": False, "depth": 3,
                "parameters": 1_000_000, "candidate_layers": [0, 1, 2], "layer_parameters": [10, 10, 20],
                "split_sizes": {"train": 100}, "labels": ["a", "b"]},
        "train": {"steps": steps, "validation": [{"step": 3, "macro_f1": score}]},
        "scores": {"validation": dict.fromkeys(METRICS, score)},
        "meta": {"step_seconds": [0.1, 0.2, 0.3], "device": "CPU", "peak_memory_bytes": 5, "peak_memory_kind": "resident"},
    }  # fmt: skip


def folds(method, scores, **more):
    return [record(method, score, fold, **more) for fold, score in enumerate(scores)]


def test_the_best_rate_is_the_one_with_the_highest_mean_over_corpora_and_the_lower_of_equals():
    scores = {("ir", 1e-3): (0.4, 0.6), ("ir", 2e-3): (0.7, 0.3), ("full", 1e-3): (0.1, 0.2), ("full", 2e-3): (0.2, 0.3)}
    runs = [record(method, score, corpus=corpus, learning_rate=rate)
            for (method, rate), found in scores.items() for corpus, score in zip(("argrewrite", "arxivedits"), found)]  # fmt: skip
    table = best_rates(runs)
    assert table.best.to_dict() == {"ir": "0.001", "full": "0.002"} and set(table.runs) == {4}
    assert table.loc["full", 2e-3] == pytest.approx(0.25)


def test_differences_are_paired_by_fold_and_seeds_are_averaged_first():
    runs = folds("ir", (0.5, 0.6, 0.7)) + folds("ir", (0.7, 0.8, 0.9), seed=2) + folds("rst", (0.5, 0.6, 0.7))
    (row,) = paired_differences(runs).to_dict("records")
    assert row["difference"] == pytest.approx(0.1) and row["units"] == "3 folds"
    assert row["low"] == pytest.approx(0.1) and row["high"] == pytest.approx(0.1)  # the same gap on every fold
    single = [record("ir", s, seed=i) for i, s in enumerate((0.4, 0.6))] + [record("rst", 0.4, seed=i) for i in (0, 1)]
    (row,) = paired_differences(single).to_dict("records")
    # mean 0.1, standard error 0.1, t quantile of one degree of freedom 12.706
    assert row["units"] == "2 seeds" and row["high"] - row["difference"] == pytest.approx(1.2706, abs=1e-3)


def test_steps_to_the_loss_of_full_peft():
    runs = [record("full", 0.5, losses=(3.0, 2.0, 1.5)), record("ir", 0.5, losses=(3.0, 1.5, 1.0))]
    runs += [record("rst", 0.5, losses=(3.0, 2.9, 2.8))]
    table = steps_to_loss(runs, smooth=1)
    assert table.steps["full"] == 3 and table.steps["ir"] == 2 and table.seconds["ir"] == pytest.approx(0.3)
    assert table.reached["rst"] == 0 and table.steps.isna()["rst"]


def test_cost_counts_what_learns_what_ever_learned_and_the_lowest_layer():
    table = step_cost([record("ir", 0.5, layers=((0,), (2,), (2,)))])
    assert table.gradient_bytes["ir"] == pytest.approx(4 * (10 + 20 + 20) / 3)
    assert table.optimizer_bytes["ir"] == 8 * 30
    assert table.differentiated_layers["ir"] == pytest.approx((3 + 1 + 1) / 3)
    assert table.milliseconds_per_step["ir"] == 200


def test_an_equal_budget_is_a_share_of_the_layers_that_can_learn():
    leader = record("ir", 0.5, layers=((0,), (1,), (1,)))
    leader["run"]["candidate_layers"] = [0, 1]
    assert with_budget(RunConfig(method="rst"), leader).share == 0.5


def test_labels_tell_what_sets_runs_apart_and_corpora_get_rows_of_their_own():
    base = record("ir", 0.5)["run"]["config"]
    assert label(base) == "ir" and label(base | {"adapter": "dora"}) == "ir, dora"
    assert label(base | {"head": "frozen", "train_share": 0.25}) == "ir, head frozen, 25% of train"
    runs = folds("ir", (0.5, 0.6)) + folds("ir", (0.1, 0.2), corpus="arxivedits", max_steps=4)
    table = summary_table(runs)
    assert table.macro_f1["argrewrite", "ir"] == pytest.approx(0.55) and len(table) == 2
    assert len(summary_table(folds("ir", (0.5,), epochs=2.75) + folds("ir", (0.6,), epochs=2.76))) == 1  # folds differ in size
    assert len(summary_table(folds("ir", (0.5,)) + folds("ir", (0.6,), model="large", max_steps=4))) == 2  # batches differ too
    with pytest.raises(InputError, match="runs differ in max_steps"):
        summary_table(folds("ir", (0.5,)) + folds("rst", (0.5,), max_steps=4))


def test_figures_show_what_their_tables_say():
    runs = folds("ir", (0.5, 0.6, 0.7)) + folds("rst", (0.4, 0.4, 0.4))
    floors = [{"name": "edit-aware", "corpus": "argrewrite", "fold": 0, "split": "validation", "macro_f1": 0.3}]
    axis = score_comparison(runs, floors).axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["ir", "rst"]
    assert any(list(line.get_xdata()) == [0.5, 0.6, 0.7] for line in axis.lines)
    assert any(list(line.get_xdata()) == [0.3, 0.3] for line in axis.lines)
    middle = difference_forest(runs).axes[0].lines[1]
    assert middle.get_xdata()[0] == pytest.approx(0.2)
    assert convergence(runs, smooth=1).axes[0].lines[0].get_ydata().tolist() == [3, 2, 1]
    assert step_memory(runs).axes[0].patches[0].get_width() == pytest.approx(160e-6)
    assert depth_and_time(runs).axes[0].collections[0].get_offsets().tolist() == [[3.0, 200.0]]
    part = folds("ir", (0.2, 0.4), train_share=0.5)
    for run in part:
        run["run"]["split_sizes"]["train"] = 50
    line = score_by_size(runs[:3] + part).axes[0].lines[0]
    assert line.get_xdata().tolist() == [50, 100] and line.get_ydata().tolist() == pytest.approx([0.3, 0.6])


def test_a_stored_study_comes_back_but_for_rounding(tmp_path):
    common = {"model": "tiny-random", "max_steps": 3, "batch_size": 4, "device": "cpu", "progress": False}
    runs = [train(method=method, **common).record for method in ("ir", "full")]
    floors = [{"name": "operation", "corpus": "synthetic", "fold": 0, "split": "validation", "macro_f1": 0.1}]
    write_store(
        tmp_path, {"methods": {"records": runs, "floors": floors}, "sizes": {"records": runs[:1], "floors": []}}
    )
    found, found_floors = read_store(tmp_path, "methods")
    assert found_floors == floors and len(read_store(tmp_path, "sizes")[0]) == 1
    for one, other in zip(runs, found, strict=True):
        assert json.loads(json.dumps(one["run"])) == other["run"] and one["scores"] == other["scores"]
        assert [s["layers"] for s in one["train"]["steps"]] == [s["layers"] for s in other["train"]["steps"]]
        assert other["train"]["steps"][1]["loss"] == pytest.approx(one["train"]["steps"][1]["loss"], rel=1e-3)
        kept = [{name: v for name, v in r.items() if name != "probabilities"} for r in one["predictions"]["validation"]]
        assert kept == other["predictions"]["validation"]
    assert found[0]["train"]["steps"][0]["scores"] == [None] * 12 and found[1]["train"]["steps"][0]["scores"] is None
    assert summary_table(found).macro_f1.tolist() == summary_table(runs).macro_f1.tolist()
    assert read_store(tmp_path, "adapters") == ([], []) == read_store(tmp_path / "none", "methods")
    (tmp_path / "steps.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="are damaged"):
        read_store(tmp_path, "methods")
