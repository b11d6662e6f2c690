"""The table of the models that have a name: where they come from, their shape, and the settings they train with."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

REFERENCE_SETTINGS = {  # the defaults of the authors' code, for every model without settings of its own
    "rank": 32, "alpha": 64, "dropout": 0.05, "width": 256, "batch_size": 16, "learning_rate": 2e-4,
    "full_learning_rate": 2e-5,  # a value of this companion: the authors do not train all parameters
    "warmup_steps": 100, "epochs": 4, "max_length": 256, "eval_every": 10}  # fmt: skip
# The learning rates below have the best mean validation macro F1 on the synthetic corpus, with 200 steps and 2 seeds:
# for ir and full out of 1e-3, 2e-3, 5e-3 and 1e-2, and for full-ft and lisa out of 3e-4, 1e-3 and 3e-3.
MINI_SETTINGS = REFERENCE_SETTINGS | {
    "dropout": 0.0,  # as in the runs of the model card; on a CPU the dropout masks take a sixth of a step
    "warmup_steps": None, "eval_every": None,  # 10 % of the steps, and four times a run
    "rank": 16, "alpha": 32, "width": 32, "learning_rate": 1e-3, "full_learning_rate": 3e-4}  # fmt: skip
TINY_SETTINGS = MINI_SETTINGS | {"rank": 8, "alpha": 16, "width": 16, "learning_rate": 2e-3, "full_learning_rate": 1e-3}
# SmolLM2's, in public.json: of 2e-4, 5e-4, 1e-3 and 2e-3 with LoRA, 5e-5 and 1e-4 without, one seed, on validation.
MINI = "mini"  # the embedded model
OWNERS = {  # of models that the Hub once knew without an owner, by how their names begin
    "albert": "albert", "bert": "google-bert", "camembert": "almanach", "distilbert": "distilbert",
    "distilgpt2": "distilbert", "distilroberta": "distilbert", "gpt2": "openai-community", "roberta": "FacebookAI",
    "t5": "google-t5", "xlm": "FacebookAI", "xlnet": "xlnet"}  # fmt: skip
TINY_SHAPE = {"hidden_size": 64, "intermediate_size": 176, "num_attention_heads": 2, "num_key_value_heads": 2}
# The embedded model's shape and tokenizer, with some numbers changed, and weights drawn with a fixed seed.
RANDOM = {"mini-random": ({}, MINI_SETTINGS), "tiny-random": (TINY_SHAPE, TINY_SETTINGS)}


@dataclass(frozen=True)
class NamedModel:
    """A public model at a pinned revision."""
    hub_id: str  # or a GGUF file in a Python package, as package/name
    revision: str  # commit of the Hub's repository, or the SHA-256 of the GGUF file
    shape: dict  # the numbers of its config.json, so that memory can be predicted without a network
    form: str = "pair"  # how a revision is written for it, see `irtuning.models.prompts`
    instruct: tuple[str, str] | None = None  # Hub id and revision of the checkpoint for the instruction form
    settings: Mapping = field(default_factory=dict)  # that differ from REFERENCE_SETTINGS
    title: str = ""  # what records and captions call it, if its name does not say what it is


PUBLIC = json.loads(Path(__file__).with_name("public.json").read_text(encoding="utf-8"))
MODELS = {name: NamedModel(**row) for name, row in PUBLIC.items()}  # first the paper's six, then smaller ones


def model_names() -> list[str]:
    """Return the names that need no path: the embedded model, its random counterparts, the public models."""
    return [MINI, *RANDOM, *MODELS]


def embedded_model_path() -> Path:
    """Return the folder of `irtuning-mini`, which has the form of a Hugging Face model."""
    return Path(__file__).resolve().parents[1] / "mini"
