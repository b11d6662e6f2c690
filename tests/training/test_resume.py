"""Runs that are killed, told to end, out of disk or lost in NaN: they resume and have the very same result."""

import json
import multiprocessing
import os
import random
import resource
import signal
import time
from pathlib import Path

import pytest
import torch
from conftest import collate, make_classifier, make_examples
from safetensors.torch import load_file
from transformers import Trainer, TrainerCallback, TrainingArguments

from irtuning import IRTuning, InputError, LayerwiseTrainer, LayerwiseTuning, RunConfig, add_adapter, load_corpus, train
from irtuning.comparison.runs import run_comparison
from irtuning.errors import TrainingStopped
from irtuning.method.registry import METHODS
from irtuning.training.record import read_record
from irtuning.training.resume import ResumableTrainer, unfinished

BLOCKS = ("run", "train", "scores", "predictions")
SHORT = {"max_steps": 14, "batch_size": 16, "eval_every": 4}  # 6 steps an epoch
STEPS, EVERY = 8, 2
FORKS = multiprocessing.get_context("forkserver")  # its server has imported torch, but has no threads
FORKS.set_forkserver_preload(["irtuning.training.run", "peft", "transformers.models.llama.modeling_llama"])


def calling(moment):
    return lambda self, args, state, control, **kwargs: self.reached(moment, state.global_step)


class At(TrainerCallback):
    """Calls something in every step begun, in one step or evaluation, or halfway through the checkpoint of a step."""

    def __init__(self, act, moment, step=None):
        self.act, self.moment, self.step = act, moment, step

    def reached(self, moment, step):
        if moment == self.moment and self.step in (None, step):
            self.act()

    on_step_begin, on_pre_optimizer_step, on_prediction_step = map(calling, ("begin", "step", "evaluation"))

    def on_step_end(self, args, state, control, **kwargs):
        if self.moment == "saving" and state.global_step == self.step:
            torch.save = lambda *arguments, **options: self.act()  # the weights are written, the optimizer is not


def train_here(settings, folder, save_every=EVERY, kill=None, began=None):
    """The work of a forked process."""
    torch.set_num_threads(1)
    die = lambda: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
    callbacks = [At(die, *kill)] if kill else [At(began.set, "begin")] if began else []
    train(RunConfig.of(settings), output=folder, save_every=save_every, progress=False, callbacks=callbacks)


def fork(work, *arguments, **named):
    process = FORKS.Process(target=work, args=arguments, kwargs=named)
    process.start()
    return process


def finished(process):
    process.join()
    return process.exitcode


def blocks(record):
    record = record if isinstance(record, dict) else read_record(record)
    return [record[name] for name in BLOCKS]


@pytest.mark.parametrize(("method", "kills", "settings"), [
    ("ir", [("step", 7), ("saving", 10)], {}),
    ("ist:every=3", [("evaluation", 4), ("step", 11)], {"accumulation": 2}),
    ("lisa:every=5", [("saving", 8), ("evaluation", 12)], {}),
])  # fmt: skip
def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been(own_corpus, tmp_path, method, kills, settings):
    settings = own_corpus | SHORT | settings | {"method": method}
    uncut = fork(train_here, settings, tmp_path / "uncut")
    for kill in kills:
        assert finished(fork(train_here, settings, tmp_path / "killed", kill=kill)) == -signal.SIGKILL
    assert finished(fork(train_here, settings, tmp_path / "killed")) == finished(uncut) == 0
    assert blocks(tmp_path / "killed") == blocks(tmp_path / "uncut")
    starts = read_record(tmp_path / "killed")["meta"]["starts"]
    assert starts[0] == 0 and len(starts) == 3
    assert all(start >= step - EVERY for start, (_, step) in zip(starts[1:], kills, strict=True))
    assert {path.name for path in tmp_path.iterdir()} == {"uncut", "killed"}


