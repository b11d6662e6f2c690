"""The tuner in a loop of one's own: the same run as in the Trainer, what its state holds, and what it refuses."""

import json
import math

import pytest
import torch
from conftest import collate, make_classifier, make_examples
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainingArguments

from irtuning import InputError, IRTuning, LayerTuner, LayerwiseTuning, add_adapter, find_layers, make_strategy
from irtuning.method import registry
from irtuning.method.baselines import RandomCounts
from irtuning.method.strategies import Strategy

STEPS, SIZE = 20, 12
EXAMPLES = make_examples()
BATCHES = [collate(EXAMPLES[i : i + SIZE]) for i in range(0, len(EXAMPLES), SIZE)] * 5


@pytest.fixture(autouse=True)
def restored_names(monkeypatch):
    """Forget the strategies of these tests, which would be methods of the tests that follow."""
    monkeypatch.setattr(registry, "METHODS", dict(registry.METHODS))


class Given(Strategy):
    """Whatever is given learns."""

    positions = [0, 1]

    def choose(self, step, scores, rng):
        return self.positions


def make_tuner(strategy, **options):
    """Of a classifier of 4 layers with LoRA, dropout 0."""
    model = add_adapter(make_classifier(), "lora", r=2, alpha=4, dropout=0.0)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    return LayerTuner(model, strategy, optimizer, **options)


def backward(tuner, batch=BATCHES[0], factor=1.0):
    """The step up to its gradient."""
    tuner.begin_step()
    (tuner.model(**batch).loss * factor).backward()
    return tuner


def total_norm(tuner):
    return torch.nn.utils.get_total_norm([p.grad for p in tuner.model.parameters() if p.grad is not None]).item()


def loop(tuner, batches=BATCHES):
    """Train one step a batch in a plain loop; return layers and losses."""
    layers, losses = [], []
    for batch in batches:
        layers.append(tuner.begin_step())
        loss = tuner.model.train()(**batch).loss
        loss.backward()
        tuner.end_backward(max_norm=1.0)
        tuner.optimizer.step()
        tuner.optimizer.zero_grad()
        losses.append(loss.item())
    return layers, losses


class InOrder(Trainer):
    """A Trainer that takes the examples in order and keeps its losses."""

    def _get_train_sampler(self, train_dataset=None):
        return SequentialSampler(self.train_dataset)

    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        self.losses = [*getattr(self, "losses", []), loss.item()]
        return loss


@pytest.mark.parametrize("method", ["ir", "ir:min_layer=1", "ist:every=5", "rst:share=0.5", "lisa-adapters:every=4",
                                    "probe:batches=6", "sampled:every=4:share=0.5"])  # fmt: skip
def test_a_plain_loop_is_the_same_run_as_the_trainer(tmp_path, method):
    """To the last bit: the same batches, model and optimizer, no dropout, and the same operations in the same order."""
    model = add_adapter(make_classifier(), "lora", r=2, alpha=4, dropout=0.0)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    callback = LayerwiseTuning(method, seed=7)
    arguments = TrainingArguments(str(tmp_path), max_steps=STEPS, per_device_train_batch_size=SIZE, max_grad_norm=1.0,
                                  report_to="none", save_strategy="no", disable_tqdm=True, use_cpu=True)  # fmt: skip
    constant = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    trainer = InOrder(model, arguments, train_dataset=EXAMPLES, data_collator=collate, callbacks=[callback],
                      optimizers=(optimizer, constant))  # fmt: skip
    trainer.train()
    tuner = make_tuner(method, seed=7)
    layers, losses = loop(tuner)
    assert losses == trainer.losses and tuner.history == callback.history and len(losses) == STEPS
    assert layers == [row["layers"] for row in callback.history] and len({tuple(chosen) for chosen in layers}) > 1
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), tuner.model.parameters(), strict=True))


