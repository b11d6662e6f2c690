"""Predicted memory, against hand counts, full depth, and what a GPU measured."""

import dataclasses
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from irtuning import (
    InputError, RunConfig, largest_batch, lowest_layer_that_fits, make_strategy, memory_table, predict_memory,
)  # fmt: skip
from irtuning.analysis.figures.memory import memory_parts
from irtuning.cli import app
from irtuning.memory import estimate
from irtuning.memory.estimate import LIBRARY_BYTES, layers_that_learn, trace_layers
from irtuning.memory.fit import setting_that_fits, usable_bytes
from irtuning.memory.predict import PARTS, highest_peaks
from irtuning.memory.tracing import highest
from irtuning.method import registry
from irtuning.method.registry import METHODS
from irtuning.method.strategies import Strategy
from irtuning.models.loading import load_shape
from irtuning.training.prepare import prepare

GIB = 2**30
LLAMA = {"model": "llama-3.1-8b", "batch": 16, "length": 256}
SMALL = {"model": "tiny-random", "batch": 4, "length": 48}


def test_llama_parts_are_the_hand_count():
    found = predict_memory(**LLAMA, method="full", labels=9)
    layer = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 2 * 4096
    frozen = 128256 * 4096 + 32 * layer + 4096 + 9 * 4096  # peft keeps the head as it was beside the one that learns
    inputs, outputs = 4 * 4096 + 14336, 4096 + 2 * 1024 + 14336 + 4096  # of q, k, v, up, down
    learns = 32 * 32 * (inputs + outputs) + 9 * 4096
    assert found.weights == pytest.approx(2 * frozen, abs=2**20)
    assert found.adapters == pytest.approx(4 * learns, abs=2**20)
    assert found.optimizer_state == pytest.approx(8 * learns, abs=2**20)
    assert found.peak_bytes == sum(getattr(found, part) for part in PARTS)
    whole = predict_memory(**LLAMA, method="full-ft", checkpointing=True)
    assert whole.weights / GIB == pytest.approx(2 * 13.98, abs=0.01)
    assert whole.gradients / GIB == pytest.approx(2 * 13.98, abs=0.01)
    assert whole.optimizer_state / GIB == pytest.approx(4 * 13.98, abs=0.01)
    copied = predict_memory(**LLAMA, method="full-ft", checkpointing=True, optimizer="foreach")
    assert copied.temporary / GIB == pytest.approx(2 * 13.98, abs=0.1)


def test_half_of_llama_is_what_an_h200_measured():
    """method.md, section 6: layers 16 to 31 learn, not compiled, no padding: 29.1 GiB (peft's input cast was off)."""
    found = predict_memory(**LLAMA, method="last-k", padded=False)
    assert (found.layers, found.lowest_layer) == (16, 16)
    assert found.peak_bytes / GIB == pytest.approx(29.1, rel=0.02)


@pytest.mark.parametrize(
    ("method", "more"),
    [("ir", {}), ("last-k", {"checkpointing": True}), ("full-ft", {}), ("lisa", {"checkpointing": True}),
     ("ir", {"min_layer": 5, "adapter": "bottleneck"})],
)  # fmt: skip
def test_few_layers_tell_what_full_depth_does(method, more, monkeypatch):
    settings, original = [], estimate.trace_setting
    monkeypatch.setattr(estimate, "trace_setting", lambda setting: settings.append(setting) or original(setting))
    found = predict_memory("mini", method, batch=16, length=128, **more)
    strategy = make_strategy(method)
    strategy.min_layer = more.get("min_layer", 0)
    chosen, _ = layers_that_learn(strategy, 12)
    _, _, segments = trace_layers(settings[0], 12, chosen)
    at_peak = highest(list(segments.values())).sum()
    moving = found.gradients + found.activations + found.temporary - LIBRARY_BYTES
    assert moving == pytest.approx(at_peak, abs=16 * 128 * 256 * 2)  # of some 40 MiB: one layer's output, at the edges


def test_more_layers_tokens_and_examples_need_more_and_checkpointing_less():
    def peak(**change):
        return predict_memory(**(LLAMA | change)).peak_bytes

    assert peak(method="last-k") < peak(method="rst") < peak(method="ir") < peak(method="full") < peak(method="full-ft")
    assert peak(checkpointing=True) < peak() < peak(length=512)
    assert peak(batch=8) < peak()
    assert peak(min_layer=16) < peak(min_layer=8) < peak()
    assert peak(padded=False) < peak()  # no mask, keys and values of the groups not repeated
    assert peak(dropout=0.0) < peak()
    assert peak(batch=16, accumulation=4) == pytest.approx(peak(batch=4), rel=0.02)


