"""Attention and the rest of a layer, chosen apart: which parameters they have, what is recorded and predicted."""

import numpy as np
import pytest
import torch
from conftest import ARCHITECTURES, collate, make_classifier, make_examples

from irtuning import InputError, LayerTuner, add_adapter, find_layers, make_strategy, predict_memory, train
from irtuning.analysis.figures.layers import layer_importance
from irtuning.analysis.layers import choice_over_time, score_matrix
from irtuning.analysis.tables import mean_share
from irtuning.comparison.runs import with_budget
from irtuning.memory.estimate import layers_that_learn
from irtuning.method.layers import attention_block, candidate_layers
from irtuning.training.config import RunConfig


@pytest.fixture(scope="module")
def record():
    settings = {"corpus": "synthetic", "model": "tiny-random", "max_length": 32, "max_steps": 5, "eval_every": 5}
    return train(**settings, method="ir:unit=block:variant=exact:score=l2", progress=False).record


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_blocks_of_any_architecture_share_out_its_layers(architecture):
    model = add_adapter(make_classifier(architecture), "lora", r=2)
    whole, cut = candidate_layers(model, 1), candidate_layers(model, 1, "block")
    assert cut.blocks == [f"{index}.{part}" for index in (1, 2, 3) for part in ("attention", "mlp")]
    assert cut.indices == [1, 1, 2, 2, 3, 3]
    ids = [{*map(id, parameters)} for parameters in cut.parameters]
    for position, index in enumerate(whole.indices):
        attention, mlp = ids[2 * position : 2 * position + 2]
        assert attention | mlp == {*map(id, whole.parameters[position])} and not attention & mlp
        block = attention_block(find_layers(model)[index])[1]
        assert attention == {id(p) for p in block.parameters() if p.requires_grad}


def test_only_the_chosen_blocks_learn():
    model = add_adapter(make_classifier(), "lora", r=2)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    tuner = LayerTuner(model, "last-k:unit=block:share=0.375", optimizer)
    for _ in range(2):
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        assert tuner.begin_step() == [2, 3]
        model(**collate(make_examples(8))).loss.backward()
        tuner.end_backward()
        optimizer.step()
        optimizer.zero_grad()
    moved = {".".join(n.split("layers.")[1].split(".")[:2]) for n, p in model.named_parameters()
             if "layers." in n and not p.equal(before[n])}  # fmt: skip
    assert moved == {"2.mlp", "3.self_attn", "3.mlp"}
    assert tuner.history[0]["layers"] == [2, 3] and tuner.history[0]["blocks"] == ["2.mlp", "3.attention", "3.mlp"]


def test_records_and_figures_show_both_blocks(record):
    run, steps = record["run"], record["train"]["steps"]
    assert run["candidate_layers"] == [*range(12)] and len(run["candidate_blocks"]) == 24
    assert len(run["layer_parameters"]) == len(steps[0]["scores"]) == 24
    for step in steps:
        assert step["layers"] == sorted({int(name.split(".")[0]) for name in step["blocks"]})
    assert score_matrix(record).index.tolist() == run["candidate_blocks"]
    assert mean_share(record) == pytest.approx(np.mean([len(step["blocks"]) for step in steps]) / 24)
    assert choice_over_time([record]).layers.item() == 24
    axes = layer_importance(record).axes
    assert axes[0].get_ylabel() == "block" and axes[0].get_ylim() == (0, 24)
    assert axes[0].get_yticklabels()[1].get_text() == "2.attention"


def test_the_memory_of_blocks_is_an_upper_bound():
    for method in ("ir:unit=block", "rst:share=0.25:unit=block", "last-k:share=0.3:unit=block", "ir-upper:unit=block"):
        strategy, rng = make_strategy(method, min_layer=3), np.random.default_rng(0)
        chosen, ever = layers_that_learn(strategy, 24)
        strategy.begin(42, 40)
        scores = [None] * 42
        for step in range(40):
            drawn = strategy.choose(step, scores, rng)
            layers = {3 + position // 2 for position in drawn}
            assert len(layers) <= len(chosen) and min(layers) >= min(chosen) and layers <= {*ever}
            scores = [rng.exponential() if i in drawn else old for i, old in enumerate(scores)]
    assert "upper bound" in predict_memory("mini", "rst:unit=block").note
    assert layers_that_learn(make_strategy("last-k:share=0.25:unit=block"), 8)[0] == [6, 7]


@pytest.mark.parametrize("method", ["ir-weight", "ir-cosine", "ist"])
def test_what_measures_whole_layers_refuses_blocks(method):
    with pytest.raises(InputError, match="measures whole layers, not their blocks; use unit=layer"):
        make_strategy(f"{method}:unit=block")
    with pytest.raises(InputError, match="unknown unit of .* 'blocks'; did you mean 'block'"):
        make_strategy(f"{method}:unit=blocks")


def test_a_baseline_that_counts_follows_a_run_of_blocks_in_blocks(record):
    with pytest.raises(InputError, match="add :unit=block"):
        with_budget(RunConfig(method="random-counts"), record)
    followed = with_budget(RunConfig(method="random-counts:unit=block"), record)
    assert list(followed.counts) == [len(step["blocks"]) for step in record["train"]["steps"]]
