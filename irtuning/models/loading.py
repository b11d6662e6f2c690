"""Loading of classifiers, tokenizers and shapes by a name of the catalogue, a Hub id or a local folder."""

import copy
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from irtuning.errors import InputError, unknown
from irtuning.models.catalog import MINI, MINI_SETTINGS, MODELS, OWNERS, RANDOM, REFERENCE_SETTINGS
from irtuning.models.catalog import embedded_model_path, model_names
from irtuning.models.gguf import dequantised, gguf_file

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class ModelSource:
    """What a model's name stands for."""
    name: str  # as the user gave it
    path: str  # a local folder or a Hub id
    revision: str | None  # commit of the Hub's repository; None for the newest one and for a folder
    form: str  # how a revision is written for the model, see `irtuning.models.prompts`
    settings: dict  # the model's own settings of training, by name
    title: str  # what records and captions call it

    @property
    def random_weights(self) -> bool:
        """Whether the weights are random, so that nothing was pre-trained."""
        return self.name in RANDOM


def resolve(name: str, form: str | None = None) -> ModelSource:
    """Return what a name, Hub id, folder, config.json or GGUF file stands for, unloaded, or raise InputError."""
    path = Path(name)
    if path.name == "config.json" and path.is_file():
        name, path = str(path.parent), path.parent
    if name == MINI or name in RANDOM:
        settings = RANDOM[name][1] if name in RANDOM else MINI_SETTINGS
        return ModelSource(name, str(embedded_model_path()), None, form or "pair", settings, name)
    if named := MODELS.get(name):
        form = form or named.form
        where, revision = named.instruct if named.instruct and form == "instruction" else (named.hub_id, named.revision)
        return ModelSource(name, where, revision, form, REFERENCE_SETTINGS | named.settings, named.title or name)
    if path.suffix == ".gguf":
        title = f"{path.stem}, dequantised"
        return ModelSource(name, str(gguf_file(name)), None, form or "pair", REFERENCE_SETTINGS, title)
    if path.is_dir() and not (path / "config.json").is_file():
        cure = "give a folder that save_pretrained wrote, with config.json, safetensors and tokenizer"
        raise InputError(f"the folder {name} has no config.json, so it is no model; {cure}")
    is_hub_id = name.count("/") == 1 and not name.startswith((".", "/", "~")) and not path.parent.is_dir()
    if path.is_dir() or is_hub_id:
        return ModelSource(name, name, None, form or "pair", REFERENCE_SETTINGS, name)
    owner = OWNERS.get(name.split("-")[0]) if "-" in name or "gpt2" in name else None
    kind = "model (neither a name, a folder, a GGUF file nor a Hub id such as owner/name)"
    raise unknown(kind, name, model_names(), [f"{owner}/{name}"] if owner else [])


def known_depth(source: ModelSource) -> int | None:
    """Return the number of a model's layers if the catalogue or a config.json tells it, else None."""
    if named := MODELS.get(source.name):
        return named.shape["num_hidden_layers"]
    with suppress(OSError, ValueError):  # RANDOM changes no depth
        return json.loads(Path(source.path, "config.json").read_text(encoding="utf-8")).get("num_hidden_layers")


def load_tokenizer(source: ModelSource) -> "PreTrainedTokenizerBase":
    """Return the model's tokenizer, with a padding token. Raise InputError if it cannot be loaded."""
    from transformers import AutoTokenizer
    source = on_disk(source)
    with _reading(source):
        tokenizer = AutoTokenizer.from_pretrained(source.path, revision=source.revision, trust_remote_code=False)
    if tokenizer.cls_token is None:
        tokenizer.padding_side = "left"  # the model is a decoder, which the authors pad on the left
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.bos_token or tokenizer.unk_token
    if tokenizer.pad_token is None:
        raise InputError(f"the tokenizer of {source.name!r} has no special token to pad with; set pad_token in its "
                         "tokenizer_config.json")  # fmt: skip
    return tokenizer


def load_shape(model: str, labels: int = 9) -> "PreTrainedConfig":
    """Return the configuration of a classifier over `labels` classes, or raise InputError if it is not known offline.

    `model` is a name, a local folder or its config.json, or a Hub id whose config.json is in the local cache.
    """
    from transformers import AutoConfig
    more = {"num_labels": labels, "use_cache": False}
    if model in MODELS:
        return AutoConfig.for_model(**MODELS[model].shape, **more)
    source = on_disk(resolve(model))
    more |= RANDOM.get(source.name, ({},))[0]
    cure = f"; choose one of: {', '.join(model_names())}; or give a local folder with its config.json"
    with _reading(source, f"the shape of model {model!r} is not known offline", cure):
        config = AutoConfig.from_pretrained(source.path, local_files_only=True, trust_remote_code=False, **more)
    for settings in (config, config.get_text_config()):
        settings.pad_token_id = 0 if settings.pad_token_id is None else settings.pad_token_id
    return config


def with_depth(config: "PreTrainedConfig", depth: int) -> "PreTrainedConfig":
    """Return the same configuration with another number of layers."""
    config = copy.deepcopy(config)
    if kinds := getattr(config, "layer_types", None):
        config.layer_types = [kinds[i % len(kinds)] for i in range(depth)]
    config.num_hidden_layers = depth
    return config


