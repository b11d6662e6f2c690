"""Tests of tables made from hand-made records, and of the figures that show them."""

import pandas
import pytest

from irtuning.analysis.ceiling import ANOTHER
from irtuning.analysis.figures.memory import PARTS, memory_parts
from irtuning.analysis.figures.runs import comparison_forest, convergence, score_comparison
from irtuning.analysis.figures.style import method_colour, title_of
from irtuning.analysis.tables import METRICS, readable, run_title, summary_table
from irtuning.errors import InputError
from irtuning.method import registry
from irtuning.method.strategies import IRTuningStrategy


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
        "predictions": {"validation": [{"id": f"{i}", "group": f"{i}", "intention": "ab"[i % 2], "predicted": "a"} for i in range(6)]},
        "meta": {"step_seconds": [0.1, 0.2, 0.3], "device": "CPU", "peak_memory_bytes": 5, "peak_memory_kind": "resident"},
    }  # fmt: skip


def folds(method, scores, **more):
    return [record(method, score, fold, **more) for fold, score in enumerate(scores)]


def test_a_table_for_readers_has_words_readable_units_and_equal_decimals():
    table = pandas.DataFrame({"macro_f1": [0.5, float("nan")], "peak_bytes": [2**20, 512 * 2**20], "step_ms": [9.0, 352.22], "runs": [1, 2]}, ["a", "b"])
    shown = readable(table)
    assert list(shown) == ["macro F1", "peak (MiB)", "step (ms)", "runs"] and list(shown.index) == ["a", "b"]
    assert shown["macro F1"].tolist() == ["0.500", ""] and shown["peak (MiB)"].tolist() == ["1.0", "512.0"]
    assert shown["step (ms)"].tolist() == ["9.0", "352.2"] and shown.runs.tolist() == [1, 2]


def test_titles_tell_what_sets_runs_apart_and_corpora_get_rows_of_their_own():
    base = record("ir", 0.5)["run"]["config"]
    assert run_title(base) == "ir" and run_title(base | {"adapter": "dora"}) == "ir, dora"
    assert run_title(base | {"head": "frozen", "train_share": 0.25}) == "ir, head frozen, 25% of train"
    assert run_title(base | {"backward": "skip", "idle": "drop"}) == "ir, backward=skip, idle=drop"
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
    people = {"macro_f1": 0.8, "macro_f1_low": 0.75, "macro_f1_high": 0.85, "accuracy": 0.9}
    floors = [row | {"accuracy": 0.4} | more for row, more in zip(floors * 2, ({}, {"name": ANOTHER} | people), strict=True)]
    axis = score_comparison(runs, floors).axes[0]
    assert [patch.get_extents().transformed(axis.transData.inverted()).intervalx.round(6).tolist()
            for patch in axis.patches] == [[0.75, 0.85]]  # fmt: skip
    table = summary_table(runs, floors)
    assert list(table.index) == ["edit-aware floor", ANOTHER, "ir", "rst"] and table.macro_f1[ANOTHER] == 0.8
    assert not score_comparison(runs, floors[:1]).axes[0].patches
    assert [t.get_text() for t in axis.get_yticklabels()] == ["IR-Tuning", "RST"]
    assert any(list(line.get_xdata()) == [0.5, 0.6, 0.7] for line in axis.lines)
    assert any(list(line.get_xdata()) == [0.3, 0.3] for line in axis.lines)
    assert convergence(runs, smooth=1).axes[0].lines[0].get_ydata().tolist() == [3, 2, 1]
    pairs = pandas.DataFrame({"corpus": "c", "method": "ir", "against": ["full", "rst"], "difference": [0.1, 0.2], "low": 0, "high": 0.3})
    axis = comparison_forest(pairs).axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["IR-Tuning − Full PEFT", "IR-Tuning − RST"]
    assert [line.get_xdata()[0] for line in axis.lines if line.get_marker() == "o"] == [0.1, 0.2]


def test_methods_and_corpora_have_full_names_in_figures_and_unknown_ones_keep_theirs():
    names = {"ir": "IR-Tuning", "last-k:share=0.33": "last third", "last-k:share=0.2": "last layers, share=0.2",
             "ir:splits=2, dora": "IR-Tuning, splits=2, dora", "argrewrite, mini": "ArgRewrite, mini", "mine:a=1": "mine, a=1"}  # fmt: skip
    assert {name: title_of(name) for name in names} == names


def test_bars_of_predicted_memory_are_labelled_with_the_peak():
    row = dict.fromkeys(PARTS, 2**30) | {"method": "ir", "model": "m", "batch": 1, "length": 8, "checkpointing": False}
    assert [text.get_text() for text in memory_parts(pandas.DataFrame([row])).axes[0].texts] == ["6.0"]


def test_a_registered_strategy_of_ones_own_has_the_colour_it_states_or_one_made_from_its_name(monkeypatch):
    given = type("Given", (IRTuningStrategy,), {"name": "given", "colour": "#00ff00"})
    derived = type("Derived", (IRTuningStrategy,), {"name": "derived"})
    monkeypatch.setattr(registry, "METHODS", registry.METHODS | {"given": given, "derived": derived})
    assert method_colour("given:splits=2") == method_colour("given, dora") == (0, 1, 0)
    assert method_colour("derived") == method_colour("derived:splits=2")
    assert method_colour("derived") not in {method_colour(kind.name) for kind in registry.BUILT_IN}


def test_a_method_that_is_not_known_here_has_a_colour_of_its_own():
    assert method_colour("mine") == method_colour("mine:size=2, dora") != method_colour("full")
