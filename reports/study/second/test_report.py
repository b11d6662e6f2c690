"""The report of the second edition on made-up records: what is planted comes out as its verdict."""

import json
import re
import shutil
import sys
import zlib
from itertools import product

import nbformat
import numpy as np
import pytest
from IPython.display import Image
from sklearn.metrics import f1_score

from irtuning import InputError
from irtuning.companion.paths import REPOSITORY, notebook_path

sys.path.append(str(REPOSITORY / "reports" / "study" / "second"))
import claims  # noqa: E402
import report  # noqa: E402
import second  # noqa: E402
from second import BOTH  # noqa: E402

ALIKE = dict.fromkeys(("ir", "full", "random-static", "random-counts", "last-k", "ist", "full-ft"), 0.8)
RATES = {"many": 1e-3, "full": 1e-3, "ist": 2e-3, "full-ft": 1e-4, "rst": 1e-3, "lisa-adapters": 1e-3}
SECTIONS = [report.top, report.floor, report.choosing, report.dynamic, report.cost, report.scarce, report.fails,
            report.elsewhere, report.transfer, report.limits, report.rates, report.made]  # fmt: skip
ITEMS, GROUPS, STEPS, DEPTH = 120, 20, 16, 6


def record(planned, right, noise, loss, peak):
    """A run of `planned` that answers rightly with the probability `right`, with noise of its own or one for all."""
    config = {"adapter": "lora", "head": "learns", "train_share": 1.0, "share": None, "max_steps": STEPS} | planned
    text = f"{planned['corpus']} {planned['fold']} {planned['seed']} {noise}"
    draw = np.random.default_rng(zlib.crc32(text.encode()))
    split = "test" if planned["score_test"] else "validation"
    rows = [{"id": f"{planned['corpus']}:{planned['fold']}-{i}", "group": f"{planned['fold']}-{i % GROUPS}",
             "intention": "ab"[i % 2], "predicted": "ab"[i % 2 if hit else 1 - i % 2],
             "probabilities": [0.7, 0.3] if (i % 2 == 0) == hit else [0.3, 0.7]}
            for i, hit in enumerate((draw.random(ITEMS) < right).tolist())]  # fmt: skip
    chosen = [[0, 1] + [2 + i % 3] * (planned["method"] == "ir") for i in range(STEPS)]
    steps = [{"step": i + 1, "loss": loss + 0.01 * draw.normal(), "layers": of, "scores": None}
             for i, of in enumerate(chosen)]  # fmt: skip
    curve = [{"step": i + 1, "macro_f1": right * min(1, (i + 1) / 8)} for i in range(STEPS)]
    names = ("macro_f1", "macro_precision", "macro_recall", "auprc", "accuracy")
    return {
        "schema": 1, "scores": {"validation": dict.fromkeys(names, right), "test_scored": int(split == "test")},
        "run": {"config": config, "labels": ["a", "b"], "depth": DEPTH, "candidate_layers": list(range(DEPTH)),
                "synthetic_corpus": False, "random_weights": False, "parameters": 9, "layer_parameters": [1] * DEPTH},
        "train": {"steps": steps, "validation": curve}, "predictions": {split: rows},
        "meta": {"step_seconds": [0.1] * STEPS, "code": "c", "plan": "p", "commit": "g", "device": "a GPU",
                 "peak_memory_bytes": peak * 2**20, "peak_memory_kind": "GPU allocated by this run"},
    }  # fmt: skip


@pytest.fixture
def store(monkeypatch, tmp_path):
    """A function that makes up a store with these levels of the methods, and returns its records."""
    for name in ("SETTINGS", "SEEDS"):
        monkeypatch.setattr(second, name, tmp_path / f"{name.lower()}.json")

    def make(levels=ALIKE, stages=("headline",), floor=0.5, primary=BOTH, apart=True, losses=None, peaks=None,
             most=None):  # fmt: skip
        chosen = {"primary": primary, "rates": dict.fromkeys(BOTH, RATES)}
        second.SETTINGS.write_text(json.dumps(chosen))
        runs, made = tmp_path / "runs", {}
        for path in runs.glob("*"):
            path.unlink()
        for stage in ("gate", *stages):
            for corpus in second.USUAL.get(stage, BOTH):
                wanted = second.planned(stage, corpus, second.settings())
                for planned in wanted[: most if stage == "headline" else None]:
                    planned |= {"score_test": stage in second.TESTED}
                    name = planned["method"]
                    loss, peak = (losses or {}).get(name, 1.0), (peaks or {}).get(name, 100)
                    right = levels.get((name, corpus), levels.get(name, 0.8))
                    given = record(planned, right, name if apart else "", loss, peak)
                    if stage == "transfer":
                        given["meta"]["transfer"] = {"counts": {"clear": {"a": 3, "b": 1}, "sound": {"b": 4}}}
                    made.setdefault((stage, corpus), []).append(given)
                    second.append(runs / f"{stage}-{corpus}.jsonl.gz", {"key": second.key(planned), "record": given})
        second.write_text(runs / "floors.json", json.dumps(floors(floor)))
        shutil.rmtree(tmp_path / "store", ignore_errors=True)  # one that has other runs is not written over
        second.collect(runs, tmp_path / "store")
        return made
    return make


