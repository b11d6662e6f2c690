"""Runs in processes of this machine and on a real Dask cluster of two workers, some of which are killed."""

import gc
import os
import runpy
import signal
import socket
import threading
import time
from dataclasses import replace
from operator import truediv
from pathlib import Path

import pytest
import torch
from calls import ended, environment, grows, noted, process_number, says_goodbye
from distributed import KilledWorker, LocalCluster
from typer.testing import CliRunner

from irtuning.cli import app
from irtuning.comparison import runs, workers
from irtuning.comparison.runs import run_comparison
from irtuning.comparison.workers import outcomes
from irtuning.corpora.load import load_corpus
from irtuning.errors import InputError
from irtuning.training.record import read_record

SYNTHETIC = load_corpus("synthetic")
CORPUS = replace(SYNTHETIC, train=SYNTHETIC.train[:60], validation=SYNTHETIC.validation[:30], test=SYNTHETIC.test[:30])
OPTIONS = {"corpora": {0: CORPUS}, "corpus": "synthetic", "model": "tiny-random", "device": "cpu", "batch_size": 4,
           "max_steps": 3, "max_length": 32, "progress": False}  # fmt: skip
IN_THIS_PROCESS = {"processes": False, "protocol": "tcp://", "dashboard_address": ":0"}


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as made:
        yield made


@pytest.fixture(params=["here", "cluster"])
def where(request):
    """Each place where calls are made, as arguments of `outcomes`."""
    here, cluster = {"workers": 2}, request.param != "here" and request.getfixturevalue("cluster")
    return {"scheduler": cluster.scheduler_address} if cluster else here


def test_a_dead_worker_costs_its_own_call_which_is_made_once_more(where, tmp_path):
    """Call 3 kills its worker every time, call 1 at most once; every other call is made exactly once."""
    deaths, dask = {3: 9} if "scheduler" in where else {1: 1, 3: 9}, "scheduler" in where  # Dask repeats three times
    made = dict(outcomes(noted, [(tmp_path, number, deaths.get(number, 0)) for number in range(6)], **where))
    assert {n: v for n, v in made.items() if n != 3} == {n: n * n for n in range(6) if n != 3}
    assert isinstance(made[3], KilledWorker if dask else InputError) and "died" in str(made[3])
    assert [len(list(tmp_path.glob(f"{number}-*"))) for number in range(6)] == [1, 1 + (1 in deaths), 1, 4 if dask else 2, 1, 1]


def test_an_error_comes_back_and_stops_no_other(where):
    made = dict(outcomes(truediv, [(1, 1), (1, 0), (1, 2)], **where))
    assert (made[0], made[2]) == (1, 0.5) and isinstance(made[1], ZeroDivisionError)


def test_calls_may_be_added_while_others_run():
    calls, made = [(1, 1)], []
    for index, outcome in outcomes(truediv, calls):
        made.append((index, outcome))
        calls += [(1, 2)] if index == 0 else []
    assert made == [(0, 1), (1, 0.5)]


@pytest.mark.parametrize("module", ["__main__", "<run_path>"])
def test_what_a_script_a_notebook_or_a_file_defines_travels_by_value(module, where, tmp_path):
    function = "def size(kind, mine):\n    return Mine.size * kind().size * mine.size"
    (tmp_path / "mine.py").write_text(f"class Mine:\n    size = 3\n\n{function}")
    names = runpy.run_path(str(tmp_path / "mine.py"), run_name=module)
    assert names["Mine"].__module__ == module
    assert list(outcomes(names["size"], [(names["Mine"], names["Mine"]())], **where)) == [(0, 27)]


def test_processes_make_several_calls_share_the_threads_and_take_the_least_busy_gpu(monkeypatch):
    assert len(set(dict(outcomes(process_number, [()] * 6, workers=2)).values())) == 2
    monkeypatch.setattr(workers, "gpus", lambda: ["3", "5"])  # this machine may have none
    monkeypatch.setattr(workers, "cores", lambda: 9)
    made = dict(outcomes(environment, [(2.0,), (0.0,), (2.0,)], workers=3))
    assert sorted(gpu for gpu, _ in made.values()) in (["3", "3", "5"], ["3", "5", "5"])
    assert {threads for _, threads in made.values()} == {"3"}


def test_a_process_that_grows_keeps_what_it_has_compiled():
    assert len(set(dict(outcomes(grows, [(400 * 2**20,)] * 2, workers=1)).values())) == 1


