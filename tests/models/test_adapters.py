"""Classifiers with adapters, ready for training; the catalogue of models."""

from pathlib import Path

import pytest
import torch
from conftest import make_classifier
from transformers import AutoModel, TrainerCallback

from irtuning import InputError, add_adapter, train
from irtuning.models.adapters import adapted_classifier
from irtuning.models.catalog import MODELS, model_names
from irtuning.models.loading import load_shape, resolve, with_depth


def test_what_learns_is_in_float32_the_head_can_be_frozen_and_a_rank_has_two_names():
    for freeze in (False, True):
        model = adapted_classifier(make_classifier().bfloat16(), "lora", rank=2, freeze_head=freeze)
        learning = {name: p.dtype for name, p in model.named_parameters() if p.requires_grad}
        assert set(learning.values()) == {torch.float32} and any("score" in name for name in learning) is not freeze
        assert {p.dtype for p in model.parameters() if not p.requires_grad} >= {torch.bfloat16}
    model = adapted_classifier(make_classifier().bfloat16(), None, checkpointing=True)
    assert all(p.requires_grad and p.dtype == torch.float32 for p in model.parameters())
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    for settings in ({"rank": 3}, {"r": 3}):
        config = add_adapter(make_classifier(), "dora", alpha=6, dropout=0.0, **settings).peft_config["default"]
        assert (config.r, config.lora_alpha, config.lora_dropout, config.use_dora) == (3, 6, 0.0, True)
    assert add_adapter(make_classifier(), "lora").peft_config["default"].r == 32
    with pytest.raises(InputError, match="width is 0"):
        add_adapter(make_classifier(), "bottleneck", width=0)


def test_shapes_have_as_many_parameters_as_was_published_and_are_read_from_a_folder(tmp_path):
    """Billions of parameters from the model cards, less an output projection that is not tied to the embeddings."""
    published = {
        "llama-3.1-8b": 8.030 - 0.525, "mistral-7b": 7.248 - 0.134, "deepseek-r1-llama-8b": 8.030 - 0.525,
        "llama-2-13b": 13.016 - 0.164, "qwen3-8b": 8.191 - 0.622, "phi-2": 2.780 - 0.131, "smollm2-135m": 0.1345,
        "smollm2-135m-instruct": 0.1345, "smollm2-135m-q4": 0.1345,
        "smollm2-360m": 0.3618, "qwen3-0.6b": 0.596, "roberta-base": 0.1247, "roberta-large": 0.3554,
        "modernbert-base": 0.149}  # fmt: skip
    assert set(published) == set(MODELS)
    for name, billions in published.items():
        config = load_shape(name)
        with torch.device("meta"):
            one, two = (AutoModel.from_config(with_depth(config, depth)).num_parameters() for depth in (1, 2))
        assert (one + (config.num_hidden_layers - 1) * (two - one)) / 1e9 == pytest.approx(billions, rel=0.01), name
    load_shape("smollm2-135m").save_pretrained(tmp_path)
    assert resolve(str(tmp_path)) == resolve(str(tmp_path / "config.json"))
    assert load_shape(str(tmp_path)).hidden_size == 576
    with pytest.raises(InputError, match=r"folder .*tests has no config.json, .* that save_pretrained wrote"):
        resolve(str(Path(__file__).parents[1]))
    assert set(model_names()) == {"mini", "mini-random", "tiny-random", *MODELS}
    with pytest.raises(InputError, match="not known offline"):
        load_shape("nobody/unknown-model")


def test_a_run_with_checkpointing_lets_backpropagation_end_early():
    class Look(TrainerCallback):
        def on_train_begin(self, args, state, control, model=None, **kwargs):
            hooks = model.get_base_model().get_input_embeddings()._forward_hooks.values()
            raise StopIteration([hook.__name__ for hook in hooks])

    small = {"corpus": "synthetic", "model": "tiny-random", "method": "last-k", "max_steps": 1, "checkpointing": True}
    with pytest.raises(StopIteration) as seen:
        train(**small, callbacks=[Look()], progress=False)
    assert seen.value.args == ([],)  # none that makes the embeddings' output require a gradient
