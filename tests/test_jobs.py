"""Runs in processes of this machine and on a real Dask cluster of two workers, some of which are killed."""

import os
import signal
import threading
import time
from dataclasses import replace

import pytest
import torch
from calls import ended, noted, process_number, raises, visible_gpu
from distributed import LocalCluster
from typer.testing import CliRunner

from irtuning.cli import app
from irtuning.comparison import runs as comparison
from irtuning.comparison import workers as jobs
from irtuning.comparison.runs import run_comparison
from irtuning.corpora.load import load_corpus
from irtuning.errors import InputError
from irtuning.comparison.workers import outcomes
from irtuning.training.record import read_record

WHOLE = load_corpus("synthetic")
CORPUS = replace(WHOLE, train=WHOLE.train[:60], validation=WHOLE.validation[:30], test=WHOLE.test[:30])
OPTIONS = {"corpora": {0: CORPUS}, "corpus": "synthetic", "model": "tiny-random", "device": "cpu", "batch_size": 4, "max_steps": 6,
           "max_length": 32, "progress": False}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As the workers have."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as made:
        yield made


def deadly(config, corpus, folder):
    """A run that kills its process where it is IR-Tuning with seed 3."""
    if (config.method, config.seed) == ("ir", 3):
        os.kill(os.getpid(), signal.SIGKILL)
    return comparison.train(config, corpus=corpus, output=folder, progress=False).record


def begun(folder, number):
    return len(list(folder.glob(f"{number}-*")))


@pytest.mark.parametrize(("where", "deaths"), [("here", {1: 1, 3: 9}), ("cluster", {3: 9})])
def test_a_dead_worker_costs_its_own_call_which_is_made_once_more(where, deaths, cluster, tmp_path):
    """Call 3 kills its worker every time, call 1 at most once; every other call is made exactly once."""
    place = {"jobs": 2} if where == "here" else {"scheduler": cluster.scheduler_address}
    found = dict(outcomes(noted, [(tmp_path, number, deaths.get(number, 0)) for number in range(8)], **place))
    assert {n: v for n, v in found.items() if n != 3} == {n: n * n for n in range(8) if n != 3}
    assert isinstance(found[3], InputError) and "died twice" in str(found[3])
    assert [begun(tmp_path, number) for number in range(8)] == [1, 1 + (1 in deaths), 1, 2, 1, 1, 1, 1]


@pytest.mark.parametrize("where", ["here", "cluster"])
def test_an_error_comes_back_and_stops_no_other(where, cluster):
    place = {"jobs": 2} if where == "here" else {"scheduler": cluster.scheduler_address}
    found = dict(outcomes(raises, [(1,), (0,), (2,)], **place))
    assert (found[0], found[2]) == (1, 0.5) and isinstance(found[1], ZeroDivisionError)


def test_processes_of_this_machine_live_on_from_one_list_to_the_next():
    first, second = (dict(outcomes(process_number, [()] * 4, jobs=2)) for _ in range(2))
    assert set(first.values()) == set(second.values()) and len(set(first.values())) == 2


def test_processes_take_the_least_busy_gpu(monkeypatch):
    monkeypatch.setattr(jobs, "_IDLE", {})
    monkeypatch.setattr(jobs, "gpus", lambda: ["3", "5"])  # this machine may have none
    assert sorted(gpu for _, gpu in outcomes(visible_gpu, [()] * 4, jobs=4)) == ["3", "3", "5", "5"]
    monkeypatch.setattr(jobs, "_IDLE", {})
    assert [gpu for _, gpu in outcomes(visible_gpu, [(2.0,), (0.0,), (2.0,)], jobs=3)].count("3") == 2  # they end last
    assert sorted(gpu for _, gpu in outcomes(visible_gpu, [()] * 2, jobs=3)) == ["3", "5"]


def test_a_process_that_is_told_to_end_made_no_record(tmp_path):
    found = dict(outcomes(ended, [(tmp_path, number) for number in range(3)], jobs=2))
    assert found == {0: 0, 1: 1, 2: 2} and begun(tmp_path, 1) == 2


def test_a_process_that_may_end_any_moment_is_not_taken_again(monkeypatch):
    """A pool whose process has ended may not see the next one die, and would wait for ever."""
    monkeypatch.setattr(jobs, "IDLE_SECONDS", 6)
    monkeypatch.setattr(jobs, "_IDLE", {})
    first, second = (dict(outcomes(process_number, [()], jobs=1)) for _ in range(2))
    time.sleep(4)
    third = dict(outcomes(process_number, [()], jobs=1))
    assert first == second != third


def test_a_comparison_on_a_cluster_that_loses_a_worker_is_the_one_made_here(cluster, tmp_path):
    """A worker is killed from outside in the middle: every record is there and the same as those of runs made alone."""
    options = OPTIONS | {"methods": ["ir", "full", "rst"], "seeds": [1, 2], "max_steps": 20}
    address = cluster.scheduler_address
    killer = threading.Thread(target=kill_when, args=(cluster, lambda: any(tmp_path.rglob("record.json"))))
    killer.start()
    records, floors = run_comparison(**options, scheduler=address, output=tmp_path)
    killer.join()
    alone, _ = run_comparison(**options, jobs=1)
    for found, expected in zip(records, alone, strict=True):
        for block in ("run", "train", "scores", "predictions"):
            assert found[block] == expected[block]
    folders = list(tmp_path.iterdir())
    assert len(folders) == 6 and len(floors) == 2
    assert sorted(map(str, map(read_record, folders))) == sorted(map(str, records))
    assert all([path.name for path in folder.iterdir()] == ["record.json"] for folder in folders)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}
    assert run_comparison(**options, scheduler="tcp://127.0.0.1:1", output=tmp_path)[0] == records  # nothing is left to run
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}


