"""The callback inside the Trainer: what learns, what does not, and which configurations must be the same run."""

import functools

import numpy as np
import pytest
import torch
from conftest import ARCHITECTURES, collate, make_classifier, make_examples
from transformers import Trainer, TrainerCallback, TrainingArguments

from irtuning import IRTuning, InputError, LayerwiseTrainer, LayerwiseTuning, add_adapter, make_strategy, split_scores
from irtuning.method import baselines
from irtuning.method.baselines import ImportanceSparseTuning
from irtuning.method.layers import candidate_layers
from irtuning.method.scores import CosineMeter, weight_scores

STEPS = 8


class Watch(TrainerCallback):
    """Keeps every parameter's value after each step."""

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.values = []
        self.on_step_end(args, state, control, model)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.values.append({n: p.detach().clone() for n, p in model.named_parameters()})


def make_model(checkpointing=False, **settings):
    """A classifier of 4 layers with LoRA, dropout 0."""
    model = add_adapter(make_classifier(**settings), "lora", r=2, alpha=4, dropout=0.0)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def make_trainer(tmp_path, callback, trainer_class=LayerwiseTrainer, model=None, watch=None, examples=None, **settings):
    """A trainer of 8 steps of 12 examples, dropout 0."""
    settings = {"per_device_train_batch_size": 12, "learning_rate": 1e-2, "max_grad_norm": 1.0,
                "max_steps": STEPS, "save_strategy": "no"} | settings  # fmt: skip
    arguments = TrainingArguments(str(tmp_path), report_to="none", disable_tqdm=True, logging_steps=1, use_cpu=True,
                                  seed=3, **settings)  # fmt: skip
    examples = examples or make_examples()
    return trainer_class(model or make_model(), arguments, train_dataset=examples, eval_dataset=examples[:12],
                         data_collator=collate, callbacks=[c for c in (callback, watch) if c is not None])  # fmt: skip


def run(*arguments, **settings):
    trainer = make_trainer(*arguments, **settings)
    trainer.train()
    return trainer


def chosen(callback):
    return [step["layers"] for step in callback.history]


def norms(callback):
    return [step["gradient_norm"] for step in callback.history]


def begin(spec, count, steps):
    strategy = make_strategy(spec)
    strategy.begin(count, steps)
    return strategy, np.random.default_rng(0)


def losses(trainer):
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def layers_of(names):
    """Numbers of the layers that parameters of these names are in; None for those outside."""
    return {int(name.split(".layers.")[1].split(".")[0]) if ".layers." in name else None for name in names}


@pytest.mark.parametrize("method", ["ir", "ir:variant=exact:score=l2", "ir-cosine", "ir-weight", "rst:share=0.5", "ist",
                                    "lisa:every=2", "full-ft"])  # fmt: skip
def test_only_the_chosen_layers_and_the_head_move(tmp_path, method):
    callback, watch, whole = LayerwiseTuning(method), Watch(), method in ("lisa:every=2", "full-ft")
    run(tmp_path, callback, model=make_classifier() if whole else None, watch=watch)
    assert len(callback.history) == STEPS
    for step, (before, after) in enumerate(zip(watch.values, watch.values[1:], strict=False)):
        moved = {n for n in after if not torch.equal(before[n], after[n])}
        assert layers_of(moved) - {None} == set(callback.history[step]["layers"]), f"step {step + 1}"
        assert None in layers_of(moved)  # the head; of a whole model the embeddings and the norm, too
        assert whole or all("lora_" in n or "modules_to_save" in n for n in moved)
    assert not whole or {len(layers) for layers in chosen(callback)} == {2 if "lisa" in method else 4}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_trains_every_architecture(tmp_path, architecture):
    callback = IRTuning()
    run(tmp_path, callback, model=add_adapter(make_classifier(architecture), "lora", r=2))
    assert len({tuple(layers) for layers in chosen(callback)}) > 1
    assert all(s is not None for s in callback.history[-1]["scores"])


