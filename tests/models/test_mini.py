"""The embedded model and its random counterpart."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from irtuning import InputError, embedded_model_path
from irtuning.models.loading import load_classifier, load_tokenizer, resolve


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(resolve("mini"))


@settings(deadline=None, max_examples=40)  # the first example loads the tokenizer
@given(st.text(max_size=200))
def test_any_unicode_text_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_random_counterparts_share_the_shape_and_not_the_weights(tokenizer):
    names = ("mini", "mini-random", "mini-random")
    mine, theirs, again = (load_classifier(resolve(n), ("a", "b"), tokenizer).state_dict() for n in names)
    assert {n: p.shape for n, p in mine.items()} == {n: p.shape for n, p in theirs.items()}
    for name in (name for name, p in mine.items() if p.ndim == 2):
        assert (mine[name] != theirs[name]).any()
        assert name == "score.weight" or (theirs[name] == again[name]).all()


def test_an_incomplete_checkpoint_is_refused(tmp_path, tokenizer):
    folder = Path(shutil.copytree(embedded_model_path(), tmp_path / "cut"))
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.layers.3.mlp.up_proj.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 of its weights, model\.layers\.3\.mlp\.up_proj"):
        load_classifier(resolve(str(folder)), ("a", "b"), tokenizer)