def floors(right):
    """Floors of every fold that are right with the probability `right`, and annotators on ITERATER."""
    found = []
    for corpus in (*BOTH, "argrewrite"):
        for fold, split in ((0, "validation"), *((f, "test") for f in range(5))):
            planned = {"corpus": corpus, "fold": fold, "seed": 0, "method": "full", "score_test": split == "test"}
            (rows,) = record(planned, right, "floor", 0, 0)["predictions"].values()
            bound = {"corpus": corpus, "fold": fold, "split": split, "macro_f1": right}
            rows = [{name: row[name] for name in ("id", "group", "intention", "predicted")} for row in rows]
            found += [bound | {"name": name, "predictions": rows} for name in ("operation", "edit-aware")]
            if corpus == "iterater":
                people = {"name": report.ANOTHER, "macro_f1": 0.6, "macro_f1_low": 0.5, "macro_f1_high": 0.7}
                found.append(bound | people)
    return found


def verdicts(folder):
    """The verdict and the effect of each claim."""
    table = claims.card(claims.Study.read(folder / "store"))
    table = table.set_index(table.claim.str.partition(":")[0])
    return table.verdict, table["effect [95 %]"], table["could have been seen"]


@pytest.fixture
def pages(monkeypatch, tmp_path):
    """A function that runs notebook 5 on the made-up store, and returns its texts and the names of its figures."""
    def shown():
        parts, book = [], nbformat.read(notebook_path("05_the_study"), 4)
        cells = [cell for cell in book.cells if cell.cell_type == "code" and "try" not in cell.metadata.get("tags", ())]
        assert "parameters" in cells[0].metadata["tags"]
        names = {"profile": "quick", "folders": {"output": str(tmp_path / "output")}, "changes": {}}
        monkeypatch.setattr(second, "HERE", tmp_path / "store")
        monkeypatch.setattr(report, "display", parts.append)
        for cell in cells[1:]:
            exec(compile(cell.source, "cell", "exec"), names)
        text = "\n\n".join(part.data for part in parts if not isinstance(part, Image))
        assert "nan" not in text
        return text, [part.metadata["figure"] for part in parts if isinstance(part, Image)]
    return shown


def test_a_planted_effect_is_for_the_claims_and_its_numbers_are_right(store, tmp_path):
    made = store(ALIKE | {"ir": 0.92})
    words, effects, seen = verdicts(tmp_path)
    assert list(words[["H1", "H2", "H3"]]) == ["for"] * 3 and words.H6 == "not run"
    scores = {"ir": [], "random-static": []}
    for corpus, (name, of) in product(BOTH, scores.items()):  # equally many seeds in each fold: counts may be added
        runs = (r for r in made["headline", corpus] if r["run"]["config"]["method"] == name)
        rows = [row for r in runs if r["run"]["config"]["fold"] < 4 for row in r["predictions"]["test"]]
        of.append(f1_score(*([row[key] for row in rows] for key in ("intention", "predicted")), average="macro"))
    assert re.search(r"macro F1 is above that of random layers, one draw \(.*?; of 20 differences, 0 could",
                     report.without_zero(claims.Study.read(tmp_path / "store")))  # fmt: skip
    difference, low, high = map(float, re.search(r"primary corpora (\S+) \[(\S+), (\S+)\]", effects.H2).groups())
    assert difference == pytest.approx(np.mean(scores["ir"]) - np.mean(scores["random-static"]), abs=0.0006)
    error = np.sqrt((0.92 * 0.08 + 0.8 * 0.2) / (2 * 2 * 4 * ITEMS))  # corpora, seeds, folds
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.3)
    assert low + high == pytest.approx(2 * difference, abs=0.002)
    assert float(seen.H2) == pytest.approx(2.8 * (high - low) / 2 / 1.96, abs=0.001)


