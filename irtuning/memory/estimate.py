"""The bytes of a training step by part, put together from the trace of a few layers."""

import dataclasses
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForSequenceClassification

from irtuning.errors import InputError
from irtuning.memory.tracing import (
    ACTIVATIONS, BLOCK, GRADIENTS, TEMPORARY, Segment, highest, parameter_bytes, trace_step,
)  # fmt: skip
from irtuning.method.layers import candidate_layers, find_layers, let_backprop_end_early
from irtuning.method.strategies import Strategy
from irtuning.models.adapters import adapted_classifier
from irtuning.models.loading import load_shape, resolve, with_depth

LIBRARY_BYTES = 2 * 32 * 2**20  # cuBLAS's workspace on Hopper GPUs, one for the forward and one for the autograd thread
# The kinds of layers that are traced, bottom to top. Backpropagation ends at the lowest adapter that learns; where
# weights learn it ends at the embeddings. Of each kind the middle one is used, since its neighbours are of its kind.
WITH_ADAPTER = ("below", "below", "below", "lowest", "learns", "learns", "frozen", "frozen", "frozen")
WITHOUT_ADAPTER = ("learns", "learns", "learns", "frozen", "frozen", "frozen")


@dataclass(frozen=True)
class Setting:
    """Everything that decides a trace; the layers that learn do not."""

    model: str
    adapter: str | None
    options: tuple[tuple[str, object], ...]  # settings of the adapter
    batch: int  # examples in a micro-batch
    length: int
    checkpointing: bool
    precision: str
    padded: bool
    labels: int


@dataclass(frozen=True)
class Weights:
    """Bytes of some tensors, by whether they can learn."""

    fixed: int  # bytes of those that never learn
    learning: int  # bytes of those that can learn
    tensors: int  # number of those that can learn

    @classmethod
    def of(cls, tensors: list[torch.Tensor]) -> "Weights":
        """Return the bytes of tensors; those that require a gradient can learn."""
        learning = [t for t in tensors if t.requires_grad]
        return cls(parameter_bytes(t for t in tensors if not t.requires_grad), parameter_bytes(learning), len(learning))


@dataclass(frozen=True)
class Trace:
    """Weights outside the layers and of one of `depth` layers, and the segments of a step by kind of layer."""

    depth: int
    outside: Weights
    layer: Weights
    segments: dict[tuple[str, str], Segment]


def layers_that_learn(strategy: Strategy, depth: int) -> tuple[list[int], list[int]]:
    """Return the layers that learn at the most demanding step, and those that will have learned by the end."""
    candidates = list(range(strategy.min_layer, depth))
    if len(candidates) < 2:
        raise InputError(f"min_layer is {strategy.min_layer}, of {depth} layers: leave at least 2 to choose from")
    chosen, ever = strategy.worst_case(len(candidates))
    return [candidates[position] for position in chosen], [candidates[position] for position in ever]


def bytes_by_part(
    setting: Setting, chosen: list[int], ever: list[int], accumulation: int = 1, optimizer: str = "fused"
) -> dict[str, int]:
    """Return the bytes of each part at the highest point of a step in which the `chosen` layers learn.

    Args:
        setting: what is traced.
        chosen: layers that learn at this step.
        ever: layers that have learned before or learn now, and so have an optimizer state.
        accumulation: micro-batches in the step; from the second on, the gradients are there already.
        optimizer: form of AdamW, `fused` or `foreach`; the latter makes a copy of the gradients.
    """
    trace, adapted = trace_setting(setting), setting.adapter is not None
    outside, layer = trace.outside, trace.layer

    def learning(layers: int) -> int:
        return outside.learning + layers * layer.learning

    counters = outside.tensors + len(ever) * layer.tensors if optimizer == "fused" else 0  # of steps, on the GPU
    gradients = learning(len(chosen))
    segments = _full_step(trace, chosen, adapted)
    if accumulation > 1:  # the second micro-batch adds to gradients that are there already
        held = Segment(np.array([gradients, 0, 0]), np.array([gradients, 0, 0]))
        segments = [held, *(dataclasses.replace(s, change=s.change * [0, 1, 1]) for s in segments)]
    update = [gradients, 0, gradients if optimizer == "foreach" else 0]
    at_peak = max([int(count) for count in highest(segments)], update, key=sum)
    fixed, can_learn = outside.fixed + trace.depth * layer.fixed, learning(trace.depth)
    return {
        "weights": fixed if adapted else fixed + can_learn,
        "adapters": can_learn if adapted else 0,
        "gradients": at_peak[GRADIENTS],
        "optimizer_state": 2 * learning(len(ever)) + BLOCK * counters,
        "activations": at_peak[ACTIVATIONS],
        "temporary": at_peak[TEMPORARY] + LIBRARY_BYTES,
    }


