"""Models that a user wrapped with peft by hand, adapters of peft's own folders, and what a stack may be made of."""

import logging

import pytest
import torch
from conftest import make_classifier
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, inject_adapter_in_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from torch import nn
from transformers.integrations.peft import MIN_PEFT_VERSION
from transformers.utils import check_peft_version

from irtuning import InputError, LayerTuner, RevisionClassifier, add_adapter, find_layers, load_corpus, train

TARGETS = {"r": 2, "target_modules": ["q_proj"]}


class Own(nn.Module):
    """A user's own classifier: an encoder and a head, no Hugging Face class around them."""

    def __init__(self, wrap=lambda encoder: encoder):
        super().__init__()
        self.encoder, self.head = wrap(make_classifier().model), nn.Linear(32, 3)

    def forward(self, ids):
        return self.head(self.encoder(ids).last_hidden_state[:, -1])


def tuned(model, strategy="last-k:share=0.5"):
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    return LayerTuner(model, strategy, optimizer), optimizer


@pytest.mark.parametrize("task, warned", [({}, True), ({"task_type": "FEATURE_EXTRACTION"}, True),
                                          ({"task_type": "SEQ_CLS"}, False), ({"modules_to_save": ["score"]}, False)])
def test_a_head_that_peft_froze_is_told_of_once(task, warned, caplog):
    with caplog.at_level(logging.WARNING, "irtuning"):
        model = get_peft_model(make_classifier(), LoraConfig(**TARGETS, **task))
        if task.get("task_type") == "SEQ_CLS":  # frozen on purpose
            model.base_model.model.score.requires_grad_(False)
        tuned(model)
    said = [m for m in caplog.messages if "task_type" in m and "modules_to_save=['score']" in m]
    assert len(said) == warned


def test_ones_own_module_learns_under_peft_and_with_peft_on_its_encoder_alone(caplog):
    for model in (get_peft_model(Own(), LoraConfig(**TARGETS, modules_to_save=["head"])),
                  Own(lambda encoder: get_peft_model(encoder, LoraConfig(**TARGETS)))):  # fmt: skip
        tuner, optimizer = tuned(model)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        for _ in range(2):
            tuner.begin_step()
            model(torch.randint(1, 30, (2, 5))).square().mean().backward()
            tuner.end_backward()
            optimizer.step()
            optimizer.zero_grad()
        moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
        assert any("head" in name for name in moved) and any("lora_B" in name for name in moved)
        assert all("lora" in name or "head" in name for name in moved)
    assert not caplog.messages


def test_a_weight_shared_by_all_layers_is_refused():
    model = add_adapter(make_classifier(), LoraConfig(**TARGETS))
    maps = [layer.self_attn.q_proj.lora_A["default"] for layer in find_layers(model)]
    maps[1].weight = maps[0].weight
    with pytest.raises(InputError, match=r"lora_A.* is shared by several layers"):
        tuned(model)


@pytest.mark.parametrize("library", ["transformers", "peft"])
def test_adapters_without_a_peft_model_leave_the_head_frozen(library, caplog):
    if library == "transformers":
        try:
            check_peft_version(min_version=MIN_PEFT_VERSION)
        except ValueError as error:  # transformers demands a newer peft than the one that is installed
            pytest.skip(str(error))
    for config, warned in ((TARGETS | {"task_type": "SEQ_CLS"}, 1), (TARGETS | {"modules_to_save": ["score"]}, 0)):
        model, config = make_classifier(), LoraConfig(**config)
        model.add_adapter(config) if library == "transformers" else inject_adapter_in_model(config, model)
        tuned(model)
        assert len([m for m in caplog.messages if "the head 'score' is frozen" in m]) == warned
        assert warned == (not any(p.requires_grad for p in model.score.parameters()))
        caplog.clear()


def test_merged_and_loaded_adapters_cannot_learn(tmp_path):
    model = get_peft_model(make_classifier(), LoraConfig(**TARGETS, task_type="SEQ_CLS"))
    model.save_pretrained(tmp_path)
    model.merge_adapter()
    with pytest.raises(InputError, match=r"are merged into the weights.* call unmerge_adapter\(\)"):
        tuned(model)
    loaded = PeftModel.from_pretrained(make_classifier(), tmp_path)
    with pytest.raises(InputError, match="lacks parameters of layers.*needs is_trainable=True"):
        LayerTuner(loaded, "ir", torch.optim.SGD([torch.ones(1)]))  # nothing else can learn


