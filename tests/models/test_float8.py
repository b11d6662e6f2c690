"""A frozen base in float8: products near the exact ones, one copy of the weights, the adapters untouched."""

from contextlib import nullcontext

import pytest
import torch
from conftest import make_classifier, make_examples
from torch import nn

from irtuning import InputError, add_adapter, find_layers, predict_memory
from irtuning.memory.estimate import trace_setting
from irtuning.models.adapters import adapted_classifier
from irtuning.models.float8 import Float8Linear, freeze_in_float8
from irtuning.models.speed import accelerate


def linear(inputs=64, outputs=48, bias=True):
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)


def relative(value, exact):
    return ((value - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("autocast", [False, True])
def test_product_and_gradient_are_near_the_exact_ones(autocast):
    exact = linear(bias=False)
    exact.weight.mul_(torch.logspace(-2, 2, 48)[:, None])  # rows of different size, which their scales must hold
    inputs = (torch.randn(3, 5, 64) * torch.logspace(-2, 2, 5)[:, None]).requires_grad_()
    gradient = torch.randn(3, 5, 48)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output = Float8Linear(exact)(inputs)
    assert output.dtype == (torch.bfloat16 if autocast else torch.float32) and output.shape == (3, 5, 48)
    output.backward(gradient.to(output.dtype))
    error = output.detach().float() - inputs.detach() @ exact.weight.T
    # each element beside what a product of random numbers of these sizes is: so no row hides behind a larger one
    sizes = inputs.detach().norm(dim=-1, keepdim=True) * exact.weight.norm(dim=1) / 64**0.5
    by_row, by_output = ((error / sizes).square().mean(dims).sqrt() for dims in (-1, (0, 1)))
    assert by_row.max() < 0.08 and by_output.max() < 0.08 and (error / sizes).square().mean().sqrt() > 0.01
    assert relative(inputs.grad, gradient @ exact.weight) < 0.05


def test_the_weight_is_kept_once_in_a_quarter_of_float32_bytes():
    made = Float8Linear(linear(256, 256))
    assert sum(t.nbytes for t in (*made.parameters(), *made.buffers())) == 256 * 256 + 2 * 4 * 256
    assert relative(made.weight.float(), linear(256, 256).weight) < 0.05
    assert torch.equal(made(torch.zeros(1, 256))[0], made.bias)


@pytest.mark.parametrize("adapter", ["lora", "dora", "bottleneck"])
def test_every_frozen_map_is_replaced_and_the_adapters_learn(adapter):
    wide = {"hidden_size": 32, "intermediate_size": 64}
    model = add_adapter(make_classifier(**wide), adapter, r=2, width=16, dropout=0.0)
    learns = {name for name, p in model.named_parameters() if p.requires_grad}
    accelerate(model, ["float8"])
    assert {name for name, p in model.named_parameters() if p.requires_grad} == learns
    frozen = [m for m in find_layers(model).modules() if isinstance(m, nn.Linear) and not m.weight.requires_grad]
    assert frozen and all(type(m) is Float8Linear for m in frozen)
    rows = make_examples()[:4]
    batch = {"input_ids": torch.tensor([row["input_ids"][:4] for row in rows]),
             "labels": torch.tensor([row["labels"] for row in rows])}  # fmt: skip
    model(**batch).loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_what_cannot_be_multiplied_in_float8_is_refused():
    with pytest.raises(InputError, match="multiples of 16"):
        freeze_in_float8(add_adapter(make_classifier(hidden_size=24, intermediate_size=48), "lora", r=2))
    with pytest.raises(InputError, match="no frozen nn.Linear"):
        freeze_in_float8(adapted_classifier(make_classifier(), None))
    quantized = add_adapter(make_classifier(hidden_size=32, intermediate_size=64), "lora", r=2)
    freeze_in_float8(quantized)
    with pytest.raises(InputError, match="Float8Linear: the base is quantized already"):
        freeze_in_float8(quantized)
    with pytest.raises(InputError, match="FourBitLinear: the base is quantized already; use quantize=none"):
        predict_memory("tiny-random", batch=2, length=16, quantize="4bit", speed=["float8"])
    with pytest.raises(InputError, match="no frozen nn.Linear"):
        predict_memory("tiny-random", "full-ft", batch=2, length=16, speed=["float8"])


def test_a_gpu_below_capability_8_9_is_refused_but_memory_is_predicted_beside_one(monkeypatch):
    before = predict_memory("tiny-random", batch=2, length=17, speed=["float8"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA A100")
    for capability in ((8, 0), (9, 0)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda found=capability: found)
        model = add_adapter(make_classifier(hidden_size=32, intermediate_size=64), "lora", r=2)
        with nullcontext() if capability == (9, 0) else pytest.raises(InputError, match="A100 cannot multiply .* 8.9"):
            freeze_in_float8(model, "cuda")
        accelerate(add_adapter(make_classifier(hidden_size=32, intermediate_size=64), "lora", r=2), ["float8"], "cpu")
        trace_setting.cache_clear()
        assert predict_memory("tiny-random", batch=2, length=17, speed=["float8"]) == before
