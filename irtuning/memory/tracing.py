"""One training step without memory: fake tensors on the CPU that follow CUDA's rules, every live storage counted.

The step is cut where a layer begins, forward and backward, so that a step of any depth can be put together from a
few layers: what a layer of a kind keeps, drops and needs meanwhile does not depend on how many there are.
"""

import contextlib
import math
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from unittest.mock import patch

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from irtuning.method.layers import find_layers

BLOCK = 512  # CUDA's caching allocator rounds up to it
GRADIENTS, ACTIVATIONS, TEMPORARY = range(3)
# of the operations CUDA's autocast runs in float32 and the CPU's does not, those that classifiers use
FLOAT32 = {"layer_norm", "group_norm", "softmax", "log_softmax", "cross_entropy", "pow", "__pow__", "rsqrt", "exp",
           "log", "softplus", "cosine_similarity", "reciprocal"}  # fmt: skip


def rounded(count: int) -> int:
    """Bytes the allocator hands out for `count` bytes.

    >>> rounded(513)
    1024
    """
    return -(-count // BLOCK) * BLOCK


def parameter_bytes(parameters: Iterator[torch.Tensor] | Sequence[torch.Tensor]) -> int:
    """Bytes of tensors that have a storage each."""
    return sum(rounded(p.numel() * p.element_size()) for p in parameters)


class StorageTracker(TorchDispatchMode):
    """Writes down when each storage appears and goes, and the labels it is told in between.

    Attributes:
        events: (number of the storage, bytes; negative when it goes) in order.
        marks: (label, position in `events`) in order.
        gradients: numbers of the storages that became a parameter's gradient.
    """

    def __init__(self, known: Sequence[torch.Tensor] = ()):
        super().__init__()
        self.events: list[tuple[int, int]] = []
        self.marks: list[tuple[object, int]] = []
        self.gradients: set[int] = set()
        self._live: dict[int, tuple[int, object]] = {}
        self._count = 0
        for tensor in known:
            self._add(tensor.untyped_storage(), counted=False)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.device.type != "meta":
                self._add(leaf.untyped_storage())
        return result

    def mark(self, label: object) -> None:
        """A new segment begins here."""
        self.marks.append((label, len(self.events)))

    def keep_as_gradient(self, parameter: torch.Tensor) -> None:
        """Hook for a parameter whose gradient has just been accumulated."""
        self.gradients.add(self._live[id(parameter.grad.untyped_storage())][0])

    def live_bytes(self) -> int:
        """What is alive now, the tensors known at the start left out."""
        return sum(change for _, change in self.events)

    def _add(self, storage: torch.UntypedStorage, counted: bool = True) -> None:
        key = id(storage)
        if key in self._live:
            return
        self._count += 1
        number, size = self._count, rounded(storage.nbytes()) if counted else 0

        def gone(_: object) -> None:
            del self._live[key]
            self.events.append((number, -size))

        self._live[key] = number, weakref.ref(storage, gone)
        self.events.append((number, size))


class CudaRules(TorchFunctionMode):
    """What eager PyTorch does otherwise on CUDA, for fake CPU tensors: dropout, attention, float32 under autocast."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if name == "scaled_dot_product_attention":
            return cuda_attention(*args, **kwargs)
        if name == "dropout":
            return _cuda_dropout(*args, **kwargs)
        if name in FLOAT32 and torch.is_autocast_enabled("cpu"):
            args = [_float32(a) for a in args]
            kwargs = {key: _float32(value) for key, value in kwargs.items()}
        return func(*args, **kwargs)


def _float32(value: object) -> object:
    low = isinstance(value, torch.Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if low else value


def _cuda_dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    return torch.native_dropout(input, p, True)[0] if training and p > 0 else input  # keeps a mask of bytes


def cuda_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """`scaled_dot_product_attention` by the kernel CUDA would take: flash, with a mask or in float32 memory-efficient.

    Shapes: query (batch, heads, length, width), key and value the same, with fewer heads under `enable_gqa`; the
    memory-efficient kernel knows no such grouping, so plain matrices are used there.
    """
    if torch.is_autocast_enabled("cpu"):
        query, key, value = (t.to(torch.get_autocast_dtype("cpu")) for t in (query, key, value))
    if attn_mask is None and query.dtype != torch.float32 and query.shape[-1] % 8 == 0:
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        return flash(query, key, value, dropout_p, is_causal, scale=scale)[0]
    if enable_gqa:
        plain = torch.ops.aten._scaled_dot_product_attention_math
        return plain(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=True)[0]
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(~attn_mask, -math.inf)
        attn_mask = attn_mask.to(query.dtype)
        if attn_mask.shape[-1] % 16:  # the kernel wants rows of a multiple of 16
            length = attn_mask.shape[-1]
            attn_mask = nn.functional.pad(attn_mask, (0, 16 - length % 16))[..., :length]
        attn_mask = attn_mask.expand(*query.shape[:3], key.shape[2])
    efficient = torch.ops.aten._scaled_dot_product_efficient_attention
    return efficient(query, key, value, attn_mask, True, dropout_p, is_causal, scale=scale)[0]


@contextlib.contextmanager
def fake_weights(model: nn.Module) -> Iterator[nn.Module]:
    """The model with every parameter and buffer a fake CPU tensor of its shape, type and need of a gradient."""
    made: dict[int, torch.Tensor] = {}

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            made[id(tensor)] = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
            if isinstance(tensor, nn.Parameter):
                made[id(tensor)] = nn.Parameter(made[id(tensor)], requires_grad=tensor.requires_grad)
        return made[id(tensor)]

    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in model.modules():
            for holder in (module._parameters, module._buffers):
                holder.update({name: fake(t) for name, t in holder.items() if t is not None})
        yield model


@dataclass(frozen=True)
class Segment:
    """Bytes of gradients, activations and temporaries, shape (3,): at its end and highest point less its start."""

    change: np.ndarray = field(default_factory=lambda: np.zeros(3, dtype=np.int64))
    peak: np.ndarray = field(default_factory=lambda: np.zeros(3, dtype=np.int64))


def trace_step(
    model: nn.Module, batch: int, length: int, *, padded: bool, autocast: bool, vocabulary: int
) -> dict[object, Segment]:
    """Forward and backward of a classifier that has `fake_weights`, in segments by label, in order.

    Labels are ("forward", i) and ("backward", i) for layer i, with "embeddings" and "head" for what lies below and
    above; a layer through which no gradient flows has no backward segment.
    """
    model.train()
    _recompute_by_cuda_rules(model)
    known = [*model.parameters(), *model.buffers()]
    skipped = {} if padded else {"find_packed_sequence_indices": lambda _: None}  # it reads values, fake ones have none
    with patch.multiple("transformers.masking_utils", **skipped) if skipped else contextlib.nullcontext(), \
            StorageTracker(known) as tracker, CudaRules():
        hooks = [p.register_post_accumulate_grad_hook(tracker.keep_as_gradient) for p in known if p.requires_grad]
        hooks += _mark_layers(model, tracker)
        tracker.mark(("forward", "embeddings"))
        inputs = {"input_ids": torch.randint(vocabulary, (batch, length))}
        inputs |= {"attention_mask": torch.ones(batch, length, dtype=torch.long)} if padded else {}
        labels = torch.zeros(batch, dtype=torch.long)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = model(**inputs).logits
        loss = nn.functional.cross_entropy(logits.float(), labels, reduction="sum") / batch
        del logits
        tracker.mark(("backward", "head"))
        torch.autograd.backward(loss)
        del loss, inputs, labels
    for hook in hooks:
        hook.remove()
    segments = _segments(tracker)
    model.zero_grad(set_to_none=True)
    return segments


def _recompute_by_cuda_rules(model: nn.Module) -> None:
    """Give checkpointing's second forward the rules too: the mode is off while autograd runs."""
    for module in model.modules():
        if checkpoint := getattr(module, "_gradient_checkpointing_func", None):
            both = partial(checkpoint, context_fn=lambda: (contextlib.nullcontext(), CudaRules()))
            module._gradient_checkpointing_func = both


def _mark_layers(model: nn.Module, tracker: StorageTracker) -> list:
    """Hooks that mark where each layer's forward and backward begin."""
    stack, hooks = find_layers(model), []

    def going_back() -> bool:  # checkpointing runs the layers again
        return any(label[0] == "backward" for label, _ in tracker.marks)

    def mark_backward(tensor: object, place: object) -> None:
        tensor = tensor[0] if isinstance(tensor, tuple) else tensor
        if isinstance(tensor, torch.Tensor) and tensor.requires_grad:
            tensor.register_hook(lambda _: tracker.mark(("backward", place)))

    for index, layer in enumerate(stack):

        def begins(module, args, kwargs, index=index):
            if not going_back():
                tracker.mark(("forward", index))
                if index == 0:
                    mark_backward(args or kwargs["hidden_states"], "embeddings")

        def ends(module, args, output, index=index):
            if not going_back():
                mark_backward(output, index)
                if index == len(stack) - 1:
                    tracker.mark(("forward", "head"))

        hooks += [layer.register_forward_pre_hook(begins, with_kwargs=True), layer.register_forward_hook(ends)]
    return hooks


def _segments(tracker: StorageTracker) -> dict[object, Segment]:
    """The events between marks, summed by kind; what forward leaves alive for backward is an activation."""
    turn = next(position for label, position in tracker.marks if label == ("backward", "head"))
    alive: set[int] = set()
    for number, size in tracker.events[:turn]:
        (alive.add if size > 0 else alive.discard)(number)

    def kind(number: int) -> int:
        return GRADIENTS if number in tracker.gradients else ACTIVATIONS if number in alive else TEMPORARY

    ends = [position for _, position in tracker.marks[1:]] + [len(tracker.events)]
    found = {}
    for (label, start), end in zip(tracker.marks, ends, strict=True):
        now, peak = np.zeros(3, dtype=np.int64), np.zeros(3, dtype=np.int64)
        for number, size in tracker.events[start:end]:
            now[kind(number)] += size
            if now.sum() > peak.sum():
                peak = now.copy()
        found[label] = Segment(now, peak)
    return found


def highest(segments: Sequence[Segment]) -> np.ndarray:
    """The three kinds of bytes, shape (3,), at the highest point of segments that follow each other."""
    level, best = np.zeros(3, dtype=np.int64), np.zeros(3, dtype=np.int64)
    for segment in segments:
        if (level + segment.peak).sum() > best.sum():
            best = level + segment.peak
        level = level + segment.change
    return best
