"""The whole classification head learns and is saved with the adapter."""

import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import BertConfig, BertForSequenceClassification, DebertaV2Config, DebertaV2ForSequenceClassification

from irtuning.models.adapters import add_adapter

SIZES = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=2,
             pad_token_id=0, num_labels=3)  # fmt: skip
SHAPES = [(BertForSequenceClassification, BertConfig), (DebertaV2ForSequenceClassification, DebertaV2Config)]
TARGETS = {"r": 2, "target_modules": r".*layer\.\d+\.intermediate\.dense"}
ADAPTERS = ["lora", LoraConfig(**TARGETS), LoraConfig(**TARGETS, task_type="FEATURE_EXTRACTION"),
            LoraConfig(**TARGETS, task_type="SEQ_CLS", inference_mode=True)]  # fmt: skip


@pytest.mark.parametrize("kind, settings", SHAPES)
@pytest.mark.parametrize("adapter", ADAPTERS, ids=["named", "no-task", "features", "inference"])
def test_the_whole_head_learns_and_predicts_the_same_after_reloading(kind, settings, adapter, tmp_path):
    model = kind(settings(**SIZES))
    base = {name: value.clone() for name, value in model.base_model.state_dict().items()}
    head = {n for n, m in model.named_children() if n != model.base_model_prefix and [*m.parameters()]}
    adapted = add_adapter(model, adapter)
    learning = {name for name in head for n, p in adapted.named_parameters() if p.requires_grad and f".{name}." in n}
    assert learning == head
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], 0.5)
    ids = torch.randint(1, 64, (4, 9))
    for _ in range(2):
        adapted(input_ids=ids, labels=torch.tensor([0, 1, 2, 0])).loss.backward()
        optimizer.step()
    adapted.save_pretrained(tmp_path)
    fresh = kind(settings(**SIZES))
    fresh.base_model.load_state_dict(base)
    again = PeftModel.from_pretrained(fresh, tmp_path)
    with torch.inference_mode():
        assert torch.equal(adapted.eval()(input_ids=ids).logits, again.eval()(input_ids=ids).logits)
