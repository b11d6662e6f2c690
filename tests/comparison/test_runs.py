"""Comparisons: budgets, what is recorded already, what is interrupted, and methods of the user's own."""

import re
import time
from dataclasses import dataclass

import numpy as np
import pytest

from irtuning.comparison.runs import compare, planned_runs, run_comparison, takes_budget, with_budget
from irtuning.errors import InputError
from irtuning.method.baselines import RandomSparseTuning, ShareStrategy
from irtuning.method.strategies import Strategy
from irtuning.training import run
from irtuning.training.config import RunConfig


class EverySecond(Strategy):
    """Every second layer learns."""
    def choose(self, step, scores, rng):
        return list(range(0, self.count, 2))


@dataclass
class FirstLayers(ShareStrategy):
    """The first layers learn, as many as the budget allows."""
    name = "first-k"
    def choose(self, step, scores, rng):
        return list(range(self.size(self.count)))


def test_compare_shares_budgets_skips_what_is_there_and_goes_on_after_a_stop(
    own_corpus, tmp_path, monkeypatch, capfd):
    original, calls = run.train, []

    def stop_at_third(prepared, **options):
        calls.append(prepared.config.method)
        if len(calls) == 3:
            raise KeyboardInterrupt
        time.sleep(0.6)  # a bar is shown only for what takes longer than a second
        return original(prepared, **options)

    monkeypatch.setattr(run, "train", stop_at_third)
    options = {"seeds": [1], "output": tmp_path, "progress": False, "max_steps": 4, "workers": 1} | own_corpus
    methods = ["rst", FirstLayers, "random-counts", "ir"]
    with pytest.raises(KeyboardInterrupt):
        compare(methods, **options | {"progress": True})
    assert re.search(r"2/4 \[\d+:\d+<\d+:\d+.*, rst, seed 1: macro F1 0\.\d{3}\]", capfd.readouterr().err)
    written = {p: p.stat().st_mtime_ns for p in tmp_path.glob("*/record.json")}
    assert len(written) == 2
    table = compare(methods, **options)
    assert list(table.index) == ["operation floor", "edit-aware floor", "ir", "rst", "first-k", "random-counts"]
    assert all(p.stat().st_mtime_ns == time for p, time in written.items())
    assert len(list(tmp_path.iterdir())) == 4
    monkeypatch.setattr(run, "train", lambda *_, **__: pytest.fail("all runs are recorded"))
    records, floors = run_comparison(methods, **options)
    by_method = {r["run"]["config"]["method"]: r for r in records}
    counts = {name: [len(step["layers"]) for step in r["train"]["steps"]] for name, r in by_method.items()}
    assert counts["random-counts"] == counts["ir"] and len(floors) == 2
    for method in ("rst", "first-k"):
        assert by_method[method]["run"]["config"]["share"] == pytest.approx(np.mean(counts["ir"]) / 12, abs=1e-3)


@pytest.mark.parametrize("workers", [1, 2])
def test_methods_may_be_classes_instances_and_files(own_corpus, tmp_path, workers):
    """Another process has never heard of them: they travel by value."""
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\nfrom irtuning.method.strategies import Strategy\n"
        "@dataclass\nclass From(Strategy):\n    first: int = 3\n"
        "    def choose(self, *_): return list(range(self.first, self.count))\n"
    )
    methods = [EverySecond, "ir", f"{tmp_path}/mine.py:From:first=5", RandomSparseTuning(share=0.25)]
    options = own_corpus | {"seeds": [1], "max_steps": 2, "progress": False, "workers": workers, "device": "cpu"}
    records, _ = run_comparison(methods, **options)
    found = {r["run"]["config"]["method"]: [step["layers"] for step in r["train"]["steps"]] for r in records}
    assert list(found) == ["ir", "EverySecond", "From:first=5", "rst:share=0.25"]
    assert found["EverySecond"] == [list(range(0, 12, 2))] * 2 and found["From:first=5"] == [list(range(5, 12))] * 2
    assert {len(chosen) for chosen in found["rst:share=0.25"]} == {3}


def test_plans_know_which_runs_wait_for_a_budget():
    plan = planned_runs(["rst", "ir", "last-k:share=0.5", "full"], 2, [0, 1], model="tiny-random", rates={"rst": 0.1})
    assert [(run.fold, run.seed) for run in plan[::4]] == [(0, 171), (0, 172), (1, 173), (1, 174)]
    assert [run.method for run in plan[:4]] == ["ir", "rst", "last-k:share=0.5", "full"]
    assert [run.learning_rate for run in plan[:4]] == [None, 0.1, None, None]
    assert [takes_budget(run) for run in plan[:4]] == [False, True, False, False]
    assert not takes_budget(plan[1], "own") and takes_budget(RunConfig(method="random-counts"), "own")
    steps = [{"step": i + 1, "layers": [layer]} for i, layer in enumerate((0, 1, 1))]
    leader = {"run": {"candidate_layers": [0, 1], "depth": 3}, "train": {"steps": steps}}
    assert with_budget(plan[1], leader).share == 0.5, "a share of the layers that can learn"


@pytest.mark.parametrize(("options", "message"), [
    ({"methods": []}, "no methods to compare"), ({"methods": ["irr"]}, "unknown method"), ({"seeds": 0}, "no seeds"),
    ({"methods": ["random-counts"]}, "takes its layer counts from IR-Tuning: add ir"),
    ({"budget": "half"}, "give equal or own"), ({"batch_size": 0}, "batch_size is 0"),
    ({"methods": ["ir", "ir:min_layer=12"]}, "0 of 12 layers with min_layer 12; a split needs 2 or more"),
    ({"methods": ["ir", "fixed:layers=9-12"]}, "fixed wants layers .*12"),
    ({"methods": ["ir", "probe"], "max_steps": 5}, "probe measures for 5 steps of 5"),
    ({"methods": ["ir", "full-ft"], "quantize": "4bit"}, "'full-ft' tunes all weights; it needs quantize=none"),
])  # fmt: skip
def test_bad_input_ends_before_the_first_run(own_corpus, monkeypatch, options, message):
    monkeypatch.setattr("irtuning.comparison.runs._make", lambda *_: pytest.fail("a run is made"))
    with pytest.raises(InputError, match=message):
        run_comparison(**own_corpus | {"methods": ["ir"], "progress": False} | options)


def test_a_run_that_fails_stops_no_other(own_corpus, tmp_path, monkeypatch):
    original = run.train

    def fails(prepared, **options):
        return 1 / 0 if prepared.config.method == "ir" else original(prepared, **options)

    monkeypatch.setattr(run, "train", fails)
    with pytest.raises(InputError, match="workers is -1; give 1 or more"):
        compare(["ir"], **own_corpus, seeds=[1], workers=-1)
    with pytest.raises(InputError, match=r"^1 of 3 runs failed; .*ir-fold0-seed1-\w+: ZeroDivision"):
        compare(["ir", "full", "rst"], **own_corpus, seeds=[1], output=tmp_path, workers=1, max_steps=2, progress=False)
    assert [path.name[:5] for path in tmp_path.iterdir()] == ["full-"]