def test_a_process_leaves_ctrl_c_to_this_one():
    assert list(outcomes(signal.getsignal, [(signal.SIGINT,)], workers=1)) == [(0, signal.SIG_IGN)]


def test_processes_end_in_order_after_the_last_call_and_are_killed_after_an_interruption(tmp_path):
    calm, stopped = tmp_path / "calm", tmp_path / "stopped"
    calm.mkdir(), stopped.mkdir()
    list(outcomes(says_goodbye, [(calm, 0.3)] * 2, workers=2))
    begun = [path for path in calm.iterdir() if not path.suffix]
    assert len(begun) == 2 and eventually(lambda: all(path.with_suffix(".ended").exists() for path in begun))
    running = outcomes(says_goodbye, [(stopped, 0.0), (stopped, 600.0)], workers=2)
    assert next(running) == (0, None) and eventually(lambda: len(list(stopped.iterdir())) == 2)
    running.close()
    assert eventually(lambda: not any(Path(f"/proc/{path.name}").exists() for path in stopped.iterdir()))
    assert not any(path.suffix for path in stopped.iterdir())


def eventually(holds, seconds=60):
    """Whether a condition holds within some seconds."""
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)
    return holds()


def test_a_process_that_is_told_to_end_makes_its_call_again(tmp_path):
    made = dict(outcomes(ended, [(tmp_path, number) for number in range(3)], workers=2))
    assert made == {0: 0, 1: 1, 2: 2} and len(list(tmp_path.glob("1-*"))) == 2


def test_a_comparison_on_a_cluster_that_loses_a_worker_is_the_one_made_here(cluster, tmp_path):
    """A worker is killed from outside in the middle: every record is there and the same as those of runs made alone."""
    torch.set_num_threads(1)  # as the workers do
    options = OPTIONS | {"methods": ["ir", "rst"], "seeds": [1, 2], "max_steps": 12}
    killer = threading.Thread(target=kill, args=(cluster, tmp_path))
    killer.start()
    records, floors = run_comparison(**options, scheduler=cluster.scheduler_address, output=tmp_path)
    killer.join()
    alone, _ = run_comparison(**options, workers=1)
    for block in ("run", "train", "scores", "predictions"):
        assert [found[block] for found in records] == [expected[block] for expected in alone]
    folders = list(tmp_path.iterdir())
    assert (len(folders), len(floors)) == (4, 2)
    assert sorted(map(str, map(read_record, folders))) == sorted(map(str, records))
    assert all([path.name for path in folder.iterdir()] == ["record.json"] for folder in folders)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}
    again, _ = run_comparison(**options, scheduler="tcp://127.0.0.1:1", output=tmp_path)  # nothing is left to run
    assert again == records
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}


def kill(cluster, folder):
    """Kill a worker's process while it trains, as soon as something is recorded."""
    while not any(folder.rglob("record.json")):
        time.sleep(0.02)
    while not (busy := [w for w in list(cluster.scheduler.workers.values()) if w.processing]):
        time.sleep(0.02)
    os.kill(next(n.pid for n in cluster.workers.values() if n.worker_address == busy[0].address), signal.SIGKILL)


def test_a_run_whose_worker_dies_is_named_and_the_others_are_kept(tmp_path, monkeypatch):
    def one_dies(function, items, **_):
        for index, (config, *rest) in enumerate(items):
            dies = (config.method, config.seed) == ("ir", 3)
            yield index, InputError("its worker died twice") if dies else function(config, *rest)
    monkeypatch.setattr(runs, "outcomes", one_dies)
    with pytest.raises(InputError, match=r"^1 of 6 runs failed; .* ir-fold0-seed3-\w{8}: its worker died"):
        run_comparison(["ir", "rst", "full"], seeds=[1, 3, 3], folds=[0, 0], output=tmp_path, workers=2, **OPTIONS)
    names = sorted(path.parent.name[:-9] for path in tmp_path.rglob("record.json"))
    assert names == ["full-fold0-seed1", "full-fold0-seed3", "ir-fold0-seed1", "rst-fold0-seed1"]


def test_a_record_made_on_a_gpu_is_read_where_there_is_none(tmp_path):
    """What a worker with a GPU trained in bfloat16 is the run that a client without one asked for, once."""
    records, _ = run_comparison(["full", "full"], seeds=[1, 1], folds=[0, 0], output=tmp_path, workers=1, **OPTIONS)
    (path,) = tmp_path.rglob("record.json")
    path.write_text(path.read_text().replace('"precision": "fp32"', '"precision": "bf16"'))
    (read,), _ = run_comparison(["full"], seeds=[1], output=tmp_path, workers=1, **OPTIONS)
    assert len(records) == 1 and read["run"]["config"]["precision"] == "bf16" and read["scores"] == records[0]["scores"]


