"""A stand-in for a base that bitsandbytes holds in 4 bits, with the same bytes, for models without storage."""

import torch
from torch import nn

from irtuning.models.float8 import frozen_linears

BLOCK = 64  # weights that share one float32 scale


class UnpackedProduct(torch.autograd.Function):
    """The product with a 4-bit weight: the bfloat16 weight exists for a moment in each pass, and no input is kept."""
    @staticmethod
    def forward(ctx, inputs: torch.Tensor, outputs: int) -> torch.Tensor:
        ctx.shape = outputs, inputs.shape[-1]
        return inputs @ inputs.new_empty(ctx.shape).t()

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient @ gradient.new_empty(ctx.shape), None


class FourBitLinear(nn.Linear):
    """A frozen linear layer with the bytes of one in 4 bits (NF4). Its numbers mean nothing."""
    def __init__(self, linear: nn.Linear):
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.bias = linear.in_features, linear.out_features, linear.bias
        count, device = linear.weight.numel(), linear.weight.device
        self.register_buffer("weight", torch.empty(count // 2, dtype=torch.uint8, device=device))
        self.register_buffer("scales", torch.empty(-(-count // BLOCK), device=device))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return an output of the right shape and type."""
        output = UnpackedProduct.apply(inputs.bfloat16(), self.out_features)
        return (output if self.bias is None else output + self.bias.bfloat16()).to(inputs.dtype)


def freeze_in_four_bits(model: nn.Module) -> None:
    """Replace every frozen linear layer inside the transformer layers by a `FourBitLinear`. Call it after peft."""
    for parent, name, linear in frozen_linears(model):
        setattr(parent, name, FourBitLinear(linear))
