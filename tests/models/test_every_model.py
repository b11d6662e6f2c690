"""Every sequence classifier of transformers trains, and predicts the same when it is loaded again, or is refused."""

import re
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as EVERY

from irtuning import InputError, LayerTuner, add_adapter, find_layers
from irtuning.method.layers import adapter_modules, candidate_layers
from irtuning.models.adapters import no_rename_warning
from irtuning.models.loading import load_classifier, position_limit, resolve

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4,
         "num_attention_heads": 2, "pad_token_id": 0, "num_labels": 3}  # fmt: skip
USUAL = ("bert", "deberta-v2", "distilbert", "electra", "gpt2", "llama", "modernbert", "mpnet", "phi", "qwen3",
         "roberta", "xlm-roberta")  # fmt: skip
NOT_BUILT = {"layoutlmv2"}  # it needs the detectron2 library
GROUPED, TEXT = {"num_key_value_heads": 2}, {k: v for k, v in SIZES.items() if k != "num_labels"}
LATENT = GROUPED | {  # attention over compressed keys, and experts
    "moe_intermediate_size": 16, "n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1,
    "num_experts_per_tok": 2, "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 16}  # fmt: skip
LINEAR = GROUPED | {"head_dim": 16, "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2,
                    "linear_num_value_heads": 2}  # fmt: skip
HEADS = GROUPED | {"head_dim": 16}
IMAGES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1,
          "image_size": 28, "patch_size": 14}  # fmt: skip
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
MORE = {  # what a model needs beside SIZES to be tiny; None takes a size away
    "axk1": LATENT, "cohere_compass_text": {"layer_types": ["full_attention"] * 4,
        "rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}},
    "deepseek_v2": LATENT, "deepseek_v3": LATENT | {"first_k_dense_replace": 1},
    "funnel": {"num_hidden_layers": None, "block_sizes": [2, 2], "d_model": 32, "n_head": 2, "d_head": 16,
               "d_inner": 64},
    "gemma3": {"text_config": TEXT | HEADS, "vision_config": IMAGES},
    "gpt_neo": {"num_layers": 4, "attention_types": [[["global", "local"], 2]]}, "gptj": {"rotary_dim": 8},
    "helium": {"head_dim": 16}, "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16, "num_experts": 4, "moe_topk": 2},
    "layoutlmv3": {"coordinate_size": 4, "shape_size": 8, "visual_embed": False}, "lilt": {"hidden_size": 48},
    "luke": {"entity_vocab_size": 8, "entity_emb_size": 8}, "ministral": {"head_dim": 16}, "mistral4": LATENT,
    "modernvbert": {"text_config": TEXT | {"model_type": "modernbert", "cls_token_id": 1, "sep_token_id": 2},
                    "vision_config": IMAGES},
    "nemotron": GROUPED,
    "perceiver": {"d_model": 32, "d_latents": 32, "num_latents": 8, "num_self_attends_per_block": 4},
    "plbart": {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2},
    "qwen3_5": {"text_config": TEXT | LINEAR, "vision_config": IMAGES | {"depth": 1, "num_heads": 1,
                                                                        "out_hidden_size": 32}},
    "qwen3_next": LINEAR | {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "num_experts": 4,
                            "num_experts_per_tok": 2},
    "reformer": {"attn_layers": ["local"] * 4, "axial_pos_embds": False, "attention_head_size": 16,
                 "feed_forward_size": 64},
    "squeezebert": {"embedding_size": 32} | {f"{part}_groups": 2 for part in ("q", "k", "v", "intermediate", "output")},
    "t5gemma": {"encoder": TEXT | HEADS, "decoder": TEXT | HEADS},
    "t5gemma2": {"encoder": {"text_config": TEXT | HEADS, "vision_config": IMAGES}, "decoder": TEXT | HEADS},
    "ultravbert": {"text_config": TEXT, "vision_config": IMAGES},
    "xlnet": {"d_model": 32, "n_head": 2, "d_inner": 64}, "xmod": {"default_language": "en_XX"},
    "zamba": GROUPED | {"layers_block_type": ["mamba", "hybrid"] * 2, "mamba_d_state": 8, "n_mamba_heads": 2,
                        "attention_head_dim": 32},
    "zamba2": GROUPED | {"layers_block_type": ["mamba", "hybrid"] * 2, "mamba_d_state": 8, "mamba_headdim": 16,
                         "n_mamba_heads": 4, "mamba_ngroups": 1, "adapter_rank": 4},
}  # fmt: skip
REFUSED = {  # by name, and the reason
    "albert": "no transformer stack", "flaubert": "one list of layers|no attention block",
    "fnet": "no attention block", "funnel": "no transformer stack", "ibert": "cannot be put on",
    "jamba": "no attention block", "perceiver": "no classification head", "squeezebert": "cannot be put on",
    "xlm": "one list of layers|no attention block", "xlnet": "no attention block", "zamba": "no transformer stack",
    "zamba2": "no transformer stack",
} | dict.fromkeys(["bart", "bigbird_pegasus", "mbart", "mt5", "mvp", "plbart", "t5", "t5gemma", "t5gemma2", "umt5"],
                  "encoder-decoder")  # fmt: skip
FUSED = ("deepseek_v2", "deepseek_v3", "hunyuan_v1_moe", "qwen3_next")  # peft joins up_proj of experts with gate_proj


def build(name, seed=0):
    transformers.set_seed(seed)
    sizes = {k: v for k, v in (SIZES | {"use_cache": False} | MORE.get(name, {})).items() if v is not None}
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
        model = add_adapter(model, adapter, r=2) if adapter else model
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


@pytest.mark.parametrize("name", ["bert", "deberta-v2"])
@pytest.mark.parametrize("task", [{}, {"task_type": "FEATURE_EXTRACTION"}, {"task_type": "SEQ_CLS", "inference_mode": True}])
def test_a_configuration_of_peft_for_another_task_trains_the_whole_head(name, task, tmp_path):
    config = LoraConfig(r=2, target_modules=r".*layer\.\d+\.intermediate\.dense", **task)
    test_a_model_trains_and_is_equal_after_reload_or_is_refused(name, config, tmp_path)


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


def test_what_lies_outside_the_layers_learns_on_purpose_alone():
    """Biases are frozen, or refused where peft was used by hand; embeddings and tokens that were named learn."""
    every = {"target_modules": ["query"], "bias": "all", "task_type": "SEQ_CLS"}
    able = outside(add_adapter(build("mpnet"), LoraConfig(**every | {"target_modules": ["q"]})))
    assert able and all("classifier.modules_to_save" in n for n in able)
    with pytest.raises(InputError, match="embeddings.LayerNorm.bias can learn and is outside.*no bias='all'"):
        candidate_layers(get_peft_model(build("bert"), LoraConfig(**every)))
    for more in ({"modules_to_save": ["word_embeddings"]}, {"trainable_token_indices": {"word_embeddings": [1, 2]}}):
        for bias in ("none", "all"):
            able = outside(add_adapter(build("bert"), LoraConfig(**every | more | {"bias": bias})))
            assert any("word_embeddings" in n for n in able) and not any("LayerNorm" in n for n in able)
        candidate_layers(get_peft_model(build("bert"), LoraConfig(**every | more | {"bias": "none"})))


def test_a_configuration_of_text_inside_another_gets_the_padding_token(tmp_path):
    model = build("qwen3_5")
    model.config.pad_token_id = model.config.get_text_config().pad_token_id = None
    model.save_pretrained(tmp_path)
    loaded = load_classifier(resolve(str(tmp_path)), ["a", "b"], SimpleNamespace(pad_token_id=3))
    assert loaded(torch.tensor([[5, 6, 7], [5, 6, 3]])).logits.shape == (2, 2)


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


@pytest.mark.parametrize("name", (*FUSED, "phimoe"))
def test_by_default_attention_takes_the_adapter_where_peft_fuses_the_experts_and_routers_take_none(name):
    for adapter in ("lora", "bottleneck"):
        adapted = dict(adapter_modules(add_adapter(build(name), adapter)))
        assert not [n for n in adapted if re.search("expert_?gate|experts.(?!up|down)|router|wg", n)]
        assert any("mlp" in n for n in adapted) == (adapter == "bottleneck" and name != "phimoe")
    with pytest.raises(InputError, match="adapter PeftType.LORA cannot be put on.*Give target_modules, such as [qi].*_"):
        add_adapter(build(name), LoraConfig(target_modules=["no_such_map"]))


@pytest.mark.parametrize("name, limit", [("bert", 34), ("roberta", 33), ("mpnet", 32), ("esm", 33), ("ibert", 33)])
def test_the_context_is_what_the_model_can_read(name, limit, monkeypatch):
    monkeypatch.setitem(MORE, name, {"max_position_embeddings": 34})
    model = build(name).eval()
    assert position_limit(model) == limit
    model(torch.full((2, limit), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.full((2, limit + 1), 5))


def test_a_model_with_parts_for_languages_must_know_its_language(monkeypatch, tmp_path):
    for language, refused in (("en_XX", False), (None, True)):
        monkeypatch.setitem(MORE, "xmod", {"default_language": language, "languages": ["en_XX", "cs_CZ"]})
        build("xmod").save_pretrained(tmp_path / str(language))
        with pytest.raises(InputError, match="set it in its config.json to one of: en_XX, cs_CZ") if refused else nullcontext():
            load_classifier(resolve(str(tmp_path / str(language))), ["a", "b"], SimpleNamespace(pad_token_id=0))


def test_a_model_of_any_length_has_no_limit():
    assert position_limit(build("xlnet")) is None
