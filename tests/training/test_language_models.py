"""The callback where a language model learns: in a plain Trainer and in trl's SFTTrainer; and one callback used twice."""

import pytest
import torch
from conftest import GATED, make_examples
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from trl import SFTConfig, SFTTrainer

from irtuning import IRTuning

ROWS = [{"input_ids": (ids := row["input_ids"][:4]), "labels": ids} for row in make_examples(40)]
WORDS = {word: number for number, word in enumerate(["<pad>", "<s>", "</s>", *map(str, range(3, 100))])}
SETTINGS = {"max_steps": 6, "use_cpu": True, "report_to": "none", "learning_rate": 1e-2, "save_strategy": "no",
            "disable_tqdm": True, "seed": 3, "bf16": False}  # fmt: skip


class Moves(TrainerCallback):
    """Keeps the layers that moved in each step; None stands for parameters outside the layers."""

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        self.before = {n: p.detach().clone() for n, p in model.named_parameters()}

    def on_step_end(self, args, state, control, model=None, **kwargs):
        moved = [n for n, p in model.named_parameters() if not torch.equal(p, self.before[n])]
        layers = {int(n.split(".layers.")[1].split(".")[0]) if ".layers." in n else None for n in moved}
        self.seen = [*getattr(self, "seen", []), layers]


def collate(rows):
    return {name: torch.tensor([row[name] for row in rows]) for name in ("input_ids", "labels")}


def language_trainer(kind, folder, callbacks, accumulation=1):
    """A Trainer of a tiny Llama with LoRA that takes 4 examples a step."""
    set_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**{n: v for n, v in GATED.items() if n != "num_labels"}))
    lora = LoraConfig(r=2, task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"], lora_dropout=0.0)
    cut = {"per_device_train_batch_size": 4 // accumulation, "gradient_accumulation_steps": accumulation}
    if kind == "Trainer":
        arguments = TrainingArguments(str(folder), **cut, **SETTINGS)
        return Trainer(get_peft_model(model, lora), arguments, collate, ROWS, callbacks=callbacks)
    words = Tokenizer(models.WordLevel(WORDS, unk_token="<pad>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    return SFTTrainer(model, SFTConfig(str(folder), **cut, **SETTINGS), train_dataset=Dataset.from_list(ROWS),
                      callbacks=callbacks, peft_config=lora, processing_class=tokenizer)  # fmt: skip


@pytest.mark.parametrize("kind", ["Trainer", "SFTTrainer"])
def test_only_the_chosen_layers_of_a_language_model_move_however_a_step_is_cut(tmp_path, kind, caplog):
    whole, parts, moves = IRTuning(), IRTuning(), Moves()
    language_trainer(kind, tmp_path, [whole, moves]).train()
    language_trainer(kind, tmp_path, [parts], accumulation=2).train()
    assert moves.seen == [set(row["layers"]) for row in whole.history] and len({*map(frozenset, moves.seen)}) > 1
    assert [row["layers"] for row in parts.history] == [row["layers"] for row in whole.history]
    norms = [[row["gradient_norm"] for row in callback.history] for callback in (whole, parts)]
    assert norms[1] == pytest.approx(norms[0], rel=1e-4) and min(norms[0]) > 0.01
    assert "is frozen" not in caplog.text  # a language model's head is pre-trained and need not learn


def test_one_callback_serves_two_trainers_after_one_another(tmp_path):
    callback, found = IRTuning(), []
    for kind in ("Trainer", "SFTTrainer", "Trainer"):
        language_trainer(kind, tmp_path, [callback]).train()
        found.append(callback.history)
    assert [len(history) for history in found] == [6, 6, 6] and found[0] == found[2] != found[1]
