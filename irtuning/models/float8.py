"""Frozen linear layers of the base in float8: half the bytes of bfloat16, and faster products on recent GPUs."""

import torch
from torch import nn

from irtuning.errors import InputError
from irtuning.method.layers import find_layers

KIND = torch.float8_e4m3fn  # 4 bits of exponent, 3 of mantissa
HIGHEST = torch.finfo(KIND).max  # 448
CAPABILITY = (8, 9)  # of the GPUs that multiply in float8: Ada, Hopper and newer


def to_float8(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows of a matrix, shape (m, n), in float8, and their float32 scales, shape (m, 1)."""
    scales = rows.abs().amax(dim=1, keepdim=True).float().clamp(min=1e-12) / HIGHEST
    return (rows.float() / scales).to(KIND), scales


class FrozenProduct(torch.autograd.Function):
    """The product of inputs, shape (m, k), with a frozen weight, shape (n, k), both in float8: bfloat16, shape (m, n).

    Each input row and each weight row has a scale. The backward pass gives a gradient to the inputs alone. There the
    product sums over the weight's rows, so that their scales go into the output's gradient before its rows are scaled
    themselves. It uses the same float8 numbers, transposed when needed, so that one copy of the weight is enough.
    """
    @staticmethod
    def forward(ctx, inputs: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight, scales)
        numbers, own_scales = to_float8(inputs)
        return _product(numbers, weight.t(), own_scales, scales.t())

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        weight, scales = ctx.saved_tensors
        gradient = gradient.as_strided(gradient.shape, gradient.stride())  # or its product is stored, in float32
        numbers, own_scales = to_float8(gradient.float() * scales.t())
        ones = torch.ones(1, weight.shape[1], device=weight.device)
        return _product(numbers, weight.t().contiguous().t(), own_scales, ones), None, None


def _product(left: torch.Tensor, right: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    # The library wants the right matrix column by column in memory. Fast accumulation exists on GPUs alone.
    scales = {"scale_a": rows, "scale_b": columns.contiguous()}
    return torch._scaled_mm(left, right, **scales, out_dtype=torch.bfloat16, use_fast_accum=left.is_cuda)


class Float8Linear(nn.Linear):
    """A frozen linear layer with its weight in float8 and one scale for each output. `weight` is a bfloat16 copy."""
    def __init__(self, linear: nn.Linear):
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.bias = linear.in_features, linear.out_features, linear.bias
        numbers, scales = to_float8(linear.weight.detach())
        self.register_buffer("numbers", numbers)
        self.register_buffer("scales", scales)

    @property
    def weight(self) -> torch.Tensor:
        """The weight as the products see it, shape (out_features, in_features)."""
        return (self.numbers.float() * self.scales).bfloat16()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the output, shape (..., out_features), in bfloat16 under autocast, otherwise as precise as the input.

        The relative error of a product of random numbers is 0.037; that of bfloat16 is 0.0017.
        """
        kind = torch.bfloat16 if torch.is_autocast_enabled(inputs.device.type) else inputs.dtype
        rows = inputs.reshape(-1, self.in_features)
        output = FrozenProduct.apply(rows, self.numbers, self.scales).to(kind)
        output = output if self.bias is None else output + self.bias.to(kind)
        return output.reshape(*inputs.shape[:-1], self.out_features)


def frozen_linears(model: nn.Module) -> list[tuple[nn.Module, str, nn.Linear]]:
    """Return the frozen linear layers of the base inside the transformer layers: parent, name there, and layer."""
    parents = (module for module in find_layers(model).modules() if not isinstance(module, nn.ModuleDict))
    return [(parent, name, child) for parent in parents for name, child in parent.named_children()
            if isinstance(child, nn.Linear) and not child.weight.requires_grad]  # fmt: skip


def freeze_in_float8(model: nn.Module, device: str | None = None) -> None:
    """Replace every frozen linear layer inside the transformer layers by a `Float8Linear`. Call it after peft.

    Adapters, embeddings and head stay as they are. `device` is where the model will be; None: where it is.

    Raises:
        InputError: the GPU cannot multiply in float8, a width is no multiple of 16, or the base is quantized already.
    """
    linears, device = frozen_linears(model), device or next(model.parameters()).device.type
    if device == "cuda" and torch.cuda.get_device_capability() < CAPABILITY:
        raise InputError(f"{torch.cuda.get_device_name()} cannot multiply in float8, which needs compute "
                         "capability 8.9 or more; leave float8 out of speed")  # fmt: skip
    if not linears:
        raise InputError("no frozen nn.Linear inside the layers, so float8 has nothing to do; leave it out of speed")
    for _, name, linear in linears:
        if not linear.weight.dtype.is_floating_point or type(linear) is not nn.Linear:
            raise InputError(f"{name} is a {type(linear).__name__}: the base is quantized already; use quantize=none")
        if linear.in_features % 16 or linear.out_features % 16:
            raise InputError(f"{name} maps {linear.in_features} to {linear.out_features}, and float8 needs multiples "
                             "of 16; leave it out of speed")  # fmt: skip
    while linears:  # one by one, so that each weight of the base is freed when its float8 one exists
        parent, name, linear = linears.pop()
        setattr(parent, name, Float8Linear(linear))
    ours = [name for name, _ in model.named_buffers() if name.endswith((".numbers", ".scales"))]
    model._ddp_params_and_buffers_to_ignore = ours  # each process has made the same ones, and gloo cannot send float8