def test_no_client_without_a_scheduler_is_left_to_be_collected_while_another_one_starts(monkeypatch):
    """Dask would then wait for its own lock."""
    monkeypatch.setattr(workers, "CONNECT_SECONDS", 1)
    gc.disable()
    try:
        with pytest.raises(InputError, match="no Dask scheduler answers"):
            list(outcomes(truediv, [(1, 1)], scheduler="tcp://127.0.0.1:1"))
        assert not [o for o in gc.get_objects() if type(o).__name__ == "Client" and o.status != "running"]
    finally:
        gc.enable()


def test_a_cluster_that_cannot_be_used_is_named(cluster, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr("irtuning.training.record.__version__", "0.1")  # here; workers have their own
        with pytest.raises(InputError, match=r"worker tcp://\S+ has \{.*, this process has .*'irtuning': '0\.1'.*; install"):
            list(outcomes(truediv, [(1, 1)], scheduler=cluster.scheduler_address))
    with monkeypatch.context() as patch:
        patch.setattr(workers, "versions", lambda here=os.getpid(): {"python": "3"} if os.getpid() == here else 1 / 0)
        with pytest.raises(InputError, match=r"worker tcp://\S+ has ZeroDivisionError.*; install the same there"):
            list(outcomes(truediv, [(1, 1)], scheduler=cluster.scheduler_address))
    assert workers.CONNECT_SECONDS <= 5
    monkeypatch.setattr(workers, "CONNECT_SECONDS", 1)
    started = time.monotonic()
    with pytest.raises(InputError, match="no Dask scheduler answers at 'tcp://127.0.0.1:1'"):
        run_comparison(["full"], scheduler="tcp://127.0.0.1:1", output=tmp_path / "out", **OPTIONS)
    assert time.monotonic() - started < 8 and not any((tmp_path / "out").iterdir())
    with pytest.raises(InputError, match="no Dask scheduler answers at 'nonsense:'"):
        list(outcomes(truediv, [(1, 1)], scheduler="nonsense:"))
    with socket.create_server(("127.0.0.1", 0)) as web:  # another service, whose answer Dask cannot read
        threading.Thread(target=lambda: web.accept()[0].sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")).start()
        address = f"tcp://127.0.0.1:{web.getsockname()[1]}"
        with pytest.raises(InputError, match=f"no Dask scheduler answers at '{address}'"):
            list(outcomes(truediv, [(1, 1)], scheduler=address))
    monkeypatch.setattr(workers, "WORKER_SECONDS", 1)
    with LocalCluster(n_workers=0, **IN_THIS_PROCESS) as empty:
        with pytest.raises(InputError, match="has had no worker for 1 s; start workers"):
            list(outcomes(truediv, [(1, 1)], scheduler=empty.scheduler_address))
    with LocalCluster(n_workers=1, threads_per_worker=2, **IN_THIS_PROCESS) as wide:
        with pytest.raises(InputError, match="several threads, .* share random numbers"):
            list(outcomes(truediv, [(1, 1)], scheduler=wide.scheduler_address))
        assert wide.scheduler.allowed_failures == 3, "other users' calls are repeated as before"
    with LocalCluster(n_workers=1, threads_per_worker=1, **IN_THIS_PROCESS) as leaving:
        ending = outcomes(process_number, [()] * 9, scheduler=leaving.scheduler_address)
        next(ending)
        leaving.close()
        with pytest.raises(InputError, match="is gone; .* recorded runs are kept"):
            list(ending)


@pytest.mark.parametrize("command", [
    ["compare", "--model", "tiny-random"], ["reproduce", "--set", 'models=["tiny-random"]']])  # fmt: skip
def test_the_commands_hand_their_runs_on(command, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "CONNECT_SECONDS", 1)
    words = [*command, "--output", str(tmp_path / "out")]
    found = CliRunner().invoke(app, [*words, "--scheduler", "tcp://127.0.0.1:1"])
    assert isinstance(found.exception, InputError) and "no Dask scheduler answers" in str(found.exception)
    monkeypatch.setattr(runs, "outcomes", lambda function, items, **options: (_ for _ in [pytest.fail(str(options))]))
    for option in ("--workers", "--jobs"):
        with pytest.raises(pytest.fail.Exception, match="'workers': 3"):
            CliRunner().invoke(app, [*words, option, "3"], catch_exceptions=False)
