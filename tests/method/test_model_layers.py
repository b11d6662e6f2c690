"""The layers of every architecture, with and without adapters."""

import pytest
import torch
from conftest import ARCHITECTURES, make_classifier
from peft import IA3Config, LNTuningConfig, LoHaConfig, PeftModel, PrefixTuningConfig, VeraConfig

from irtuning import InputError, add_adapter, describe_layers, find_layers
from irtuning.method.layers import candidate_layers
from irtuning.method.scores import weight_scores
from irtuning.models.adapters import adaptable_modules

FIVE = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("adapter", ["lora", "dora", "bottleneck"])
def test_every_architecture(architecture, adapter):
    model = make_classifier(architecture)
    assert len(find_layers(model)) == 4
    wrapped = add_adapter(model, adapter, r=2, width=2)
    assert find_layers(wrapped) is find_layers(model)
    table = describe_layers(wrapped)
    inside = sum(p.numel() for n, p in wrapped.named_parameters() if p.requires_grad and "modules_to_save" not in n)
    assert all(f" {path} " in repr(table) for path in (*table.path, *table.adapters)) and "..." not in repr(table)
    assert len(table) == 4 and table.parameters.sum() == inside and table.parameters.nunique() == 1
    candidates = candidate_layers(wrapped)
    assert len(weight_scores(wrapped, candidates)) == 4
    for parameter in wrapped.parameters():
        parameter.grad = torch.ones_like(parameter)
    candidates.freeze_all_but([1])
    assert all((p.grad is None) == (not p.requires_grad) for group in candidates.parameters for p in group)
    moving = {n for n, p in wrapped.named_parameters() if p.requires_grad}
    assert all(".1." in n or "modules_to_save" in n for n in moving) and any("modules_to_save" in n for n in moving)


@pytest.mark.parametrize("architecture", ["Llama", "Mistral", "Qwen3", "Gemma"])
def test_adapted_modules_are_the_references_five(architecture):
    names = adaptable_modules(make_classifier(architecture))
    assert sorted({n.split(".")[-1] for n in names}) == sorted(FIVE) and len(names) == 20


@pytest.mark.parametrize("config", [
    IA3Config(task_type="SEQ_CLS"), VeraConfig(task_type="SEQ_CLS", target_modules=["q_proj"]),
    LoHaConfig(task_type="SEQ_CLS", target_modules=["q_proj"]), LNTuningConfig(task_type="SEQ_CLS"),
], ids=lambda config: config.peft_type.value)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Unsupported layer type:UserWarning")  # peft's own about RMSNorm; it works
def test_other_peft_tuners(config):
    assert all(candidate_layers(add_adapter(make_classifier(), config)).parameters)


def test_bottleneck_saves_and_loads_like_an_adapter(tmp_path):
    ids = torch.randint(3, 99, (2, 7), generator=torch.Generator().manual_seed(0))
    model = add_adapter(make_classifier(), "bottleneck", width=4).eval()
    plain = model(ids).logits
    for name, parameter in model.named_parameters():
        if "bottleneck_up" in name:
            torch.nn.init.normal_(parameter)
    moved = model(ids).logits
    assert not torch.allclose(plain, moved)
    with model.disable_adapter():
        assert torch.equal(model(ids).logits, make_classifier().eval()(ids).logits)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "adapter_model.safetensors").exists()
    assert torch.equal(PeftModel.from_pretrained(make_classifier(), tmp_path).eval()(ids).logits, moved)


def test_clear_errors():
    plain, pair = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    prefix = PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2)
    pair.config = type("C", (), {"is_encoder_decoder": True})()
    for call, message in (
        (lambda: find_layers(plain), "no transformer stack in Linear"), (lambda: find_layers(pair), "encoder-decoder"),
        (lambda: add_adapter(make_classifier(), prefix), "match no module"),
        (lambda: add_adapter(make_classifier(), "lora", target_modules=["absent"]), "cannot be put on"),
        (lambda: add_adapter(make_classifier(), "lorra"), "did you mean 'lora'"),
        (lambda: candidate_layers(make_classifier(), min_layer=3), "needs 2 or more"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            call()