@pytest.mark.parametrize("trainer_class", [LayerwiseTrainer, Trainer])
def test_choosing_all_layers_is_full_peft_and_no_callback_at_all(tmp_path, trainer_class):
    """Same losses and same weights, step by step, as the Trainer by itself with its own clipping."""
    runs, examples = [Watch(), Watch(), Watch()], make_examples(12)  # one batch: the plain Trainer's order is random
    callbacks = None, LayerwiseTuning("full"), IRTuning(refresh_every=1)
    none, full, every = (run(tmp_path, callback, trainer_class, watch=watch, examples=examples)
                         for callback, watch in zip(callbacks, runs, strict=True))  # fmt: skip
    assert losses(full) == losses(every) == pytest.approx(losses(none), abs=1e-6)
    for one, two, three in zip(*(r.values for r in runs), strict=True):
        for name in one:
            assert torch.equal(two[name], three[name])
            torch.testing.assert_close(one[name], two[name], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("trainer_class", [LayerwiseTrainer, Trainer])
@pytest.mark.parametrize("architecture", ["Llama", "Bert"])
def test_accumulation_changes_neither_scores_nor_choice(tmp_path, trainer_class, architecture):
    """12 x 1 = 4 x 3, though the Trainer by itself sums the micro-batches' losses of a classifier."""
    examples = make_examples(12)  # one batch: the plain Trainer's random order does not matter
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0} if architecture == "Bert" else {}
    results = []
    for batch, accumulation in ((12, 1), (4, 3)):
        results.append((IRTuning(), Watch()))
        model = make_model(architecture=architecture, **no_dropout)
        run(tmp_path, results[-1][0], trainer_class, model, results[-1][1], examples,
            per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation)  # fmt: skip
    (one, first), (three, second) = results
    assert chosen(one) == chosen(three)
    assert norms(one) == pytest.approx(norms(three), rel=1e-3)
    for a, b in zip(one.history, three.history, strict=True):
        assert [s for s in a["scores"] if s] == pytest.approx([s for s in b["scores"] if s], rel=1e-3)
    for name, value in first.values[-1].items():
        torch.testing.assert_close(value, second.values[-1][name], atol=2e-4, rtol=1e-3)


def own_loss(outputs, labels, num_items_in_batch=None):
    return torch.nn.functional.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch


@pytest.mark.parametrize(("trainer_class", "count"), [
    (LayerwiseTrainer, 9), (functools.partial(LayerwiseTrainer, class_weights=torch.tensor([0.5, 1.0, 1.5])), 9),
    (functools.partial(Trainer, compute_loss_func=own_loss), 12),
], ids=["plain", "class weights", "a loss of the user's own"])  # fmt: skip
def test_micro_batches_count_every_example_the_same(tmp_path, trainer_class, count):
    """9 x 1 = 4 + 4 + 1: no micro-batch is normalised by itself, and a loss that divides by itself is left alone."""
    one, three = IRTuning(), IRTuning()
    for callback, batch, accumulation in ((one, count, 1), (three, 4, 3)):
        run(tmp_path, callback, trainer_class, examples=make_examples(count),
            per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation)  # fmt: skip
    assert chosen(one) == chosen(three)
    assert norms(one) == pytest.approx(norms(three), rel=1e-3)


class Scaled(Trainer):
    """As with fp16 on a GPU: the loss is scaled up, and the gradient down before it is read."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)


def says(scaled):
    return type(f"Says{scaled}", (Trainer,), {"loss_is_scaled_for_ga": scaled})


class Positions(Trainer):
    """A loss of the user's own that gives the model its inputs by position."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(inputs["input_ids"], inputs["attention_mask"], None, inputs["labels"])
        return (outputs.loss, outputs) if return_outputs else outputs.loss


def test_labels_by_position_leave_the_gradient_a_mean_of_equal_micro_batches(tmp_path):
    one, four = IRTuning(), IRTuning()
    for callback, batch, accumulation in ((one, 8, 1), (four, 2, 4)):
        run(tmp_path, callback, Positions, examples=make_examples(8), per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation, max_steps=1)  # fmt: skip
    assert norms(one) == pytest.approx(norms(four), rel=1e-3)


