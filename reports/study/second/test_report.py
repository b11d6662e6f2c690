"""The report of the second edition on made-up records: what is planted comes out as its verdict, by the plan's rules."""

import json
import re
import sys
import zlib

import numpy as np
import pytest
from sklearn.metrics import f1_score

from irtuning import InputError
from irtuning.companion.paths import REPOSITORY

sys.path.append(str(REPOSITORY / "reports" / "study" / "second"))
import claims  # noqa: E402
import report  # noqa: E402
import second  # noqa: E402

ALIKE = dict.fromkeys(("ir", "full", "random-static", "random-counts", "last-k", "ist", "full-ft"), 0.8)
RATES = {"many": 1e-3, "full": 1e-3, "ist": 2e-3, "full-ft": 1e-4, "rst": 1e-3, "lisa-adapters": 1e-3}
ITEMS, GROUPS, STEPS, DEPTH = 120, 20, 16, 6


def record(planned, right, noise, loss, peak):
    """A run of `planned` that answers rightly with the probability `right`, with noise of its own or one for all."""
    config = {"adapter": "lora", "head": "learns", "train_share": 1.0} | planned
    draw = np.random.default_rng(zlib.crc32(f"{planned['corpus']} {planned['fold']} {planned['seed']} {noise}".encode()))
    split = "test" if planned["score_test"] else "validation"
    rows = [{"id": f"{planned['corpus']}:{planned['fold']}-{i}", "group": f"{planned['fold']}-{i % GROUPS}",
             "intention": "ab"[i % 2], "predicted": "ab"[i % 2 if hit else 1 - i % 2],
             "probabilities": [0.7, 0.3] if (i % 2 == 0) == hit else [0.3, 0.7]}
            for i, hit in enumerate((draw.random(ITEMS) < right).tolist())]  # fmt: skip
    steps = [{"step": i + 1, "loss": loss + 0.01 * draw.normal(), "layers": [0, 1] + [2 + i % 3] * (planned["method"] == "ir"),
              "scores": None} for i in range(STEPS)]  # fmt: skip
    scores = dict.fromkeys(("macro_f1", "macro_precision", "macro_recall", "auprc", "accuracy"), right)
    return {"schema": 1, "scores": {"validation": scores, "test_scored": int(split == "test")}, "predictions": {split: rows},
            "run": {"config": config, "labels": ["a", "b"], "depth": DEPTH, "candidate_layers": list(range(DEPTH))},
            "train": {"steps": steps, "validation": [{"step": s, "macro_f1": right * min(1, s / 8)} for s in range(1, STEPS + 1)]},
            "meta": {"step_seconds": [0.1] * STEPS, "code": "c", "plan": "p", "commit": "g", "device": "a GPU",
                     "peak_memory_bytes": peak * 2**20, "peak_memory_kind": "GPU allocated by this run"}}  # fmt: skip


@pytest.fixture
def store(monkeypatch, tmp_path):
    """A function that makes up a store with the levels of methods, and returns the lines of its stages."""
    for name in ("SETTINGS", "SEEDS"):
        monkeypatch.setattr(second, name, tmp_path / f"{name.lower()}.json")

    def make(levels=ALIKE, stages=("headline",), floor=0.5, passes=True, apart=True, losses=None, peaks=None, most=None):
        primary = second.BOTH if passes else []
        second.SETTINGS.write_text(json.dumps({"primary": primary, "rates": dict.fromkeys(second.BOTH, RATES), "seeds": 2}))
        second.SEEDS.write_text(json.dumps({"seeds": 2}))
        runs, made = tmp_path / "runs", {}
        for path in runs.glob("*"):
            path.unlink()
        for stage in ("gate", *stages):
            for corpus in second.USUAL.get(stage, second.BOTH):
                for planned in second.planned(stage, corpus, second.settings())[:most if stage == "headline" else None]:
                    planned |= {"score_test": stage in second.TESTED}
                    name = planned["method"]
                    given = record(planned, levels.get(name, 0.8), name if apart else "", (losses or {}).get(name, 1.0),
                                   (peaks or {}).get(name, 100))  # fmt: skip
                    if stage == "transfer":
                        given["meta"]["transfer"] = {"corpus": "tetra", "counts": {"clear": {"a": 3, "b": 1}, "sound": {"b": 4}}}
                    made.setdefault((stage, corpus), []).append(given)
                    second.append(runs / f"{stage}-{corpus}.jsonl.gz", {"key": second.key(planned), "record": given})
        second.write_text(runs / "floors.json", json.dumps(floors(floor)))
        second.collect(runs, tmp_path / "store")
        return made
    return make


