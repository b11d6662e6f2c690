"""However a step is cut into micro-batches and processes, it is the same step; the processes learn the same layers."""

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

from irtuning import InputError, RunConfig, train
from irtuning.errors import TrainingStopped
from irtuning.method.selector import cut_variances
from irtuning.training.build import examples_each
from irtuning.training.record import read_record

REFERENCE = Path(__file__).parent / "reference_trajectory.json"
# no dropout and, in 20 steps of 16, no batch that is not whole
SETTINGS = {"corpus": "synthetic", "model": "tiny-random", "dropout": 0.0, "batch_size": 16, "max_steps": 20, "eval_every": 20,
            "learning_rate": 5e-3, "device": "cpu"}  # fmt: skip
WAYS = {"1 x 16": ({}, 1), "2 x 8": ({"accumulation": 2}, 1), "4 x 4": ({"accumulation": 4}, 1), "2 processes": ({}, 2),
        "checkpointing": ({"checkpointing": True}, 1), "2 processes, 2 x 4 each": ({"accumulation": 2}, 2)}  # fmt: skip
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["irtuning.training.run", "peft", "transformers.models.llama.modeling_llama"])


class Ends(TrainerCallback):
    """Sends SIGTERM to the first process during step 5."""

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if state.global_step == 4 and os.environ["RANK"] == "0":
            os.kill(os.getpid(), signal.SIGTERM)


def one_rank(rank, size, port, settings, options, answers):
    """Train in one process of `size` and put its record or error into `answers`."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    try:
        own = {name: value[rank] if isinstance(value, list) else value for name, value in settings.items()}
        answers.put((rank, train(RunConfig.of(own), progress=False, **options).record))
    except (InputError, SystemExit) as error:
        answers.put((rank, error))
    if size > 1 and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def train_together(size, settings, **options):
    """Return what each of `size` processes ends with: a record or an error. A list of settings is one per rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    answers, work = FORKS.Queue(), (size, port, settings, options)
    processes = [FORKS.Process(target=one_rank, args=(rank, *work, answers)) for rank in range(size)]
    for process in processes:
        process.start()
    found = dict(answers.get(timeout=240) for _ in processes)
    for process in processes:
        process.join()
    return [found[rank] for rank in range(size)]


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


@pytest.mark.parametrize(("change", "size"), WAYS.values(), ids=WAYS)
def test_every_way_to_cut_a_step_gives_the_committed_trajectory(change, size):
    expected = json.loads(REFERENCE.read_text())
    for record in train_together(size, SETTINGS | change):
        assert record["meta"]["processes"] == size
        assert_same_trajectory(record["train"]["steps"], expected)


@pytest.mark.parametrize(("method", "more"), [
    *((method, {}) for method in ("ir:variant=exact:score=l2", "ist:every=2:step_size=1000", "ir-cosine:score=token", "lisa",
                                  "sampled:every=2", "probe:batches=3", "random-static", "fixed:layers=1-2",
                                  "transplant:layers=0+3")),
    ("rst", {"backward": "skip", "idle": "drop", "accumulation": 2})])  # fmt: skip
def test_three_processes_train_as_one(method, more):
    settings = SETTINGS | {"batch_size": 12, "max_steps": 8, "eval_every": 4, "method": method} | more
    (alone,) = train_together(1, settings)
    together = train_together(3, settings)
    for record in together:
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
