"""Predicted memory against hand arithmetic, real tensors, full depth, and what one GPU measured."""

import json

import numpy as np
import pytest
import torch
from conftest import make_classifier
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModel, TrainerCallback
from typer.testing import CliRunner

from irtuning import (
    InputError, RunConfig, largest_batch, lowest_layer_that_fits, make_strategy, memory_table, predict_memory, train,
)  # fmt: skip
from irtuning.memory import estimate as estimates
from irtuning.models.adapters import add_adapter
from irtuning.memory.fit import usable_bytes
from irtuning.cli.app import app
from irtuning.memory.estimate import LIBRARY_BYTES, layers_that_learn, trace_layers
from irtuning.analysis.figures.memory import memory_parts
from irtuning.method.layers import candidate_layers
from irtuning.memory.predict import PARTS, predict_run
from irtuning.models.loading import MODELS
from irtuning.models.shapes import SHAPES, load_shape
from irtuning.method.registry import METHODS
from irtuning.memory.tracing import CudaRules, StorageTracker, fake_weights, highest, trace_step

GIB = 2**30
LLAMA = {"model": "llama-3.1-8b", "batch": 16, "length": 256}
SMALL = {"model": "tiny-random", "batch": 4, "length": 48}


def test_tracker_counts_real_tensors_as_they_come_and_go():
    kept = torch.zeros(1000)
    with StorageTracker([kept]) as tracker:
        doubled = kept * 2  # 4,000 bytes, rounded up to 4,096
        view = doubled[10:]
        assert tracker.live_bytes() == 4096
        kept.add_(1)
        third = view.double()  # 7,920 -> 8,192
        assert tracker.live_bytes() == 4096 + 8192
        del doubled
        assert tracker.live_bytes() == 4096 + 8192  # the view holds it
        del view, third
        assert tracker.live_bytes() == 0


def test_backward_of_two_linear_maps_is_the_hand_count():
    first, second = (torch.nn.Linear(64, 64, bias=False) for _ in range(2))
    block, weight = 256 * 64 * 4, 64 * 64 * 4
    with StorageTracker([first.weight, second.weight]) as tracker:
        inputs = torch.ones(256, 64)
        hidden = first(inputs).relu()  # the map's output goes, relu keeps its own
        loss = second(hidden).sum()
        del hidden
        assert tracker.live_bytes() == 2 * block + 512  # inputs and relu for the weights' gradients, the loss
        loss.backward()
        del loss, inputs
        assert tracker.live_bytes() == 2 * weight


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_fake_is_real(dropout):
    def traced(fake):
        model = add_adapter(make_classifier(attn_implementation="eager"), "lora", r=4, dropout=dropout)
        candidate_layers(model).freeze_all_but([1, 3])
        shape = {"padded": True, "autocast": True, "vocabulary": 100}
        if not fake:
            return trace_step(model, 8, 16, **shape)
        with fake_weights(model):
            return trace_step(model, 8, 16, **shape)

    real, fake = traced(fake=False), traced(fake=True)
    assert list(real) == list(fake)
    assert ("backward", 1) in real and ("backward", 0) not in real  # nothing below the lowest that learns
    for label in real:
        assert np.array_equal(real[label].change, fake[label].change), label
        assert real[label].peak.sum() == fake[label].peak.sum(), label