@pytest.mark.parametrize("method", [*METHODS, "ir:splits=2", "ir:variant=exact", "ir:refresh_every=3"])
def test_no_method_takes_more_layers_than_assumed(method):
    counts = {"counts": (5,) * 40} if method == "random-counts" else {}
    strategy, rng = make_strategy(method, min_layer=3, **counts), np.random.default_rng(0)
    chosen, ever = layers_that_learn(strategy, 24)
    strategy.begin(21, 40)
    scores = [None] * 21
    for step in range(40):
        drawn = strategy.choose(step, scores, rng)
        assert len(drawn) <= len(chosen) and min(drawn) + 3 >= min(chosen)
        assert {position + 3 for position in drawn} <= set(ever)
        scores = [rng.exponential() if i in drawn else old for i, old in enumerate(scores)]


def test_largest_batch_and_lowest_layer_are_the_last_that_fit():
    card = int(24e9)
    setting = {"model": "llama-3.1-8b", "length": 256}
    batch = largest_batch(card, **setting)
    assert predict_memory(**setting, batch=batch).peak_bytes <= usable_bytes(card)
    assert predict_memory(**setting, batch=batch + 1).peak_bytes > usable_bytes(card)
    layer = lowest_layer_that_fits(card, **LLAMA)
    assert predict_memory(**LLAMA, min_layer=layer).peak_bytes <= usable_bytes(card)
    assert predict_memory(**LLAMA, min_layer=layer - 1).peak_bytes > usable_bytes(card)
    quarters = largest_batch(card, **setting, accumulation=4)
    assert quarters % 4 == 0 and quarters > batch  # a quarter of it at a time
    assert largest_batch(10**9, **setting) == 0 and lowest_layer_that_fits(10**9, **LLAMA) is None


@pytest.mark.parametrize("name", ["qwen3-0.6b", "phi-2", "roberta-base", "modernbert-base"])
def test_every_architecture_traces(name):
    low = predict_memory(name, batch=2, length=32)
    whole = predict_memory(name, batch=2, length=32, precision="fp32", padded=False)
    assert low.activations > 0 and low.layers < load_shape(name).num_hidden_layers
    assert whole.weights == pytest.approx(2 * low.weights, rel=0.01)


@pytest.mark.parametrize(
    ("change", "named"),
    [({"model": "llama-9"}, "llama-9"), ({"model": "nobody/unknown-model"}, "not known offline"),
     ({"batch": 0}, "batch is 0"), ({"length": 0}, "length is 0"), ({"method": "irr"}, "'irr'"),
     ({"adapter": "ia4"}, "ia4"), ({"min_layer": 11}, "min_layer"), ({"share": 0.5}, "share"),
     ({"length": 4096}, "context"), ({"optimizer": "sgd"}, "optimizer"), ({"depth": 3}, "depth"),
     ({"batch": 6, "accumulation": 4}, "multiple"), ({"precision": "int8"}, "precision")],
)  # fmt: skip
def test_bad_input_is_named(change, named):
    with pytest.raises(InputError, match=named):
        predict_memory(**({"model": "mini", "method": "ir", "batch": 4, "length": 64} | change))