@pytest.mark.soak
@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"transplant"}))  # it is a fixed set
def test_no_moment_is_a_bad_one(own_corpus, tmp_path, method):
    """SIGKILLs at random moments of training, evaluation and saving; how many is told by IRTUNING_KILLS."""
    chance, kills = random.Random(method), int(os.environ.get("IRTUNING_KILLS", "20"))
    settings = own_corpus | {"method": method, "max_steps": 200, "batch_size": 16, "eval_every": 7}
    settings |= {"counts": tuple(1 + i % 5 for i in range(200))} if method == "random-counts" else {}
    assert finished(fork(train_here, settings, tmp_path / "uncut", save_every=0)) == 0
    life = read_record(tmp_path / "uncut")["meta"]["seconds"]["train"] / kills  # the last kill does not come too late
    for _ in range(kills):
        began = FORKS.Event()
        process = fork(train_here, settings, tmp_path / "killed", began=began)
        began.wait()
        time.sleep(chance.uniform(0, life))
        process.kill()
        assert finished(process) == -signal.SIGKILL
    assert finished(fork(train_here, settings, tmp_path / "killed")) == 0
    starts = read_record(tmp_path / "killed")["meta"]["starts"]
    print(f"{method}: went on at {starts}")
    assert blocks(tmp_path / "killed") == blocks(tmp_path / "uncut")
    assert starts[-1] > 0 and starts == sorted(starts)
    assert {path.name for path in tmp_path.iterdir()} == {"uncut", "killed"}


def compare_here(settings, folder):
    torch.set_num_threads(1)
    return run_comparison(["full", "rst"], seeds=[1], workers=1, output=folder, progress=False, **settings)


def test_an_interrupted_comparison_goes_on_within_its_run(own_corpus, tmp_path):
    settings = own_corpus | {"max_steps": 60, "eval_every": 4}
    process = fork(compare_here, settings, tmp_path)
    while not list(tmp_path.glob(".rst-*/checkpoint-*")):
        time.sleep(0.01)
    process.kill()
    assert finished(process) == -signal.SIGKILL
    records, _ = compare_here(settings, tmp_path)
    assert [len(record["meta"]["starts"]) for record in records] == [1, 2] and records[1]["meta"]["starts"][1] >= 4
    assert len(list(tmp_path.iterdir())) == 2


def went_on(settings, folder, *callbacks):
    return train(RunConfig.of(settings), output=folder, save_every=EVERY, progress=False, callbacks=callbacks).record


TWICE = (signal.SIGINT, signal.SIGINT)  # a second Ctrl-C ends at once


