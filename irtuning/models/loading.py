"""Loading of classifiers, tokenizers and shapes by a name of the catalogue, a Hub id or a local folder."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from irtuning.errors import InputError, unknown
from irtuning.models.catalog import MINI, MINI_SETTINGS, MODELS, RANDOM, REFERENCE_SETTINGS, model_names
from irtuning.models.mini import embedded_model_path

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class ModelSource:
    """What a model's name stands for."""

    name: str  # as the user gave it
    path: str  # a local folder or a Hub id
    revision: str | None  # commit of the Hub's repository; None for the newest one and for a folder
    form: str  # how a revision is written for the model: pair or instruction
    settings: dict  # the model's own settings of training, by name

    @property
    def random_weights(self) -> bool:
        """Whether the weights are random, so that nothing was pre-trained."""
        return self.name in RANDOM


def resolve(name: str, form: str | None = None) -> ModelSource:
    """Return what a name, a Hub id ("owner/name"), a local folder or its config.json stands for. Nothing is loaded.

    Raises:
        InputError: `name` is none of these.
    """
    path = Path(name)
    if path.name == "config.json" and path.is_file():
        name, path = str(path.parent), path.parent
    if name == MINI or name in RANDOM:
        settings = MINI_SETTINGS if name == MINI else RANDOM[name][1]
        return ModelSource(name, str(embedded_model_path()), None, form or "pair", settings)
    if named := MODELS.get(name):
        form = form or named.form
        where, revision = named.instruct if named.instruct and form == "instruction" else (named.hub_id, named.revision)
        return ModelSource(name, where, revision, form, REFERENCE_SETTINGS | {"batch_size": named.batch_size})
    is_hub_id = name.count("/") == 1 and not name.startswith((".", "/", "~")) and not path.parent.is_dir()
    if path.is_dir() or is_hub_id:
        return ModelSource(name, name, None, form or "pair", REFERENCE_SETTINGS)
    raise unknown("model (neither a name, a folder nor a Hub id such as owner/name)", name, model_names())


def load_tokenizer(source: ModelSource) -> "PreTrainedTokenizerBase":
    """Return the model's tokenizer, with a padding token; raise InputError if it cannot be loaded."""
    from transformers import AutoTokenizer

    with _reading(source):
        tokenizer = AutoTokenizer.from_pretrained(source.path, revision=source.revision, trust_remote_code=False)
    if tokenizer.cls_token is None:
        tokenizer.padding_side = "left"  # the model is a decoder, which the authors pad on the left
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_shape(model: str, labels: int = 9) -> "PreTrainedConfig":
    """Return the configuration of a classifier over `labels` classes.

    Args:
        model: a name, a local folder or its config.json, or a Hub id whose config.json is in the local cache.

    Raises:
        InputError: the configuration is not known offline, or it cannot be read.
    """
    from transformers import AutoConfig

    source, more = resolve(model), {"num_labels": labels, "use_cache": False}
    if source.name in MODELS:
        shape = dict(MODELS[source.name].shape)
        return AutoConfig.for_model(shape.pop("model_type"), **shape, **more)
    if source.name == MINI or source.name in RANDOM:
        return AutoConfig.from_pretrained(source.path, **RANDOM.get(source.name, ({},))[0], **more)
    cure = f"; choose one of: {', '.join(model_names())}; or give a local folder with its config.json"
    with _reading(source, f"the shape of model {model!r} is not known offline", cure):
        config = AutoConfig.from_pretrained(source.path, local_files_only=True, trust_remote_code=False, **more)
    config.pad_token_id = 0 if config.pad_token_id is None else config.pad_token_id
    return config


def with_depth(config: "PreTrainedConfig", depth: int) -> "PreTrainedConfig":
    """Return the same configuration with another number of layers."""
    config = copy.deepcopy(config)
    if kinds := getattr(config, "layer_types", None):
        config.layer_types = [kinds[i % len(kinds)] for i in range(depth)]
    config.num_hidden_layers = depth
    return config


def load_classifier(
    source: ModelSource, labels: Sequence[str], tokenizer: "PreTrainedTokenizerBase", *,
    precision: str = "fp32", quantize: str = "none",
) -> "PreTrainedModel":  # fmt: skip
    """Return the model as a sequence classifier over `labels`. Its head is random, so set the seed before.

    Weights are read from safetensors files alone, and no code from the Hub is run.

    Args:
        precision: `bf16` loads the weights in bfloat16, `fp32` in float32.
        quantize: `none`, `8bit` or `4bit`.

    Raises:
        InputError: the model cannot be loaded, some of its weights are missing, or bitsandbytes is not installed.
    """
    import torch
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    if source.random_weights:
        return _random_classifier(source, names)
    verbosity, quantization = logging.get_verbosity(), _quantization(quantize)
    logging.set_verbosity_error()  # it reports that the head is new; other weights that are missing are an error below
    if source.name == MINI:
        logging.disable_progress_bar()  # it loads in an instant
    try:
        with _reading(source):
            model, report = AutoModelForSequenceClassification.from_pretrained(
                source.path, revision=source.revision, use_safetensors=True, trust_remote_code=False,
                dtype=torch.bfloat16 if precision == "bf16" else torch.float32, output_loading_info=True,
                quantization_config=quantization, num_labels=len(labels), **names,
            )  # fmt: skip
    finally:
        logging.set_verbosity(verbosity)
    if missing := sorted(name for name in report["missing_keys"] if name.startswith(f"{model.base_model_prefix}.")):
        lacks = f"lacks {len(missing)} of its weights, {missing[0]} the first; get it again"
        raise InputError(f"model {source.name!r} {lacks}")
    model.config.pad_token_id = tokenizer.pad_token_id
    return model


def _random_classifier(source: ModelSource, names: dict) -> "PreTrainedModel":
    """Return a classifier with weights drawn from seed 0; the head alone follows the seed of the run."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.from_pretrained(source.path, **RANDOM[source.name][0], **names)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    torch.nn.init.normal_(model.score.weight, std=config.initializer_range)
    return model


def context_length(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> int:
    """Return how many tokens the model can read: the lower of what its configuration and its tokenizer say."""
    return min(getattr(model.config, "max_position_embeddings", None) or 10**9, tokenizer.model_max_length)


def checkpoint_layers(model: "PreTrainedModel") -> None:
    """Let each layer compute its activations again in the backward pass instead of keeping them."""
    # the method was renamed in transformers 5.23, and both versions are supported
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def _quantization(quantize: str) -> object | None:
    """Return the settings of bitsandbytes for 8-bit or 4-bit weights, or None."""
    if quantize == "none":
        return None
    if quantize not in ("8bit", "4bit"):
        raise unknown("quantize", quantize, ("none", "8bit", "4bit"))
    import importlib.util

    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(f"quantize={quantize} needs bitsandbytes: pip install 'irtuning[quantize]'")
    import torch
    from transformers import BitsAndBytesConfig

    four = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16}
    return BitsAndBytesConfig(**(four if quantize == "4bit" else {"load_in_8bit": True}))


CURE = " Check the name, the network, and for gated models `hf auth login`; or give a local folder."


@contextmanager
def _reading(source: ModelSource, problem: str | None = None, cure: str = CURE) -> Iterator[None]:
    """Turn what the parsers of several libraries may raise into an InputError with its first line."""
    try:
        yield
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        named = f"model {source.name!r} ({source.path})"
        problem = problem or f"{named} cannot be loaded as safetensors without remote code"
        raise InputError(f"{problem}: {first}{cure}") from error