class UpperHalf(Strategy):
    """A user's strategy, which says no more than what it chooses."""

    name = "upper-half"

    def choose(self, step, scores, rng):
        return list(range(self.count // 2, self.count))


class UpperHalfThatSaysSo(UpperHalf):
    name = "upper-half-2"

    def worst_case(self, count):
        upper = list(range(count // 2, count))
        return upper, upper


def test_a_strategy_of_ones_own_is_predicted_as_class_and_as_instance(monkeypatch):
    monkeypatch.setattr(registry, "METHODS", dict(METHODS))  # the names below are registered there
    full, half = (predict_memory(**SMALL, method=method) for method in ("full", "last-k"))
    unsaid = predict_memory(**SMALL, method=UpperHalf)
    assert (unsaid.method, unsaid.layers, unsaid.peak_bytes) == ("upper-half", 12, full.peak_bytes)
    said = predict_memory(**SMALL, method=UpperHalfThatSaysSo())
    assert (said.layers, said.lowest_layer, said.peak_bytes) == (6, 6, half.peak_bytes)
    instance = make_strategy("last-k:share=0.25")
    assert predict_memory(**SMALL, method=instance).layers == predict_memory(**SMALL, method="last-k", share=0.25).layers == 3
    assert predict_memory(**SMALL, method=instance, min_layer=8).lowest_layer == 11 and instance.min_layer == 0


def test_a_setting_that_fits_splits_the_batch_before_it_recomputes():
    def peak(accumulation, checkpointing):
        return 8 * GIB // accumulation // (1 + 3 * checkpointing)

    def change(gib, accumulation=1, checkpointing=False):
        return setting_that_fits(peak, accumulation, 4, checkpointing, int((gib + 0.5) * GIB / 0.95) + 1)

    assert change(4) == "accumulation=2 (predicted 4.0 GiB)"
    assert change(3) == "accumulation=4 (predicted 2.0 GiB)"
    assert change(1.5) == "accumulation=2, checkpointing=true (predicted 1.0 GiB)"
    assert change(1.5, checkpointing=True) == "accumulation=2, checkpointing=true (predicted 1.0 GiB)"
    assert change(0.1) is change(8, 4, True) is None


def test_highest_peaks_are_by_model_adapter_and_method():
    found = predict_memory(**SMALL)
    larger = dataclasses.replace(found, weights=found.weights + GIB)
    whole = dataclasses.replace(found, adapter=None, method="full-ft")
    peak = round(found.peak_bytes / GIB, 2)
    assert highest_peaks([found, larger, whole]) == {"tiny-random lora ir": round(peak + 1, 2), "tiny-random full-ft": peak}


def test_a_run_is_predicted_from_its_configuration():
    same = {"share": 0.25, "accumulation": 2, "rank": 8, "checkpointing": True}
    config = RunConfig(model="phi-2", method="last-k", batch_size=8, **same)

    def predicted(config):
        return prepare(config, load=False, on_device="cuda").predicted_memory()

    direct = predict_memory("phi-2", "last-k", batch=8, **same)
    assert predicted(config) == direct and direct.length == 256
    with pytest.raises(InputError, match="quantize"):
        predicted(RunConfig(model="phi-2", quantize="4bit"))


def test_table_and_figure_show_the_same_numbers():
    table = memory_table(**SMALL, methods=("full", "ir", "last-k"))
    assert (table[list(PARTS)].sum(axis=1) == table.peak_bytes).all()
    axis = memory_parts(table, gpu_bytes=2**30).axes[0]
    ends = [max(bars[row].get_x() + bars[row].get_width() for bars in axis.containers) for row in range(3)]
    assert ends == pytest.approx(list(table.peak_bytes[::-1] / GIB))


def test_command_prints_one_object_and_a_table():
    words = ["memory", "--model", "tiny-random", "--batch", "4", "--length", "48"]
    shown = json.loads(CliRunner().invoke(app, [*words, "--gpu", "0.7GiB", "--json"]).stdout)
    assert shown["peak_bytes"] == predict_memory(**SMALL).peak_bytes
    assert shown["gpu_bytes"] == int(0.7 * 2**30) and shown["fits"]
    assert shown["largest_batch"] > 4 and shown["min_layer_needed"] == 0
    every = json.loads(CliRunner().invoke(app, [*words, "--all", "--json"]).stdout)
    assert [row["method"] for row in every["methods"]] == list(METHODS)
    assert "predicted" in CliRunner().invoke(app, [*words, "--all"]).stdout
    for wrong in (["--gpu", "large"], ["--gpu", "0GB"], ["--batch", "0"], ["--set", "depth=3"]):
        assert isinstance(CliRunner().invoke(app, [*words, *wrong]).exception, InputError), wrong


def test_a_dry_run_predicts_every_kind_of_run():
    from irtuning.companion.reproduce import dry_run

    peaks = dry_run("quick", memory=True)["predicted peak on a GPU, GiB"]
    assert set(peaks) >= {"mini lora full", "mini lora ir"} and 0 < peaks["mini lora last-k"] < peaks["mini lora full"]


def test_ours_is_predicted_for_all_of_the_upper_layers():
    found = predict_memory("tiny-random", "ir-upper", batch=4, length=32)
    assert (found.layers, found.lowest_layer) == (6, 6) and "the most layers the method can draw" in found.note
    assert found.peak_bytes < predict_memory("tiny-random", "ir", batch=4, length=32).peak_bytes
