"""What becomes of the optimizer's state of parameters that do not learn: it is kept, dropped or held on the host."""

import torch
from transformers import TrainerCallback


class IdleStates(TrainerCallback):
    """Callback that drops the optimizer's state of parameters that do not learn, or holds it on the host.

    It comes after `LayerwiseTuning` in a Trainer's list of callbacks, which has then chosen what learns in a step. With
    `drop`, a parameter that learns again starts with a new state. With `offload`, every step is the same as with
    `keep`: states are copied on their own stream beside the forward and backward pass, and the optimizer waits for
    them. They stay in `optimizer.state`, so that its checkpoint is complete. A resume loads all states to the GPU
    first. A run without a GPU refuses it. Related: BAdam, and GRASS (arXiv 2604.07808).
    """
    def __init__(self, how: str):
        self.how, self.away, self._stream = how, set(), None  # `away`: parameters whose state is on the host

    def on_train_begin(self, args, state, control, optimizer=None, **kwargs):
        """Forget states of another optimizer, and make the stream on which states are copied."""
        self.away = self.away.intersection(optimizer.state)  # empty for a new optimizer
        if self.how == "offload" and args.device.type == "cuda":
            self._stream = torch.cuda.Stream(args.device)
            inner = getattr(optimizer, "optimizer", optimizer)  # inside accelerate's
            inner.register_state_dict_pre_hook(lambda _: self._stream.synchronize())

    def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
        """Drop or move away the states of what does not learn in this step, and fetch those of what does."""
        leaving = [p for p in optimizer.state if not p.requires_grad and p not in self.away]
        coming = [p for p in self.away if p.requires_grad]
        if self.how == "drop":
            for parameter in leaving:
                del optimizer.state[parameter]
        elif self.how == "offload":
            if self._stream:  # for the last optimizer step
                self._stream.wait_stream(torch.cuda.current_stream(args.device))
            for parameter in [*leaving, *coming]:
                self._move(optimizer.state[parameter], parameter.device if parameter in self.away else "cpu")
                self.away ^= {parameter}

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if self._stream:
            torch.cuda.current_stream(args.device).wait_stream(self._stream)

    def _move(self, state: dict, device: torch.device | str) -> None:
        for name, value in state.items():
            if torch.is_tensor(value) and value.dim():  # the number of steps stays where it is
                pinned = self._stream is not None and device == "cpu"
                state[name] = torch.empty_like(value, device=device, pin_memory=pinned)
                with torch.cuda.stream(self._stream):
                    state[name].copy_(value, non_blocking=True)
                if value.is_cuda:  # its memory is free only when the copy has ended
                    value.record_stream(self._stream)