@pytest.mark.parametrize(("trainer_class", "settings"), [
    (Trainer, {"label_smoothing_factor": 0.1}), (LayerwiseTrainer, {"label_smoothing_factor": 0.1}), (says(False), {}),
    (says(True), {"label_smoothing_factor": 0.1}), (Scaled, {}), (Scaled, {"label_smoothing_factor": 0.1}),
    (Trainer, {"bf16": True}),
], ids=str)  # fmt: skip
def test_options_of_the_trainer_leave_the_gradient_a_mean(tmp_path, trainer_class, settings):
    """8 x 1 = 2 x 4 = 3 + 3 + 2, whoever makes and divides the loss; and 8 x 1 is what the Trainer has by itself."""
    found, examples = [], make_examples(8)
    for batch, accumulation in ((8, 1), (2, 4), (3, 3)):
        run(tmp_path, callback := IRTuning(refresh_every=1), trainer_class, examples=examples,
            per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation, **settings)  # fmt: skip
        found.append(callback)
    alone = run(tmp_path, None, trainer_class, examples=examples, **settings)
    exact = 0.05 if "bf16" in settings else 1e-3
    first = next(row["grad_norm"] for row in alone.state.log_history)
    assert norms(found[0])[0] == pytest.approx(float(first), rel=exact) and norms(found[0])[0] > 0.1
    for other in found[1:]:
        assert norms(found[0])[:3] == pytest.approx(norms(other)[:3], rel=exact)


def test_smoothed_losses_and_losses_of_ones_own_are_refused_to_ist_in_its_first_step(tmp_path):
    for trainer_class, settings in ((Trainer, {"label_smoothing_factor": 0.1}),
                                    (functools.partial(Trainer, compute_loss_func=own_loss), {})):  # fmt: skip
        trainer = make_trainer(tmp_path, LayerwiseTuning("ist"), trainer_class, **settings)
        with pytest.raises(InputError, match="ist measures the model's own loss.* no label smoothing"):
            trainer.train()
        assert trainer.state.global_step == 0
    smooth, plain = (run(tmp_path, LayerwiseTuning("ist:every=2"), label_smoothing_factor=f) for f in (0.1, 0.0))
    assert losses(smooth)[0] > losses(plain)[0]  # our trainer smooths its own loss and leaves the model's


def test_noise_the_best_model_and_a_continued_run(tmp_path):
    """The noise of NEFTune, the best checkpoint at the end, and a run that Ctrl-C ended and a new Trainer continued."""
    kept = {"neftune_noise_alpha": 5.0, "load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 2,
            "save_strategy": "steps", "save_steps": 2}  # fmt: skip
    whole, examples = IRTuning(), make_examples()
    first = run(tmp_path / "1", whole, Trainer, examples=examples, **kept)
    assert all(p.requires_grad for n, p in first.model.named_parameters() if "lora_" in n or "modules_to_save" in n)
    assert not [m for m in first.model.modules() if m._forward_hooks]
    best, stop = first.state.best_model_checkpoint, EndIn(KeyboardInterrupt())
    stop.step = 5
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "2", IRTuning(), Trainer, watch=stop, examples=examples, **kept)
    ended = make_trainer(tmp_path / "2", again := IRTuning(), Trainer, examples=examples, **kept)
    ended.train(resume_from_checkpoint=True)
    assert again.history == whole.history and ended.state.best_model_checkpoint[-1] == best[-1]
    for one, two in zip(first.model.parameters(), ended.model.parameters(), strict=True):
        assert torch.equal(one, two)


class EndIn(TrainerCallback):
    """Ends the training in a step, once: by an exception, or by asking the Trainer to stop."""

    step = 3

    def __init__(self, way):
        self.way = way

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if state.global_step == self.step - 1 and (way := self.way):
            self.way = None
            if way == "stop":
                control.should_training_stop = True
            else:
                raise way


OUT_OF_MEMORY = RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")


@pytest.mark.parametrize("way", [KeyboardInterrupt(), SystemExit(1), ValueError("no"), OUT_OF_MEMORY, "stop"], ids=repr)
def test_however_training_ends_model_and_arguments_are_as_before(tmp_path, way):
    model, callback, watch = make_model(), IRTuning(min_layer=1), Watch()
    model.base_model.model.model.layers[0].requires_grad_(False)  # by the user: it stays so
    learns, hooks = [p.requires_grad for p in model.parameters()], [len(m._forward_hooks) for m in model.modules()]
    retried = way is OUT_OF_MEMORY
    trainer = make_trainer(tmp_path, callback, Trainer, model, watch, max_grad_norm=0.5, auto_find_batch_size=retried)
    trainer.add_callback(EndIn(way))
    if way == "stop" or retried:
        trainer.train()
        assert len(callback.history) == (STEPS if retried else 3)
    else:
        with pytest.raises(type(way)):
            trainer.train()
    assert trainer.args.max_grad_norm == 0.5 and trainer._train_batch_size == (10 if retried else 12)
    assert [p.requires_grad for p in model.parameters()] == learns
    assert [len(m._forward_hooks) for m in model.modules()] == hooks
    trainer.train()  # the same trainer goes on, and so does another with the same model
    assert len(callback.history) == STEPS
    other = run(tmp_path, again := IRTuning(min_layer=1), Trainer, model)
    assert len(again.history) == STEPS
    other.remove_callback(again)
    before = [p.detach().clone() for p in model.parameters()]
    other.train()
    moved = [not torch.equal(one, two) for one, two in zip(before, model.parameters(), strict=True)]
    assert [m for m, learning in zip(moved, learns, strict=True) if learning].count(False) == 0


