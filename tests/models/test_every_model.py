"""Every sequence classifier of transformers trains, and predicts the same when it is loaded again, or is refused."""

import re
from types import SimpleNamespace

import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as EVERY

from irtuning import InputError, LayerTuner, add_adapter, find_layers
from irtuning.models.adapters import no_rename_warning
from irtuning.models.loading import load_classifier, resolve

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4,
         "num_attention_heads": 2, "pad_token_id": 0, "num_labels": 3}  # fmt: skip
USUAL = ("bert", "deberta-v2", "distilbert", "electra", "gpt2", "llama", "modernbert", "mpnet", "phi", "qwen3",
         "roberta", "xlm-roberta")  # fmt: skip
# these are not built with the sizes above: they need others, another library, or are too large for a test
NOT_BUILT = {
    "cohere_compass_text", "funnel", "gpt_neo", "hunyuan_v1_dense", "hunyuan_v1_moe", "layoutlmv2", "ministral",
    "nemotron", "plbart", "reformer", "squeezebert", "xlnet", "zamba", "zamba2",
    "layoutlmv3", "lilt", "axk1", "deepseek_v2", "deepseek_v3", "gemma3", "luke", "mistral4", "modernvbert", "perceiver", "qwen3_5",
    "qwen3_next", "t5gemma", "t5gemma2", "ultravbert",
}  # fmt: skip
MORE = {"helium": {"head_dim": 16}, "gptj": {"rotary_dim": 8}, "xmod": {"default_language": "en_XX"}}
REFUSED = {  # by name, and the reason
    "albert": "no transformer stack", "bart": "encoder-decoder", "bigbird_pegasus": "encoder-decoder",
    "flaubert": "one list of layers|no attention block", "mbart": "encoder-decoder", "mt5": "encoder-decoder",
    "fnet": "no attention block", "ibert": "cannot be put on", "jamba": "no attention block",
    "mvp": "encoder-decoder", "t5": "encoder-decoder", "umt5": "encoder-decoder",
    "xlm": "one list of layers|no attention block",
}  # fmt: skip


def build(name, seed=0):
    transformers.set_seed(seed)
    sizes = SIZES | {"use_cache": False} | MORE.get(name, {})
    if getattr(AutoConfig.for_model(name, **sizes), "num_key_value_heads", None) not in (None, 2):
        sizes |= {"num_key_value_heads": 2}
    return AutoModelForSequenceClassification.from_config(AutoConfig.for_model(name, **sizes))


def names():
    return [pytest.param(name, marks=[] if name in USUAL else pytest.mark.wide) for name in sorted(EVERY)
            if name not in NOT_BUILT]  # fmt: skip


def outside(model):
    """Return the weights outside the layers that can learn, by name."""
    inside = {id(p) for p in find_layers(model).parameters()}
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad and id(p) not in inside}


@pytest.mark.parametrize("adapter", ["lora", None])
@pytest.mark.parametrize("name", names())
@pytest.mark.filterwarnings("ignore")
def test_a_model_trains_and_is_equal_after_reload_or_is_refused(name, adapter, tmp_path):
    ids, model = torch.randint(5, 60, (3, 12), generator=torch.Generator().manual_seed(1)), build(name)
    try:
        model = add_adapter(model, "lora", r=2) if adapter else model
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.5)
        tuner = LayerTuner(model, "ir" if adapter else "lisa", optimizer)
    except InputError as refusal:
        assert re.search(REFUSED.get(name, "^not refused$"), str(refusal)), refusal
        return
    assert name not in REFUSED or not adapter
    layers, first = find_layers(model), outside(model)
    for _ in range(2):
        before = [[p.detach().clone() for p in layer.parameters()] for layer in layers]
        chosen = tuner.begin_step()
        model(ids, labels=torch.tensor([0, 1, 2])).loss.backward()
        tuner.end_backward()
        optimizer.step()
        optimizer.zero_grad()
        for index, (layer, old) in enumerate(zip(layers, before, strict=True)):
            if index not in chosen:
                assert all(torch.equal(p, q) for p, q in zip(layer.parameters(), old, strict=True))
    head = [n for n, p in outside(model).items() if not torch.equal(p, first[n]) and p.ndim > 1]
    assert head, "the head did not learn"
    model.eval().save_pretrained(tmp_path)
    with no_rename_warning():
        loaded = (PeftModel.from_pretrained(_renewed(build(name), model), tmp_path) if adapter
                  else AutoModelForSequenceClassification.from_pretrained(tmp_path, use_safetensors=True))  # fmt: skip
    with torch.no_grad():
        assert torch.allclose(loaded.eval()(ids).logits, model(ids).logits, atol=1e-5)


def _renewed(base, trained):
    """Return the base model with a head drawn anew, as if it was loaded from a checkpoint without a head."""
    with torch.no_grad():
        for name, child in base.named_children():
            if name != base.base_model_prefix:
                for parameter in child.parameters():
                    parameter.normal_()
    return base


def test_what_else_can_learn_in_a_layer_is_frozen_with_it_and_a_configuration_may_lack_its_task():
    model = add_adapter(build("bert"), LoraConfig(target_modules=["query"], bias="all", inference_mode=True,
                                                  modules_to_save=["output.LayerNorm"]))  # fmt: skip
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    tuner = LayerTuner(model, "last-k:share=0.25", optimizer)
    assert tuner.begin_step() == [3]
    for layer in list(find_layers(model))[:3]:
        assert not [n for n, p in layer.named_parameters() if p.requires_grad]
    assert any("classifier.modules_to_save" in n for n in outside(model))
    with pytest.raises(InputError, match="outside the 4 layers"):
        add_adapter(build("bert"), LoraConfig(target_modules=["query", "word_embeddings"]))


def test_a_masked_lm_gets_a_new_pooler_and_a_finished_head_is_drawn_anew(tmp_path):
    tokenizer, config = SimpleNamespace(pad_token_id=0), AutoConfig.for_model("bert", **SIZES)
    transformers.AutoModelForMaskedLM.from_config(config).save_pretrained(tmp_path / "masked")
    model = load_classifier(resolve(str(tmp_path / "masked")), ["a", "b"], tokenizer)
    assert any("pooler" in name for name in outside(add_adapter(model, "lora", r=2)))
    old = build("bert")
    old.save_pretrained(tmp_path / "finished")
    for labels in (["a", "b", "c"], ["a", "b"]):
        new = load_classifier(resolve(str(tmp_path / "finished")), labels, tokenizer)
        assert len(new.classifier.weight) == len(labels)
        assert torch.equal(new.bert.pooler.dense.weight, old.bert.pooler.dense.weight)
        assert not torch.equal(new.classifier.weight, old.classifier.weight)
    with pytest.raises(InputError, match="beyond its 64 embeddings"):
        load_classifier(resolve(str(tmp_path / "finished")), labels, SimpleNamespace(pad_token_id=64))
