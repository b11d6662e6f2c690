"""What becomes of the optimizer's state of parameters that do not learn: it is kept, dropped or held on the host."""

import torch
from torch import nn
from transformers import TrainerCallback


class IdleStates(TrainerCallback):
    """Callback that drops the optimizer's state of parameters that do not learn, or holds it on another device.

    Before each training forward pass, `requires_grad` tells which parameters learn. With `drop`, a parameter that
    learns again starts with a new state. With `offload`, every step is the same as with `keep`: states are copied on
    their own stream beside the forward and backward pass, and the optimizer waits for them. They stay in
    `optimizer.state`, so that its checkpoint is complete. A resume loads all states to the GPU first. In a loop without
    a Trainer, call `attach` and, at the end, `remove`. Related: BAdam, and GRASS (arXiv 2604.07808).
    """
    def __init__(self, how: str):
        self.how, self.away = how, set()  # `away`: parameters whose state is on the host
        self._handles, self._stream = [], None

    def attach(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Add the hooks to a model and to its optimizer."""
        self.optimizer, device = optimizer, next(model.parameters()).device
        self.away = self.away.intersection(optimizer.state)  # empty for a new optimizer
        self._handles = [model.register_forward_pre_hook(self._before_forward)] if self.how != "keep" else []
        if self.how == "offload" and device.type == "cuda":
            self._stream = torch.cuda.Stream(device)
            wait = lambda *_: torch.cuda.current_stream(device).wait_stream(self._stream)
            self._handles.append(optimizer.register_step_pre_hook(wait))
            self._handles.append(optimizer.register_state_dict_pre_hook(lambda _: self._stream.synchronize()))

    def remove(self) -> None:
        """Remove all hooks. The states stay where they are."""
        while self._handles:
            self._handles.pop().remove()

    def on_train_begin(self, args, state, control, model=None, optimizer=None, **kwargs):
        self.attach(model, getattr(optimizer, "optimizer", optimizer))  # the optimizer inside accelerate's

    def on_train_end(self, args, state, control, **kwargs):
        self.remove()

    def _before_forward(self, module: nn.Module, args: tuple) -> None:
        if not (module.training and torch.is_grad_enabled()):
            return
        leaving = [p for p in self.optimizer.state if not p.requires_grad and p not in self.away]
        coming = [p for p in self.away if p.requires_grad]
        if self._stream and (leaving or coming):
            self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))  # for the last optimizer step
        for parameter in [*leaving, *coming]:
            if self.how == "drop":
                del self.optimizer.state[parameter]
            else:
                self._move(self.optimizer.state[parameter], parameter.device if parameter in self.away else "cpu")
                self.away ^= {parameter}

    def _move(self, state: dict, device: torch.device | str) -> None:
        for name, value in state.items():
            if torch.is_tensor(value) and value.dim():  # the number of steps stays where it is
                pinned = self._stream is not None and device == "cpu"
                state[name] = torch.empty_like(value, device=device, pin_memory=pinned)
                with torch.cuda.stream(self._stream):
                    state[name].copy_(value, non_blocking=True)
                if value.is_cuda:  # its memory is free only when the copy has ended
                    value.record_stream(self._stream)
