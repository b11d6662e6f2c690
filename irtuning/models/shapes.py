"""Model shapes known offline: the published configuration numbers of every named model, no weights, no network."""

import copy
from pathlib import Path
from typing import TYPE_CHECKING

from irtuning.errors import InputError
from irtuning.models.loading import MINI, RANDOM, Source, model_names, resolve

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def _shape(kind: str, vocabulary: int, width: int, inner: int, layers: int, heads: int, groups: int, **more) -> dict:
    return {
        "model_type": kind,
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "pad_token_id": 0,
    } | more


_ROBERTA = {"max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1}
_PHI_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.4}
_LLAMA_8B = _shape("llama", 128256, 4096, 14336, 32, 32, 8, max_position_embeddings=131072)
SHAPES = {  # from each model's config.json on the Hub
    "llama-3.1-8b": _LLAMA_8B,
    "mistral-7b": _shape("mistral", 32768, 4096, 14336, 32, 32, 8, max_position_embeddings=32768, sliding_window=None),
    "deepseek-r1-llama-8b": _LLAMA_8B,
    "llama-2-13b": _shape("llama", 32000, 5120, 13824, 40, 40, 40, max_position_embeddings=4096),
    "qwen3-8b": _shape("qwen3", 151936, 4096, 12288, 36, 32, 8, head_dim=128, max_position_embeddings=40960),
    "phi-2": _shape("phi", 51200, 2560, 10240, 32, 32, 32, max_position_embeddings=2048, hidden_act="gelu_new",
                    resid_pdrop=0.1, rope_parameters=_PHI_ROPE),
    "smollm2-135m": _shape("llama", 49152, 576, 1536, 30, 9, 3, max_position_embeddings=8192),
    "smollm2-360m": _shape("llama", 49152, 960, 2560, 32, 15, 5, max_position_embeddings=8192),
    "qwen3-0.6b": _shape("qwen3", 151936, 1024, 3072, 28, 16, 8, head_dim=128, max_position_embeddings=40960),
    "roberta-base": _shape("roberta", 50265, 768, 3072, 12, 12, 12, **_ROBERTA),
    "roberta-large": _shape("roberta", 50265, 1024, 4096, 24, 16, 16, **_ROBERTA),
    "modernbert-base": _shape("modernbert", 50368, 768, 1152, 22, 12, 12, max_position_embeddings=8192,
                              pad_token_id=50283),
}  # fmt: skip


def source_of(model: str) -> Source:
    """What a name, a local folder or a config.json stands for; see `models.resolve`."""
    path = Path(model)
    return resolve(str(path.parent) if path.name == "config.json" and path.is_file() else model)


def load_shape(model: str, labels: int = 9) -> "PreTrainedConfig":
    """The configuration of a classifier over `labels` classes, from the table, the package or a local folder.

    A Hub id works where its config.json is in the local cache.

    Raises:
        InputError: a model whose shape is not known offline, or a configuration that cannot be read.
    """
    from transformers import AutoConfig

    source = source_of(model)
    more = {"num_labels": labels, "use_cache": False}
    if source.name in SHAPES:
        shape = dict(SHAPES[source.name])
        return AutoConfig.for_model(shape.pop("model_type"), **shape, **more)
    if source.name == MINI or source.name in RANDOM:
        return AutoConfig.from_pretrained(source.path, **RANDOM.get(source.name, ({},))[0], **more)
    try:
        config = AutoConfig.from_pretrained(source.path, local_files_only=True, trust_remote_code=False, **more)
    except Exception as error:  # whatever the libraries' parsers raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"the shape of model {model!r} is not known offline ({reason}); choose one of: {', '.join(model_names())}; "
            "or give a local folder with its config.json"
        ) from error
    config.pad_token_id = 0 if config.pad_token_id is None else config.pad_token_id
    return config


def with_depth(config: "PreTrainedConfig", depth: int) -> "PreTrainedConfig":
    """The same shape with another number of layers."""
    config = copy.deepcopy(config)
    if kinds := getattr(config, "layer_types", None):
        config.layer_types = [kinds[i % len(kinds)] for i in range(depth)]
    config.num_hidden_layers = depth
    return config
