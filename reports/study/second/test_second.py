"""The script of the second edition: what it refuses, what it resumes, what it chooses, and what its store holds."""

import json
import subprocess
import sys
import time

import numpy as np
import pandas
import pytest

from irtuning import InputError
from irtuning.companion.paths import REPOSITORY

sys.path.append(str(REPOSITORY / "reports" / "study" / "second"))
import decide  # noqa: E402
import second  # noqa: E402

SMALL = {"model": "tiny-random", "batch_size": 8, "max_length": 64, "form": "marked", "epochs": 0.05}
METHODS = ["ir", "full", "random-counts", "last-k"]


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The script with a tiny model on the embedded corpus, in a Git repository of its own, with a closed plan."""
    plan, settings = tmp_path / "plan.md", tmp_path / "settings.json"
    plan.write_text("Closed.\n")
    settings.write_text(json.dumps({"seeds": 1, "rates": {"synthetic": {"many": 1e-3, "full": 2e-3}}}))
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "file.txt").write_text("a")
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=n", "-c", "user.email=e@x", "commit", "-qm", "m"]):
        subprocess.run(["git", "-C", str(repository), *words], check=True)
    values = {"REPOSITORY": repository, "PLAN": plan, "SETTINGS": settings, "COMMON": SMALL, "HEADLINE": METHODS,
              "CORPORA": {"synthetic": {}}, "GATE_SEEDS": (151, 152)}  # fmt: skip
    for name, value in values.items():
        monkeypatch.setattr(second, name, value)
    monkeypatch.setattr(second, "planned", one_fold(second.planned))
    return tmp_path


def one_fold(planned):
    return lambda *given: [run for run in planned(*given) if run["fold"] == 0]


def run(stage, folder, minutes=9):
    return second.run_stage(stage, ["synthetic"], None, folder / "runs", 1, minutes)


def test_a_stage_goes_on_where_it_ended_and_its_store_tells_everything(small, capsys):
    assert run("headline", small, minutes=0) == 4 and not list((small / "runs").glob("*.gz"))  # no time, no run
    assert run("headline", small) == 0
    path = small / "runs" / "headline-synthetic.jsonl.gz"
    before, content = second.lines(path), path.read_bytes()
    assert [line["record"]["run"]["config"]["method"] for line in before] == ["ir", "random-counts", "last-k", "full"]
    assert run("headline", small) == 0 and path.read_bytes() == content
    ir, counts, last, full = (line["record"] for line in before)
    assert [len(s["layers"]) for s in ir["train"]["steps"]] == [len(s["layers"]) for s in counts["train"]["steps"]]
    assert len(last["train"]["steps"][0]["layers"]) < len(full["train"]["steps"][0]["layers"])
    assert {r["run"]["config"]["learning_rate"] for r in (ir, counts, last)} == {1e-3} and full["run"]["config"]["learning_rate"] == 2e-3
    assert all(len(r["meta"]["plan"]) == 16 and r["meta"]["commit"] and r["scores"]["test_scored"] == 1 for r in (ir, full))
    path.write_bytes(content[:-20])  # a process was killed while it wrote: that run alone is made again
    assert len(second.lines(path)) == 3 and "damaged" in capsys.readouterr().err
    second.append(path, before[3])
    assert [line["key"] for line in second.lines(path)] == [line["key"] for line in before]


def test_the_store_lets_a_reader_compute_auprc_and_a_method_minus_the_floor(small, capsys):
    run("headline", small)
    second.collect(small / "runs", small / "store")
    tables = {name: pandas.read_parquet(small / "store" / f"{name}.parquet") for name in ("runs", "steps", "predictions")}
    assert all({"corpus", "model", "method", "seed", "fold", "test_scored"} <= set(table) for table in tables.values())
    answers = tables["predictions"].query("split == 'test'")
    floor, full = (answers[answers.method == name].set_index("id") for name in ("edit-aware floor", "full"))
    assert set(floor.index) == set(full.index) and floor.intention.eq(full.intention[floor.index]).all()
    assert np.stack(full.probabilities).sum(1) == pytest.approx(1, abs=0.01) and "before" not in answers
    record = json.loads(tables["runs"].record[0])
    assert {"plan", "code", "commit"} <= set(record["meta"]) and "of 12" in capsys.readouterr().out


def test_what_would_spoil_the_records_is_refused(small, monkeypatch):
    second.PLAN.write_text("**Open until the gate and the rates are in.**")
    with pytest.raises(InputError, match="plan is still open"):
        run("headline", small)
    assert run("gate", small, minutes=0) == 4  # the gate scores no test part
    second.PLAN.write_text("Closed.")
    (second.REPOSITORY / "file.txt").write_text("b")
    with pytest.raises(InputError, match=r"such as file\.txt; commit them first"):
        run("headline", small)
    (second.REPOSITORY / "file.txt").write_text("a")
    second.seal(small / "runs")
    monkeypatch.setattr(second, "git", lambda *words: "")  # the machine of the runs has no Git
    assert len(second.sealed("headline", small / "runs")["commit"]) == 12
    second.PLAN.write_text("Closed, and changed.")
    with pytest.raises(InputError, match=r"plan differ from seal\.json"):
        run("headline", small)
    second.PLAN.write_text("Closed.")
    second.append(small / "runs" / "headline-synthetic.jsonl.gz", {"key": "x", "record": {"meta": {"code": "other"}}})
    with pytest.raises(InputError, match="other training code"):
        run("headline", small)


def test_the_gate_and_the_rates_follow_the_plan(small, monkeypatch):
    assert run("gate", small) == 0
    monkeypatch.setattr(decide, "BOTH", ["synthetic"])
    records = second.recorded(small / "runs", "gate")
    assert {r["scores"]["test_scored"] for r in records} == {0} and set(records[0]["predictions"]) == {"validation"}
    table = decide.gate(records, json.loads((small / "runs" / "floors.json").read_text()))
    assert len(table) == 2 and not table.passes.any() and (table.error > 0).all() and set(table.runs) == {2}
    assert table.difference.to_numpy() == pytest.approx((table.macro_f1 - table.floor).to_numpy(), abs=0.1)
    chosen = decide.decide(small / "runs", small)
    assert chosen["primary"] == [] and json.loads((small / "settings.json").read_text())["seeds"] == 1


def test_a_best_rate_at_the_end_of_the_grid_extends_it_and_many_share_one():
    rows = [("a", "many", "ir", 1e-3, 0.5), ("a", "many", "ir", 2e-3, 0.6), ("a", "many", "random-static", 1e-3, 0.8),
            ("a", "many", "random-static", 2e-3, 0.6), ("a", "full", "full", 1e-3, 0.5), ("a", "full", "full", 2e-3, 0.7),
            ("a", "ist", "ist", 5e-4, 0.2), ("a", "ist", "ist", 1e-3, 0.2)]  # fmt: skip
    curve = pandas.DataFrame(rows, columns=["corpus", "class", "method", "rate", "mean"])
    rates, grid = decide.rates_of(curve, [{"corpus": "a", "name": "operation", "split": "validation", "macro_f1": 0.1}])
    assert rates == {"a": {"many": 1e-3, "full": 2e-3, "ist": 5e-4}}
    assert grid["full"][-1] == 4e-3 and grid["ist"][0] == 2.5e-4 and 4e-3 not in grid["many"]


def test_every_stage_of_the_plan_has_its_number_of_runs():
    chosen = {"class_weights": "none", "seeds": 4, "rates": {}}
    sizes = {stage: len(second.planned(stage, "iterater", chosen)) for stage in ("gate", "rates", "headline", "time", "common", "tetra")}
    assert sizes == {"gate": 6, "rates": 63, "headline": 140, "time": 7, "common": 40, "tetra": 35}
    runs = second.planned("headline", "iterater", chosen)
    assert len({second.key(run) for run in runs}) == 140 and len({(r["fold"], r["seed"]) for r in runs}) == 20
    chains = second.chains(runs)
    assert sum(map(len, chains)) == 140 and sorted({len(chain) for chain in chains}) == [1, 4] and chains[0][0]["method"] == "ir"
    assert sum(len(second.planned(s, c, chosen)) for s, c in (("secondary", "iterater"), ("small", "iterater"), ("mini", "iterater"))) == 70 + 80 + 70


def test_time_is_over_before_a_run_begins(small):
    begun = time.time()
    assert second.make([{"method": "ir"}], None, small / "none.gz", {}, begun - 1) == []