def interrupted(settings, folder, signals=TWICE, moment="step"):
    """Train until signals come at step 9; return the folder of the unfinished work."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite that a shell started in the background ignores it
    with pytest.raises(KeyboardInterrupt if signals[0] == signal.SIGINT else SystemExit) as raised:
        went_on(settings, folder, At(lambda: [signal.raise_signal(number) for number in signals], moment, 9))
    assert raised.type is KeyboardInterrupt or raised.value.code == 143
    return folder.parent / f".{folder.name}.unfinished"


@pytest.mark.parametrize(("method", "settings", "signals", "moment", "start"), [
    ("ir-cosine", {"eval_every": 2}, TWICE, "step", 8),  # its next scores come from the evaluation before
    ("ir:smoothing=0.5:refresh_every=4", {"accumulation": 4, "head": "frozen"}, TWICE, "step", 8),
    ("ist:every=4", {"adapter": "dora"}, TWICE, "step", 8),  # it probes the batch before the checkpoint
    ("ir-weight", {"class_weights": "balanced", "eval_every": 1}, TWICE, "step", 8),
    ("rst", {"adapter": "bottleneck"}, TWICE, "step", 8),
    ("rst", {"backward": "skip", "idle": "drop"}, TWICE, "step", 8), ("full-ft", {}, TWICE, "step", 8),
    # asked to end, it saves and says so
    ("ir", {"eval_every": 3}, [signal.SIGTERM], "evaluation", 9), ("ir", {"eval_every": 3}, [signal.SIGINT], "step", 10),
])  # fmt: skip
def test_every_part_of_the_state_is_in_the_checkpoint(
    own_corpus, tmp_path, caplog, method, settings, signals, moment, start):
    settings, before = own_corpus | SHORT | {"method": method} | settings, signal.getsignal(signal.SIGTERM)
    interrupted(settings, tmp_path / "run", signals, moment)
    assert signal.getsignal(signal.SIGTERM) is before and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    said = f"ended after step {start}, which is saved; repeat the command to go on"
    assert (said in caplog.text) == (signals is not TWICE)
    caplog.set_level("INFO")
    record = went_on(settings, tmp_path / "run")
    assert f"resuming after step {start} of 14" in caplog.text
    assert record["meta"]["starts"] == [0, start] and len(record["meta"]["step_seconds"]) == 14
    assert blocks(record) == blocks(train(RunConfig.of(settings), progress=False).record)


def test_another_runs_checkpoint_is_refused(own_corpus, tmp_path, monkeypatch):
    settings = own_corpus | SHORT
    folder = interrupted(settings, tmp_path / "run")
    kept = {path.name for path in folder.iterdir()}
    assert kept == {"lock", "checkpoint-8"} and not list(folder.rglob("*.bin"))  # no pickled arguments
    with pytest.raises(InputError, match=r"another run \(method: 'ir' / 'rst'\)"):
        went_on(settings | {"method": "rst"}, tmp_path / "run")
    own = tmp_path / "own.jsonl"
    own.write_text(Path(own_corpus["corpus"]).read_text().replace("the car 5", "a car 5"))
    with pytest.raises(InputError, match="corpus_checksum: "):
        went_on(settings | {"corpus": str(own)}, tmp_path / "run")
    monkeypatch.setattr("irtuning.training.build.versions", lambda: {"torch": "1.0"})
    with pytest.raises(InputError, match="torch: '.*' / '1.0'"):
        went_on(settings, tmp_path / "run")
    assert {path.name for path in folder.iterdir()} == kept


def test_a_folder_in_use_or_that_cannot_be_written_is_named_and_no_checkpoints_come_unwanted(own_corpus, tmp_path):
    config, seen = RunConfig.of(own_corpus | SHORT | {"max_steps": 5}), []
    message = "another process is training in .*run.unfinished; wait for it"
    with unfinished(tmp_path / "run"), pytest.raises(InputError, match=message):
        train(config, output=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    for folder, every, message in (("/proc/irtuning/run", 2, "cannot write to /proc"), ("run", -1, "save_every is -1")):
        with pytest.raises(InputError, match=message):
            train(config, output=tmp_path / folder, save_every=every)
    look = At(lambda: seen.extend(path.name for path in tmp_path.glob(".run.unfinished/*")), "step", 4)
    train(config, output=tmp_path / "run", save_every=0, progress=False, callbacks=[look])
    assert not [name for name in seen if "checkpoint" in name] and "lock" in seen


def test_a_full_disk_ends_the_run_and_leaves_the_checkpoint_before(own_corpus, tmp_path):
    """Files may not grow beyond 100,000 bytes from step 5 on: what writing meets is what it meets on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    full = At(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard)), "step", 5)
    settings = own_corpus | SHORT
    try:
        with pytest.raises(InputError, match="the checkpoint of step 6 cannot be written: .*free space"):
            went_on(settings, tmp_path / "run", full)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name for path in (tmp_path / ".run.unfinished").iterdir()} == {"lock", "checkpoint-4"}
    assert went_on(settings, tmp_path / "run")["meta"]["starts"] == [0, 4]


class Poison(TrainerCallback):
    """Makes the head's gradient NaN from step 3 on."""

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        head = next(p for n, p in model.named_parameters() if "modules_to_save" in n)
        head.register_hook(lambda gradient: gradient * float("nan") if state.global_step >= 3 else gradient)


