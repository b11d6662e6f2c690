"""Tests of profiles, experiments and their archive, and what figures and tables are saved with."""

import json
import shutil
from dataclasses import replace
from multiprocessing.pool import ThreadPool

import pandas
import pytest

from irtuning.analysis.figures.runs import score_comparison
from irtuning.analysis.tables import summary_table
from irtuning.companion.archive import read_archive, write_archive
from irtuning.companion.experiments import Companion, read_manifest, result_hash, run_label
from irtuning.companion.profiles import EXPERIMENTS, PROFILES, comparisons, profile_parameters
from irtuning.errors import InputError
from irtuning.training.run import train

TINY = {"models": ["tiny-random"], "methods": ["full", "ir", "rst"], "experiments": ["methods", "own-budget@synthetic"],
        "seeds": 1, "max_steps": 2, "settings": {"batch_size": 4, "device": "cpu"}}  # fmt: skip
OPTIONS = {"model": "tiny-random", "device": "cpu", "progress": False}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A companion whose experiments have been run."""
    companion = Companion.open("quick", output=tmp_path_factory.mktemp("tiny"), changes=TINY, workers=1)
    for name in companion.corpus_of:
        companion.run(name)
    return companion


def written(companion):
    return {path: path.stat().st_mtime_ns for path in companion.folders.runs.rglob("record.json")}


def test_a_profile_is_opened_by_its_name_and_says_what_was_changed_and_what_is_wrong(tmp_path):
    assert all(set(profile) == set(PROFILES["quick"]) for profile in PROFILES.values())
    parameters = profile_parameters("study", tmp_path, None, {"seeds": 1})
    assert parameters["profile"] == "study-changed" and parameters["seeds"] == 1
    assert parameters["data"] == str(tmp_path) and parameters["output"] is None
    for name in EXPERIMENTS:
        assert all("methods" in options for options in comparisons(name, PROFILES["study"]["methods"]))
    for name, changes, message in (
        ("quik", {}, "did you mean 'quick'"), ("quick", {"seed": 1}, "did you mean 'seeds'"),
        ("quick", {"seeds": "x"}, 'seeds="x" must have the same type as 2'),
        ("quick", {"settings": {"label_set": "coarse"}}, "unknown label set"),  # the synthetic corpus has one
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            assert (companion := Companion.open(name, changes=changes)).planned() and companion.load_corpora()


def test_an_experiment_runs_what_is_planned_and_missing_and_reads_the_rest(tiny):
    before, first = written(tiny), tiny.experiment("methods")
    # rst with both budgets, lisa with its own alone; a run that two experiments share is planned once and made once
    assert len(tiny.planned()) == len(before) == 5
    assert written(tiny) == before and all(r["meta"]["device"].startswith("CPU") for r in first.records)
    configs = {path.parent: json.loads(path.read_text())["run"]["config"] for path in before}
    shutil.rmtree(next(folder for folder, config in configs.items() if config["method"] == "rst" and config["share"]))
    left = written(tiny)
    again = Companion.open("quick", output=tiny.output, changes=TINY, workers=1).experiment("methods")
    after = written(tiny)
    assert len(left) == 4 and after.keys() == before.keys() and all(after[path] == left[path] for path in left)
    assert list(map(result_hash, again.records)) == list(map(result_hash, first.records))


def test_other_training_code_reads_no_old_runs(tiny, monkeypatch):
    folders = []
    noted = lambda **options: folders.append(options["output"]) or ([], [])  # noqa: E731
    monkeypatch.setattr("irtuning.comparison.runs.run_comparison", noted)
    tiny.run("methods")
    monkeypatch.setattr("irtuning.companion.experiments.training_fingerprint", lambda: "another")
    tiny.run("methods")
    assert folders[0] != folders[1] and folders[0].is_dir() and not folders[1].exists()


def test_figures_and_tables_are_saved_with_their_stamp_and_the_hashes_of_their_records(tiny):
    methods = tiny.experiment("methods")
    methods.table(summary_table, "02_methods", methods.floors)
    image = methods.figure(score_comparison, "02_macro_f1", methods.floors, title="All alike")
    assert "<!-- All alike -->" in (tiny.folders.figures / "02_macro_f1.svg").read_text()
    assert image.data.startswith(b"\x89PNG") and (tiny.folders.figures / "02_macro_f1.svg").exists()
    assert (tiny.folders.reports / "02_methods.md").exists()
    for folder, name in ((tiny.folders.figures, "02_macro_f1.png"), (tiny.folders.reports, "02_methods.csv")):
        entry = read_manifest(folder)[name]
        assert (folder / name).exists() and entry["origin"] == {run_label(r): result_hash(r) for r in methods.records}
        assert entry["stamp"].startswith("quick-changed · SYNTHETIC corpus · tiny-random (random weights, ")


def test_tables_that_notebooks_save_at_the_same_time_are_all_in_the_manifest_and_a_record_is_hashed_once(tiny, tmp_path, monkeypatch):
    hashed, records = [], tiny.experiment("methods").records
    monkeypatch.setattr("irtuning.companion.experiments.result_hash", lambda record: hashed.append(record) or "hash")
    notebooks = [replace(tiny, output=str(tmp_path)) for _ in range(8)]
    table, names = pandas.DataFrame({"a": [1]}), [f"0{i}_{j}" for j in range(10) for i in range(8)]
    with ThreadPool(8) as pool:
        pool.map(lambda name: notebooks[int(name[1])].table(table, name, records), names, chunksize=1)
    manifest = read_manifest(notebooks[0].folders.reports)
    assert set(manifest) == {f"{name}.csv" for name in names} and len(hashed) == 8 * len(records)
    assert all(set(entry["origin"].values()) == {"hash"} for entry in manifest.values())


def test_an_archive_is_read_before_anything_is_run(tiny, tmp_path):
    """A profile other than quick leaves an archive, which its notebooks read."""
    study = replace(tiny, profile="study", output=str(tmp_path), experiments=["methods"])
    shutil.copytree(tiny.folders.runs, study.folders.runs)
    study.store()
    shutil.rmtree(study.folders.runs)
    found = study.experiment("methods", of="study")
    assert found.profile == "study" and len(found.records) == 3 and len(found.floors) == 2
    note = study.experiment("ablations").figure(score_comparison, "02_ablations", [])
    assert "`02_ablations`: not run yet" in note.data and "--profile study" in note.data


def test_every_profile_shows_the_recorded_study(tiny):
    shown = tiny.experiment("variant", of="study")
    assert shown.profile == "study" and {r["run"]["config"]["corpus"] for r in shown.records} == {"argrewrite", "arxivedits"}
    assert Companion.open("study").experiment("variant").records == shown.records
    # a corpus with published splits has more seeds in place of folds
    runs = [config for _, config in Companion.open("study", changes={"experiments": ["methods"]}).planned()]
    assert len(runs) == len(set(runs))
    for corpus, folds in (("argrewrite", 5), ("arxivedits", 1)):
        configs = [config for config in runs if config.corpus == corpus and config.method == "rst"]
        assert (len({c.fold for c in configs}), len({c.seed for c in configs}), len(configs)) == (folds, 10, 10)


def test_a_stored_study_comes_back_but_for_rounding(tmp_path):
    runs = [train(method=method, max_steps=3, batch_size=4, **OPTIONS).record for method in ("ir", "full")]
    floors = [{"name": "operation", "corpus": "synthetic", "fold": 0, "split": "validation", "macro_f1": 0.1}]
    guess = [row | {"predicted": "evidence"} for row in runs[0]["predictions"]["validation"]]
    guess = [{name: row[name] for name in ("id", "group", "intention", "predicted")} for row in guess]
    write_archive(tmp_path, {"methods": (runs, [floors[0] | {"predictions": guess}]), "sizes": (runs[:1], [])})
    found, found_floors = read_archive(tmp_path, "methods")
    assert found_floors == floors and len(read_archive(tmp_path, "sizes")[0]) == 1
    for one, other in zip(runs, found, strict=True):
        assert json.loads(json.dumps(one["run"])) == other["run"] and one["scores"] == other["scores"]
        assert [s["layers"] for s in one["train"]["steps"]] == [s["layers"] for s in other["train"]["steps"]]
        assert other["train"]["steps"][1]["loss"] == pytest.approx(one["train"]["steps"][1]["loss"], rel=1e-3)
        rows = [r | {"probabilities": pytest.approx(r["probabilities"], abs=5e-4)} for r in one["predictions"]["validation"]]
        assert rows == other["predictions"]["validation"]
    assert found[0]["train"]["steps"][0]["scores"] == [None] * 12 and found[1]["train"]["steps"][0]["scores"] is None
    assert summary_table(found).macro_f1.tolist() == summary_table(runs).macro_f1.tolist()
    assert read_archive(tmp_path, "adapters") == ([], []) == read_archive(tmp_path / "none", "methods")
    keys = {"corpus", "model", "method", "seed", "fold", "test_scored"}
    tables = [pandas.read_parquet(tmp_path / f"{name}.parquet") for name in ("runs", "steps", "predictions")]
    assert all(keys <= set(table) for table in tables) and tables[2].probabilities[len(guess)].dtype == "float16"
    stored = tables[2][tables[2].method == "operation floor"]
    assert stored.predicted.eq("evidence").all() and stored.run.isna().all() and stored.id.tolist() == [row["id"] for row in guess]
    (tmp_path / "steps.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="are damaged"):
        read_archive(tmp_path, "methods")