@pytest.mark.parametrize("task", [{"task_type": "SEQ_CLS"}, {}], ids=["classifier", "no-task"])
def test_a_folder_that_peft_wrote_trains_and_predicts_the_same_after_reload(task, own_corpus, tmp_path):
    get_peft_model(make_classifier(), LoraConfig(**TARGETS, **task)).save_pretrained(tmp_path / "given")
    assert '"inference_mode": true' in (tmp_path / "given" / "adapter_config.json").read_text()
    corpus = load_corpus(own_corpus["corpus"], before="old", after="new", label="why", group="writer")
    run = train(corpus=corpus, model="tiny-random", max_steps=2, warmup_steps=0, learning_rate=1e-2, progress=False,
                adapter=str(tmp_path / "given"), output=tmp_path / "run")  # fmt: skip
    saved = PeftConfig.from_pretrained(tmp_path / "run" / "adapter")
    assert (saved.r, {*saved.target_modules}, saved.task_type) == (2, {"q_proj"}, "SEQ_CLS")
    predicted = RevisionClassifier.load(tmp_path / "run").predict(corpus.validation)
    recorded = [row["probabilities"] for row in run.record["predictions"]["validation"]]
    assert [[*p.probabilities.values()] for p in predicted] == [pytest.approx(row, abs=1e-5) for row in recorded]


# every peft tuner that puts itself into the layers, with settings that fit a model 32 wide
NEEDS = {"ADALORA": {"total_step": 10, "tinit": 1, "tfinal": 1}, "C3A": {"block_size": 8},
         "FOURIERFT": {"n_frequency": 8}, "IA3": {"feedforward_modules": []}, "LN_TUNING": {"target_modules": None},
         "MISS": {"r": 2}, "PSOFT": {"r": 2}, "ROAD": {"group_size": 8}, "SHIRA": {"r": 2},
         "VBLORA": {"vector_length": 8, "num_vectors": 8}, "WAVEFT": {"n_frequency": 8}}  # fmt: skip
REFUSED = {  # by peft type, where and why
    "LILY": "shared by several layers", "TINYLORA": "shared by several layers", "UNILORA": "shared by several layers",
    "VBLORA": "shared by several layers", "POLY": "needs the ids of tasks", "SHADOW": "changes what the layers return",
}  # fmt: skip
# these put tokens before the text, train tokens, or mix finished adapters: none lies inside the layers
OUTSIDE = {"ADAPTION_PROMPT", "CARTRIDGE", "CPT", "IRTUNING_BOTTLENECK", "MULTITASK_PROMPT_TUNING", "PREFIX_TUNING",
           "PROMPT_TUNING", "P_TUNING", "TRAINABLE_TOKENS", "XLORA"}  # fmt: skip


@pytest.mark.wide
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", sorted({str(getattr(t, "value", t)) for t in PEFT_TYPE_TO_TUNER_MAPPING} - OUTSIDE))
def test_every_tuner_inside_layers_trains_and_is_equal_after_reload_or_is_refused(kind, tmp_path):
    config = PEFT_TYPE_TO_CONFIG_MAPPING[kind](**{"target_modules": ["q_proj", "v_proj"]} | NEEDS.get(kind, {}))
    ids = torch.randint(5, 60, (3, 12))
    if kind in REFUSED:  # before training, also where peft itself put the adapter on
        for wrap in (add_adapter, get_peft_model):
            with pytest.raises(InputError, match=REFUSED[kind]):
                tuned(wrap(make_classifier(), config))
        return
    model = add_adapter(make_classifier(), config)
    tuner, optimizer = tuned(model, "ir")
    for _ in range(2):
        before = [[p.detach().clone() for p in layer.parameters()] for layer in find_layers(model)]
        chosen = tuner.begin_step()
        model(ids, labels=torch.tensor([0, 1, 2])).loss.backward()
        tuner.end_backward()
        optimizer.step()
        optimizer.zero_grad()
        moved = [i for i, (layer, old) in enumerate(zip(find_layers(model), before, strict=True))
                 if not all(torch.equal(p, q) for p, q in zip(layer.parameters(), old, strict=True))]  # fmt: skip
        assert {*moved} <= {*chosen}
    model.eval().save_pretrained(tmp_path)
    with torch.no_grad():
        loaded = PeftModel.from_pretrained(make_classifier(), tmp_path).eval()
        assert torch.allclose(loaded(ids).logits, model(ids).logits, atol=1e-5)
