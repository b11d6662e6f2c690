"""A base in 4 bits, by bitsandbytes: it trains, a saved run predicts the same, and its bytes are predicted."""

import pytest
import torch
from torch import nn

from irtuning import RevisionClassifier, find_layers, load_corpus, train
from irtuning.memory.estimate import freeze_in_four_bits
from irtuning.memory.tracing import highest, trace_step
from irtuning.method.layers import adapter_parameters, candidate_layers
from irtuning.models.adapters import adapted_classifier
from irtuning.models.float8 import frozen_linears
from irtuning.models.loading import load_classifier, load_tokenizer, resolve

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: pip install 'irtuning[4bit]'")


def adapted(quantize):
    source = resolve("mini")
    model = load_classifier(source, ["one", "two"], load_tokenizer(source), precision="bf16", quantize=quantize)
    model.set_attn_implementation("eager")  # the GPU's kernels are not on a CPU
    return adapted_classifier(model, "lora", rank=8, alpha=8, dropout=0.0)


def test_a_run_learns_in_4_bits_and_the_saved_one_predicts_what_it_was_scored_on(tmp_path):
    run = train(corpus="synthetic", quantize="4bit", max_steps=20, eval_every=10, batch_size=8, warmup_steps=2,
                train_share=0.5, progress=False, output=tmp_path / "run")  # fmt: skip
    first, last = (row["loss"] for row in run.record["train"]["validation"])
    assert last < first - 0.02
    classifier = RevisionClassifier.load(tmp_path / "run")
    assert {type(m).__name__ for _, _, m in frozen_linears(classifier.model)} == {"Linear4bit"}
    validation = load_corpus("synthetic").validation
    right = [p.intention == r.intention for p, r in zip(classifier.predict(validation), validation, strict=True)]
    assert sum(right) / len(right) == pytest.approx(run.scores["validation"]["accuracy"], abs=1.5 / len(right))


def test_gradients_pass_through_the_base_also_after_an_evaluation():
    model = adapted("4bit")  # on a GPU, if there is one
    ids, labels = torch.arange(1, 41, device=model.device).reshape(2, 20), torch.tensor([0, 1], device=model.device)

    def loss():
        with torch.autocast(model.device.type, torch.bfloat16):
            return model(input_ids=ids, labels=labels).loss

    def gradient():
        model.train().zero_grad()
        loss().backward()
        return torch.cat([p.grad.flatten() for p in adapter_parameters(find_layers(model)[0])])

    before = gradient()
    model.eval()
    with torch.no_grad():
        loss()
    assert before.norm() > 0 and torch.allclose(gradient(), before, rtol=1e-3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's peaks are in reports/benchmarks/four_bit.json")
def test_the_stand_in_takes_the_bytes_of_the_real_one(monkeypatch):
    # peft asks whether a GPU's autocast is on, and if so adapters over 4 bits do not copy their input to float32
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device="cpu", asked=torch.is_autocast_enabled: asked("cpu"))

    def traced(real):
        model = adapted("4bit" if real else "none")
        if not real:
            freeze_in_four_bits(model)
        linears = [linear for _, _, linear in frozen_linears(model)]
        weights = sum(t.nbytes for layer in find_layers(model) for t in (*layer.parameters(), *layer.buffers()))
        weights += sum(linear.weight.quant_state.absmax.nbytes for linear in linears) if real else 0  # not in the module
        candidate_layers(model).freeze_all_but([2, 5, 8])
        found = trace_step(model, 4, 64, padded=True, autocast=True, vocabulary=500)
        assert not {nn.Linear} & {*map(type, linears)}
        return weights, highest(list(found.values())).sum()

    (weights, peak), (predicted, predicted_peak) = traced(True), traced(False)
    assert predicted == pytest.approx(weights, rel=0.01) and predicted_peak == pytest.approx(peak, rel=0.03)