class Called(TorchDispatchMode):
    """The names of the operations called, in order."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names = [*getattr(self, "names", []), func.__name__.split(".")[0]]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("kind", "masked", "groups", "kernel"),
    [(torch.bfloat16, False, 2, "flash"), (torch.bfloat16, True, 8, "efficient"),
     (torch.float32, False, 8, "efficient"), (torch.float32, False, 2, None)],
)  # fmt: skip
def test_attention_takes_the_kernel_cuda_would(kind, masked, groups, kernel):
    with FakeTensorMode(), CudaRules(), Called() as called:
        query, key, value = (torch.empty(2, n, 40, 64, dtype=kind) for n in (8, groups, groups))
        mask = torch.ones(2, 1, 40, 40, dtype=torch.bool) if masked else None
        more = {"attn_mask": mask, "is_causal": not masked, "enable_gqa": groups < 8}
        found = torch.nn.functional.scaled_dot_product_attention(query, key, value, **more)
    assert found.shape == (2, 8, 40, 64)
    kernels = [name for name in called.names if "scaled_dot_product" in name]
    assert kernels == ([f"_scaled_dot_product_{kernel}_attention"] if kernel else [])
    assert ("bmm" in called.names) is (kernel is None)  # the matrices of all pairs of tokens


def test_autocast_keeps_in_float32_what_cuda_does():
    norm, low = torch.nn.LayerNorm(8).bfloat16(), torch.ones(4, 8, dtype=torch.bfloat16)
    with CudaRules():
        assert norm(low).dtype == (low**2).dtype == torch.bfloat16
        with torch.autocast("cpu", torch.bfloat16):
            found = [norm(low), low**2, low.pow(3), torch.softmax(low, -1)]
            assert torch.nn.functional.linear(low, torch.ones(8, 8)).dtype == torch.bfloat16
    assert {tensor.dtype for tensor in found} == {torch.float32}


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
    [("ir", {}), ("last-k", {}), ("last-k", {"checkpointing": True}), ("rst", {"checkpointing": True}), ("full-ft", {}),
     ("lisa", {"checkpointing": True}), ("ir", {"min_layer": 5, "adapter": "bottleneck"})],
)  # fmt: skip
def test_few_layers_tell_what_full_depth_does(method, more, monkeypatch):
    settings, original = [], estimates.trace_setting
    monkeypatch.setattr(estimates, "trace_setting", lambda setting: settings.append(setting) or original(setting))
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


def test_shapes_have_as_many_parameters_as_was_published():
    """Billions of parameters from the model cards, less an output projection that is not tied to the embeddings."""
    published = {
        "llama-3.1-8b": 8.030 - 0.525, "mistral-7b": 7.248 - 0.134, "deepseek-r1-llama-8b": 8.030 - 0.525,
        "llama-2-13b": 13.016 - 0.164, "qwen3-8b": 8.191 - 0.622, "phi-2": 2.780 - 0.131, "smollm2-135m": 0.1345,
        "smollm2-360m": 0.3618, "qwen3-0.6b": 0.596, "roberta-base": 0.1247, "roberta-large": 0.3554,
        "modernbert-base": 0.149,
    }  # fmt: skip
    assert set(published) == set(SHAPES) == set(MODELS)
    for name, billions in published.items():
        with torch.device("meta"):
            model = AutoModel.from_config(load_shape(name))
        assert sum(p.numel() for p in model.parameters()) / 1e9 == pytest.approx(billions, rel=0.01), name


@pytest.mark.parametrize("name", ["mistral-7b", "qwen3-0.6b", "phi-2", "roberta-base", "modernbert-base"])
def test_every_architecture_traces(name):
    low = predict_memory(name, batch=2, length=32)
    whole = predict_memory(name, batch=2, length=32, precision="fp32", padded=False)
    assert low.activations > 0 and low.layers < load_shape(name).num_hidden_layers
    assert whole.weights == pytest.approx(2 * low.weights, rel=0.01)


def test_a_folder_is_read_like_the_name_it_came_from(tmp_path):
    load_shape("smollm2-135m").save_pretrained(tmp_path)
    by_name = predict_memory("smollm2-135m", batch=2, length=32)
    for path in (tmp_path, tmp_path / "config.json"):
        assert predict_memory(str(path), batch=2, length=32).peak_bytes == by_name.peak_bytes


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


def test_a_run_is_predicted_from_its_configuration():
    same = {"share": 0.25, "accumulation": 2, "rank": 8, "checkpointing": True}
    config = RunConfig(model="phi-2", method="last-k", batch_size=8, **same)
    direct = predict_memory("phi-2", "last-k", batch=8, **same)
    assert predict_run(config) == direct and direct.length == 256
    with pytest.raises(InputError, match="quantize"):
        predict_run(RunConfig(model="phi-2", quantize="4bit"))


def test_table_and_figure_show_the_same_numbers():
    table = memory_table(**SMALL, methods=("full", "ir", "last-k"))
    assert (table[list(PARTS)].sum(axis=1) == table.peak_bytes).all()
    axis = memory_parts(table, gpu_bytes=2**30).axes[0]
    ends = [max(bars[row].get_x() + bars[row].get_width() for bars in axis.containers) for row in range(3)]
    assert ends == pytest.approx(list(table.peak_bytes[::-1] / GIB))


def test_command_prints_one_object_and_a_table():
    words = ["memory", "--model", "tiny-random", "--batch", "4", "--length", "48"]
    shown = json.loads(CliRunner().invoke(app, [*words, "--gpu", "1GiB", "--json"]).stdout)
    assert shown["peak_bytes"] == predict_memory(**SMALL).peak_bytes
    assert shown["gpu_bytes"] == 2**30 and shown["fits"]
    assert shown["largest_batch"] > 4 and shown["min_layer_needed"] == 0
    every = json.loads(CliRunner().invoke(app, [*words, "--all", "--json"]).stdout)
    assert [row["method"] for row in every["methods"]] == list(METHODS)
    assert "predicted" in CliRunner().invoke(app, [*words, "--all"]).stdout
    for wrong in (["--gpu", "large"], ["--gpu", "0GB"], ["--batch", "0"], ["--set", "depth=3"]):
        assert isinstance(CliRunner().invoke(app, [*words, *wrong]).exception, InputError), wrong


def test_a_run_with_checkpointing_lets_backprop_end_early():
    class Stop(Exception):
        pass

    class Look(TrainerCallback):
        def on_train_begin(self, args, state, control, model=None, **kwargs):
            hooks = model.get_base_model().get_input_embeddings()._forward_hooks.values()
            raise Stop([hook.__name__ for hook in hooks])

    small = {"corpus": "synthetic", "model": "tiny-random", "method": "last-k", "max_steps": 1, "checkpointing": True}
    with pytest.raises(Stop) as seen:
        train(**small, callbacks=[Look()], progress=False)
    assert seen.value.args == ([],)  # none that makes the embeddings' output require a gradient


def test_a_dry_run_predicts_every_kind_of_run():
    from irtuning.companion.reproduce import dry_run

    peaks = dry_run("quick", memory=True)["predicted peak on a GPU, GiB"]
    assert set(peaks) >= {"mini lora full", "mini lora ir"} and 0 < peaks["mini lora last-k"] < peaks["mini lora full"]


def test_ours_is_predicted_for_all_of_the_upper_layers():
    found = predict_memory("tiny-random", "ir-upper", batch=4, length=32)
    assert (found.layers, found.lowest_layer) == (6, 6) and "the most layers the method can draw" in found.note
    assert found.peak_bytes < predict_memory("tiny-random", "ir", batch=4, length=32).peak_bytes
