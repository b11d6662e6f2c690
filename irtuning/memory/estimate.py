"""The bytes of a training step by part, put together from the trace of a few layers."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoModelForSequenceClassification

from irtuning.errors import InputError
from irtuning.memory.tracing import ACTIVATIONS, BLOCK, GRADIENTS, TEMPORARY, Segment, highest, rounded, trace_step
from irtuning.method.layers import candidate_layers, find_layers, let_backprop_end_early
from irtuning.method.strategies import Strategy
from irtuning.models.adapters import adapted_classifier
from irtuning.models.backward import skip_backward
from irtuning.models.float8 import freeze_in_float8, frozen_linears
from irtuning.models.loading import load_shape, position_limit, resolve, with_depth
from irtuning.models.speed import accelerate

LIBRARY_BYTES = 2 * 32 * 2**20  # cuBLAS's workspace on Hopper GPUs, one for the forward and one for the autograd thread
SCALED = 64  # weights of a base in 4 bits that share one float32 scale
# The kinds of traced layers, from bottom to top. Backpropagation ends at the lowest adapter that learns, or at the
# embeddings if weights learn. The middle layer of each kind is used, because its neighbours are of the same kind.
WITH_ADAPTER = ("below", "below", "below", "lowest", "learns", "learns", "frozen", "frozen", "frozen")
WITHOUT_ADAPTER = ("learns", "learns", "learns", "frozen", "frozen", "frozen")


@dataclass(frozen=True)
class Setting:
    """All settings that a trace depends on. It does not depend on which layers learn."""
    model: str
    adapter: str | None
    options: tuple[tuple[str, object], ...]  # settings of the adapter
    batch: int  # examples in a micro-batch
    length: int
    checkpointing: bool
    precision: str
    padded: bool
    labels: int
    backward: str = "exact"
    base: tuple[str, ...] = ()  # what is done to the frozen base: 4bit, float8


def layers_that_learn(strategy: Strategy, depth: int) -> tuple[list[int], list[int]]:
    """Return the layers that learn at the costliest step, and those that ever learn. InputError if fewer than 2 can."""
    strategy.numbers = numbers = strategy.all_numbers(depth)
    worst = [[numbers[position] for position in part] for part in strategy.worst_case(len(numbers))]
    if strategy.unit == "block":  # an upper bound, since blocks that are drawn may all lie in different layers
        above = [[layer for layer in numbers[::2] if layer > part[0]] for part in worst]
        worst = [[p[0], *a[max(0, len(a) - len(p) + 1) :]] for p, a in zip(worst, above, strict=True)]
    return worst[0], worst[1]


def bytes_by_part(setting: Setting, chosen: list[int], held: list[int], accumulation: int = 1) -> dict[str, int]:
    """Return the bytes of each part at the highest point of a training step, in which the `chosen` layers learn.

    `held` are the layers whose optimizer state is on the GPU at its end. `accumulation` is its number of micro-batches.
    """
    depth, outside, layer, kinds = trace_setting(setting)
    _, gradients, _ = (outside + len(chosen) * layer).tolist()
    _, have_state, counters = (outside + len(held) * layer).tolist()  # fused AdamW counts steps on the GPU
    fixed, can_learn, _ = (outside + depth * layer).tolist()
    segments = _full_step(depth, kinds, chosen, adapted := setting.adapter is not None)
    if accumulation > 1:  # the second micro-batch finds gradients that exist already
        first = Segment(np.array([gradients, 0, 0]), np.array([gradients, 0, 0]))
        segments = [first, *(Segment(segment.change * [0, 1, 1], segment.peak) for segment in segments)]
    at_peak = max(highest(segments).tolist(), [gradients, 0, 0], key=sum)
    return {
        "weights": fixed if adapted else fixed + can_learn,
        "adapters": can_learn if adapted else 0,
        "gradients": at_peak[GRADIENTS],
        "optimizer_state": 2 * have_state + BLOCK * counters,
        "activations": at_peak[ACTIVATIONS],
        "temporary": at_peak[TEMPORARY] + LIBRARY_BYTES}  # fmt: skip


def _full_step(depth: int, segments: dict, chosen: list[int], adapted: bool) -> list[Segment]:
    """Return the segments of a step of full depth, in order. Temporary bytes do not outlive the forward pass."""
    lowest, learns = (min(chosen) if adapted else -1), set(chosen)
    kinds = ["below"] * lowest + ["lowest"] * adapted
    kinds += ["learns" if index in learns else "frozen" for index in range(lowest + 1, depth)]
    up = [("forward", kind) for kind in ("embeddings", *kinds, "head")]
    down = [("backward", kind) for kind in ("head", *reversed(kinds), "embeddings")]
    forward, backward = ([segments[label] for label in way if label in segments] for way in (up, down))
    temporary = sum(segment.change for segment in forward) * [0, 0, 1]  # such as autocast's copies of weights
    return [*forward, Segment(change=-temporary), *backward]


@lru_cache(maxsize=128)
def trace_setting(setting: Setting) -> tuple[int, np.ndarray, np.ndarray, dict[tuple[str, str], Segment]]:
    """Return a model's depth, and the result of `trace_layers` for a few layers, by kind instead of by number."""
    kinds = WITHOUT_ADAPTER if setting.adapter is None else WITH_ADAPTER
    chosen = [index for index, kind in enumerate(kinds) if kind in ("lowest", "learns")]
    outside, layer, segments = trace_layers(setting, len(kinds), chosen)
    middle = {kinds.index(k) + (kinds.count(k) - 1) // 2: k for k in kinds} | {k: k for k in ("embeddings", "head")}
    by_kind = {(way, middle[key]): segment for (way, key), segment in segments.items() if key in middle}
    return load_shape(setting.model).num_hidden_layers, outside, layer, by_kind


def trace_layers(setting: Setting, depth: int, chosen: list[int]) -> tuple[np.ndarray, np.ndarray, dict]:
    """Trace a step of a model with `depth` layers, of which the `chosen` ones learn. InputError if it is too long.

    Returns:
        The weights outside the layers and those of a layer, as three numbers each: bytes that never learn, bytes that
        can learn, and how many tensors can learn. Then the segments, labelled as by `trace_step`.
    """
    config = load_shape(setting.model, setting.labels)
    low = setting.precision == "bf16" and not resolve(setting.model).random_weights
    kind = torch.bfloat16 if low else torch.float32
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(with_depth(config, depth), dtype=kind)
        if setting.length > (limit := position_limit(model) or setting.length):
            raise InputError(f"length {setting.length} is beyond {setting.model}'s context of {limit} tokens")
        model = adapted_classifier(model, setting.adapter, checkpointing=setting.checkpointing, **dict(setting.options))
    for name in setting.base:
        {"float8": freeze_in_float8, "4bit": freeze_in_four_bits}[name](model)
    layers = find_layers(model)
    inside = {id(t) for t in _tensors(layers)}
    outside, layer = _weights(t for t in _tensors(model) if id(t) not in inside), _weights(_tensors(layers[1]))
    shape = {"padded": setting.padded, "autocast": setting.precision == "bf16", "vocabulary": config.vocab_size}
    with FakeTensorMode(allow_non_fake_inputs=True):  # tensors have no storage, but report the CPU as device
        model.to_empty(device="cpu")
        candidate_layers(model).freeze_all_but(chosen)
        let_backprop_end_early(model)
        if setting.backward == "skip":
            skip_backward(model)
        try:
            return outside, layer, trace_step(model, setting.batch, setting.length, **shape)
        except DataDependentOutputException:  # LoHa and LoKr ask a random number whether to leave a module out
            raise InputError(f"{setting.adapter} draws numbers: its memory cannot be predicted; measure it") from None


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


def _weights(tensors: Iterable[torch.Tensor]) -> np.ndarray:
    rows = [(0, rounded(t.nbytes), 1) if t.requires_grad else (rounded(t.nbytes), 0, 0) for t in tensors]
    return np.sum(rows, axis=0)


class FourBitLinear(nn.Linear):
    """A frozen linear layer with the bytes of one that bitsandbytes holds in 4 bits. Its numbers mean nothing."""
    def __init__(self, linear: nn.Linear):
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.bias = linear.in_features, linear.out_features, linear.bias
        count, device = linear.weight.numel(), linear.weight.device
        self.register_buffer("numbers", torch.empty(count // 2, dtype=torch.uint8, device=device))
        self.register_buffer("scales", torch.empty(-(-count // SCALED), device=device))

    @property
    def weight(self) -> torch.Tensor:
        """The weight in bfloat16, shape (out_features, in_features), which exists for a moment in each pass."""
        return torch.empty(self.out_features, self.in_features, dtype=torch.bfloat16, device=self.numbers.device)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return an output of the right shape and type."""
        with saved_tensors_hooks(lambda weight: weight.shape, lambda shape: self.weight.view(shape)):
            output = nn.functional.linear(inputs.bfloat16(), self.weight)
        return (output if self.bias is None else output + self.bias.bfloat16()).to(inputs.dtype)


def freeze_in_four_bits(model: nn.Module) -> None:
    """Replace every frozen linear layer inside the transformer layers by a `FourBitLinear`. Call it after peft."""
    accelerate(model, ["uncast"])  # over 4 bits, peft's adapters do not copy their input to float32 under autocast
    for parent, name, linear in frozen_linears(model):
        setattr(parent, name, FourBitLinear(linear))
