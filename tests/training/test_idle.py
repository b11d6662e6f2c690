"""The optimizer's state of layers that do not learn: dropped, or held elsewhere, which changes no step."""

import pytest
import torch
from conftest import collate, make_classifier, make_examples
from test_resume import resumable

from irtuning import LayerwiseTuning, add_adapter
from irtuning.comparison.runs import run_comparison
from irtuning.errors import InputError
from irtuning.method.layers import candidate_layers
from irtuning.training.idle import IdleStates


class Watched(IdleStates):
    """Notes after every step which parameters have no state at home."""

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        super().on_train_begin(args, state, control, model=model, **kwargs)
        self.seen, self.moved = [], set()

    def _move(self, state, device):
        before = dict(state)
        super()._move(state, device)
        self.moved |= {name for name, value in state.items() if value is not before[name]}

    def on_step_end(self, args, state, control, model=None, optimizer=None, **kwargs):
        learn = {p for p in model.parameters() if p.requires_grad}
        self.seen.append((self.away & learn, self.away == {p for p in optimizer.state if p not in learn}, len(self.away)))


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused"])
def test_a_state_held_elsewhere_is_the_same_step_by_step_and_over_a_resume(tmp_path, optim):
    """Without a GPU both devices are the CPU, and each move is a copy."""
    ends = []
    for how, checkpoint in (("keep", None), ("offload", None), ("offload", tmp_path / "offload" / "checkpoint-6"),
                            ("keep", tmp_path / "offload" / "checkpoint-6")):  # fmt: skip
        idle = Watched(how)
        model = add_adapter(make_classifier(attn_implementation="eager"), "lora", r=2, alpha=4, dropout=0.1)
        options = {"optim": optim, "use_cpu": not torch.cuda.is_available()}
        trainer = resumable(tmp_path / how, LayerwiseTuning("rst:share=0.5"), model=model, **options)
        trainer.add_callback(idle)
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
        states = trainer.optimizer.optimizer.state_dict()["state"]
        ends.append((trainer.model.state_dict(), states))
        if how == "offload":
            assert all(not wrong and right for wrong, right, _ in idle.seen) and idle.seen[-1][2] > 0
            assert idle.moved == {"exp_avg", "exp_avg_sq"}  # not the number of steps
    for weights, states in ends[1:]:
        assert all(torch.equal(value, weights[name]) for name, value in ends[0][0].items())
        assert states.keys() == ends[0][1].keys()
        for index, state in states.items():
            assert all(torch.equal(value.cpu(), state[name].cpu()) for name, value in ends[0][1][index].items())


def test_a_run_without_a_gpu_refuses_to_offload(own_corpus):
    with pytest.raises(InputError, match="no GPU whose memory it could save; use keep or drop"):
        run_comparison(["rst"], **own_corpus, seeds=[1], idle="offload", max_steps=4, device="cpu", progress=False, workers=1)


def test_a_dropped_state_begins_anew():
    model = add_adapter(make_classifier(), "lora", r=2, dropout=0.0)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01, weight_decay=0.0)
    idle, layers = IdleStates("drop"), candidate_layers(model)
    for chosen in ([0, 1], [1], [0, 1]):
        layers.freeze_all_but(chosen)
        idle.on_step_begin(None, None, None, optimizer=optimizer)
        before = [p.detach().clone() for p in layers.parameters[0]]
        model.train()(**collate(make_examples(6))).loss.backward()
        optimizer.step()
        held = [[len(optimizer.state.get(p, ())) > 0 for p in part] for part in layers.parameters[:3]]
        assert [{*part} for part in held] == [{0 in chosen}, {True}, {False}]
        if chosen == [0, 1]:  # the first step of Adam moves every weight by the learning rate against its gradient
            for old, new in zip(before, layers.parameters[0], strict=True):
                step = 0.01 * new.grad / (new.grad.abs() + 1e-8)
                assert torch.allclose(new.detach(), old - step, rtol=0, atol=1e-6)
        optimizer.zero_grad()
    assert [optimizer.state[p]["step"].item() for p in (layers.parameters[0][0], layers.parameters[1][0])] == [1, 3]
