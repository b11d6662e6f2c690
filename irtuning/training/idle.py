"""What becomes of the optimizer's state of parameters that do not learn: it is kept, dropped or held on the host."""

import torch
from torch import nn
from transformers import TrainerCallback


class IdleStates(TrainerCallback):
    """Callback that drops the optimizer's state of parameters that do not learn, or holds it on another device.

    Before each training forward pass, `requires_grad` tells which parameters learn, whatever chose them. With `drop`,
    a parameter that learns again starts with a new state. With `offload`, the state is as with `keep`, step by step: it
    is copied on a stream of its own, beside the forward and the backward pass, and the optimizer's step waits for it.
    It stays in `optimizer.state`, so that a checkpoint of the optimizer has all of it. In a loop without a Trainer,
    call `attach`. Related: BAdam and GRASS (arXiv 2604.07808).
    """
    def __init__(self, how: str, away: torch.device | str = "cpu"):
        self.how, self.away_on = how, torch.device(away)
        self.away: set[nn.Parameter] = set()  # parameters whose state is on the other device
        self._handles, self._stream = [], None

    def attach(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Add the hooks to a model and its optimizer. `remove` takes them away."""
        self.optimizer = optimizer
        self._handles = [model.register_forward_pre_hook(self._before_forward)] if self.how != "keep" else []
        if self.how == "offload" and (device := next(model.parameters()).device).type == "cuda":
            self._stream = torch.cuda.Stream(device)
            self._handles += [
                optimizer.register_step_pre_hook(lambda *_: torch.cuda.current_stream().wait_stream(self._stream)),
                optimizer.register_state_dict_pre_hook(lambda *_: self._stream.synchronize())]  # fmt: skip

    def remove(self) -> None:
        """Remove all hooks. States stay where they are."""
        for handle in self._handles:
            handle.remove()

    def on_train_begin(self, args, state, control, model=None, optimizer=None, **kwargs):
        """Attach to the Trainer's model and optimizer."""
        self.attach(model, getattr(optimizer, "optimizer", optimizer))  # accelerate wraps the optimizer

    def on_train_end(self, args, state, control, **kwargs):
        """Remove all hooks."""
        self.remove()

    def _before_forward(self, module: nn.Module, args: tuple) -> None:
        states = self.optimizer.state
        if not (module.training and torch.is_grad_enabled()):
            return
        leaving = [p for p in states if not p.requires_grad and p not in self.away]
        if self.how == "drop":
            for parameter in leaving:
                del states[parameter]
            return
        coming = [p for p in self.away if p.requires_grad]
        if self._stream and (leaving or coming):
            self._stream.wait_stream(torch.cuda.current_stream())  # for the last optimizer step
        for parameter in leaving:  # first, so that both are never on the GPU at once
            self._move(states[parameter], self.away_on)
        for parameter in coming:
            self._move(states[parameter], parameter.device)
        self.away = (self.away | {*leaving}) - {*coming}

    def _move(self, state: dict, device: torch.device) -> None:
        for name, value in state.items():
            if torch.is_tensor(value) and value.dim():  # the number of steps stays where it is
                pinned = self._stream is not None and device.type == "cpu"
                state[name] = torch.empty_like(value, device=device, pin_memory=pinned)
                with torch.cuda.stream(self._stream):
                    state[name].copy_(value, non_blocking=True)
                if self._stream and value.is_cuda:
                    value.record_stream(self._stream)  # its memory is free when the copy has ended