def test_a_planted_harm_is_against_them(store, tmp_path):
    store(ALIKE | {"ir": 0.68}, stages=("headline", "small"))
    words, *_ = verdicts(tmp_path)
    assert list(words[["H1", "H2", "H3", "H8"]]) == ["against"] * 4


def test_a_claim_about_all_needs_every_baseline_and_every_corpus(store, tmp_path):
    store(ALIKE | {"ir": 0.92, "last-k": 0.918}, stages=("headline", "small"), apart=False)
    words, effects, _ = verdicts(tmp_path)  # a little above the last layers everywhere, but not for certain
    assert "last layers: primary corpora +0.001 [-0.00" in effects.H1
    assert list(words[["H1", "H2", "H3", "H8"]]) == ["inconclusive", "for", "for", "for"]
    store(ALIKE | {("ir", "iterater"): 0.99, ("ir", "arxivedits"): 0.79}, apart=False)
    words, effects, _ = verdicts(tmp_path)  # far above on one corpus, so that the mean is, but below on the other
    assert list(words[["H1", "H2", "H3"]]) == ["inconclusive", "for", "for"]
    each = claims.Study.read(tmp_path / "store").comparisons.query("against == 'full' and corpus != 'argrewrite'")
    assert f"primary corpora {each.difference.mean():+.3f} [" in effects.H3 and each.difference.min() < 0


def test_no_effect_is_equivalent_only_if_the_interval_is_short(store, tmp_path):
    store()
    words, *_ = verdicts(tmp_path)
    assert list(words[["H1", "H2", "H3"]]) == ["inconclusive"] * 3  # errors of 0.013
    store(apart=False)  # all methods answer alike
    words, *_ = verdicts(tmp_path)
    assert list(words[["H1", "H2", "H3"]]) == ["inconclusive", "equivalent", "not worse"]


def test_below_the_gate_there_is_no_verdict_whatever_the_effect(store, tmp_path):
    store(ALIKE | {"ir": 0.92}, floor=0.9, primary=(), stages=("headline", "time"))
    words, effects, _ = verdicts(tmp_path)
    gated = {words[name] for name in claims.CLAIMS if claims.CLAIMS[name][3]} - {words.H8}
    assert gated == {"no verdict because below the gate"} and words.H8 == f"{claims.BELOW}, and not run"
    assert "ITERATER +0." in effects.H2 and "primary" not in effects.H2
    assert words.H6 == "inconclusive"  # all peaks are equal, and memory has nothing to do with the gate
    second.SETTINGS.write_text(json.dumps(second.settings() | {"primary": ["iterater"]}))
    with pytest.raises(InputError, match=r"primary corpora \['iterater'\], the gate \[\]"):
        claims.Study.read(tmp_path / "store")


def test_a_headline_that_is_not_whole_decides_nothing(store, pages, tmp_path):
    store(ALIKE | {"ir": 0.92}, most=69)
    words, effects, _ = verdicts(tmp_path)
    assert words.H1 == "no verdict because 2 runs of headline are missing" and not effects.H2
    text, _ = pages()
    assert "left out: headline on ITERATER (1 of 70 runs missing), headline on arXivEdits" in text and "AUPRC" not in text


def test_a_failed_run_and_those_that_would_copy_its_budget_are_not_missing(store, tmp_path):
    store()
    study = claims.Study.read(tmp_path / "store")
    lost = next(r["meta"]["key"] for r in study.made["headline"] if r["run"]["config"]["method"] == "ir")
    copies = {second.key(json.loads(lost) | {"method": name}) for name in second.CLASS}
    left = [r for r in study.made["headline"] if r["meta"]["key"] not in copies]
    without = claims.Study({"headline": left}, [], [], study.chosen)
    assert without.lacking("headline") == "no verdict because 4 runs of headline are missing"
    assert {r["run"]["config"]["corpus"] for r in without.headline} == {"arxivedits", "argrewrite"}
    without = claims.Study({"headline": left}, [], [["headline", {"key": lost}]], study.chosen)
    assert without.lacking("headline") == "" and set(without.comparisons.query("corpus == 'iterater'").runs) == {7}


def test_losses_steps_memory_and_choice_by_their_rules(store, tmp_path):
    stages = ("headline", "common", "time")
    low, small = {"ir": 0.5}, {"ir": 90, "full-ft": 200}
    store(ALIKE | {"full": 0.79, "ir": 0.95}, stages, losses=low, peaks=small)
    words, effects, _ = verdicts(tmp_path)
    assert list(words["H4":"H7"]) == ["for"] * 5
    assert "− IST: ITERATER -0.5" in effects.H4 and "seed 171 -10.0%" in effects.H6
    store(ALIKE | {"ir": 0.5}, stages, losses={"ir": 2.0}, peaks={"ir": 110, "full-ft": 110})
    words, *_ = verdicts(tmp_path)
    assert list(words["H4":"H6, PEFT"]) == ["against"] * 4