def test_clipping_is_done_by_the_callback_and_changes_neither_scores_nor_choice(tmp_path):
    class Norms(TrainerCallback):
        seen: list = []

        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            grads = [p.grad for p in model.parameters() if p.grad is not None]
            self.seen.append(float(torch.nn.utils.get_total_norm(grads)))

    hard, soft, watch = IRTuning(), IRTuning(), Norms()
    trainer = run(tmp_path, hard, watch=watch, learning_rate=0.0, max_grad_norm=1e-3)
    assert watch.seen == pytest.approx([1e-3] * STEPS, rel=1e-2) and min(norms(hard)) > 1e-2
    assert trainer.args.max_grad_norm == 1e-3
    run(tmp_path, soft, learning_rate=0.0, max_grad_norm=1e9)
    assert chosen(hard) == chosen(soft)
    assert [s["scores"] for s in hard.history] == [s["scores"] for s in soft.history]


def test_seed_decides_and_the_choice_is_the_cut_of_the_recorded_scores(tmp_path):
    first, again, other = callbacks = [IRTuning(seed=seed) for seed in (1, 1, 2)]
    for callback in callbacks:
        run(tmp_path, callback)
    assert first.history == again.history and chosen(first) != chosen(other)
    rng = np.random.default_rng(1)
    assert all(step["layers"] == split_scores(step["scores"], rng=rng) for step in first.history)


def test_what_cannot_be_is_refused(tmp_path):
    frozen = make_model()
    frozen.base_model.model.model.layers[1].requires_grad_(False)
    for callback, settings, message in (
        (IRTuning(), {"watch": LayerwiseTuning("rst")}, "two layerwise callbacks"),
        (IRTuning(), {"model": make_classifier()}, "wrap the model with peft"),
        (LayerwiseTuning("lisa"), {}, "without peft"),
        (IRTuning(), {"model": frozen}, r"the optimizer lacks parameters of layers \[1\]"),
    ):
        with pytest.raises(InputError, match=message):
            run(tmp_path, callback, **settings)


def test_min_layer_is_never_undercut_and_checkpointing_is_the_same_run_with_backprop_as_short(tmp_path):
    plain, saving = IRTuning(), IRTuning()
    run(tmp_path, plain)
    run(tmp_path, saving, model=make_model(checkpointing=True))
    assert chosen(plain) == chosen(saving) and norms(plain) == pytest.approx(norms(saving), rel=1e-5)
    for checkpointing in (False, True):
        model, reached, callback = make_model(checkpointing), [], IRTuning(min_layer=2)
        model.base_model.model.model.layers[1].register_full_backward_hook(lambda *a: reached.append(1))
        run(tmp_path, callback, model=model)
        assert all(min(layers) >= 2 for layers in chosen(callback))
        assert not reached, "backprop went below the lowest layer that learns"
        assert all(p.requires_grad for n, p in model.named_parameters() if "lora" in n), "left frozen after training"


def test_what_a_cosine_saw_goes_on_where_the_model_is_and_quantized_weights_have_no_importance():
    model = make_model()
    meter = CosineMeter(model, candidate_layers(model))
    meter.restore([(position, (1.0, 2.0)) for position in range(4)], torch.device("meta"))  # not the CPU, as on a GPU
    assert meter.read().device.type == "meta"
    weight = model.base_model.model.model.layers[0].self_attn.o_proj.weight
    weight.requires_grad_(False).data = weight.data.to(torch.uint8)  # as bitsandbytes packs it
    with pytest.raises(InputError, match="from quantized weights"):
        weight_scores(model, candidate_layers(model))


