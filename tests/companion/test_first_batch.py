"""Tests of the scores on the first batch and of the live picture of a training."""

import pytest

from irtuning.companion.first_batch import component_norms, layer_scores
from irtuning.companion.live_picture import LiveLayers
from irtuning.corpora.load import load_corpus
from irtuning.errors import InputError
from irtuning.training.run import train


OPTIONS = {"model": "tiny-random", "batch_size": 8, "device": "cpu", "progress": False, "max_steps": 2}


def test_scores_are_those_of_the_first_step_of_a_run_and_modules_add_up_to_their_layer():
    """A run with all layers trainable measures the same scores at its first step."""
    corpus = load_corpus("synthetic")
    run = train(corpus=corpus, method="ir:score=l2:refresh_every=1", dropout=0.0, **OPTIONS)
    measured = run.record["train"]["steps"][1]["scores"]
    scores = layer_scores(corpus, "tiny-random")
    assert scores["l2"].tolist() == pytest.approx(measured, rel=1e-4)
    assert scores.cosine.between(-1, 1).all() and scores.weight.gt(0).all()
    assert scores.attrs["made_with"].startswith("tiny-random (random weights, ")
    norms = component_norms(corpus, "tiny-random")
    assert list(norms) == ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]
    assert ((norms**2).sum(axis=1) ** 0.5).tolist() == pytest.approx(scores["l2"].tolist(), rel=1e-5)


def test_the_live_picture_is_drawn_at_the_end():
    live = LiveLayers()
    train(method="ir", callbacks=[live], **OPTIONS)
    assert live.image.startswith(b"\x89PNG")
    with pytest.raises(InputError, match="every is 0"):
        LiveLayers(every=0)