def floors(right):
    """Floors that are right with the probability `right`, and annotators on ITERATER."""
    found = []
    for corpus in (*second.BOTH, "argrewrite"):
        for fold, split in ((0, "validation"), *((f, "test") for f in range(5))):
            planned = {"corpus": corpus, "fold": fold, "seed": 0, "method": "full", "score_test": split == "test"}
            (rows,) = record(planned, right, "floor", 0, 0)["predictions"].values()
            bound = {"corpus": corpus, "fold": fold, "split": split, "macro_f1": right}
            found += [bound | {"name": name, "predictions": [{k: r[k] for k in list(r)[:4]} for r in rows]}
                      for name in ("operation", "edit-aware")]  # fmt: skip
            if corpus == "iterater":
                found.append(bound | {"name": report.ANOTHER, "macro_f1": 0.6, "macro_f1_low": 0.5, "macro_f1_high": 0.7})
    return found


def verdicts(folder):
    table = claims.card(claims.Study.read(folder / "store"))
    return dict(zip(table.claim.str.partition(":")[0], table.verdict, strict=True)), table.set_index(table.claim.str[:2])


def test_a_planted_effect_is_for_the_claims_and_its_numbers_are_right(store, tmp_path):
    made = store(ALIKE | {"ir": 0.92})
    words, table = verdicts(tmp_path)
    assert (words["H1"], words["H2"], words["H3"]) == ("for", "for", "for") and words["H6"] == "not run"
    runs = {name: [[r for r in made["headline", c] if r["run"]["config"]["method"] == name and r["run"]["config"]["fold"] < 4]
                   for c in second.BOTH] for name in ("ir", "random-static")}  # fmt: skip
    scores = {}
    for name, of in runs.items():  # equally many seeds in each fold, so counts may simply be added
        rows = [[row for run in corpus for row in run["predictions"]["test"]] for corpus in of]
        scores[name] = np.mean([f1_score([r["intention"] for r in p], [r["predicted"] for r in p], average="macro") for p in rows])
    difference, low, high = map(float, re.search(r"primary corpora (\S+) \[(\S+), (\S+)\]", table.loc["H2", "effect [95 %]"]).groups())
    assert difference == pytest.approx(scores["ir"] - scores["random-static"], abs=0.0006)
    items = 2 * 2 * 4 * ITEMS  # two corpora, two seeds, four folds
    error = np.sqrt((0.92 * 0.08 + 0.8 * 0.2) / items)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.3) and low + high == pytest.approx(2 * difference, abs=0.002)
    assert float(table.loc["H2", "could have been seen"]) == pytest.approx(2.8 * (high - low) / 2 / 1.96, abs=0.001)


def test_a_planted_harm_is_against_them(store, tmp_path):
    store(ALIKE | {"ir": 0.68})
    words, _ = verdicts(tmp_path)
    assert (words["H1"], words["H2"], words["H3"]) == ("against", "against", "against")


def test_better_than_all_baselines_but_one_is_inconclusive(store, tmp_path):
    store(ALIKE | {"ir": 0.92, "last-k": 0.92})
    words, _ = verdicts(tmp_path)
    assert (words["H1"], words["H2"], words["H3"]) == ("inconclusive", "for", "for")


