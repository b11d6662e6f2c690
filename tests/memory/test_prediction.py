"""Predicted memory, against hand counts, full depth, and what a GPU measured."""

import dataclasses
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from irtuning import InputError, RunConfig, largest_batch, lowest_layer_that_fits, make_strategy, memory_table, train
from irtuning.analysis.figures.memory import memory_parts
from irtuning.cli import app
from irtuning.memory import estimate
from irtuning.memory.estimate import LIBRARY_BYTES, layers_that_learn, trace_layers
from irtuning.memory.predict import PARTS, predict_memory, usable_bytes
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
    parts = (found.weights, found.adapters, found.optimizer_state)
    assert parts == pytest.approx((2 * frozen, 4 * learns, 8 * learns), abs=2**20)
    assert found.peak_bytes == sum(getattr(found, part) for part in PARTS)
    maps, rows = layer - 2 * 4096, 2 * 4096 + 2 * 1024 + 2 * 14336 + 4096  # a byte each, and a scale for each output
    assert found.weights - predict_memory(**LLAMA, speed=["float8"]).weights == 32 * (maps - 4 * rows)
    tuned = predict_memory(**LLAMA, method="full-ft", checkpointing=True)
    parts = (tuned.weights / 2, tuned.gradients / 2, tuned.optimizer_state / 4)
    assert [part / GIB for part in parts] == pytest.approx([13.98] * 3, abs=0.0025)
    half = predict_memory(**LLAMA, method="last-k", padded=False)  # measured on an H200, without peft's input cast
    assert (half.layers, half.lowest_layer, half.peak_bytes / GIB) == (16, 16, pytest.approx(29.1, rel=0.02))


@pytest.mark.parametrize("method", ["ir", "last-k", "full-ft", "lisa", "bottleneck", "skip"])
def test_few_layers_tell_what_full_depth_does(method, monkeypatch):
    more = {"checkpointing": method in ("last-k", "lisa")}
    if method == "bottleneck":
        method, more = "ir", {"min_layer": 5, "adapter": "bottleneck"}
    if method == "skip":
        method, more = "rst", {"backward": "skip"}
    calls, original = [], estimate.bytes_by_part
    monkeypatch.setattr(estimate, "bytes_by_part", lambda *given: calls.append(given) or original(*given))
    found = predict_memory("mini", method, batch=16, length=128, **more)
    setting, chosen, *_ = calls[0]
    at_peak = highest(list(trace_layers(setting, 12, chosen)[2].values())).sum()
    moving = found.gradients + found.activations + found.temporary - LIBRARY_BYTES
    assert moving == pytest.approx(at_peak, abs=16 * 128 * 256 * 2)  # of some 40 MiB: one layer's output, at the edges
    if "backward" in more:  # the layers that learn cost as much wherever they lie
        near, far = (highest(list(trace_layers(setting, 12, [0, i])[2].values())).sum() for i in (1, 6))
        assert near == far == pytest.approx(at_peak, abs=16 * 128 * 256 * 4) and chosen == [0, 11]


def test_skipped_layers_keep_no_activations_and_idle_ones_no_state():
    exact, skip = (predict_memory(**LLAMA, method="rst", backward=how) for how in ("exact", "skip"))
    full = predict_memory(**LLAMA, method="full").activations
    assert skip.activations < 0.3 * exact.activations and exact.activations > 0.7 * full  # 4 of 32 layers
    state = {how: predict_memory(**LLAMA, method="rst", idle=how).optimizer_state for how in ("keep", "drop", "offload")}
    layer = 32 * (4 * 4096 + 14336 + 4096 + 2 * 1024 + 14336 + 4096)  # weights, see above; two numbers of 4 bytes each
    counters = 512 * 10 * 28  # the numbers of steps of 10 tensors a layer
    assert state["keep"] - state["offload"] == state["keep"] - state["drop"] == 8 * 28 * layer + counters
    measured = {how: predict_memory(**SMALL, method="probe", idle=how).optimizer_state for how in ("keep", "drop")}
    assert measured["drop"] == measured["keep"]  # all layers are measured at the costliest step, which makes no state
    with pytest.raises(InputError, match="backward=skip needs layers that add to their input"):
        predict_memory("roberta-base", "rst", backward="skip")


