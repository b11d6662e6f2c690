"""However a step is cut into micro-batches and processes, it is the same step; the processes learn the same layers."""

import dataclasses
import functools
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from transformers import TrainerCallback

from irtuning import InputError, RunConfig, load_corpus, train
from irtuning.errors import TrainingStopped
from irtuning.method.selector import cut_variances
from irtuning.training.build import examples_each
from irtuning.training.record import read_record

REFERENCE = Path(__file__).parent / "reference_trajectory.json"
WHOLE = load_corpus("synthetic")
CORPUS = dataclasses.replace(WHOLE, validation=WHOLE.validation[:41])  # which no number of processes here divides
# no dropout and, in 20 steps of 16, no batch that is not whole
SETTINGS = {"corpus": "synthetic", "model": "tiny-random", "dropout": 0.0, "batch_size": 16, "max_steps": 20, "eval_every": 20,
            "learning_rate": 5e-3, "device": "cpu"}  # fmt: skip
WAYS = {"1 x 16": ({}, 1), "2 x 8": ({"accumulation": 2}, 1), "4 x 4": ({"accumulation": 4}, 1), "2 processes": ({}, 2),
        "checkpointing": ({"checkpointing": True}, 1), "2 processes, 2 x 4 each": ({"accumulation": 2}, 2)}  # fmt: skip
SHARED = {"rst": {"backward": "skip", "idle": "drop", "accumulation": 2}} | dict.fromkeys(
    ("ir:variant=exact:score=l2", "ist:every=2:step_size=1000", "ir-cosine:score=token", "lisa", "sampled:every=2",
     "probe:batches=3", "random-static", "fixed:layers=1-2", "transplant:layers=0+3"), {})  # fmt: skip
ALIKE = ("random-static", "fixed:layers=1-2")  # one set of layers for the whole run, as with transplant
NAMED = {way: SETTINGS | change for way, (change, _) in WAYS.items()} | {
    method: SETTINGS | {"batch_size": 12, "max_steps": 6, "eval_every": 6, "train_share": 0.2, "method": method} | more
    for method, more in SHARED.items()}  # fmt: skip
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["irtuning.training.run", "peft", "transformers.models.llama.modeling_llama"])


class Ends(TrainerCallback):
    """Sends SIGTERM to the first process during step 5."""

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if state.global_step == 4 and os.environ["RANK"] == "0":
            os.kill(os.getpid(), signal.SIGTERM)


def one_rank(rank, size, port, settings, options, answers):
    """Train with each of the settings in one process of `size`, and put its records or errors into `answers`."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    for number, each in enumerate(settings):
        try:
            own = {name: value[rank] if isinstance(value, list) else value for name, value in each.items()}
            record = train(RunConfig.of(own), corpus=CORPUS, progress=False, **options).record
            answers.put(((number, rank), record))
        except (InputError, SystemExit) as error:
            answers.put(((number, rank), error))
    if size > 1 and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def train_in_turn(size, settings, **options):
    """Return for each of the settings what each of `size` processes ends with: a record or an error.

    The same processes train with all settings, one after the other. A setting that is a list has a value per rank.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    answers, work = FORKS.Queue(), (size, port, settings, options)
    processes = [FORKS.Process(target=one_rank, args=(rank, *work, answers)) for rank in range(size)]
    for process in processes:
        process.start()
    found = dict(answers.get(timeout=240) for _ in range(size * len(settings)))
    for process in processes:
        process.join()
    return [[found[number, rank] for rank in range(size)] for number in range(len(settings))]


def train_together(size, settings, **options):
    """Return what each of `size` processes ends with: a record or an error."""
    return train_in_turn(size, [settings], **options)[0]


def margin(scores):
    """Return by how much the best cut of these scores beats the second best; None if some scores are not known."""
    if any(score is None for score in scores):
        return None
    first, second = sorted(cut_variances(np.sort(scores)))[:2]
    return second - first


def assert_same_trajectory(found, expected):
    """Assert equal losses (to 1e-5), scores (to 0.1 %) and layers; skip where two cuts are as good as equal."""
    for step, (mine, theirs) in enumerate(zip(found, expected, strict=True), 1):
        scores, theirs_too = ([s or 0 for s in row["scores"] or []] for row in (mine, theirs))
        assert scores == pytest.approx(theirs_too, rel=1e-3), f"step {step}"
        if mine["layers"] != theirs["layers"]:
            gap = margin(theirs["scores"])
            assert gap is not None and gap < 1e-4, f"step {step}: {mine['layers']} instead of {theirs['layers']}"
            pytest.skip(f"the choices part at step {step}, whose two best cuts differ by {gap:.1e}")
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-5), f"step {step}"


