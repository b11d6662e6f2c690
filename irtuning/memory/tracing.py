"""Trace of a training step that counts bytes by CUDA's rules. Its tensors have no storage, so it needs no memory.

The trace is divided where a layer begins, in the forward and in the backward pass. What a layer keeps, frees and needs
for a moment does not depend on the number of layers, so a step of any depth can be put together from a few layers.
"""

import itertools
import math
import weakref
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from unittest.mock import patch

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from irtuning.method.layers import find_layers

BLOCK = 512  # CUDA's caching allocator rounds every size up to a multiple of it
GRADIENTS, ACTIVATIONS, TEMPORARY = range(3)
zeros = partial(np.zeros, 3, dtype=np.int64)  # a count of bytes for each of the three kinds above
# Autocast runs these operations in float32 on CUDA but not on a CPU. The list has those that classifiers use.
FLOAT32 = {"layer_norm", "group_norm", "softmax", "log_softmax", "cross_entropy", "pow", "__pow__", "rsqrt", "exp",
           "log", "softplus", "cosine_similarity", "reciprocal"}  # fmt: skip


def rounded(count: int) -> int:
    """Return how many bytes the allocator hands out for `count` bytes."""
    return -(-count // BLOCK) * BLOCK


class StorageTracker(TorchDispatchMode):
    """Dispatch mode that records when each storage is allocated and when it is freed."""
    def __init__(self, known: Sequence[torch.Tensor] = ()):
        super().__init__()
        self.events: list[tuple[int, int]] = []  # number of a storage and its bytes, negative when it is freed
        self.marks: list[tuple[object, int]] = []  # label of each segment and its first position in `events`
        self.gradients: set[int] = set()  # numbers of the storages that hold a parameter's gradient
        self._live: dict[int, tuple[int, object]] = {}
        self._numbers = itertools.count()
        for tensor in known:  # such as weights, which exist before the step, so that they count 0 bytes
            self._add(tensor.untyped_storage(), counted=False)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.device.type != "meta":
                self._add(leaf.untyped_storage())
        return result

    def mark(self, label: object) -> None:
        """Begin a new segment with this label."""
        self.marks.append((label, len(self.events)))

    def keep_as_gradient(self, parameter: torch.Tensor) -> None:
        """Note the storage of a parameter's gradient. It is a hook that runs when the gradient is complete."""
        self.gradients.add(self._live[id(parameter.grad.untyped_storage())][0])

    def _add(self, storage: torch.UntypedStorage, counted: bool = True) -> None:
        if (key := id(storage)) in self._live:
            return
        number, size = next(self._numbers), rounded(storage.nbytes()) if counted else 0
        def freed(_: object) -> None:
            del self._live[key]
            self.events.append((number, -size))
        self._live[key] = number, weakref.ref(storage, freed)
        self.events.append((number, size))


class CudaRules(TorchFunctionMode):
    """Function mode that makes CPU tensors follow CUDA's rules for dropout, attention and float32 under autocast."""
    def __torch_function__(self, func, types, args=(), kwargs=None):
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if name in ("dropout", "scaled_dot_product_attention"):
            return (_dropout if name == "dropout" else _attention)(*args, **kwargs)
        if name in FLOAT32 and torch.is_autocast_enabled("cpu"):
            low = (torch.bfloat16, torch.float16)
            args, kwargs = tree_map_only(torch.Tensor, lambda t: t.float() if t.dtype in low else t, (args, kwargs))
        return func(*args, **kwargs)


def _dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    return torch.native_dropout(input, p, True)[0] if training and p > 0 else input  # it keeps a mask of bytes


def _attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    """Run attention with the kernel that CUDA would choose: flash, or memory-efficient with a mask or in float32."""
    op, how = torch.ops.aten, {"dropout_p": dropout_p, "is_causal": is_causal, "scale": scale}
    if torch.is_autocast_enabled("cpu"):
        query, key, value = (t.to(torch.get_autocast_dtype("cpu")) for t in (query, key, value))
    if attn_mask is None and query.dtype != torch.float32 and query.shape[-1] % 8 == 0:
        return op._scaled_dot_product_flash_attention(query, key, value, **how)[0]
    if enable_gqa:  # the memory-efficient kernel does not support shared keys and values
        return op._scaled_dot_product_attention_math(query, key, value, attn_mask, **how, enable_gqa=True)[0]
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(~attn_mask, -math.inf)
        attn_mask = attn_mask.to(query.dtype)
        if missing := -attn_mask.shape[-1] % 16:  # the kernel needs rows whose length is a multiple of 16
            attn_mask = nn.functional.pad(attn_mask, (0, missing))[..., :-missing]
        attn_mask = attn_mask.expand(*query.shape[:3], key.shape[2])
    return op._scaled_dot_product_efficient_attention(query, key, value, attn_mask, True, **how)[0]


@dataclass(frozen=True)
class Segment:
    """Change and peak of the bytes of gradients, activations and temporaries, shape (3,), relative to its start."""
    change: np.ndarray = field(default_factory=zeros)
    peak: np.ndarray = field(default_factory=zeros)


def trace_step(model: nn.Module, batch: int, length: int, *, padded: bool, autocast: bool, vocabulary: int) -> dict:
    """Trace a forward and a backward pass. Model and call must be inside FakeTensorMode. The model keeps the hooks.

    Returns:
        Segments by label, in order. Labels are ("forward", i) and ("backward", i) for layer i, with "embeddings" and
        "head" for the parts below and above the layers. A layer without a gradient has no backward segment.
    """
    for module in model.train().modules():  # checkpointing runs a layer again in the backward pass, outside the mode
        if checkpoint := getattr(module, "_gradient_checkpointing_func", None):
            module._gradient_checkpointing_func = partial(checkpoint, context_fn=lambda: (nullcontext(), CudaRules()))
    known = [*model.parameters(), *model.buffers()]
    # Without padding, transformers reads the values of position ids, which tensors without storage do not have.
    skipped = "transformers.masking_utils.find_packed_sequence_indices"
    patched = nullcontext() if padded else patch(skipped, lambda _: None)
    with patched, StorageTracker(known) as tracker, CudaRules():
        for parameter in (tensor for tensor in known if tensor.requires_grad):
            parameter.register_post_accumulate_grad_hook(tracker.keep_as_gradient)
        _mark_layers(find_layers(model), tracker)
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
    return _segments(tracker)


def _mark_layers(layers: nn.ModuleList, tracker: StorageTracker) -> None:
    """Add hooks that mark where the forward and the backward pass of each layer begin."""
    def in_backward() -> bool:  # where checkpointing runs layers again
        return any(label[0] == "backward" for label, _ in tracker.marks)
    def mark_backward(tensor: object, key: object) -> None:
        tensor = tensor[0] if isinstance(tensor, tuple) else tensor
        if isinstance(tensor, torch.Tensor) and tensor.requires_grad:
            tensor.register_hook(lambda _: tracker.mark(("backward", key)))
    def begins(index: int, module, args, kwargs) -> None:
        if not in_backward():
            tracker.mark(("forward", index))
            if index == 0:
                mark_backward(args or kwargs["hidden_states"], "embeddings")
    def ends(index: int, module, args, output) -> None:
        if not in_backward():
            mark_backward(output, index)
            if index == len(layers) - 1:
                tracker.mark(("forward", "head"))
    for index, layer in enumerate(layers):
        layer.register_forward_pre_hook(partial(begins, index), with_kwargs=True)
        layer.register_forward_hook(partial(ends, index))


def _segments(tracker: StorageTracker) -> dict[object, Segment]:
    """Return the bytes of each segment by kind. What the forward pass leaves for the backward pass is an activation."""
    before = tracker.events[: dict(tracker.marks)["backward", "head"]]
    alive = {number for number, size in before if size > 0} - {number for number, size in before if size < 0}
    ends = [position for _, position in tracker.marks[1:]] + [len(tracker.events)]
    segments, one = {}, np.eye(3, dtype=np.int64)
    for (label, start), end in zip(tracker.marks, ends, strict=True):
        levels = [zeros()]
        for number, size in tracker.events[start:end]:
            kind = GRADIENTS if number in tracker.gradients else ACTIVATIONS if number in alive else TEMPORARY
            levels.append(levels[-1] + size * one[kind])
        segments[label] = Segment(levels[-1], max(levels, key=np.sum))
    return segments


def highest(segments: Sequence[Segment]) -> np.ndarray:
    """Return the bytes of each kind, shape (3,), at the highest point of consecutive segments."""
    starts = np.cumsum([zeros(), *(segment.change for segment in segments[:-1])], axis=0)
    return max((start + segment.peak for start, segment in zip(starts, segments, strict=True)), key=np.sum)
