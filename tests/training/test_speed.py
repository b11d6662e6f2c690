"""Accelerated runs are the same runs: same losses, same layers. Nothing is compiled again when the layers change."""

from contextlib import nullcontext

import pytest
import torch
import transformers
from conftest import make_classifier, make_examples
from torch._dynamo.utils import counters
from transformers import TrainingArguments

from irtuning.models.adapters import add_adapter
from irtuning.method.callback import LayerwiseTuning
from irtuning.training.config import RunConfig
from irtuning.errors import InputError
from irtuning.method.layers import find_layers, let_backprop_end_early
from irtuning.models.loading import checkpoint_layers, resolve
from irtuning.training.run import train
from irtuning.training.speed import ACCELERATIONS, accelerate, few_walks
from irtuning.method.trainer import LayerwiseTrainer

SAME_RUNS = [("uncast", "ir", 1.0), ("compile", "ist:every=3", 1.0), ("compile", "ir-cosine", 0.2)]


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


def run(folder, speed, method="ir", steps=6, adapter="lora", budget=1.0, **settings):
    """Losses, layers and final adapters of a short run in float32 without dropout."""
    model = add_adapter(make_classifier(), adapter, **({"r": 2, "dropout": 0.0} | settings))
    accelerate(model, speed, budget)
    callback = LayerwiseTuning(method, seed=0)
    arguments = TrainingArguments(str(folder), max_steps=steps, per_device_train_batch_size=4, report_to="none",
                                  learning_rate=1e-2, save_strategy="no", logging_strategy="no", disable_tqdm=True,
                                  use_cpu=True, seed=0)  # fmt: skip
    trainer = LayerwiseTrainer(model, arguments, train_dataset=make_examples(), data_collator=pad, callbacks=[callback])
    with few_walks(trainer):
        trainer.train()
    return trainer.step_losses(), [step["layers"] for step in callback.history], model


def test_a_set_that_changes_every_step_finds_its_graphs_compiled(tmp_path):
    run(tmp_path, ["compile"], "rst:share=0.5", steps=12)
    warm = counters["stats"]["unique_graphs"]
    _, layers, _ = run(tmp_path, ["compile"], "rst:share=0.5", steps=30)
    assert {len(chosen) for chosen in layers} == {2} and len({tuple(chosen) for chosen in layers}) == 6
    assert warm > 0 and not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == warm  # in a model of its own, too


@pytest.mark.parametrize("speed, method, budget", SAME_RUNS)
def test_an_accelerated_run_is_the_same_run(tmp_path, speed, method, budget):
    if budget < 1 and torch.__version__.startswith("2.11"):
        pytest.skip("torch 2.11 cannot weigh grouped-query attention, so a budget is refused there")
    plain, fast = run(tmp_path, [], method), run(tmp_path, speed.split(","), method, budget=budget)
    assert fast[1] == plain[1]
    # in float32 nothing is cast and nothing is left out; a compiled graph may add up in another order
    assert fast[0] == pytest.approx(plain[0], rel=1e-4)


@pytest.mark.parametrize("adapter", ["dora", "bottleneck"])
def test_other_adapters_too(tmp_path, adapter):
    settings = {"adapter": adapter, "width": 4, "steps": 4}
    plain, fast = run(tmp_path, [], **settings), run(tmp_path, ["uncast"], **settings)
    assert fast[1] == plain[1]
    assert fast[0] == pytest.approx(plain[0], rel=1e-4)


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


def test_a_budget_that_torch_cannot_weigh_is_refused_before_training(monkeypatch):
    """Torch 2.11 on a GPU stopped in the first step of a model with grouped-query attention."""

    def as_in_2_11(query, key, value):
        assert query[1] == key[1]
        return 1

    monkeypatch.setattr("torch.utils.flop_counter.sdpa_flop_count", as_in_2_11)
    for heads, refused in ((2, True), (4, False)):
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "vocab_size": 9}
        config = transformers.LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=heads)
        model = add_adapter(transformers.LlamaForSequenceClassification(config), "lora", r=2, alpha=2, dropout=0.0)
        with pytest.raises(InputError, match="0.5, and this torch cannot weigh") if refused else nullcontext():
            accelerate(model, ["compile"], 0.5)


def test_a_smaller_budget_keeps_less_for_backprop():
    kept = []
    for budget in (1.0, 0.0):
        model = add_adapter(make_classifier(), "lora", r=2, dropout=0.0)
        accelerate(model, ["compile"], budget)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept[-1].append(t.numel()) or t, lambda t: t):
            kept.append([])
            model(**pad(make_examples(4)))
    assert sum(kept[1]) < 0.8 * sum(kept[0])


def test_no_step_walks_through_all_modules(tmp_path, monkeypatch):
    walks, train = [], torch.nn.Linear.train
    monkeypatch.setattr(torch.nn.Linear, "train", lambda self, mode=True: walks.append(mode) or train(self, mode))
    _, _, model = run(tmp_path, [], steps=6)
    assert not walks
    assert "train" not in vars(model) and "zero_grad" not in vars(model)
    model.eval()
    assert not any(module.training for module in model.modules())


def test_wrong_choices_are_refused_early():
    source = resolve("tiny-random")
    with pytest.raises(InputError, match=f"speed is 'fast', give some of {', '.join(ACCELERATIONS)}"):
        RunConfig.of({"speed": "fast"}).complete(source, 100, False, "cpu")
    with pytest.raises(InputError, match="activation_budget is 1.5, give 0"):
        RunConfig.of({"speed": "compile", "activation_budget": "1.5"}).complete(source, 100, False, "cpu")
    with pytest.raises(InputError, match="add compile to speed"):
        RunConfig.of({"activation_budget": "0.5"}).complete(source, 100, False, "cpu")
    with pytest.raises(InputError, match="speed is 'fast'"):
        accelerate(make_classifier(), ["fast"])


def test_a_run_takes_accelerations_from_its_configuration():
    settings = {"corpus": "synthetic", "model": "tiny-random", "max_steps": 2, "train_share": 0.2, "batch_size": 4}
    plain = train(RunConfig.of(settings), progress=False)
    fast = train(RunConfig.of(settings | {"speed": "uncast,compile", "activation_budget": 0.5}), progress=False)
    assert fast.config["speed"] == ["uncast", "compile"] and fast.layers == plain.layers
    assert [s["loss"] for s in fast.record["train"]["steps"]] == pytest.approx(
        [s["loss"] for s in plain.record["train"]["steps"]], rel=1e-4
    )
