"""Tests of profiles and experiments: what is run, what is read, and what figures and tables are saved with."""

import json
import shutil
from dataclasses import replace

import pytest

from irtuning.analysis.figures.runs import score_comparison
from irtuning.analysis.tables import summary_table
from irtuning.companion.experiments import Companion, Experiment, read_manifest, result_hash, run_label
from irtuning.companion.profiles import EXPERIMENTS, PROFILES, comparisons, profile_parameters
from irtuning.errors import InputError

TINY = {"models": ["tiny-random"], "methods": ["full", "ir", "rst"], "experiments": ["methods", "own-budget@synthetic"],
        "seeds": 1, "max_steps": 2, "settings": {"batch_size": 4, "device": "cpu"}}  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A companion whose experiments have been run."""
    companion = Companion.open("quick", output=tmp_path_factory.mktemp("tiny"), changes=TINY)
    for name in companion.corpus_of:
        companion.run(name)
    return companion


def written(companion):
    return {path: path.stat().st_mtime_ns for path in companion.folders.runs.rglob("record.json")}


def test_a_profile_is_opened_by_its_name_and_says_what_was_changed(tmp_path):
    assert all(set(profile) == set(PROFILES["quick"]) for profile in PROFILES.values())
    parameters = profile_parameters("study", tmp_path, None, {"seeds": 1})
    assert parameters["profile"] == "study-changed" and parameters["seeds"] == 1
    assert parameters["data"] == str(tmp_path) and parameters["output"] is None
    for name in EXPERIMENTS:
        assert all("methods" in options for options in comparisons(name, PROFILES["study"]["methods"]))


@pytest.mark.parametrize(("name", "changes", "message"), [
    ("quik", {}, "did you mean 'quick'"), ("quick", {"seed": 1}, "did you mean 'seeds'"),
    ("quick", {"seeds": "x"}, 'seeds="x" does not have the type of 2'),
    ("quick", {"experiments": ["ablation"]}, "did you mean 'ablations'"),
    ("quick", {"settings": {"label_set": "coarse"}}, "labels"),  # the synthetic corpus has one set of labels
])  # fmt: skip
def test_what_is_wrong_with_a_profile_is_named(name, changes, message):
    with pytest.raises(InputError, match=message):
        companion = Companion.open(name, changes=changes)
        assert companion.planned() and companion.load_corpora()


def test_an_experiment_runs_what_is_planned_and_missing_and_reads_the_rest(tiny):
    before, first = written(tiny), tiny.experiment("methods")
    # rst with both budgets, lisa with its own alone; a run that two experiments share is planned once and made once
    assert len(tiny.planned()) == len(before) == 5
    assert written(tiny) == before and all(r["meta"]["device"].startswith("CPU") for r in first.records)
    configs = {path.parent: json.loads(path.read_text())["run"]["config"] for path in before}
    shutil.rmtree(next(folder for folder, config in configs.items() if config["method"] == "rst" and config["share"]))
    left = written(tiny)
    again = Companion.open("quick", output=tiny.output, changes=TINY).experiment("methods")
    after = written(tiny)
    assert len(left) == 4 and after.keys() == before.keys() and all(after[path] == left[path] for path in left)
    assert list(map(result_hash, again.records)) == list(map(result_hash, first.records))
    (part,) = first.by_corpus()
    assert part.corpus == "synthetic" and part.floors == first.floors


def test_other_training_code_reads_no_old_runs(tiny, monkeypatch):
    folders = []
    monkeypatch.setattr("irtuning.comparison.runs.run_comparison", lambda **options: folders.append(options["output"]) or ([], []))
    tiny.run("methods")
    monkeypatch.setattr("irtuning.companion.experiments.training_fingerprint", lambda: "another")
    tiny.run("methods")
    assert folders[0] != folders[1] and folders[0].is_dir() and not folders[1].exists()


def test_figures_and_tables_are_saved_with_their_stamp_and_the_hashes_of_their_records(tiny):
    methods = tiny.experiment("methods")
    methods.table(summary_table, "02_methods", methods.floors)
    image = methods.figure(score_comparison, "02_macro_f1", methods.floors)
    assert image.data.startswith(b"\x89PNG") and (tiny.folders.figures / "02_macro_f1.svg").exists()
    assert (tiny.folders.reports / "02_methods.md").exists()
    for folder, name in ((tiny.folders.figures, "02_macro_f1.png"), (tiny.folders.reports, "02_methods.csv")):
        entry = read_manifest(folder)[name]
        assert (folder / name).exists() and entry["origin"] == {run_label(r): result_hash(r) for r in methods.records}
        assert entry["stamp"].startswith("quick-changed · SYNTHETIC corpus · tiny-random (random weights, ")


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
    assert shown.profile == "study" and {part.corpus for part in shown.by_corpus()} == {"argrewrite", "arxivedits"}
    two = Experiment(replace(tiny, models=["tiny-random", "org/large"]), "study", shown.records, [])
    assert [part.corpus for part in (two, *two.by_corpus())] == ["argrewrite-mini", "argrewrite-mini", "arxivedits-mini"]
    assert Companion.open("study").experiment("variant").records == shown.records


def test_a_corpus_with_published_splits_has_more_seeds_in_place_of_folds():
    runs = [config for _, config in Companion.open("study", changes={"experiments": ["methods"]}).planned()]
    assert len(runs) == len(set(runs))
    for corpus, folds in (("argrewrite", 5), ("arxivedits", 1)):
        configs = [config for config in runs if config.corpus == corpus and config.method == "rst"]
        assert (len({c.fold for c in configs}), len({c.seed for c in configs}), len(configs)) == (folds, 10, 10)
