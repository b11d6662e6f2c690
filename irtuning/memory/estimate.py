"""A step's bytes by part at full depth, put together from the trace of a few layers."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from irtuning.models.adapters import add_adapter
from irtuning.errors import InputError
from irtuning.method.layers import candidate_layers, find_layers, let_backprop_end_early
from irtuning.models.loading import checkpoint_layers
from irtuning.models.shapes import load_shape, source_of, with_depth
from irtuning.method.strategies import Strategy
from irtuning.memory.tracing import (
    ACTIVATIONS, BLOCK, GRADIENTS, TEMPORARY, Segment, fake_weights, highest, parameter_bytes, trace_step,
)  # fmt: skip

LIBRARY_BYTES = 2 * 32 * 2**20  # cuBLAS's workspace on Hopper GPUs, one each for the forward and the autograd thread
# kinds of layers, a few of each so that one has its like on both sides; the place of that one
ADAPTED = ("below", "below", "below", "lowest", "learns", "learns", "frozen", "frozen", "frozen"), {
    "below": 1, "lowest": 3, "learns": 4, "frozen": 7}  # fmt: skip
WHOLE = ("learns", "learns", "learns", "frozen", "frozen", "frozen"), {"learns": 1, "frozen": 4}


@dataclass(frozen=True)
class Setting:
    """What decides a trace; the layers that learn do not."""

    model: str
    adapted: bool
    adapter: str
    options: tuple[tuple[str, object], ...]
    batch: int
    length: int
    checkpointing: bool
    precision: str
    padded: bool
    labels: int


@dataclass(frozen=True)
class Weights:
    """Bytes of what never learns, bytes and number of the tensors that can learn."""

    fixed: int
    learning: int
    tensors: int

    @classmethod
    def of(cls, tensors: Sequence[torch.Tensor]) -> "Weights":
        """Those that require a gradient can learn."""
        learning = [t for t in tensors if t.requires_grad]
        return cls(parameter_bytes(t for t in tensors if not t.requires_grad), parameter_bytes(learning), len(learning))


@dataclass(frozen=True)
class Trace:
    """What lies outside the layers, one layer of `depth`, and the segments of a step by kind of layer."""

    depth: int
    outside: Weights
    layer: Weights
    segments: dict[tuple[str, str], Segment]


def layers_that_learn(strategy: Strategy, depth: int) -> tuple[list[int], list[int]]:
    """The layers that learn at a method's most demanding step, and those that will have learned by the end.

    Where the method draws them: as many as it can draw, the lowest allowed and the highest ones.
    """
    candidates = list(range(strategy.min_layer, depth))
    if len(candidates) < 2:
        raise InputError(f"min_layer is {strategy.min_layer}, of {depth} layers: leave at least 2 to choose from")
    chosen, ever = strategy.worst_case(len(candidates))
    return [candidates[position] for position in chosen], [candidates[position] for position in ever]


def bytes_by_part(
    setting: Setting, chosen: list[int], ever: list[int], accumulation: int = 1, optimizer: str = "fused"
) -> dict[str, int]:
    """Bytes of each part at the highest point of a step in which the `chosen` layers learn.

    Args:
        ever: the layers that have learned before or do now, so have an optimizer state.
        accumulation: micro-batches a step; from the second on the gradients are there already.
        optimizer: AdamW as `fused` or `foreach`, which makes a temporary as large as the gradients.
    """
    trace = trace_setting(setting)
    outside, layer = trace.outside, trace.layer

    def learning(layers: int) -> int:
        return outside.learning + layers * layer.learning

    steps = outside.tensors + len(ever) * layer.tensors if optimizer == "fused" else 0  # a counter each, on the GPU
    gradients = learning(len(chosen))
    segments = _whole_step(trace, chosen, setting.adapted)
    if accumulation > 1:  # the second micro-batch adds to gradients that are there already
        held = Segment(np.array([gradients, 0, 0]), np.array([gradients, 0, 0]))
        segments = [held, *(dataclasses.replace(s, change=s.change * [0, 1, 1]) for s in segments)]
    at_peak = [int(count) for count in highest(segments)]
    update = [gradients, 0, gradients if optimizer == "foreach" else 0]
    at_peak = max(at_peak, update, key=sum)
    fixed, can_learn = outside.fixed + trace.depth * layer.fixed, learning(trace.depth)
    return {
        "weights": fixed if setting.adapted else fixed + can_learn,
        "adapters": can_learn if setting.adapted else 0,
        "gradients": at_peak[GRADIENTS],
        "optimizer_state": 2 * learning(len(ever)) + BLOCK * steps,
        "activations": at_peak[ACTIVATIONS],
        "temporary": at_peak[TEMPORARY] + LIBRARY_BYTES,
    }


def _whole_step(trace: Trace, chosen: list[int], adapted: bool) -> list[Segment]:
    """The segments of a step of full depth in order; nothing temporary outlives the forward pass."""
    lowest, learns = (min(chosen) if adapted else -1), set(chosen)

    def kind(index: int) -> str:
        if index <= lowest:
            return "lowest" if index == lowest else "below"
        return "learns" if index in learns else "frozen"

    kinds = [kind(index) for index in range(trace.depth)]
    forward = [("forward", name) for name in ("embeddings", *kinds, "head")]
    backward = [("backward", name) for name in ("head", *reversed(kinds), "embeddings")]
    there, back = ([trace.segments[label] for label in way if label in trace.segments] for way in (forward, backward))
    passing = sum(segment.change for segment in there) * [0, 0, 1]  # such as autocast's copies of weights
    return [*there, Segment(change=-passing), *back]


@lru_cache(maxsize=64)
def trace_setting(setting: Setting) -> Trace:
    """Trace a step of a few layers of every kind.

    Raises:
        InputError: longer than the model's context.
    """
    kinds, places = ADAPTED if setting.adapted else WHOLE
    chosen = [i for i, kind in enumerate(kinds) if kind in ("lowest", "learns")]
    outside, layer, segments = trace_layers(setting, len(kinds), chosen)
    places = {"embeddings": "embeddings", "head": "head"} | places
    labels = [(way, kind) for way in ("forward", "backward") for kind in places]
    found = {(way, kind): segments.get((way, places[kind])) for way, kind in labels}
    depth = load_shape(setting.model).num_hidden_layers
    return Trace(depth, outside, layer, {label: segment for label, segment in found.items() if segment})


def trace_layers(setting: Setting, depth: int, chosen: list[int]) -> tuple[Weights, Weights, dict[object, Segment]]:
    """Trace a step of a model of `depth` layers in which the `chosen` ones learn.

    Returns:
        What lies outside the layers, what a layer holds, and the step's segments as `trace_step` names them.
    """
    config = load_shape(setting.model, setting.labels)
    if setting.length > (limit := getattr(config, "max_position_embeddings", None) or setting.length):
        raise InputError(f"length {setting.length} is beyond {setting.model}'s context of {limit} tokens")
    model = _build(setting, with_depth(config, depth))
    inside = {id(t) for layer in find_layers(model) for t in _tensors(layer)}
    outside = Weights.of([t for t in _tensors(model) if id(t) not in inside])
    layer = Weights.of(_tensors(find_layers(model)[1]))
    with fake_weights(model):
        candidate_layers(model).freeze_all_but(chosen)
        let_backprop_end_early(model)
        shape = {"padded": setting.padded, "autocast": setting.precision == "bf16", "vocabulary": config.vocab_size}
        return outside, layer, trace_step(model, setting.batch, setting.length, **shape)


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


def _build(setting: Setting, config: PreTrainedConfig) -> PreTrainedModel:
    """The classifier a run would train (`run`), without storage."""
    low = setting.precision == "bf16" and not source_of(setting.model).random_weights
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config, dtype=torch.bfloat16 if low else torch.float32)
        if setting.adapted:
            model = add_adapter(model, setting.adapter, **dict(setting.options))
    if setting.checkpointing:
        checkpoint_layers(model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model