@pytest.mark.parametrize("strategy", [Given, Given(), Given(min_layer=1)], ids=["class", "instance", "upper"])
def test_a_class_or_an_instance_is_a_strategy_and_its_layers_alone_learn(strategy):
    tuner = make_tuner(strategy)
    before = {n: p.detach().clone() for n, p in tuner.model.named_parameters()}
    layers, _ = loop(tuner, BATCHES[:2])
    lowest = getattr(strategy, "min_layer", 0)
    assert layers == [[lowest, lowest + 1]] * 2 == [row["layers"] for row in tuner.history]
    moved = [n for n, p in tuner.model.named_parameters() if not torch.equal(p, before[n])]
    assert {int(n.split(".layers.")[1][0]) for n in moved if ".layers." in n} == set(layers[0])
    assert any("modules_to_save" in n for n in moved)


@pytest.mark.parametrize("positions", [[4], [2, 1], None, [-1], [3, 1, 1], [99]])
def test_positions_that_cannot_be_are_refused_with_the_strategys_name(positions):
    tuner = make_tuner(Given)
    tuner.strategy.positions = positions
    with pytest.raises(InputError, match=r"Given.choose returned .*from 0 to 3 in ascending order"):
        tuner.begin_step()


def test_a_strategy_of_ones_own_needs_only_choose_and_what_it_says_of_itself_is_checked():
    class Best(Strategy):
        importance = "gradient"

        def choose(self, step, scores, rng):
            return sorted(sorted(range(self.count), key=lambda i: (scores[i] is not None, scores[i]))[-2:] if step else [0, 1])

    tuner = make_tuner(Best)
    loop(tuner, BATCHES[:3])
    assert all(score > 0 for score in tuner.scores[:2]) and tuner.history[1]["scores"][0] != tuner.scores[0]
    for name, value in (("importance", "gradients"), ("scope", "adapter")):
        with pytest.raises(InputError, match=f"unknown {name} of Wrong '{value}'; did you mean '{value[:7]}"):
            make_tuner(type("Wrong", (Best,), {name: value}))
    with pytest.raises(InputError, match="share is 5; give"):
        make_strategy(make_strategy("rst"), share=5)
    with pytest.raises(InputError, match="smoothing is 0.5; give a value from 0 to 0"):
        make_strategy("ir-weight:smoothing=0.5")
    shown = [repr(it) for it in (IRTuning(variant="exact"), LayerwiseTuning("rst"), make_strategy("last-k"))]
    assert shown == ["IRTuning('ir:variant=exact')", "LayerwiseTuning('rst')", "LastLayers(min_layer=0, unit='layer', share=0.5)"]


@pytest.mark.parametrize("method", ["ir", "ist:every=5", "lisa-adapters:every=4", "ir-cosine", "ir-upper:horizon=3",
                                    "probe:batches=12", "sampled:every=4", "random-static"])  # fmt: skip
def test_a_state_continues_as_if_never_interrupted(method):
    whole = make_tuner(method)
    expected = loop(whole)
    first, second = make_tuner(method), make_tuner(method, seed=1)
    begun, state = loop(first, BATCHES[:10]), first.state_dict()
    text = json.dumps(state)
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.load_state_dict(json.loads(text))
    continued = loop(second, BATCHES[10:])
    loop(first, BATCHES[10:12])
    assert tuple(one + two for one, two in zip(begun, continued, strict=True)) == expected
    assert second.history == whole.history and json.dumps(state) == text  # training does not change a state
    with pytest.raises(InputError, match="another strategy .*last-k"):
        make_tuner("last-k").load_state_dict(state)


def test_a_strategy_that_needs_labels_or_the_length_of_the_run_asks_for_it():
    tuner = make_tuner("ist")
    tuner.begin_step()
    tuner.model(**{name: value for name, value in BATCHES[0].items() if name != "labels"}).logits.sum().backward()
    with pytest.raises(InputError, match=r"ist measures .* no labels: call model\(\*\*batch\) with labels"):
        tuner.end_backward()  # at the first step, though the losses are needed after the tenth
    with pytest.raises(InputError, match="random-counts has 3 layer counts for None steps"):
        make_tuner(RandomCounts(counts=(1, 2, 3)))
    layers, _ = loop(make_tuner(RandomCounts(counts=(1, 2, 3)), steps=3), BATCHES[:3])
    assert [len(chosen) for chosen in layers] == [1, 2, 3]