def load_classifier(source: ModelSource, labels: Sequence[str], tokenizer: "PreTrainedTokenizerBase", *,
                    precision: str = "fp32", quantize: str = "none") -> "PreTrainedModel":  # fmt: skip
    """Return the model as a sequence classifier over `labels`. Its head is random, so set the seed before.

    Weights come from safetensors files alone, in `fp32` or `bf16`, or quantized to `4bit`. No code is loaded.
    InputError is raised where it cannot be loaded, lacks some of its weights, or needs bitsandbytes.
    """
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, BitsAndBytesConfig
    from transformers.utils import is_bitsandbytes_available, logging
    source = on_disk(source)
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    if source.random_weights:
        config = AutoConfig.from_pretrained(source.path, **RANDOM[source.name][0], **names)
        with torch.random.fork_rng(devices=[]):  # the head alone follows the seed of the run
            torch.manual_seed(0)
            model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
        torch.nn.init.normal_(model.score.weight, std=config.initializer_range)
        return model
    options = names | {"dtype": torch.bfloat16 if precision == "bf16" else torch.float32, "revision": source.revision}
    if quantize != "none":
        if not is_bitsandbytes_available():
            raise InputError(f"quantize={quantize} needs bitsandbytes: pip install 'irtuning[4bit]'")
        four = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16}
        options["quantization_config"] = BitsAndBytesConfig(**four)
    if source.name == MINI:
        logging.disable_progress_bar()  # it loads in an instant
    with ExitStack() as at_end, _reading(source):
        at_end.callback(logging.set_verbosity, logging.get_verbosity())
        logging.set_verbosity_error()  # the report says that the head is new; other missing weights are an error below
        model, report = AutoModelForSequenceClassification.from_pretrained(
            source.path, use_safetensors=True, trust_remote_code=False, output_loading_info=True,
            ignore_mismatched_sizes=True, **options)  # a head over other labels; other mismatches are an error below
    for module in model.modules():  # on some CPUs bitsandbytes repacks weights when it first evaluates, and through
        if hasattr(module, "support_avx512bf16_for_cpu"):  # that form no gradient passes (bitsandbytes 0.50)
            module.support_avx512bf16_for_cpu = False
    _renew_head(model, source, report)
    for settings in (model.config, model.config.get_text_config()):  # the text's may be inside the model's
        settings.pad_token_id = tokenizer.pad_token_id
    rows = getattr(model.get_input_embeddings(), "num_embeddings", None)
    if rows and tokenizer.pad_token_id >= rows:
        raise InputError(f"the padding token of {source.name!r} is number {tokenizer.pad_token_id}, beyond its {rows} "
                         "embeddings; set pad_token in tokenizer_config.json to one it knows")  # fmt: skip
    if getattr(model.config, "default_language", "") is None:  # X-MOD, which fails in its first step
        raise InputError(f"{source.name!r} has a part for each language but no default_language; set it in its "
                         f"config.json to one of: {', '.join(model.config.languages)}")  # fmt: skip
    if getattr(model.config, "rope_parameters", None) is None:
        tokenizer.padding_side = "right"  # the model counts positions from the first token of a row, padding included
    return model


def _renew_head(model: "PreTrainedModel", source: ModelSource, report: dict) -> None:
    """Give the head random weights, also where the checkpoint has one. Name a pooler that it lacks in `lacking`."""
    body = f"{model.base_model_prefix}."
    missing = sorted(name for name in report["missing_keys"] if name.startswith(body))
    missing += sorted(name for name, *_ in report["mismatched_keys"] if name.startswith(body))
    poolers = {name.rpartition(".")[0] for name in missing if re.match(r"\w*pool", name.removeprefix(body))}
    if damaged := [name for name in missing if name.rpartition(".")[0] not in poolers]:
        raise InputError(f"{source.name!r} lacks {len(damaged)} of its weights, {damaged[0]} the first; get it again")
    model.lacking = sorted(poolers)
    for name, child in model.named_children():
        loaded = {key for key, _ in child.named_parameters(name)} - report["missing_keys"]
        if f"{name}." != body and loaded - {key for key, *_ in report["mismatched_keys"]}:
            for item in (*child.parameters(), *child.modules()):
                item._is_hf_initialized = False
            child.apply(model._init_weights)


def position_limit(model: "PreTrainedModel") -> int | None:
    """Return how many tokens the model has positions for, None if any number. RoBERTa leaves its first two unused."""
    limits = [getattr(model.config.get_text_config(), "max_position_embeddings", None)]
    limits += [len(module.weight) - module.padding_idx - 1 for name, module in model.named_modules()
               if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None]
    return min((limit for limit in limits if limit and limit > 0), default=None)  # XLNet writes -1 for any number


def context_length(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> int:
    """Return how many tokens the model can read: the lower of what its configuration and its tokenizer say."""
    return min(position_limit(model) or 10**9, tokenizer.model_max_length)


def checkpoint_layers(model: "PreTrainedModel") -> None:
    """Let each layer compute its activations again in the backward pass instead of keeping them."""
    # the method was renamed in transformers 5.23, and both versions are supported
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def on_disk(source: ModelSource) -> ModelSource:
    """Return the source. If it is a GGUF file, its path becomes the folder of the dequantised model."""
    is_gguf = source.path.endswith(".gguf")
    return replace(source, path=str(dequantised(source.path, source.revision)), revision=None) if is_gguf else source


@contextmanager
def _reading(source: ModelSource, fault: str | None = None, cure: str | None = None) -> Iterator[None]:
    """Turn what the parsers of several libraries may raise into an InputError with its first line."""
    try:
        yield
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        fault = fault or f"model {source.name!r} ({source.path}) cannot be loaded as safetensors without remote code"
        cure = cure or " Check the name, the network, and for gated models `hf auth login`; or give a local folder."
        raise InputError(f"{fault}: {first}{cure}") from error