def test_more_layers_tokens_and_examples_need_more_and_checkpointing_less():
    def peak(**change):
        return predict_memory(**(LLAMA | change)).peak_bytes

    assert peak(method="last-k") < peak(method="rst") < peak(method="ir") < peak(method="full") < peak(method="full-ft")
    assert peak(min_layer=16) < peak(min_layer=8) < peak() < peak(length=512)
    # without padding there is no mask, and the keys and values of the groups are not repeated
    assert max(peak(checkpointing=True), peak(batch=8), peak(padded=False), peak(dropout=0.0)) < peak()
    assert peak(batch=16, accumulation=4) == pytest.approx(peak(batch=4), rel=0.02)


@pytest.mark.parametrize("method", [*sorted(METHODS.keys() - {"transplant"}), "fixed:layers=4-9+20", "ir:splits=2", "ir:variant=exact", "ir:refresh_every=3"])
def test_no_method_takes_more_layers_than_assumed(method):
    counts = {"counts": (5,) * 40} if method == "random-counts" else {}
    strategy, rng, scores = make_strategy(method, min_layer=3, **counts), np.random.default_rng(0), [None] * 21
    chosen, ever = layers_that_learn(strategy, 24)
    strategy.begin(21, 40)
    seen = set()
    for step in range(40):
        drawn = strategy.choose(step, scores, rng)
        assert len(drawn) <= len(chosen) and min(drawn) + 3 >= min(chosen)
        seen |= set() if strategy.measures(step) else {position + 3 for position in drawn}
        assert len(seen) <= len(ever) and (method in ("random-static", "probe") or seen <= set(ever))
        scores = strategy.update(scores, [rng.exponential() if i in drawn else None for i in range(21)])


def test_largest_batch_and_lowest_layer_are_the_last_that_fit():
    card, setting = int(24e9), {"model": "llama-3.1-8b", "length": 256}

    def fits(**more):
        return predict_memory(**setting, **more).peak_bytes <= usable_bytes(card)

    batch, layer = largest_batch(card, **setting), lowest_layer_that_fits(card, **LLAMA)
    assert fits(batch=batch) and not fits(batch=batch + 1)
    assert fits(batch=16, min_layer=layer) and not fits(batch=16, min_layer=layer - 1)
    quarters = largest_batch(card, **setting, accumulation=4)
    assert quarters % 4 == 0 and quarters > batch  # a quarter of it at a time
    assert largest_batch(10**9, **setting) == 0 and lowest_layer_that_fits(10**9, **LLAMA) is None


@pytest.mark.parametrize("name", ["qwen3-0.6b", "phi-2", "roberta-base", "modernbert-base"])
def test_every_architecture_traces(name):
    low, high = (predict_memory(name, batch=2, length=32, precision=p, padded=p == "bf16") for p in ("bf16", "fp32"))
    assert low.activations > 0 and low.layers < load_shape(name).num_hidden_layers
    assert high.weights == pytest.approx(2 * low.weights, rel=0.01)


def test_bad_input_is_named():
    cases = {
        "llama-9": {"model": "llama-9"}, "not known offline": {"model": "nobody/unknown-model"}, "depth": {"depth": 3},
        "batch is 0": {"batch": 0}, "length is 0": {"length": 0}, "'irr'": {"method": "irr"}, "ia4": {"adapter": "ia4"},
        "min_layer": {"min_layer": 11}, "share": {"share": 0.5}, "multiple": {"batch": 6, "accumulation": 4},
        "context": {"length": 4096}, "precision": {"precision": "int8"}, "speed is 'float'": {"speed": ["float"]},
        "quantize is '8bit'": {"quantize": "8bit"}, "backward is 'skp'": {"backward": "skp"},
        "idle is 'swap'": {"idle": "swap"}}  # fmt: skip
    for named, change in cases.items():
        with pytest.raises(InputError, match=named):
            predict_memory(**({"model": "mini", "method": "ir", "batch": 4, "length": 64} | change))