def test_several_backward_passes_or_a_scale_make_the_same_step():
    batch = BATCHES[0]
    tuners = [make_tuner("ir:refresh_every=1") for _ in range(3)]
    for tuner, parts, factor, scale in zip(tuners, (1, 3, 3), (1, 1 / 3, 1), (1.0, 1.0, 1 / 3), strict=True):
        tuner.begin_step()
        for part in range(parts):
            rows = slice(part * SIZE // parts, (part + 1) * SIZE // parts)
            (tuner.model(**{n: v[rows] for n, v in batch.items()}).loss * factor).backward()
        norm = tuner.end_backward(max_norm=0.5, scale=scale)
        assert norm > 0.5 and total_norm(tuner) == pytest.approx(0.5, rel=1e-4)
    for max_norm in (None, 1e6):  # neither is a reason to change the gradient
        unclipped = backward(make_tuner("ir"))
        assert unclipped.end_backward(max_norm=max_norm) == pytest.approx(total_norm(unclipped), rel=1e-6)
    for other in tuners[1:]:
        assert other.scores == pytest.approx(tuners[0].scores, rel=1e-4)
        assert other.history[0]["gradient_norm"] == pytest.approx(tuners[0].history[0]["gradient_norm"], rel=1e-4)


def test_a_gradient_that_is_not_finite_changes_nothing_and_is_recorded(caplog):
    tuner = make_tuner("ir")
    loop(tuner, BATCHES[:2])
    scores, before = tuner.scores, [p.detach().clone() for p in tuner.model.parameters()]
    assert math.isnan(backward(tuner, BATCHES[2], float("nan")).end_backward())
    tuner.optimizer.step()
    assert tuner.history[-1]["skipped"] and tuner.history[-1]["gradient_norm"] is None and tuner.scores == scores
    assert "step 3 skipped" in caplog.text
    assert all(torch.equal(one, two) for one, two in zip(before, tuner.model.parameters(), strict=True))
    loop(tuner, BATCHES[3:5])
    assert [row["skipped"] for row in tuner.history] == [False, False, True, False, False]


def test_a_similarity_that_is_not_finite_leaves_the_layer_its_score():
    """The gradient is finite, but the reference's cosine looks at an evaluation batch, whose hidden states are not."""
    tuner = make_tuner("ir-cosine")
    loop(tuner, BATCHES[:2])
    scores, poisoned = list(tuner.scores), find_layers(tuner.model)[2]
    hook = poisoned.register_forward_pre_hook(lambda module, args: (args[0] * float("nan"), *args[1:]))
    tuner.model.eval()(**BATCHES[2])
    hook.remove()
    loop(tuner, BATCHES[2:3])
    assert not tuner.history[-1]["skipped"] and tuner.scores[2:] == scores[2:] and tuner.scores[:2] != scores[:2]


def test_detach_leaves_the_model_as_it_was_and_calls_out_of_order_are_refused():
    tuner = make_tuner("ir-cosine:min_layer=1")
    with pytest.raises(InputError, match=r"call begin_step\(\)"):
        tuner.end_backward()
    tuner.begin_step()
    with pytest.raises(InputError, match=r"loss.backward\(\) before"):
        tuner.end_backward()
    loop(tuner, BATCHES[:2])
    tuner.model(**BATCHES[0]).loss.backward()
    with pytest.raises(InputError, match=r"call begin_step\(\)"):
        tuner.end_backward()
    tuner.detach()
    assert not [m for m in tuner.model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert all(p.requires_grad for n, p in tuner.model.named_parameters() if "lora" in n)
