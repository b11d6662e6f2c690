"""Layers left out of the backward pass, against hand counts, other formulas, and the exact backward pass."""

import copy

import pytest
import torch
import transformers
from conftest import ARCHITECTURES, collate, make_examples
from torch import nn

from irtuning import InputError, add_adapter, find_layers, train
from irtuning.method.layers import candidate_layers, let_backprop_end_early
from irtuning.models.backward import skip_backward
from irtuning.models.loading import checkpoint_layers
from irtuning.models.speed import accelerate

SHAPES = ARCHITECTURES | {name: ARCHITECTURES["Bert"] for name in ("GPTNeoX", "Falcon", "Bloom")}


def gradients(model, chosen):
    """The logits and the gradients by name of a batch on which only the chosen layers and the head learn."""
    candidate_layers(model).freeze_all_but(chosen)
    let_backprop_end_early(model)
    torch.manual_seed(0)  # of dropout
    output = model.train()(**collate(make_examples(4)))
    model.zero_grad()
    output.loss.backward()
    return output.logits.detach(), {n: p.grad for n, p in model.named_parameters() if p.requires_grad or p.grad is not None}


def adapted(architecture="Llama", checkpointing=False, **settings):
    transformers.set_seed(0)
    config = getattr(transformers, f"{architecture}Config")(**SHAPES[architecture] | settings)
    model = add_adapter(transformers.AutoModelForSequenceClassification.from_config(config), "lora", r=2, dropout=0.1)
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, std=0.3) if "lora_B" in name else None  # otherwise A has no gradient
    checkpoint_layers(model) if checkpointing else None
    return model


def both(*arguments, **settings):
    exact = adapted(*arguments, **settings)
    skipping = copy.deepcopy(exact)
    skip_backward(skipping)
    return exact, skipping


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_gradients_with_two_layers_skipped_are_those_of_a_count_by_hand():
    class Scale(nn.Module):
        def __init__(self, a):
            super().__init__()
            self.a = nn.Parameter(torch.tensor(a))

        def forward(self, hidden_states):
            return hidden_states + self.a * hidden_states

    class Scales(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(map(Scale, (0.5, 2.0, 4.0, 8.0)))

        def forward(self, input_ids, attention_mask=None):
            hidden = input_ids.float()
            for layer in self.layers:
                hidden = layer(hidden_states=hidden)
            return hidden

    skip_backward(model := Scales())
    for layer in (1, 3):
        model.layers[layer].a.requires_grad_(False)
    output = model(torch.tensor([7.0]))
    output.backward()
    assert output.item() == 7 * 1.5 * 3 * 5 * 9
    # the derivatives of layers 1 and 3 count as 1, while what layer 2 reads is what layer 1 gave it
    assert [layer.a.grad for layer in model.layers] == [torch.tensor(7.0 * 5), None, torch.tensor(7 * 1.5 * 3.0), None]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("architecture", ["Llama", "GPT2", "OPT", "ModernBert", "GPTNeoX", "Falcon", "Bloom"])
def test_outputs_and_gradients_of_all_that_learns_above_stay_the_same(architecture, checkpointing):
    exact, skipping = (model.double() for model in both(architecture, checkpointing))
    for chosen in ([0, 1, 2, 3], [2, 3]):  # nothing to skip
        found, expected = gradients(skipping, chosen), gradients(exact, chosen)
        assert torch.equal(found[0], expected[0]) and same(found[1], expected[1])
    (logits, found), (expected_logits, expected) = gradients(skipping, [0, 2]), gradients(exact, [0, 2])
    assert torch.equal(logits, expected_logits) and found.keys() == expected.keys()  # layers 1 and 3 have none
    layers = find_layers(exact)
    for layer in layers:  # the same by another formula, which rounds the output
        def straight(*args, layer=layer, forward=layer.forward, **kwargs):
            hidden, output = args[0] if args else kwargs["hidden_states"], forward(*args, **kwargs)
            first = output[0] if isinstance(output, tuple) else output
            first = hidden + (first - hidden).detach() if layer in (layers[1], layers[3]) else first
            return (first, *output[1:]) if isinstance(output, tuple) else first
        layer.forward = straight
    formula = gradients(exact, [0, 2])[1]
    for name, gradient in found.items():
        assert torch.allclose(gradient, formula[name], rtol=1e-9, atol=1e-12), name
    below = [name for name in found if "lora_A" in name and not torch.allclose(found[name], expected[name], rtol=1e-2)]
    assert below  # it is not the exact gradient


def test_a_layer_of_which_one_block_learns_is_not_skipped():
    exact, skipping = (model.double() for model in both())

    def of_blocks(model, names):
        blocks = candidate_layers(model, unit="block")
        blocks.freeze_all_but([blocks.blocks.index(name) for name in names])
        torch.manual_seed(0)
        output = model.train()(**collate(make_examples(4)))
        output.loss.backward()
        return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}

    names = ["0.attention", "1.mlp", "2.mlp", "3.attention"]  # one block of each layer
    assert same(of_blocks(skipping, names), of_blocks(exact, names))
    skipping.zero_grad()
    few = of_blocks(skipping, ["0.mlp", "2.attention"])  # as with the whole layers 0 and 2
    whole = gradients(skipping, [0, 2])[1]
    assert few.keys() < whole.keys() and same(few, {name: whole[name] for name in few})


def test_a_skipped_layer_keeps_nothing_and_is_not_computed_again():
    kept = {}
    for name, model in zip(("exact", "skip"), both(), strict=True):
        kept[name] = sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t):
            gradients(model, [0])
    assert sum(kept["skip"]) < 0.4 * sum(kept["exact"])
    _, model = both(checkpointing=True)
    calls = [0] * 4
    for index, layer in enumerate(find_layers(model)):
        layer.mlp.register_forward_pre_hook(lambda *_, index=index: calls.__setitem__(index, calls[index] + 1))
    gradients(model, [1])
    assert calls == [1, 2, 1, 1]


def test_a_bfloat16_base_with_float32_adapters_that_read_it_as_it_is_can_be_skipped():
    model = adapted().to(torch.bfloat16)
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.float() if "lora" in name else parameter.data
    accelerate(model, ["uncast"])
    skip_backward(model)
    with torch.autocast("cpu", torch.bfloat16):
        assert gradients(model, [0, 2])[1]


@pytest.mark.parametrize(("architecture", "settings"), [
    ("Bert", {}), ("Roberta", {}), ("OPT", {"do_layer_norm_before": False}), ("Bert", {"hidden_size": 64})])  # fmt: skip
def test_post_norm_layers_are_refused_by_what_they_do(architecture, settings):
    model = adapted(architecture, **settings)
    with pytest.raises(InputError, match="backward=skip needs layers that add to their input"):
        skip_backward(model)
    assert all("forward" not in vars(layer) for layer in find_layers(model))


def test_a_run_takes_it_from_its_configuration_and_is_exact_if_all_layers_learn(own_corpus):
    def run(**settings):
        return train(**own_corpus | {"max_steps": 4, "dropout": 0.1, "progress": False} | settings).record

    more = {"precision": "bf16", "accumulation": 2, "checkpointing": True}
    for method, equal, settings in (("full", True, more), ("rst", False, {})):
        exact, skipping = run(method=method, **settings), run(method=method, backward="skip", **settings)
        assert (exact["train"] == skipping["train"] and exact["predictions"] == skipping["predictions"]) is equal
        assert skipping["run"]["config"]["backward"] == "skip"
        assert skipping["train"]["steps"][0]["loss"] == exact["train"]["steps"][0]["loss"]