@pytest.fixture(scope="module")
def trained():
    """A function that trains with many settings in processes of a given number, which start only once."""
    return functools.cache(lambda size, names: dict(zip(names, train_in_turn(size, [NAMED[n] for n in names]), strict=True)))


@pytest.mark.parametrize(("way", "size"), [(way, size) for way, (_, size) in WAYS.items()], ids=WAYS)
def test_every_way_to_cut_a_step_gives_the_committed_trajectory(way, size, trained):
    expected = json.loads(REFERENCE.read_text())
    for record in trained(size, tuple(way for way, (_, of) in WAYS.items() if of == size))[way]:
        assert record["meta"]["processes"] == size
        assert_same_trajectory(record["train"]["steps"], expected)


@pytest.mark.parametrize("method", [pytest.param(m, marks=[pytest.mark.slow] * (m in ALIKE)) for m in SHARED])
def test_three_processes_train_as_one(method, trained):
    names = ALIKE if method in ALIKE else tuple(name for name in SHARED if name not in ALIKE)
    (alone,), together = (trained(size, names)[method] for size in (1, 3))
    for record in together:
        assert record["meta"]["processes"] == 3
        assert_same_trajectory(record["train"]["steps"], alone["train"]["steps"])
        assert record["scores"]["validation"]["macro_f1"] == pytest.approx(alone["scores"]["validation"]["macro_f1"], abs=1e-4)
        ids = [[row["id"] for row in each["predictions"]["validation"]] for each in (record, alone)]
        assert ids[0] == ids[1]
    assert all(record["predictions"] == together[0]["predictions"] for record in together)


def test_processes_that_choose_differently_stop_at_once():
    errors = train_together(2, SETTINGS | {"method": ["last-k:share=0.5", "middle-k:share=0.5"], "max_steps": 3})
    assert all(isinstance(error, TrainingStopped) and "chose different layers" in str(error) for error in errors)


@pytest.mark.skipif(
    tuple(map(int, transformers.__version__.split(".")[:2])) < (5, 23),
    reason="transformers 5.17 asks torch.load for device cpu:0 where several processes resume on a CPU; 5.23 does not",
)
def test_processes_share_one_folder_and_go_on_together_from_a_checkpoint(tmp_path):
    settings = SETTINGS | {"max_steps": 8, "eval_every": 4}
    whole = train_together(2, settings, output=tmp_path / "whole", save_every=3)
    assert read_record(tmp_path / "whole") == whole[0]
    ended = train_together(2, settings, output=tmp_path / "ended", save_every=3, callbacks=[Ends()])
    assert [error.code for error in ended] == [143, 143] and not (tmp_path / "ended").exists()
    (alone,) = train_together(1, settings, output=tmp_path / "ended", save_every=3)
    assert isinstance(alone, InputError) and "processes: 2 / 1" in str(alone)
    resumed = train_together(2, settings, output=tmp_path / "ended", save_every=3)
    for block in ("run", "train", "scores", "predictions"):
        assert resumed[0][block] == resumed[1][block] == whole[0][block]
    assert resumed[0]["meta"]["starts"] == [0, 5]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ended", "whole"]


def test_one_command_under_torchrun(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "irtuning"]
    options = ["train", "--model", "tiny-random", "--max-steps", "2", "--set", "batch_size=4", "--set", "device=cpu", "--json"]
    found = subprocess.run([*command, *options, "--output", str(tmp_path / "run")], capture_output=True, text=True,
                           timeout=240, env=os.environ | {"OMP_NUM_THREADS": "1"})  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["config"]["max_steps"] == 2  # printed by one of them
    assert read_record(tmp_path / "run")["meta"]["processes"] == 2


def test_sharded_training_and_a_batch_that_cannot_be_shared_are_refused_with_the_reason(monkeypatch):
    for name in ("FSDP", "DeepSpeed"):
        with monkeypatch.context() as here, pytest.raises(InputError, match=f"{name} cannot train .*use DDP"):
            here.setenv(f"ACCELERATE_USE_{name.upper()}", "true")
            train(RunConfig.of(SETTINGS), progress=False)
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(InputError, match="batch_size 16 cannot be shared by 3 processes .* give a multiple of 3"):
        examples_each(16, 1)
