"""The choice of layers before training: what is measured, what peft is told, and what is refused."""

import json

import pytest
from conftest import ARCHITECTURES, collate, make_classifier, make_examples
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments

from irtuning import InputError, add_adapter, find_layers, probe_layers, train
from irtuning.method.layers import adapter_modules
from irtuning.training.probe import limited

TINY = {"corpus": "synthetic", "model": "tiny-random", "max_length": 32, "dropout": 0.1}


def adapted(model):
    """The adapted modules of each layer that has any."""
    found = {index: {name for name, _ in adapter_modules(layer)} for index, layer in enumerate(find_layers(model))}
    return {index: names for index, names in found.items() if names}


@pytest.mark.parametrize("score", ["rms", "l2", "reference"])
def test_a_probe_measures_and_chooses_what_the_method_does(score):
    config, table = probe_layers(**TINY, batches=2, share=0.4, score=score)
    run = train(**TINY, method=f"probe:batches=2:score={score}", share=0.4, max_steps=3, eval_every=3,
                progress=False)  # fmt: skip
    assert run.layers[2] == config.layers_to_transform == table.index[table.learns].tolist() and sum(table.learns) == 5
    assert table.score.tolist() == run.record["train"]["steps"][2]["scores"]  # to the bit


def test_chunks_of_layers_give_the_same_scores_and_files():
    config, whole = probe_layers(**TINY, batches=2, accumulation=2)
    for chunk in (5, 100):
        again, chunked = probe_layers(**TINY, batches=2, accumulation=2, chunk=chunk)
        assert chunked.score.tolist() == pytest.approx(whole.score.tolist(), rel=1e-5)
        assert again.layers_to_transform == config.layers_to_transform


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_configuration_puts_the_same_adapters_into_the_chosen_layers_alone(architecture):
    every = add_adapter(make_classifier(architecture), "lora", r=2)
    few = get_peft_model(make_classifier(architecture), limited(every, [1, 3]))
    assert adapted(few) == {index: names for index, names in adapted(every).items() if index in (1, 3)}


def test_a_plain_trainer_reads_the_folder_and_trains_these_layers_and_the_head(tmp_path):
    layers = probe_layers(**TINY, batches=1, share=0.3, output=tmp_path / "layers")[0].layers_to_transform
    assert {path.name for path in (tmp_path / "layers").iterdir()} == {"adapter_config.json", "probe.json"}
    saved = json.loads((tmp_path / "layers" / "probe.json").read_text())
    assert saved["layers"] == layers and len(saved["scores"]) == 12
    model = get_peft_model(make_classifier(num_hidden_layers=12), LoraConfig.from_pretrained(tmp_path / "layers"))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    arguments = TrainingArguments(str(tmp_path), max_steps=2, report_to="none", disable_tqdm=True, use_cpu=True,
                                  learning_rate=1e-2)  # fmt: skip
    Trainer(model, arguments, train_dataset=make_examples(), data_collator=collate).train()
    moved = [name for name, p in model.named_parameters() if not p.equal(before[name])]
    assert {int(n.split(".layers.")[1].split(".")[0]) for n in moved if ".layers." in n} == set(layers)
    assert any("score" in name for name in moved) and list(adapted(model)) == layers


@pytest.mark.parametrize(("changes", "message"), [
    ({"batches": 10**4}, r"batches is 10000, but synthetic has \d+ of \d+ examples; lower one"),
    ({"batches": 0}, "batches is 0; give 1 or more"), ({"share": 0.0}, "share is 0.0; give a value from"),
    ({"share": 1.5}, "share is 1.5"), ({"chunk": 0}, "chunk is 0, processes 1; give 1 or more"),
    ({"score": "norm"}, "unknown score"), ({"adapter": "bottleneck"}, "has no layers_to_transform; use lora or dora"),
])  # fmt: skip
def test_what_cannot_work_is_told_before_the_model_is_loaded(changes, message, tmp_path):
    with pytest.raises(InputError, match=message):  # the weights of roberta-base are not here
        probe_layers(**TINY | {"model": "roberta-base"} | changes, output=tmp_path / "new")
    assert not [*tmp_path.iterdir()]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(InputError, match="give an empty or new folder"):
        probe_layers(**TINY, output=tmp_path / "full")