def test_steps_without_a_finite_gradient_end_the_run_with_their_batch(own_corpus, tmp_path):
    settings = own_corpus | SHORT | {"method": "last-k"}
    with pytest.raises(TrainingStopped, match="5 steps in a row .* is step 8, in which layers") as stopped:
        went_on(settings, tmp_path / "run", Poison())
    message = str(stopped.value)
    assert "[6, 7, 8, 9, 10, 11]" in message and str(tmp_path / ".run.unfinished" / "checkpoint-6") in message
    named = message.partition("the batch: ")[2].partition(";")[0].split(", ")
    columns = {name: own_corpus[name] for name in ("before", "after", "label", "group")}
    assert len(named) == 16 and set(named) <= {r.id for r in load_corpus(own_corpus["corpus"], **columns).train}
    record = went_on(settings | {"max_steps": 7}, tmp_path / "other")  # 7 steps are no reason to stop
    assert record["train"]["skipped_steps"] == 0
    weights = load_file(tmp_path / ".run.unfinished" / "checkpoint-6" / "tensors.safetensors")
    assert all(value.isfinite().all() for name, value in weights.items() if name.startswith("weight."))
    assert went_on(settings, tmp_path / "run")["meta"]["starts"] == [0, 6]


def resumable(tmp_path, callback, trainer_class=Trainer, model=None, examples=None, **settings):
    """A Trainer of one's own, with its own checkpoints, in which the callback is all that is ours."""
    settings = {"per_device_train_batch_size": 6, "learning_rate": 1e-2, "gradient_accumulation_steps": 2,
                "use_cpu": True} | settings  # fmt: skip
    arguments = TrainingArguments(str(tmp_path), max_steps=STEPS, report_to="none", save_steps=3, eval_strategy="steps",
                                  eval_steps=3, seed=3, disable_tqdm=True, **settings)  # fmt: skip
    model = model or add_adapter(make_classifier(), "lora", r=2, alpha=4, dropout=0.1)
    return trainer_class(model, arguments, train_dataset=examples or make_examples(), data_collator=collate,
                         eval_dataset=make_examples(12, 1), callbacks=[callback])  # fmt: skip


def test_the_examples_of_a_step_are_those_it_takes(tmp_path):
    class Seen(LayerwiseTrainer):
        def training_step(self, model, inputs, *rest):
            taken.setdefault(self.state.global_step, []).extend(inputs["input_ids"][:, :4].tolist())
            return super().training_step(model, inputs, *rest)

    taken, examples = {}, make_examples(20)
    trainer = resumable(tmp_path, LayerwiseTuning("full"), Seen, examples=examples, per_device_train_batch_size=3)
    trainer.train()
    for step, rows in taken.items():
        assert rows == [examples[i]["input_ids"][:4] for i in ResumableTrainer.step_examples(trainer, step)]


@pytest.mark.parametrize("restore", [False, True], ids=["", "restored by the Trainer"])
@pytest.mark.parametrize("method", ["ir", "ir-cosine", "rst:share=0.5", "ist:every=3", "lisa:every=4"])
def test_the_callback_alone_goes_on_exactly(tmp_path, method, restore):
    """In the Trainer by itself, in the second epoch, from its own checkpoints."""
    settings, weights, states = {"restore_callback_states_from_checkpoint": restore}, [], []
    for checkpoint in (None, str(tmp_path / "checkpoint-6")):
        callback = IRTuning() if method == "ir" else LayerwiseTuning(method)
        trainer = resumable(tmp_path, callback, model=make_classifier() if "lisa" in method else None, **settings)
        trainer.train(resume_from_checkpoint=checkpoint)
        callback = next(c for c in trainer.callback_handler.callbacks if isinstance(c, LayerwiseTuning))
        states.append(json.loads(json.dumps(callback.state())))
        weights.append(trainer.model.state_dict())
    assert len(states[0]["attributes"]["kept"]["history"]) == STEPS and states[0] == states[1]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_the_callback_refuses_another_strategys_checkpoint(tmp_path):
    resumable(tmp_path, LayerwiseTuning("ist:every=3")).train()
    other, none = r"another strategy \(every: 3 / 4\)", "no state of this callback"
    for callback, message in ((LayerwiseTuning("ist:every=4"), other), (IRTuning(), none)):
        with pytest.raises(InputError, match=message):
            resumable(tmp_path, callback).train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