def test_ist_probes_every_few_steps_and_leaves_the_model_as_it_was(tmp_path, monkeypatch):
    trials, original = [], ImportanceSparseTuning.probe

    def probe(self, losses, rng):
        original(self, lambda *sets: trials.append(losses(*sets)) or trials[-1], rng)

    monkeypatch.setattr(ImportanceSparseTuning, "probe", probe)
    callback = LayerwiseTuning("ist:every=3")
    trainer = run(tmp_path, callback)
    assert len(trials) == 2 and all(len(t) == 3 and len(set(t)) > 1 for t in trials)
    assert np.abs(callback.strategy.values).max() > 0
    assert not [m for m in trainer.model.modules() if m._forward_hooks or m._forward_pre_hooks]


def test_hidden_states_are_measured_on_training_batches_alone(tmp_path):
    class Both(LayerwiseTrainer):
        def training_step(self, model, inputs, *rest):
            model.eval()
            with torch.no_grad():
                model(**{k: v.flip(0) * 0 + 5 if k == "input_ids" else v for k, v in inputs.items()})
            return super().training_step(model, inputs, *rest)

    results = {}
    for score in ("token", "reference"):
        plain, disturbed = LayerwiseTuning(f"ir-cosine:score={score}"), LayerwiseTuning(f"ir-cosine:score={score}")
        run(tmp_path, plain)
        run(tmp_path, disturbed, Both)
        results[score] = plain.history[1]["scores"] == disturbed.history[1]["scores"]
    assert results == {"token": True, "reference": False}


def test_ist_raises_what_can_be_suppressed_without_harm(monkeypatch):
    """Layers 0 and 1 matter: the loss is high where they are suppressed, so their importance falls."""
    strategy, _ = begin("ist", 4, 100)
    drawn = iter([[0, 1], [0, 2], [2, 3]])
    monkeypatch.setattr(baselines, "draw", lambda *arguments: next(drawn))
    strategy.probe(lambda found, factor: [2.0 if h == [0, 1] else 1.0 if h == [0, 2] else 0.5 for h in found], None)
    rewards = np.exp([-2.0, -1.0, -0.5]) - np.exp([-2.0, -1.0, -0.5]).mean()
    gains = [rewards[0] + rewards[1], rewards[0], rewards[1] + rewards[2], rewards[2]]
    assert strategy.values == pytest.approx(np.array(gains) * 0.25 * 10)


def test_ist_draws_a_quarter_of_the_layers_the_less_the_more_dispensable_and_learns_from_finite_losses_alone():
    strategy, rng = begin("ist", 32, 100)
    strategy.probe(lambda halves, factor: [float("nan")] * len(halves), rng)
    assert not strategy.values.any()
    strategy.values[:16] = 8.0
    draws = [strategy.choose(step, [None] * 32, rng) for step in range(200)]
    assert {len(d) for d in draws} == {8}
    assert np.mean([layer < 16 for d in draws for layer in d]) < 0.05


def test_lisa_switches_every_20_steps_and_rst_every_step_and_fixed_choices_never():
    for spec, switches, size in (("lisa-adapters", 3, 2), ("rst:share=0.5", 60, 6)):
        strategy, rng = begin(spec, 12, 60)
        draws = [strategy.choose(step, [None] * 12, rng) for step in range(60)]
        assert 1 + sum(a != b for a, b in zip(draws, draws[1:], strict=False)) == switches
        assert {len(d) for d in draws} == {size}
    for spec, expected in (("last-k:share=0.25", [9, 10, 11]), ("middle-k:share=0.5", [3, 4, 5, 6, 7, 8])):
        assert begin(spec, 12, 10)[0].choose(3, [None] * 12, None) == expected


def test_ours_learns_among_the_upper_layers_and_leaves_none_out_for_long(tmp_path):
    strategy, rng = begin("ir-upper:horizon=4", 12, 60)
    scores, learned = [None] * 12, [-1] * 12
    for step in range(60):
        now = strategy.choose(step, scores, rng)
        for layer in now:
            scores[layer], learned[layer] = float(layer == 7) + rng.random() / 10, step
        assert min(now) >= 6
        assert all(step - learned[layer] <= 4 for layer in range(6, 12)) or step < 4
    assert all(7 in strategy.choose(60 + i, scores, rng) for i in range(3))
    callback = LayerwiseTuning("ir-upper:horizon=2")
    run(tmp_path, callback)
    assert {layer for layers in chosen(callback) for layer in layers} == {2, 3}
    for spec in ("ir-upper:floor=1.0", "ir-upper:horizon=0", "ir-upper:refresh_every=5"):
        with pytest.raises(InputError, match="give (1 or more|a value from 0)"):
            make_strategy(spec)
