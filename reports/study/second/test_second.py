"""The script of the second edition: what it refuses, what it resumes, what it chooses, and what its store holds."""

import gc
import json
import subprocess
import sys
import time
import zlib
from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pandas
import pytest
import torch

from irtuning import InputError
from irtuning.companion.paths import REPOSITORY
from irtuning.corpora.load import load_corpus
from irtuning.errors import TrainingStopped
from irtuning.training import run as training_run

sys.path.append(str(REPOSITORY / "reports" / "study" / "second"))
import decide  # noqa: E402
import second  # noqa: E402

SMALL = {"model": "tiny-random", "batch_size": 8, "max_length": 64, "form": "marked", "epochs": 0.2}
OPEN = "**Open until then.**\n*Open, weights:* a\n*Open, gate:* b\n*Open, rates:* c\n*Open, error:* d\n"
METHODS = ["ir", "full", "random-counts", "last-k"]
WHOLE = load_corpus("synthetic")
FEW = replace(WHOLE, train=WHOLE.train[:160], validation=WHOLE.validation[:40], test=WHOLE.test[:40])


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The script with a tiny model on the embedded corpus, in a Git repository of its own, with a closed plan."""
    plan, settings = tmp_path / "plan.md", tmp_path / "settings.json"
    plan.write_text("Closed.")
    settings.write_text(json.dumps({"seeds": 1, "rates": {"synthetic": {"many": 1e-3, "full": 2e-3}}}))
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "file.txt").write_text("a")
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=n", "-c", "user.email=e@x", "commit", "-qm", "m"]):
        subprocess.run(["git", "-C", str(repository), *words], check=True)
    values = {"REPOSITORY": repository, "PLAN": plan, "SETTINGS": settings, "COMMON": SMALL, "HEADLINE": METHODS,
              "CORPORA": {"synthetic": {}}, "GATE_SEEDS": (151, 152),
              "SEEDS": tmp_path / "seeds.json", "USUAL": {"gate": ["synthetic"]},
              "corpus_of": lambda config, data: FEW}  # fmt: skip
    for name, value in values.items():
        monkeypatch.setattr(second, name, value)
    monkeypatch.setattr(second, "planned", one_fold(second.planned))
    return tmp_path


def one_fold(planned):
    return lambda *given: [run for run in planned(*given) if run["fold"] == 0]


def run(stages, folder, minutes=9):
    return second.run_stages(stages.split(), ["synthetic"], None, folder / "runs", 1, minutes)


def test_a_stage_goes_on_where_it_ended_and_its_store_tells_everything(small, capsys):
    assert run("headline", small, minutes=0) == 4 and not list((small / "runs").glob("*.gz"))  # no time, no run
    assert run("headline", small) == 0
    path = small / "runs" / "headline-synthetic.jsonl.gz"
    before, content = second.lines(path), path.read_bytes()
    assert [line["record"]["run"]["config"]["method"] for line in before] == ["ir", "full", "random-counts", "last-k"]
    assert run("headline", small) == 0 and path.read_bytes() == content
    ir, full, counts, last = (line["record"] for line in before)
    assert [len(s["layers"]) for s in ir["train"]["steps"]] == [len(s["layers"]) for s in counts["train"]["steps"]]
    assert len(last["train"]["steps"][0]["layers"]) < len(full["train"]["steps"][0]["layers"])
    assert {r["run"]["config"]["learning_rate"] for r in (ir, counts, last)} == {1e-3} and full["run"]["config"][
        "learning_rate"
    ] == 2e-3
    assert all(
        len(r["meta"]["plan"]) == 16 and r["meta"]["commit"] and r["scores"]["test_scored"] == 1 for r in (ir, full)
    )
    path.write_bytes(content[:-20])  # a process was killed while it wrote: that run alone is made again
    assert len(second.lines(path)) == 3 and "damaged" in capsys.readouterr().err
    second.append(path, before[3])
    assert [line["key"] for line in second.lines(path)] == [line["key"] for line in before]


def test_seeds_that_are_chosen_during_the_headline_are_made_as_well(small, monkeypatch):
    def make(*item):
        second.SEEDS.write_text('{"seeds": 2}')
        return given_make(*item)
    given_make = second.make
    monkeypatch.setattr(second, "make", make)
    assert run("headline", small) == 0
    made = second.lines(small / "runs" / "headline-synthetic.jsonl.gz")
    assert len(made) == 8 and len({line["key"] for line in made}) == 8


def test_stages_are_made_one_after_the_other(small, capsys, monkeypatch):
    assert run("common headline", small) == 0
    made = [line["record"] for of in ("common", "headline") for line in second.lines(small / f"runs/{of}-synthetic.jsonl.gz")]
    rates = [(r["run"]["config"]["method"], r["run"]["config"]["learning_rate"]) for r in made]
    assert rates == [("full", 1e-3), ("ir", 1e-3), ("full", 2e-3), ("random-counts", 1e-3), ("last-k", 1e-3)]
    assert [r["meta"]["date"] for r in made] == sorted(r["meta"]["date"] for r in made)
    assert "0 runs of common, 0 runs of headline are missing" in capsys.readouterr().out
    for words in (["headline", "collect"], ["seal", "headline"]):
        with pytest.raises(SystemExit, match="are not two stages of runs; call one after the other"):
            second.main([*words, "--runs", str(small / "runs")])


def test_a_copy_of_a_budget_waits_for_its_run(small, monkeypatch):
    monkeypatch.setattr(second, "LONGEST_WAIT", 0)
    pair = second.chains(second.planned("headline", "synthetic", second.settings()))[-1]
    begun = time.time()
    assert second.make(pair, FEW, small / "none.gz", {}, begun + 60, None) == [] and time.time() < begun + 30
    assert not (small / "none.gz").exists()  # it would have copied nothing


def test_the_store_lets_a_reader_compute_auprc_and_a_method_minus_the_floor(small, capsys):
    run("headline", small)
    second.collect(small / "runs", small / "store")
    tables = {
        name: pandas.read_parquet(small / "store" / f"{name}.parquet") for name in ("runs", "steps", "predictions")
    }
    assert all({"corpus", "model", "method", "seed", "fold", "test_scored"} <= set(table) for table in tables.values())
    answers = tables["predictions"].query("split == 'test'")
    floor, full = (answers[answers.method == name].set_index("id") for name in ("edit-aware floor", "full"))
    of_runs = tables["predictions"].dropna(subset="run").set_index("split").probabilities
    assert of_runs["test"].notna().all() and of_runs["validation"].isna().all()  # for `irtuning study`; floors have both
    assert set(floor.index) == set(full.index) and floor.intention.eq(full.intention[floor.index]).all()
    assert np.stack(full.probabilities).sum(1) == pytest.approx(1, abs=0.01) and "before" not in answers
    record = json.loads(tables["runs"].record[0])
    assert {"plan", "code", "commit"} <= set(record["meta"]) and "of 12" in capsys.readouterr().out
    second.restore(small / "back", small / "store")  # and lets the stage go on elsewhere
    assert second.missing("headline", "synthetic", second.settings(), small / "back") == []
    floors = [json.loads((small / name / "floors.json").read_text()) for name in ("runs", "back")]
    assert floors[0] == floors[1]
    one, other = ([second.lines(small / name / "headline-synthetic.jsonl.gz")[3] for name in ("runs", "back")])
    assert one["key"] == other["key"] and one["record"]["scores"] == other["record"]["scores"]
    assert [s["layers"] for s in one["record"]["train"]["steps"]] == [s["layers"] for s in other["record"]["train"]["steps"]]
    with pytest.raises(InputError, match="has runs already"):
        second.restore(small / "back", small / "store")
    content = {path.name: path.read_bytes() for path in (small / "store").iterdir()}
    second.collect(small / "back", small / "store")  # has all that the store has
    path = small / "back" / "headline-synthetic.jsonl.gz"
    second.append(path, one)
    with pytest.raises(InputError, match="a run of headline was made 2 times: .*; keep one of each"):
        second.collect(small / "back", small / "store")
    path.unlink()
    second.append(path, one)  # the only run that is left
    with pytest.raises(InputError, match="has [0-9]+ runs that .* lacks, such as one of headline; restore them first"):
        second.collect(small / "back", small / "store")
    assert {path.name for path in (small / "store").iterdir()} == set(content)
    assert (small / "store" / "predictions.parquet").read_bytes() == content["predictions.parquet"]


def test_only_the_headline_keeps_validation_and_only_stages_whose_auprc_is_compared_keep_probabilities():
    rows = {split: [{"id": split, "probabilities": [1.0]}] for split in ("validation", "test")}
    has = {stage: {s: "probabilities" in of[0] for s, of in second.kept(stage, rows).items()} for stage in second.TESTED}
    headline, common = {"validation": False, "test": True}, {"test": True}
    others = dict.fromkeys(("secondary", "small", "mini", "tetra"), {"test": False})
    assert has == {"headline": headline, "common": common} | others
    untested = {"validation": rows["validation"]}
    assert second.kept("rates", untested) == untested


def test_what_would_spoil_the_records_is_refused(small, monkeypatch):
    second.PLAN.write_text("**Open until the gate and the rates are in.**")
    with pytest.raises(InputError, match="plan is still open"):
        run("headline", small)
    with pytest.raises(InputError, match="no TETRA may be read"):
        run("transfer", small)
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


def test_the_gate_beside_its_floor(small, monkeypatch, capsys):
    with pytest.raises(InputError, match="plan is closed"):
        decide.decide(small / "runs", small)
    second.PLAN.write_text(OPEN)
    with pytest.raises(InputError, match="gate is whole on no corpus"):
        write_floors(small), decide.decide(small / "runs", small)
    assert "gate on synthetic lacks 4 of 4 runs" in capsys.readouterr().out
    assert run("gate", small) == 0
    monkeypatch.setattr(decide, "BOTH", ["synthetic"])
    records = second.recorded(small / "runs", "gate")
    assert {r["scores"]["test_scored"] for r in records} == {0} and set(records[0]["predictions"]) == {"validation"}
    table = decide.gate(records, json.loads((small / "runs" / "floors.json").read_text()))
    assert len(table) == 2 and not table.passes.any() and (table.error > 0).all() and set(table.runs) == {2}
    assert table.difference.to_numpy() == pytest.approx((table.macro_f1 - table.floor).to_numpy(), abs=0.1)
    chosen = decide.decide(small / "runs", small)
    assert chosen["primary"] == [] and chosen["rates"] == {} and "seeds" not in chosen
    plan = second.PLAN.read_text()
    assert "*Decided, weights:* none" in plan or "*Decided, weights:* balanced" in plan
    assert "Primary: none" in plan and "*Open, rates:* c" in plan  # there are no runs for them yet


LEVELS = {"full": 0.9, "ir": 0.8, "random-static": 0.8, "last-k": 0.8, "ist": 0.7}


def made_up(runs, stage, corpus, level, most=None):
    """Fill a stage's file with the planned runs, answered at random, but rightly with the probability of `level`."""
    for planned in second.missing(stage, corpus, second.settings(), runs)[:most]:
        draw = np.random.default_rng(zlib.crc32(second.key(planned).encode()))
        split = "test" if planned["score_test"] else "validation"
        right = draw.random(240) < level(planned)
        rows = [{"id": f"{planned['fold']}-{i}", "group": f"{planned['fold']}-{i % 30}", "intention": "ab"[i % 2],
                 "predicted": "ab"[i % 2 if hit else 1 - i % 2]} for i, hit in enumerate(right)]  # fmt: skip
        scores = dict.fromkeys(("macro_precision", "macro_recall", "auprc", "accuracy"), 0.0) | {
            "macro_f1": float(right.mean())
        }
        step = {"layers": [0], "step": 1}
        second.append(runs / f"{stage}-{corpus}.jsonl.gz", {"key": second.key(planned), "record": {
            "run": {"config": {"adapter": "lora"} | planned, "labels": ["a", "b"], "depth": 1, "candidate_layers": [0]},
            "scores": {"validation": scores}, "predictions": {split: rows}, "train": {"steps": [step]},
            "meta": {"step_seconds": [1.0], "code": "c"}}})  # fmt: skip


