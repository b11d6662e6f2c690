"""Accelerated runs are the same runs: same losses, same layers. Nothing is compiled again when the layers change."""

import pytest
import torch
from conftest import make_classifier, make_examples
from torch._dynamo.utils import counters
from transformers import TrainingArguments

from irtuning import LayerwiseTrainer, LayerwiseTuning, RunConfig, add_adapter, find_layers, train
from irtuning.method.layers import let_backprop_end_early
from irtuning.models.backward import skip_backward
from irtuning.models.loading import checkpoint_layers
from irtuning.models.speed import accelerate

SAME_RUNS = [
    (["uncast"], {"method": "ir"}), (["compile"], {"method": "ist:every=3"}),
    (["compile"], {"method": "ir-cosine"}), (["compile"], {"method": "rst:share=0.5", "skip": True}),
    *((["uncast"], {"adapter": adapter, "width": 4, "steps": 4}) for adapter in ("dora", "bottleneck")),
]  # fmt: skip


@pytest.fixture(autouse=True)
def traced_not_built(monkeypatch):
    """Compile to the same graphs without machine code, which would take minutes and a C++ compiler."""
    compile_with = torch.compile
    monkeypatch.setattr(torch, "compile", lambda forward: compile_with(forward, backend="aot_eager"))
    counters.clear()


def pad(rows):
    """A batch padded on the left, as decoders are, each row by one token or more, to 8 or 12 or 16."""
    width = max(len(row["input_ids"]) for row in rows) // 4 * 4 + 4
    ids = torch.tensor([[0] * (width - len(row["input_ids"])) + row["input_ids"] for row in rows])
    labels = torch.tensor([row["labels"] for row in rows])
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": labels}


def run(folder, speed, method="ir", steps=6, adapter="lora", skip=False, **settings):
    """Losses, layers and final adapters of a short run in float32 without dropout."""
    model = add_adapter(make_classifier(), adapter, **({"r": 2, "dropout": 0.0} | settings))
    accelerate(model, speed)
    skip_backward(model) if skip else None
    callback = LayerwiseTuning(method, seed=0)
    arguments = TrainingArguments(str(folder), max_steps=steps, per_device_train_batch_size=4, report_to="none", seed=0,
                                  learning_rate=1e-2, save_strategy="no", logging_strategy="no", disable_tqdm=True,
                                  use_cpu=True)  # fmt: skip
    trainer = LayerwiseTrainer(model, arguments, train_dataset=make_examples(), data_collator=pad, callbacks=[callback])
    trainer.train()
    return trainer.step_losses(), [step["layers"] for step in callback.history], model


@pytest.mark.parametrize("skip", [False, True])
def test_a_set_that_changes_every_step_finds_its_graphs_compiled(tmp_path, skip):
    run(tmp_path, ["compile"], "rst:share=0.5", steps=12, skip=skip)
    warm = counters["stats"]["unique_graphs"]
    _, layers, _ = run(tmp_path, ["compile"], "rst:share=0.5", steps=20, skip=skip)
    assert {len(chosen) for chosen in layers} == {2} and len({tuple(chosen) for chosen in layers}) == 6
    assert warm > 0 and not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == warm  # in a model of its own, too


@pytest.mark.parametrize(("speed", "settings"), SAME_RUNS)
def test_an_accelerated_run_is_the_same_run(tmp_path, speed, settings):
    plain, fast = run(tmp_path, [], **settings), run(tmp_path, speed, **settings)
    assert fast[1] == plain[1]
    # in float32 nothing is cast and nothing is left out; a compiled graph may add up in another order
    assert fast[0] == pytest.approx(plain[0], rel=1e-4)


def test_compiled_float8_layers_do_what_they_do_uncompiled(tmp_path):
    plain, fast = run(tmp_path, ["float8"]), run(tmp_path, ["float8", "compile"])
    assert not counters["graph_break"] and counters["stats"]["unique_graphs"]
    assert fast[1] == plain[1] and fast[0] == pytest.approx(plain[0], rel=1e-4)
    exact = run(tmp_path, [])[0]
    assert fast[0][0] != exact[0] and fast[0][0] == pytest.approx(exact[0], rel=0.01)  # later, other layers may learn


def test_recompute_keeps_less_also_after_another_run_of_the_process():
    def kept(speed):
        model, numbers = add_adapter(make_classifier(), "lora", r=2, dropout=0.05), []
        accelerate(model, speed)
        with torch.autograd.graph.saved_tensors_hooks(lambda x: numbers.append(x.numel()) or x, lambda x: x):
            model.train()(**pad(make_examples(4))).loss.backward()
        return sum(numbers)

    first, less, again = (kept(speed) for speed in (["compile"], ["compile", "recompute"], ["compile"]))
    assert less < first == again


@pytest.mark.parametrize("speed", [[], ["uncast"]], ids=["plain", "uncast"])
@pytest.mark.parametrize("adapter", ["lora", "dora", "bottleneck"])
def test_uncast_adapters_see_no_float32_copy(speed, adapter):
    model = add_adapter(make_classifier().bfloat16(), adapter, r=2, dropout=0.0, width=4)
    for parameter in model.parameters():
        parameter.data = parameter.data.float() if parameter.requires_grad else parameter.data
    accelerate(model, speed)
    layer, seen = find_layers(model)[0].self_attn.q_proj, []
    first = (layer.bottleneck_down if adapter == "bottleneck" else layer.lora_A)["default"]
    first.register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
    batch = pad(make_examples(4))
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**batch).loss
    loss.backward()
    assert seen[-1] == (torch.bfloat16 if speed else torch.float32)
    assert first.weight.grad.dtype == torch.float32 and torch.isfinite(first.weight.grad).all()


def test_checkpointing_recomputes_only_where_backprop_comes_by():
    model = add_adapter(make_classifier(), "lora", r=2, dropout=0.0)
    calls = [0] * 4
    for index, layer in enumerate(find_layers(model)):
        layer.mlp.register_forward_pre_hook(lambda *_, index=index: calls.__setitem__(index, calls[index] + 1))
        for parameter in layer.parameters():
            parameter.requires_grad_(parameter.requires_grad and index == 2)
    checkpoint_layers(model)
    let_backprop_end_early(model)
    model.train()
    model(**pad(make_examples(4))).loss.backward()
    assert calls == [1, 1, 2, 2]  # layer 3 is frozen, but the gradient passes through it


def test_no_step_walks_through_all_modules(monkeypatch):
    walks, set_mode = [], torch.nn.Linear.train

    def watched(self, mode=True):
        walks.append(mode == self.training)
        return set_mode(self, mode)

    monkeypatch.setattr(torch.nn.Linear, "train", watched)
    train(corpus="synthetic", model="tiny-random", max_steps=6, batch_size=4, train_share=0.1, progress=False)
    assert walks and not any(walks)  # evaluation changes the mode, but no step sets it to what it is


def test_a_run_takes_accelerations_from_its_configuration():
    settings = {"corpus": "synthetic", "model": "tiny-random", "max_steps": 2, "train_share": 0.2, "batch_size": 4,
                "max_length": 16, "method": "full"}  # few graphs are compiled
    given = ({}, {"speed": "uncast,compile,recompute"})
    plain, fast = (train(RunConfig.of(settings | each), progress=False) for each in given)
    assert fast.config["speed"] == ["uncast", "compile", "recompute"] and fast.layers == plain.layers
    losses = [[step["loss"] for step in run.record["train"]["steps"]] for run in (plain, fast)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
