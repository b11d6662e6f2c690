"""The trace of a step, against hand counts and real tensors."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from conftest import make_classifier
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from irtuning.memory.tracing import ACTIVATIONS, CudaRules, StorageTracker, trace_step
from irtuning.method.layers import candidate_layers
from irtuning.models.adapters import add_adapter
from irtuning.models.backward import skip_backward


def live_bytes(tracker):  # of what is alive now, without the tensors that were known at the start
    return sum(change for _, change in tracker.events)


def test_tracker_counts_real_tensors_and_the_backward_pass_of_two_linear_maps():
    known = torch.zeros(1000)
    with StorageTracker([known]) as tracker:
        doubled = known * 2  # 4,000 bytes, rounded up to 4,096
        view = doubled[10:]
        assert live_bytes(tracker) == 4096
        known.add_(1)
        third = view.double()  # 7,920 bytes, rounded up to 8,192
        assert live_bytes(tracker) == 4096 + 8192
        del doubled
        assert live_bytes(tracker) == 4096 + 8192  # the view holds the storage
        del view, third
        assert live_bytes(tracker) == 0
    first, second = (torch.nn.Linear(64, 64, bias=False) for _ in range(2))
    block, weight = 256 * 64 * 4, 64 * 64 * 4
    with StorageTracker([first.weight, second.weight]) as tracker:
        inputs = torch.ones(256, 64)
        hidden = first(inputs).relu()  # the map's output is freed, relu keeps its own
        loss = second(hidden).sum()
        del hidden
        assert live_bytes(tracker) == 2 * block + 512  # inputs and relu for the weights' gradients, and the loss
        loss.backward()
        del loss, inputs
        assert live_bytes(tracker) == 2 * weight


@pytest.mark.parametrize(("dropout", "skip"), [(0.0, False), (0.1, False), (0.1, True)])
def test_tensors_without_storage_give_the_bytes_of_real_ones(dropout, skip):
    def traced(device, mode):
        with torch.device(device):
            model = add_adapter(make_classifier(attn_implementation="eager"), "lora", rank=4, dropout=dropout)
        with mode:
            model.to_empty(device="cpu")
            candidate_layers(model).freeze_all_but([1, 3])
            skip_backward(model) if skip else None
            return trace_step(model, 8, 16, padded=True, autocast=True, vocabulary=100)

    real, fake = traced("cpu", nullcontext()), traced("meta", FakeTensorMode(allow_non_fake_inputs=True))
    assert list(real) == list(fake)
    assert ("backward", 1) in real and ("backward", 0) not in real  # nothing below the lowest layer that learns
    skipped, learns = (real["forward", index].change[ACTIVATIONS] for index in (2, 3))
    assert (skipped == 8 * 16 * 32 * 4) == skip and learns > 10 * 8 * 16 * 32 * 4  # the output of the one, for the other
    for label, segment in real.items():
        assert np.array_equal(segment.change, fake[label].change), label
        assert segment.peak.sum() == fake[label].peak.sum(), label


class Called(TorchDispatchMode):  # it notes the names of the operations that are called, in order
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names = [*getattr(self, "names", []), func.__name__.split(".")[0]]
        return func(*args, **(kwargs or {}))


def test_attention_takes_the_kernel_that_cuda_would_and_autocast_keeps_in_float32_what_cuda_does():
    low, full = torch.bfloat16, torch.float32
    cases = ("flash", low, False, 2), ("efficient", low, True, 8), ("efficient", full, False, 8), (None, full, False, 2)
    for kernel, kind, masked, groups in cases:
        with FakeTensorMode(), CudaRules(), Called() as called:
            query, key, value = (torch.empty(2, n, 40, 64, dtype=kind) for n in (8, groups, groups))
            mask = torch.ones(2, 1, 40, 40, dtype=torch.bool) if masked else None
            more = {"attn_mask": mask, "is_causal": not masked, "enable_gqa": groups < 8}
            output = torch.nn.functional.scaled_dot_product_attention(query, key, value, **more)
        kernels = [name for name in called.names if "scaled_dot_product" in name]
        assert output.shape == (2, 8, 40, 64)
        assert kernels == ([f"_scaled_dot_product_{kernel}_attention"] if kernel else [])
        assert ("bmm" in called.names) is (kernel is None)  # products of the full matrices
    norm, low = torch.nn.LayerNorm(8).bfloat16(), torch.ones(4, 8, dtype=torch.bfloat16)
    with CudaRules():
        assert norm(low).dtype == (low**2).dtype == torch.bfloat16
        with torch.autocast("cpu", torch.bfloat16):
            high = [norm(low), low**2, low.pow(3), torch.softmax(low, -1)]
            assert torch.nn.functional.linear(low, torch.ones(8, 8)).dtype == torch.bfloat16
    assert {tensor.dtype for tensor in high} == {torch.float32}