def write_floors(folder):
    (folder / "runs").mkdir(exist_ok=True)
    rows = [
        {"id": f"0-{i}", "group": f"0-{i % 30}", "intention": "ab"[i % 2], "predicted": "ab"[i % 4 // 2]}
        for i in range(240)
    ]
    floor = {"fold": 0, "split": "validation", "macro_f1": 0.5, "predictions": rows}
    named = product(("iterater", "arxivedits", "argrewrite"), ("operation", "edit-aware"))
    floors = [floor | {"corpus": corpus, "name": name} for corpus, name in named]
    (folder / "runs" / "floors.json").write_text(json.dumps(floors))


@pytest.fixture
def two_corpora(small, monkeypatch):
    """The script as it is, with files of its own. By `level`, the best rate is 1e-3, but 4e-3 for ist on ITERATER."""
    monkeypatch.undo()
    for name, value in {
        "PLAN": small / "plan.md",
        "SETTINGS": small / "settings.json",
        "SEEDS": small / "seeds.json",
    }.items():
        monkeypatch.setattr(second, name, value)
    second.SETTINGS.unlink()
    second.PLAN.write_text(OPEN)
    write_floors(small)
    return small


def level(planned):
    best = {"full-ft": 1e-4, "ist": 4e-3 if planned["corpus"] == "iterater" else 1e-3}.get(planned["method"], 1e-3)
    weighted = 0.02 if planned["class_weights"] == "balanced" else 0
    return LEVELS.get(planned["method"], 0.8) - 0.08 * abs(np.log2(planned["learning_rate"] / best)) + weighted


def test_decide_fills_the_plan_and_extends_a_grid_until_the_best_rate_is_inside(two_corpora, capsys):
    runs = two_corpora / "runs"
    made_up(runs, "gate", "iterater", level)
    assert not second.SETTINGS.exists() and decide.decide(runs, two_corpora)["rates"] == {}
    assert "class weights stay open" in capsys.readouterr().out and not second.SETTINGS.exists()
    made_up(runs, "gate", "arxivedits", level)
    made_up(runs, "gate", "argrewrite", level, most=2)  # not whole, so it counts nowhere
    chosen = decide.decide(runs, two_corpora)
    assert chosen["class_weights"] == "balanced" and chosen["primary"] == ["iterater", "arxivedits"]
    assert "gate on argrewrite lacks 4 of 6" in capsys.readouterr().out
    assert "argrewrite" not in (two_corpora / "gate.md").read_text()
    made_up(runs, "rates", "iterater", level)
    chosen = decide.decide(runs, two_corpora)
    said = capsys.readouterr().out
    assert chosen["rates"] == {} and "grid of ist is extended to [0.0005, 0.001, 0.002, 0.004]" in said
    assert "rates on arxivedits lacks 63 of 63" in said and "Decided, rates" not in second.PLAN.read_text()
    assert [run["learning_rate"] for run in second.missing("rates", "iterater", second.settings(), runs)] == [4e-3] * 3
    for _ in range(2):  # 4e-3, and 8e-3 behind it
        made_up(runs, "rates", "iterater", level)
        decide.decide(runs, two_corpora)
    made_up(runs, "rates", "arxivedits", level)
    chosen = decide.decide(runs, two_corpora)
    assert chosen["rates"]["iterater"]["ist"] == 4e-3 and chosen["rates"]["arxivedits"]["ist"] == 1e-3
    assert {of["many"] for of in chosen["rates"].values()} == {1e-3} and chosen["rates"]["iterater"]["full-ft"] == 1e-4
    plan, table = second.PLAN.read_text(), (two_corpora / "rates.md").read_text()
    assert plan.count("*Decided, ") == 4 and "ist 0.004" in plan
    assert "| mean | in single items |" in table and "*Open, " not in plan


def test_errors_expected_on_test_parts_follow_from_part_d(two_corpora):
    runs = two_corpora / "runs"
    for corpus in decide.BOTH:
        made_up(runs, "rates", corpus, lambda planned: 0.8)  # seeds differ by the noise of single items alone
    rates = {corpus: {"many": 1e-3, "full": 1e-3, "ist": 1e-3} for corpus in decide.BOTH}
    table = decide.expected(second.recorded(runs, "rates"), rates).set_index(["corpus", "seeds differ"])
    for corpus, items in decide.TEST_ITEMS.items():  # the truth: twice 0.16 over items and seeds
        row = table.loc[(corpus, "in single items")]
        assert row["4 seeds"] == pytest.approx(np.sqrt(2 * 0.16 / items / 4), rel=0.35)
        assert row["2 seeds"] > row["3 seeds"] > row["6 seeds"]
        assert table.loc[(corpus, "as whole runs too")]["4 seeds"] >= row["4 seeds"]  # its part may be found as zero
    mean = np.sqrt(sum(table.loc[(c, "as whole runs too")]["4 seeds"] ** 2 for c in decide.BOTH)) / 2
    assert table.loc[("mean", "as whole runs too")]["4 seeds"] == pytest.approx(mean)


def test_seeds_are_chosen_once_from_two_and_no_difference_shows(two_corpora, monkeypatch):
    runs = two_corpora / "runs"
    second.SETTINGS.write_text(json.dumps({"primary": ["iterater"], "rates": {"iterater": {"many": 1e-3}}}))
    with pytest.raises(InputError, match="on iterater lack 70 runs"):
        decide.seeds(runs, two_corpora)
    made_up(runs, "headline", "iterater", lambda planned: LEVELS.get(planned["method"], 0.8))
    records = [r for r in second.recorded(runs, "headline") if r["run"]["config"]["method"] in decide.COMPARED]
    parts = decide.variance([r for r in records if r["run"]["config"]["fold"] < 4], "test")
    made = decide.seeds(runs, two_corpora)
    assert made["standard_error"]["2 seeds"] == pytest.approx(np.sqrt(parts[0] + parts[1:].sum() / 2))
    assert made["standard_error"]["2 seeds"] == pytest.approx(np.sqrt(2 * 0.15 / 960 / 2), rel=0.3)  # 960 items
    assert made["seeds"] == 6 and second.settings()["seeds"] == 6  # 0.0125 is far from 0.0036
    assert "methods" not in second.settings()
    assert len(second.missing("headline", "iterater", second.settings(), runs)) == 140
    with pytest.raises(InputError, match="number of seeds is fixed"):
        decide.seeds(runs, two_corpora)
    second.SEEDS.unlink()
    monkeypatch.setattr(decide, "WANTED", 1.01 * made["standard_error"]["3 seeds"])
    assert decide.seeds(runs, two_corpora)["seeds"] == 3


def test_items_that_the_first_edition_scored_are_left_out():
    folder, rows = REPOSITORY / "reports" / "study", {}
    for number, text in enumerate(pandas.read_parquet(folder / "runs.parquet", columns=["record"]).record):
        rows[json.loads(text)["run"]["config"]["corpus"]] = number
    table = pandas.read_parquet(folder / "predictions.parquet", columns=["run", "split", "id"]).query("split == 'test'")
    scored, others = (set(table.id[table.run == rows[name]]) for name in ("arxivedits", "argrewrite"))
    rows = {"arxivedits": [*scored, "new"], "argrewrite": others}
    records = [
        {"run": {"config": {"corpus": name, "fold": 0}}, "predictions": {"test": [{"id": row} for row in ids]}}
        for name, ids in rows.items()
    ]
    kept = decide.confirmatory([*records, {"run": {"config": {"fold": 4}}}])
    assert [{row["id"] for row in r["predictions"]["test"]} for r in kept] == [{"new"}, others]
    assert len(scored) == 430 and not scored & others


def test_a_rate_beyond_one_that_diverged_is_not_asked_for():
    rows = [("a", "many", "ir", 1e-3, 0.5), ("a", "many", "ir", 2e-3, 0.6), ("a", "many", "random-static", 1e-3, 0.8),
            ("a", "many", "random-static", 2e-3, 0.6), ("a", "full", "full", 1e-3, 0.5),
            ("a", "full", "full", 2e-3, 0.7), ("a", "ist", "ist", 5e-4, 0.2),
            ("a", "ist", "ist", 1e-3, 0.2)]  # fmt: skip
    curve = pandas.DataFrame(rows, columns=["corpus", "class", "method", "rate", "mean"]).assign(
        min=lambda t: t["mean"]
    )
    floor = {"corpus": "a", "fold": 0, "name": "operation", "split": "validation", "macro_f1": 0.1}
    rates, grid = decide.rates_of(curve, [floor])
    assert rates == {"a": {"many": 1e-3, "full": 2e-3, "ist": 5e-4}}
    assert grid["a"] == {"full": [1e-3, 2e-3, 4e-3], "ist": [2.5e-4, 5e-4, 1e-3], "many": [5e-4, 1e-3, 2e-3]}
    curve.loc[5, "min"] = 0.05  # one run of three collapsed there
    assert decide.rates_of(curve, [floor])[1]["a"]["full"] == [1e-3, 2e-3]


def test_a_run_that_fails_is_recorded_once_and_those_that_follow_it_wait(small, monkeypatch, capsys):
    def stops(prepared, **options):
        raise TrainingStopped("the gradient was not finite")

    monkeypatch.setattr(training_run, "train", stops)
    assert run("headline", small) == 2  # of four: ir and full failed, and two wait for ir
    assert "ir fold 0 seed 171 FAILED" in capsys.readouterr().out and second.recorded(small / "runs", "headline") == []
    assert [r["method"] for r in second.failed("headline", small / "runs")] == ["ir", "full"]
    assert run("headline", small) == 2  # and is not made again


def test_no_model_of_an_earlier_run_is_in_memory_when_a_run_begins(small, monkeypatch):
    alive, real = [], training_run.train

    def watched(prepared, **options):
        alive.append(sum(type(thing) is torch.nn.Parameter for thing in gc.get_objects()))
        return real(prepared, **options)

    monkeypatch.setattr(training_run, "train", watched)
    assert run("headline", small) == 0
    assert len(alive) == 4 and len(set(alive)) == 1


def test_the_transfer_table_counts_what_models_predict_elsewhere(small, monkeypatch):
    monkeypatch.setattr(second, "CORPORA", {"synthetic": {}, "tetra": {}})
    few = replace(FEW, name="tetra", train=FEW.train[:20], validation=FEW.validation[:10], test=FEW.test[:10])
    monkeypatch.setattr(second, "corpus_of", lambda config, data: few if config.corpus == "tetra" else FEW)
    assert run("transfer", small) == 0
    records = second.recorded(small / "runs", "transfer")
    counts = [record["meta"]["transfer"]["counts"] for record in records]
    assert [r["run"]["config"]["method"] for r in records] == ["ir", "full"] and all(
        set(c) == set(few.labels) for c in counts
    )
    gold = Counter(r.intention for r in [*few.train, *few.validation, *few.test])
    assert [{label: sum(of.values()) for label, of in c.items() if of} for c in counts] == [dict(gold)] * 2
    second.collect(small / "runs", small / "store")
    assert "## full" in (small / "store" / "transfer.md").read_text() and {
        r["scores"]["test_scored"] for r in records
    } == {0}


def test_every_stage_of_the_plan_has_its_number_of_runs():
    chosen = {"class_weights": "none", "seeds": 4, "rates": {}, "grid": {}}
    sizes = {
        stage: len(second.planned(stage, "iterater", chosen))
        for stage in ("gate", "rates", "headline", "time", "common", "tetra", "secondary", "transfer")
    }
    assert sizes == {
        "gate": 6,
        "rates": 63,
        "headline": 140,
        "time": 21,
        "common": 40,
        "tetra": 35,
        "secondary": 80,
        "transfer": 2,
    }
    runs = second.planned("headline", "iterater", chosen)
    assert len({second.key(run) for run in runs}) == 140 and len({(r["fold"], r["seed"]) for r in runs}) == 20
    chains = second.chains(runs)
    assert sorted(second.key(chain[-1]) for chain in chains) == sorted(map(second.key, runs))
    sizes, pairs = [len(chain) for chain in chains], [chain for chain in chains if len(chain) == 2]
    assert sizes == [*[1] * 40, *[2] * 15, *[1] * 20, *[2] * 15, *[1] * 20, *[2] * 30]  # copies after the next round
    assert all(first == copy | {"method": "ir", "learning_rate": first["learning_rate"]} for first, copy in pairs)
    assert sum(len(second.planned(s, c, chosen)) for s, c in (("small", "iterater"), ("mini", "iterater"))) == 80 + 70


def test_time_is_over_before_a_run_begins(small):
    begun = time.time()
    assert second.make([{"method": "ir"}], None, small / "none.gz", {}, begun - 1, None) == []