def _full_step(trace: Trace, chosen: list[int], adapted: bool) -> list[Segment]:
    """Return the segments of a step of full depth in order; nothing temporary outlives the forward pass."""
    lowest, learns = (min(chosen) if adapted else -1), set(chosen)
    kinds = ["below"] * lowest + ["lowest"] * adapted
    kinds += ["learns" if index in learns else "frozen" for index in range(lowest + 1, trace.depth)]
    up = [("forward", kind) for kind in ("embeddings", *kinds, "head")]
    down = [("backward", kind) for kind in ("head", *reversed(kinds), "embeddings")]
    forward, backward = ([trace.segments[label] for label in way if label in trace.segments] for way in (up, down))
    temporary = sum(segment.change for segment in forward) * [0, 0, 1]  # such as autocast's copies of weights
    return [*forward, Segment(change=-temporary), *backward]


@lru_cache(maxsize=128)
def trace_setting(setting: Setting) -> Trace:
    """Trace a step of a model with a few layers of every kind."""
    kinds = WITHOUT_ADAPTER if setting.adapter is None else WITH_ADAPTER
    chosen = [index for index, kind in enumerate(kinds) if kind in ("lowest", "learns")]
    outside, layer, segments = trace_layers(setting, len(kinds), chosen)
    keys = {kind: kinds.index(kind) + (kinds.count(kind) - 1) // 2 for kind in kinds}
    keys |= {"embeddings": "embeddings", "head": "head"}
    by_kind = {(way, kind): segments.get((way, key)) for way in ("forward", "backward") for kind, key in keys.items()}
    depth = load_shape(setting.model).num_hidden_layers
    return Trace(depth, outside, layer, {label: segment for label, segment in by_kind.items() if segment})


def trace_layers(setting: Setting, depth: int, chosen: list[int]) -> tuple[Weights, Weights, dict[object, Segment]]:
    """Trace a step of a model of `depth` layers in which the `chosen` ones learn.

    Returns:
        The weights outside the layers, the weights of a layer, and the step's segments as `trace_step` labels them.

    Raises:
        InputError: the length is beyond the model's context.
    """
    config = load_shape(setting.model, setting.labels)
    if setting.length > (limit := getattr(config, "max_position_embeddings", None) or setting.length):
        raise InputError(f"length {setting.length} is beyond {setting.model}'s context of {limit} tokens")
    low = setting.precision == "bf16" and not resolve(setting.model).random_weights
    with torch.device("meta"):
        kind = torch.bfloat16 if low else torch.float32
        model = AutoModelForSequenceClassification.from_config(with_depth(config, depth), dtype=kind)
        options = dict(setting.options) | {"checkpointing": setting.checkpointing}
        model = adapted_classifier(model, setting.adapter, **options)
    inside = {id(t) for layer in find_layers(model) for t in _tensors(layer)}
    outside = Weights.of([t for t in _tensors(model) if id(t) not in inside])
    layer = Weights.of(_tensors(find_layers(model)[1]))
    shape = {"padded": setting.padded, "autocast": setting.precision == "bf16", "vocabulary": config.vocab_size}
    with FakeTensorMode(allow_non_fake_inputs=True):  # tensors have no storage, and claim to be on the CPU
        model.to_empty(device="cpu")
        candidate_layers(model).freeze_all_but(chosen)
        let_backprop_end_early(model)
        return outside, layer, trace_step(model, setting.batch, setting.length, **shape)


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]