def test_a_strategy_of_ones_own_is_predicted_as_class_and_as_instance(monkeypatch):
    class UpperHalf(Strategy):  # a user's strategy, which says no more than what it chooses
        name = "upper-half"

        def choose(self, step, scores, rng):
            return list(range(self.count // 2, self.count))

    class UpperHalfThatSaysSo(UpperHalf):
        name = "upper-half-2"

        def worst_case(self, count):
            return (list(range(count // 2, count)),) * 2

    monkeypatch.setattr(registry, "METHODS", dict(METHODS))  # the names below are registered there
    full, half = (predict_memory(**SMALL, method=method) for method in ("full", "last-k"))
    unsaid = predict_memory(**SMALL, method=UpperHalf)
    assert (unsaid.method, unsaid.layers, unsaid.peak_bytes) == ("upper-half", 12, full.peak_bytes)
    said = predict_memory(**SMALL, method=UpperHalfThatSaysSo())
    assert (said.layers, said.lowest_layer, said.peak_bytes) == (6, 6, half.peak_bytes)
    ours = predict_memory(**SMALL, method="ir-upper")
    assert (ours.layers, ours.lowest_layer) == (6, 6) and "the most layers the method can draw" in ours.note
    assert ours.peak_bytes < predict_memory(**SMALL, method="ir").peak_bytes
    quarter = make_strategy("last-k:share=0.25")
    by_text = predict_memory(**SMALL, method="last-k", share=0.25)
    assert predict_memory(**SMALL, method=quarter).layers == by_text.layers == 3
    assert predict_memory(**SMALL, method=quarter, min_layer=8).lowest_layer == 11 and quarter.min_layer == 0


def test_runs_are_predicted_from_their_configurations():
    same = {"accumulation": 2, "rank": 8, "checkpointing": True, "backward": "skip", "idle": "drop"}
    config = RunConfig(model="phi-2", method="last-k", share=0.25, batch_size=8, **same)
    prepared = prepare(config, on_device="cuda")
    direct = predict_memory("phi-2", "last-k:share=0.25", batch=8, **same)
    assert prepared.predicted_memory() == direct and direct.length == 256
    packed = dataclasses.replace(prepared, config=dataclasses.replace(prepared.config, quantize="4bit")).predicted_memory()
    assert packed == predict_memory("phi-2", "last-k:share=0.25", batch=8, quantize="4bit", **same)
    assert packed.weights < 0.35 * direct.weights


@pytest.mark.parametrize("method", ["full-ft", "lisa:every=5", "ir-weight"])
def test_a_quantized_base_is_refused_where_its_weights_are_needed_as_training_refuses_it(method):
    with pytest.raises(InputError, match=f"'{method}' .*weights; it needs quantize=none, not 4bit") as predicted:
        predict_memory("tiny-random", method, batch=2, length=16, quantize="4bit")
    with pytest.raises(InputError) as trained:
        train(method=method, model="tiny-random", quantize="4bit", device="cpu")
    assert str(trained.value) == str(predicted.value)


def test_table_figure_and_command_show_the_same_numbers():
    def memory(*words):
        return CliRunner().invoke(app, ["memory", "--model", "tiny-random", "--batch", "4", "--length", "48", *words])

    assert memory_table(**SMALL).method.tolist() == [m for m in METHODS if m not in ("fixed", "transplant")]
    table = memory_table(**SMALL, methods=("full", "ir", "last-k"))
    assert (table[list(PARTS)].sum(axis=1) == table.peak_bytes).all()
    stacks = memory_parts(table).axes[0].containers
    ends = [max(bars[row].get_x() + bars[row].get_width() for bars in stacks) for row in range(3)]
    assert ends == pytest.approx(list(table.peak_bytes[::-1] / GIB))
    shown = json.loads(memory("--gpu", "0.63GiB", "--json").stdout)
    assert shown["peak_bytes"] == predict_memory(**SMALL).peak_bytes and shown["gpu_bytes"] == int(0.63 * 2**30)
    assert shown["fits"] and shown["largest_batch"] > 4 and shown["min_layer_needed"] == 0
    assert f"peak             {shown['peak_bytes'] / GIB:>6.2f}\n" in memory().stdout
    for wrong in (("--gpu", "large"), ("--gpu", "0GB"), ("--batch", "0"), ("--set", "depth=3")):
        assert isinstance(memory(*wrong).exception, InputError), wrong