def test_no_effect_is_equivalent_only_if_the_interval_is_short(store, tmp_path):
    store()
    words, _ = verdicts(tmp_path)
    assert (words["H1"], words["H2"], words["H3"]) == ("inconclusive",) * 3  # errors of 0.013
    store(apart=False)  # all methods answer alike
    words, _ = verdicts(tmp_path)
    assert (words["H1"], words["H2"], words["H3"]) == ("inconclusive", "equivalent", "not worse")


def test_below_the_gate_there_is_no_verdict_whatever_the_effect(store, tmp_path):
    store(ALIKE | {"ir": 0.92}, floor=0.9, passes=False, stages=("headline", "time"))
    words, table = verdicts(tmp_path)
    assert {words[name] for name in claims.CLAIMS if claims.CLAIMS[name][3]} == {"no verdict because below the gate"}
    assert "ITERATER +0." in table.loc["H2", "effect [95 %]"] and "primary" not in table.loc["H2", "effect [95 %]"]
    assert words["H6"] in ("for", "against", "inconclusive")  # memory has nothing to do with the gate
    second.SETTINGS.write_text(json.dumps(second.settings() | {"primary": ["iterater"]}))
    with pytest.raises(InputError, match=r"primary corpora \['iterater'\], the gate \[\]"):
        claims.Study.read(tmp_path / "store")


def test_a_headline_that_is_not_whole_decides_nothing(store, tmp_path):
    store(ALIKE | {"ir": 0.92}, most=69)
    words, table = verdicts(tmp_path)
    assert words["H1"] == "no verdict because 2 runs of headline are missing" and not table.loc["H2", "effect [95 %]"]


def test_a_failed_run_and_those_that_would_copy_its_budget_are_not_missing(store, tmp_path):
    store()
    study = claims.Study.read(tmp_path / "store")
    keys = [r["meta"]["key"] for r in study.runs["headline"]]
    lost = next(key for key in keys if '"iterater"' in key and '"ir"' in key)
    copies = {second.key(json.loads(lost) | {"method": name}) for name in second.CLASS}
    study.runs["headline"][:] = [r for r in study.runs["headline"] if r["meta"]["key"] not in copies]
    assert study.lacking("headline") == "no verdict because 4 runs of headline are missing"
    study.failed.append(["headline", {"key": lost, "failed": "not finite"}])
    assert study.lacking("headline") == ""


def test_losses_steps_memory_and_choice_by_their_rules(store, tmp_path):
    stages = ("headline", "common", "time")
    low, small = {"ir": 0.5}, {"ir": 90, "full-ft": 200}
    store(ALIKE | {"full": 0.79, "ir": 0.95}, stages, losses=low, peaks=small)
    words, table = verdicts(tmp_path)
    assert [words[name] for name in ("H4", "H5", "H6", "H6, PEFT", "H7")] == ["for"] * 5
    assert "− IST: ITERATER -0.5" in table.loc["H4", "effect [95 %]"] and "-10.0%" in str(table.loc["H6", "effect [95 %]"])
    store(ALIKE | {"ir": 0.5}, stages, losses={"ir": 2.0}, peaks={"ir": 110, "full-ft": 110})
    words, _ = verdicts(tmp_path)
    assert [words[name] for name in ("H4", "H5", "H6", "H6, PEFT")] == ["against"] * 4


def test_the_report_shows_what_was_run_and_leaves_out_the_rest(store, tmp_path):
    store(stages=())
    text = report.report(tmp_path / "store", tmp_path)
    assert "Not run: rates, headline, time" in text and "Does choosing layers help?\n" not in text and "nan" not in text
    assert not list(tmp_path.glob("*.png"))
    store(stages=second.TESTED + ("rates", "time", "transfer"))
    text = report.report(tmp_path / "store", tmp_path)
    assert all(f"## {title}" in text for title, *_ in report.SECTIONS) and "nan" not in text and "Not run:" not in text
    pictures = re.findall(r"\((\w+\.png)\)", text)
    assert len(pictures) == 5 and all((tmp_path / name).stat().st_size > 5_000 for name in pictures)
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 5 and page.count("<table>") == text.count("| --- |\n") and "|" not in re.sub(r"<.*?>", "", page)