def test_the_report_shows_what_was_run_and_names_the_rest(store, pages, tmp_path):
    store(stages=())
    text, pictures = pages()
    assert "Not run: learning rates (rates), the main comparison (headline), time and memory (time)" in text and pictures == ["05_floor"]
    assert text.count("because this is missing: headline (not run).") == 4 and "this is missing: rates (not run)" in text
    assert "because this is missing on ITERATER: headline (not run), time (not run)" in text and "no test score" in text
    store(stages=second.TESTED + ("rates", "time", "transfer"))
    text, pictures = pages()
    assert "issing" not in text and "ot run" not in text
    assert text.count("IR-Tuning's test macro F1 is neither above nor below that of another method; of 20") == 2
    assert pictures == [f"05_{name}" for name in ("claims", "floor", "detectable", "raster", "costs", "rates")]
    files = [tmp_path / "output" / "figures" / "quick" / f"{name}.png" for name in pictures]
    assert min(path.stat().st_size for path in files) > 5_000


def test_whatever_is_missing_the_sections_can_be_written(store, tmp_path):
    store(stages=second.TESTED + ("rates", "time", "transfer"))
    full = claims.Study.read(tmp_path / "store")
    for gone in (
        {("headline", "iterater"), ("headline", "arxivedits"), ("tetra", "tetra")},
        {("headline", "arxivedits"), ("small", "iterater"), ("secondary", "iterater"), ("rates", "arxivedits")},
        {("common", "iterater"), ("time", "iterater"), ("headline", "argrewrite"), ("secondary", "arxivedits")},
    ):
        made = {name: [r for r in of if (name, r["run"]["config"]["corpus"]) not in gone] for name, of in full.made.items()}
        study = claims.Study({name: of for name, of in made.items() if of}, full.floors, [], full.chosen)
        for section in SECTIONS:
            texts = [part for part in section(study) if isinstance(part, str)]
            assert texts and "nan" not in "".join(texts), section.__name__
        assert len(report.in_short(study)) == 3


def test_the_committed_report_is_that_of_the_committed_store():
    """`python reports/study/second/report.py` writes it."""
    text = (REPOSITORY / "reports" / "study" / "summary.md").read_text(encoding="utf-8")
    study = report.read()
    for section in (report.top, report.floor, report.choosing, report.dynamic, report.limits):
        assert all(part in text for part in section(study) if isinstance(part, str)), section.__name__


def test_the_readme_says_what_the_study_found():
    readme, study = (REPOSITORY / "README.md").read_text(encoding="utf-8"), report.read()
    assert ("No corpus passed its gate" in readme) == (not study.primary)
    table, late = study.comparisons.set_index(["against", "corpus"]), 100 * claims.choice(study).one_set
    above, drawn = table[table.low > 0].difference, table.loc[["random-static", "random-counts"]].xs("iterater", level="corpus")
    assert {*above.index} == {("last-k", "iterater"), *(("ist", corpus) for corpus in second.USUAL["headline"])}
    assert not (table.high < 0).any() and -0.01 < drawn.low.min() < drawn.high.max() < 0.01
    few = claims.small_differences(study).set_index("against").loc["full, 25% of train"]
    random = claims.small_differences(study).set_index("against").loc["random-static, 25% of train"]
    assert {*few.corpus} == {*second.BOTH} and (few.low > 0).all() and (random.low < 0).all()
    less = 100 * (1 - claims.peaks(study).mean() / claims.peaks(study).full.mean())
    for said in (
        f"(by {few.difference.min():.3f} and {few.difference.max():.3f})", f"IR-Tuning needs {less.ir:.0f} % less than Full PEFT",
        f"random layers {less['random-counts']:.0f} to {less['random-static']:.0f} %, last layers {less['last-k']:.0f} %",
        f"on three corpora (by {above.ist.min():.3f} to {above.ist.max():.3f})", f"(by {above['last-k', 'iterater']:.3f})",
        f"{len(table) - len(above)} of {len(table)} differences", f"{late.iterater:.0f} % of the late steps on ITERATER",
        f"{late.argrewrite:.0f} % on ArgRewrite", f"On arXivEdits it is {late.arxivedits:.0f} %",
    ):  # fmt: skip
        assert said in readme