def kill_when(cluster, ready):
    """Kill the first worker's process while it trains, as soon as something is recorded."""
    while not ready():
        time.sleep(0.02)
    victim = next(w for w in cluster.scheduler.workers.values() if w.processing)
    os.kill(next(n.pid for n in cluster.workers.values() if n.worker_address == victim.address), signal.SIGKILL)


def test_a_run_that_kills_its_worker_is_named_and_the_others_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "_run_one", deadly)
    with pytest.raises(InputError, match=r"^1 run failed, and 1 wait for .* ir-fold0-seed3-\w{8}: its worker died twice"):
        run_comparison(["ir", "rst", "full"], seeds=[1, 3, 3], folds=[0, 0], output=tmp_path, jobs=2, **OPTIONS)
    names = sorted(path.parent.name[:-9] for path in tmp_path.rglob("record.json"))
    assert names == ["full-fold0-seed1", "full-fold0-seed3", "ir-fold0-seed1", "rst-fold0-seed1"]


def test_two_panels_of_the_same_runs_share_them(tmp_path):
    once, _ = run_comparison(["full", "full"], seeds=[1, 1], folds=[0, 0], output=tmp_path, jobs=1, **OPTIONS)
    assert len(once) == len(list(tmp_path.iterdir())) == 1


def test_a_record_made_on_a_gpu_is_read_where_there_is_none(tmp_path):
    """What a worker with a GPU trained in bfloat16 is the run that a client without one asked for."""
    records, _ = run_comparison(["full"], seeds=[1], output=tmp_path, jobs=1, **OPTIONS)
    (path,) = tmp_path.rglob("record.json")
    path.write_text(path.read_text().replace('"precision": "fp32"', '"precision": "bf16"'))
    (read,), _ = run_comparison(["full"], seeds=[1], output=tmp_path, jobs=1, **OPTIONS)
    assert read["run"]["config"]["precision"] == "bf16" and read["scores"] == records[0]["scores"]


def test_a_worker_with_other_versions_is_refused(cluster, monkeypatch):
    monkeypatch.setattr("irtuning.training.provenance._version", lambda package: "0.1")  # of this process; workers load their own
    with pytest.raises(InputError, match=r"worker tcp://\S+ has irtuning [\d.]+, this process 0\.1; install the same"):
        list(outcomes(raises, [(1,)], scheduler=cluster.scheduler_address))


def test_a_cluster_that_cannot_be_used_is_told_from_one_that_can(monkeypatch, tmp_path):
    assert jobs.CONNECT_SECONDS <= 10
    monkeypatch.setattr(jobs, "CONNECT_SECONDS", 1)
    started = time.monotonic()
    with pytest.raises(InputError, match="no Dask scheduler answers at 'tcp://127.0.0.1:1'"):
        run_comparison(["full"], scheduler="tcp://127.0.0.1:1", output=tmp_path / "out", **OPTIONS)
    assert time.monotonic() - started < 8 and not any((tmp_path / "out").iterdir())
    with pytest.raises(InputError, match="no Dask scheduler answers at 'nonsense:'"):
        list(outcomes(raises, [(1,)], scheduler="nonsense:"))
    monkeypatch.setattr(jobs, "WORKER_SECONDS", 1)
    with LocalCluster(n_workers=0, dashboard_address=":0") as empty:
        with pytest.raises(InputError, match="has had no worker for 1 s; start some"):
            list(outcomes(raises, [(1,)], scheduler=empty.scheduler_address))
    with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=":0") as wide:
        with pytest.raises(InputError, match="has 2 threads, .* share their random numbers"):
            list(outcomes(raises, [(1,)], scheduler=wide.scheduler_address))


def test_a_scheduler_that_goes_away_is_named(monkeypatch):
    monkeypatch.setattr(jobs, "CONNECT_SECONDS", 1)
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as made:
        ending = outcomes(process_number, [()] * 9, scheduler=made.scheduler_address)
        next(ending)
        made.close()
        with pytest.raises(InputError, match="is gone; recorded runs are kept"):
            list(ending)


@pytest.mark.parametrize("command", [["compare", "--model", "tiny-random"], ["reproduce", "--set", 'models=["tiny-random"]']])
def test_the_commands_hand_their_runs_on(command, tmp_path, monkeypatch):
    """To the scheduler, which is not there; to processes of this machine, of which there must be one or more."""
    monkeypatch.setattr(jobs, "CONNECT_SECONDS", 1)
    words = [*command, "--output", str(tmp_path / "out")]
    found = CliRunner().invoke(app, [*words, "--scheduler", "tcp://127.0.0.1:1"])
    assert isinstance(found.exception, InputError) and "no Dask scheduler answers" in str(found.exception)
    monkeypatch.setattr(comparison, "outcomes", lambda function, items, **place: (_ for _ in [pytest.fail(str(place))]))
    with pytest.raises(pytest.fail.Exception, match="'jobs': 3"):
        CliRunner().invoke(app, [*words, "--jobs", "3"], catch_exceptions=False)
