"""Classifiers by name: the embedded model, its random counterparts, pinned public ones, any Hub id or local folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from irtuning.models.mini import embedded_model_path
from irtuning.errors import InputError, unknown

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

REFERENCE_SETTINGS = {  # the authors' defaults, for every model without its own
    "rank": 32,
    "alpha": 64,
    "dropout": 0.05,
    "width": 256,
    "batch_size": 16,
    "learning_rate": 2e-4,
    "full_learning_rate": 2e-5,  # ours: the reference tunes no full parameters
    "warmup_steps": 100,
    "epochs": 4,
    "max_length": 256,
    "eval_every": 10,
}
MINI_SETTINGS = REFERENCE_SETTINGS | {
    "rank": 16,
    "alpha": 32,
    "dropout": 0.0,  # as in the model card's runs; on a CPU its masks cost a sixth of a step
    "width": 32,
    "learning_rate": 1e-3,  # chosen on validation, see the model card
    "full_learning_rate": 3e-4,
    "warmup_steps": None,  # 10 % of the steps
    "eval_every": None,  # four times a run
}
# learning rates: best mean validation macro F1 of ir and full (1e-3, 2e-3, 5e-3, 1e-2), and of full-ft and lisa
# (3e-4, 1e-3, 3e-3), on the synthetic corpus, 200 steps, 2 seeds
TINY_SETTINGS = MINI_SETTINGS | {
    "rank": 8,
    "alpha": 16,
    "width": 16,
    "learning_rate": 2e-3,
    "full_learning_rate": 1e-3,
}


@dataclass(frozen=True)
class ModelEntry:
    """A model by name: Hub id at a pinned revision, input form, and for instructions another checkpoint."""

    hub_id: str
    revision: str
    form: str = "pair"
    instruct: tuple[str, str] | None = None
    batch_size: int = 16


MODELS = {
    # the paper's six
    "llama-3.1-8b": ModelEntry(
        "meta-llama/Llama-3.1-8B",
        "d04e592bb4f6aa9cfee91e2e20afa771667e1d4b",
        "instruction",
        ("meta-llama/Llama-3.1-8B-Instruct", "0e9e39f249a16976918f6564b8830bc894c89659"),
    ),
    "mistral-7b": ModelEntry(
        "mistralai/Mistral-7B-v0.3",
        "caa1feb0e54d415e2df31207e5f4e273e33509b1",
        "instruction",
        ("mistralai/Mistral-7B-Instruct-v0.3", "e0bc86c23ce5aae1db576c8cca6f06f1f73af2db"),
    ),
    "deepseek-r1-llama-8b": ModelEntry(
        "deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "6a6f4aa4197940add57724a7707d069478df56b1", "instruction"
    ),
    "llama-2-13b": ModelEntry(
        "meta-llama/Llama-2-13b-hf", "5c31dfb671ce7cfe2d7bb7c04375e44c55e815b1", "instruction", batch_size=8
    ),
    "qwen3-8b": ModelEntry("Qwen/Qwen3-8B", "b968826d9c46dd6066d109eabc6255188de91218", "instruction"),
    "phi-2": ModelEntry("microsoft/phi-2", "ef382358ec9e382308935a992d908de099b64c23", "instruction"),
    # public ones of 0.1 to 0.6 billion parameters
    "smollm2-135m": ModelEntry("HuggingFaceTB/SmolLM2-135M", "93efa2f097d58c2a74874c7e644dbc9b0cee75a2"),
    "smollm2-360m": ModelEntry("HuggingFaceTB/SmolLM2-360M", "f8027fd0eaeea54caa13c31d31b9fdc459c38b49"),
    "qwen3-0.6b": ModelEntry("Qwen/Qwen3-0.6B", "c1899de289a04d12100db370d81485cdf75e47ca"),
    "roberta-base": ModelEntry("FacebookAI/roberta-base", "e2da8e2f811d1448a5b465c236feacd80ffbac7b"),
    "roberta-large": ModelEntry("FacebookAI/roberta-large", "722cf37b1afa9454edce342e7895e588b6ff1d59"),
    "modernbert-base": ModelEntry("answerdotai/ModernBERT-base", "8949b909ec900327062f0ebf497f51aef5e6f0c8"),
}
MINI = "mini"
RANDOM = {  # the embedded model's shape and tokenizer, or a smaller shape, with weights from a fixed seed
    "mini-random": ({}, MINI_SETTINGS),
    "tiny-random": ({"hidden_size": 64, "intermediate_size": 176, "num_attention_heads": 2,
                     "num_key_value_heads": 2}, TINY_SETTINGS),
}  # fmt: skip


@dataclass(frozen=True)
class Source:
    """Where a named model comes from and how it is used."""

    name: str
    path: str
    revision: str | None
    form: str
    settings: dict

    @property
    def random_weights(self) -> bool:
        """Whether nothing was pre-trained."""
        return self.name in RANDOM


def model_names() -> list[str]:
    """The names that need no path: the embedded model, the random ones, then the pinned public ones."""
    return [MINI, *RANDOM, *MODELS]


def resolve(name: str, form: str | None = None) -> Source:
    """Find out what a model name, a Hub id ("owner/name") or a local folder stands for; nothing is loaded.

    Raises:
        InputError: neither a known name, nor an existing folder, nor in the form of a Hub id; or the embedded model
            is damaged.
    """
    if name == MINI or name in RANDOM:
        settings = MINI_SETTINGS if name == MINI else RANDOM[name][1]
        return Source(name, str(embedded_model_path()), None, form or "pair", settings)
    if name in MODELS:
        entry = MODELS[name]
        form = form or entry.form
        path, revision = entry.instruct if entry.instruct and form == "instruction" else (entry.hub_id, entry.revision)
        return Source(name, path, revision, form, REFERENCE_SETTINGS | {"batch_size": entry.batch_size})
    if Path(name).is_dir():
        return Source(name, name, None, form or "pair", REFERENCE_SETTINGS)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")) and not Path(name).parent.is_dir():
        return Source(name, name, None, form or "pair", REFERENCE_SETTINGS)
    raise unknown("model (neither a name, a folder nor a Hub id such as owner/name)", name, model_names())


def load_tokenizer(source: Source) -> "PreTrainedTokenizerBase":
    """The source's tokenizer, with a padding token."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source.path, revision=source.revision, trust_remote_code=False)
    except Exception as error:  # whatever the libraries' parsers raise
        raise _not_loaded(source, error) from error
    if tokenizer.cls_token is None:
        tokenizer.padding_side = "left"  # a decoder, padded as in the reference
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def model_type(source: Source) -> str:
    """Transformers' name of the source's architecture, such as llama."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source.path, revision=source.revision, trust_remote_code=False)
    except Exception as error:  # whatever the libraries' parsers raise
        raise _not_loaded(source, error) from error
    return config.model_type


def load_classifier(
    source: Source,
    labels: Sequence[str],
    tokenizer: "PreTrainedTokenizerBase",
    *,
    precision: str = "fp32",
    quantize: str = "none",
) -> "PreTrainedModel":
    """The source as a sequence classifier over `labels`; the head is random, so seed before calling.

    Weights are read from safetensors only and no remote code is run. bf16 keeps the frozen weights in bfloat16.

    Raises:
        InputError: it cannot be loaded, or 8-bit / 4-bit loading is asked for without bitsandbytes.
    """
    import torch
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    if source.random_weights:
        return _random_classifier(source, names)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # its report that the head is new; anything else that is missing is an error below
    if source.name == MINI:
        logging.disable_progress_bar()  # it loads in an instant
    try:
        model, found = AutoModelForSequenceClassification.from_pretrained(
            source.path,
            revision=source.revision,
            num_labels=len(labels),
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
            quantization_config=_quantization(quantize),
            output_loading_info=True,
            **names,
        )
    except Exception as error:  # whatever the libraries' parsers raise
        raise _not_loaded(source, error) from error
    finally:
        logging.set_verbosity(verbosity)
    if missing := sorted(name for name in found["missing_keys"] if name.startswith(f"{model.base_model_prefix}.")):
        raise InputError(
            f"model {source.name!r} lacks {len(missing)} of its weights, {missing[0]} the first; get it again"
        )
    model.config.pad_token_id = tokenizer.pad_token_id
    return model


def _random_classifier(source: Source, names: dict) -> "PreTrainedModel":
    """The embedded model's shape, or a smaller one, with weights from a fixed seed; only the head follows the run's."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.from_pretrained(source.path, **RANDOM[source.name][0], **names)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    torch.nn.init.normal_(model.score.weight, std=config.initializer_range)
    return model


def context_length(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> int:
    """How many tokens the model reads at most, as its configuration or its tokenizer says, whichever is less."""
    return min(getattr(model.config, "max_position_embeddings", None) or 10**9, tokenizer.model_max_length)


def checkpoint_layers(model: "PreTrainedModel") -> None:
    """Recompute each layer's activations in backprop instead of keeping them."""
    # renamed in transformers 5.23; both are in the tested range
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def _quantization(quantize: str) -> object | None:
    if quantize == "none":
        return None
    if quantize not in ("8bit", "4bit"):
        raise unknown("quantize", quantize, ("none", "8bit", "4bit"))
    import importlib.util

    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(f"quantize={quantize} needs bitsandbytes: pip install 'irtuning[quantize]'")
    import torch
    from transformers import BitsAndBytesConfig

    if quantize == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)


def _not_loaded(source: Source, error: Exception) -> InputError:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return InputError(
        f"model {source.name!r} ({source.path}) cannot be loaded as safetensors without remote code: {first} "
        "Check the name, the network, and for gated models `hf auth login`; or give a local folder."
    )
