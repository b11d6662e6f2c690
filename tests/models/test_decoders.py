"""Decoders whose tokenizer has no padding token, or none of its own: in training, evaluation and prediction."""

import numpy as np
import pytest
import transformers
from conftest import ARCHITECTURES

from irtuning import InputError, embedded_model_path, train
from irtuning.corpora.load import load_corpus
from irtuning.models.loading import load_tokenizer, resolve
from irtuning.training.classifier import RevisionClassifier

DECODERS = ("Llama", "Qwen3", "Mistral", "GPT2", "Gemma", "Phi")
PAIRS = [("a car", "a red car"), ("the car stops, " * 6, "the car stops. " * 7), ("", "a"), ("x y </s>", "x </s>")]


def tokenizer_without_pad(**tokens: str) -> transformers.PreTrainedTokenizerFast:
    """Return the tokenizer of `mini`, which begins with <s> and ends with </s>, with these special tokens alone."""
    file = str(embedded_model_path() / "tokenizer.json")
    return transformers.PreTrainedTokenizerFast(tokenizer_file=file, model_max_length=128, **tokens)


def saved_decoder(folder, architecture: str, **tokens: str) -> str:
    """Save a tiny random decoder that is sensitive to its input, and return its folder."""
    transformers.set_seed(0)
    settings = ARCHITECTURES[architecture] | {"vocab_size": 8192, "pad_token_id": None, "initializer_range": 0.3}
    config = getattr(transformers, f"{architecture}Config")(**settings)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer_without_pad(**tokens).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(("architecture", "form"), zip(DECODERS, ["pair", "marked"] * 3, strict=True))
def test_a_batch_is_read_as_its_texts_one_by_one(tmp_path, own_corpus, architecture, form):
    model = saved_decoder(tmp_path / "model", architecture, eos_token="</s>")
    corpus = load_corpus(own_corpus["corpus"], before="old", after="new", label="why", group="writer")
    settings = {"model": model, "form": form, "max_steps": 2, "warmup_steps": 0, "max_length": 128, "rank": 4}
    run = train(corpus=corpus, output=tmp_path / "run", progress=False, learning_rate=1e-2, **settings)
    classifier, pairs = RevisionClassifier.load(tmp_path / "run"), [*PAIRS, *corpus.validation]
    together, alone = (
        np.array([list(p.probabilities.values()) for p in classifier.predict(pairs, batch_size=size)])
        for size in (len(pairs), 1))  # fmt: skip
    evaluated = np.array([row["probabilities"] for row in run.record["predictions"]["validation"]])
    assert np.abs(together - alone).max() < 1e-4 and alone[: len(PAIRS)].std(0).min() > 1e-3
    assert np.abs(evaluated - alone[len(PAIRS) :]).max() < 1e-4


def test_any_special_token_pads_and_none_is_an_error(tmp_path):
    assert load_tokenizer(resolve(saved_decoder(tmp_path / "bos", "Llama", bos_token="<s>"))).pad_token == "<s>"
    with pytest.raises(InputError, match="no special token to pad with"):
        load_tokenizer(resolve(saved_decoder(tmp_path / "none", "Llama")))
