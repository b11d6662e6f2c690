"""A stand-in for a base that bitsandbytes holds in 4 bits, with the same bytes, for models without storage."""

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from irtuning.models.float8 import frozen_linears

BLOCK = 64  # weights that share one float32 scale


class FourBitLinear(nn.Linear):
    """A frozen linear layer with the bytes of one in 4 bits (NF4). Its numbers mean nothing."""
    def __init__(self, linear: nn.Linear):
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.bias = linear.in_features, linear.out_features, linear.bias
        count, device = linear.weight.numel(), linear.weight.device
        self.register_buffer("numbers", torch.empty(count // 2, dtype=torch.uint8, device=device))
        self.register_buffer("scales", torch.empty(-(-count // BLOCK), device=device))

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
    for parent, name, linear in frozen_linears(model):
        setattr(parent, name, FourBitLinear(linear))
