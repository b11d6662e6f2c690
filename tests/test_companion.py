"""The companion: profiles, panels, cached runs, the reproduction command, the notebooks' own examples."""

import ast
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import nbformat
import papermill
import pytest
from nbclient import NotebookClient

from irtuning.companion import reproduce as job
from irtuning.companion.experiments import Companion, result_hash, run_label
from irtuning.errors import InputError
from irtuning.analysis.figures.runs import score_comparison
from irtuning.companion.benchmarks import measurement
from irtuning.companion.paths import NOTEBOOKS, REPOSITORY, Places, notebook_path
from irtuning.companion.profiles import PANELS, PROFILES, comparisons
from irtuning.training.record import read_record
from irtuning.analysis.tables import summary_table

REAL = ("argrewrite", "arxivedits")  # the study's, whose runs lie in reports/study

TINY = {"corpora": ["synthetic"], "models": ["tiny-random"], "methods": ["full", "ir"], "panels": ["methods"], "seeds": 1,
        "max_steps": 2, "settings": {"batch_size": 4, "device": "cpu"}}  # fmt: skip


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_parameters_are_the_quick_profiles_and_every_profile_knows_them(name):
    own = {n: ast.literal_eval(p["default"]) for n, p in papermill.inspect_notebook(str(notebook_path(name))).items()}
    assert own == {n: PROFILES["quick"][n] for n in own}
    assert all(set(profile) == set(PROFILES["quick"]) for profile in PROFILES.values())
    assert name == NOTEBOOKS[0] or set(own) == set(PROFILES["quick"])


def test_every_panel_is_known_and_a_wrong_one_is_named():
    for panel in PANELS:
        assert all("methods" in options for options in comparisons(panel, PROFILES["study"]["methods"]))
    with pytest.raises(InputError, match="did you mean 'ablations'"):
        comparisons("ablation", [])


def test_a_panel_runs_once_and_is_read_afterwards(tmp_path):
    companion = Companion("quick", output=tmp_path, **TINY)
    first = companion.panel("methods")
    changed = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}
    again = Companion("quick", output=tmp_path, **TINY).panel("methods")
    assert len(changed) == 2 and again.records == first.records
    assert changed == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}
    assert [r["meta"]["device"].startswith("CPU") for r in first.records] == [True, True]
    (part,) = first.by_corpus()
    assert part.corpus == "synthetic" and part.floors == first.floors


def test_another_trainer_reads_no_old_runs(tmp_path, monkeypatch):
    first = Companion("quick", output=tmp_path, **TINY).panel("methods")
    monkeypatch.setattr("irtuning.companion.experiments.training_fingerprint", lambda: "another")
    Companion("quick", output=tmp_path, **TINY).panel("methods")
    assert len(list(tmp_path.rglob("record.json"))) == 2 * len(first.records)


def test_any_profile_but_the_study_shows_the_recorded_study():
    """`small` and `paper` score no test split, so the study's notebook would fail on their own runs."""
    shown = Companion("small", **TINY | {"panels": ["variant"]}).panel("variant", of="study")
    assert shown.profile == "study" and shown.records[0]["run"]["config"]["corpus"] == "argrewrite"
    two = Companion("small", **TINY | {"models": ["tiny-random", "org/large"]})
    names = [replace(shown, companion=two).corpus, *(part.corpus for part in replace(shown, companion=two).by_corpus())]
    assert names == ["argrewrite-mini", "argrewrite-mini", "arxivedits-mini"]


def test_a_profile_asks_for_its_own_corpora_and_reads_them_by_its_own_labels(tmp_path):
    job._check(Companion("small", output=tmp_path, **TINY), data=tmp_path)  # which holds none of the corpora of notebook 1
    with pytest.raises(InputError, match="argrewrite"):
        job._check(Companion("quick-changed", output=tmp_path, **TINY), data=tmp_path)
    with pytest.raises(InputError, match="labels"):  # it has one set alone
        Companion("quick", output=tmp_path, **TINY | {"settings": {"label_set": "coarse"}}).corpora()


def test_a_panel_without_records_says_so_and_a_study_is_read_back(tmp_path):
    companion = Companion("study", output=tmp_path, **TINY)
    note = companion.panel("ablations").figure(score_comparison, "02_ablations", [])
    assert "`02_ablations`: not run yet" in note.data and "--profile study" in note.data
    companion.store()
    stored = Companion("study", output=tmp_path, **TINY | {"panels": []})
    panel = stored.panel("methods")
    assert len(panel.records) == 2 and len(panel.floors) == 2
    panel.table(summary_table, "02_methods", panel.floors)
    panel.figure(score_comparison, "02_macro_f1", panel.floors)
    origin = json.loads((tmp_path / "figures/study/02_macro_f1.origin.json").read_text())
    assert origin["origin"] == {run_label(r): result_hash(r) for r in panel.records}
    assert origin["stamp"].startswith("study · SYNTHETIC corpus · tiny-random (random weights, ")
    text = job.summary(Places("study", tmp_path))
    assert f"{summary_table(panel.records).macro_f1['ir']:.3f}".rstrip("0") in text and "gives no verdicts" in text


def test_seeds_make_up_for_folds_where_splits_are_fixed():
    companion = Companion(**PROFILES["study"] | {"panels": ["methods"]})
    runs = [config for _, config in companion.planned()]
    assert len(runs) == len(set(runs))
    for corpus, folds, seeds in (("argrewrite", 5, 10), ("arxivedits", 1, 10)):
        own = [config for config in runs if config.corpus == corpus and config.method == "rst"]
        assert (len({c.fold for c in own}), len({c.seed for c in own}), len(own)) == (folds, seeds, 10)


def test_what_is_planned_is_what_is_run(tmp_path):
    """Runs that panels share are counted once, and no more are made than were announced."""
    companion = Companion("quick", output=tmp_path, **TINY | {"methods": ["full", "ir", "rst"], "panels": ["methods", "own-budget@synthetic"]})
    for panel in companion.panels:
        companion.panel(panel)
    assert len(companion.planned()) == len(list(tmp_path.rglob("record.json"))) == 5  # rst twice, lisa once


def test_reproduce_goes_on_after_a_kill(tmp_path):
    settings = TINY | {"seeds": 2, "max_steps": 12}
    code = f"from irtuning.companion.experiments import Companion\nif __name__ == '__main__':\n    Companion('quick', output={str(tmp_path)!r}, **{settings}).panel('methods')"
    script = tmp_path / "run.py"
    script.write_text(code)
    process = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (before := list(tmp_path.rglob("record.json"))):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = {path: (path.stat().st_mtime_ns, read_record(path.parent)) for path in before}
    subprocess.run([sys.executable, str(script)], check=True, stderr=subprocess.DEVNULL)
    after = list(tmp_path.rglob("record.json"))
    assert len(after) == 4 and all(path.stat().st_mtime_ns == when for path, (when, _) in kept.items())


def test_a_missing_kernel_is_named_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("jupyter_client.kernelspec.KernelSpecManager.find_kernel_specs", lambda self: {})
    with pytest.raises(InputError, match="no Jupyter kernel named python3; run"):
        job.reproduce("quick", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_committed_summary_is_made_of_the_committed_tables():
    places = Places("quick")
    assert (places.reports / "summary.md").read_text() == job.summary(places)


def test_the_readme_says_what_the_record_says():
    text, took = (REPOSITORY / "README.md").read_text(), json.loads((Places("quick").reports / "run_time.json").read_text())
    card = json.loads((REPOSITORY / "irtuning/mini/training.json").read_text())
    assert f"{card['parameters'] / 1e6:.1f} million parameters in {card['recipe']['layers']} layers" in text
    assert set(took["seconds"]) == {"training", *NOTEBOOKS, "all"} and took["cores"] >= 1


def test_a_notebook_that_fails_names_its_cell_and_leaves_what_ran(tmp_path, monkeypatch):
    book = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    parameters = nbformat.v4.new_code_cell("profile = 'quick'", metadata={"tags": ["parameters"]})
    book.cells = [parameters, nbformat.v4.new_code_cell("raise ValueError('no such layer')")]
    nbformat.write(book, tmp_path / "source.ipynb")
    monkeypatch.setattr(job, "notebook_path", lambda name: tmp_path / "source.ipynb")
    parameters = {"profile": "quick", "data": None}
    (tmp_path / "reports/quick").mkdir(parents=True)
    with pytest.raises(InputError, match="notebook 02_broken, cell .: ValueError: no such layer"):
        job._run("02_broken", Places("quick", tmp_path), parameters, follow=False)
    assert (tmp_path / "reports/quick/02_broken.ipynb").exists()


def test_a_profile_that_needs_what_is_not_here_is_refused_before_anything_is_written(tmp_path):
    if job.missing(PROFILES["paper"]) == []:
        pytest.skip("this machine has all that the paper profile needs")
    with pytest.raises(InputError, match=r"profile paper cannot run here: .*argrevision.* --dry-run"):
        job.reproduce("paper", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    shown = job.dry_run("paper")
    assert shown["runs"] > 100 and shown["run by us"] == "no" and len(shown["missing"]) >= 2
    assert set(shown["by model"]) == set(PROFILES["paper"]["models"])
    assert "predicted minutes on one NVIDIA H200" not in shown  # billions of parameters are not what was measured
    shown = job.dry_run("study")
    assert shown["run by us"].startswith("yes") and shown["runs"] <= 700
    minutes = shown["predicted minutes on one NVIDIA H200"]
    (twelve,) = (row for row in measurement("runs_at_a_time")[0]["rows"] if row["jobs"] == 12)  # of 24 runs of 50 steps
    assert minutes["12 at a time"] == round(690 * 400 / (24 * 50) * twelve["total_s"] / 60) < minutes["1 at a time"]


def test_a_changed_profile_says_so(tmp_path):
    assert job._parameters("study", None, None, {"seeds": 1})["profile"] == "study-changed"
    with pytest.raises(InputError, match="did you mean 'seeds'"):
        job._parameters("quick", None, None, {"seed": 1})
    with pytest.raises(InputError, match='seeds="x" is not of the kind of 2'):
        job._parameters("quick", None, None, {"seeds": "x"})


def test_every_figure_and_table_of_the_readme_exists_with_the_hashes_of_its_records():
    names = set(re.findall(r"`(0\d_\w+)`", (REPOSITORY / "README.md").read_text())) - set(NOTEBOOKS)
    assert len(names) > 10
    places = Places("quick")
    hashes = {run_label(r): result_hash(r) for r in (read_record(p.parent) for p in places.runs.rglob("record.json"))}
    for name in names:
        kinds = [f / f"{name}.origin.json" for f in (places.figures, places.reports)]
        found = [json.loads(path.read_text())["origin"] for path in kinds if path.exists()]
        assert found, name
        for run, digest in [item for origin in found for item in origin.items()]:
            if run.endswith(".json"):
                assert measurement(run.removesuffix(".json"))[1][run] == digest, f"{name}: {run}"
            elif hashes and run not in ("corpus", "predicted by") and not run.startswith(REAL):
                assert hashes[run] == digest, f"{name}: {run}"


def tries(name):
    """The fenced examples of a notebook's last section."""
    texts = [cell.source for cell in nbformat.read(notebook_path(name), 4).cells if cell.cell_type == "markdown"]
    whole = "\n".join(texts).partition("## Try this")[2]
    return re.findall(r"```python\n(.*?)```", whole, flags=re.DOTALL)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_a_notebook_says_to_try_runs(name):
    book, examples = nbformat.read(notebook_path(name), 4), tries(name)
    assert 2 <= len(examples) <= 3
    book.cells = [cell for cell in book.cells if cell.cell_type == "code"]
    book.cells += [nbformat.v4.new_code_cell(text) for text in examples]
    NotebookClient(book, timeout=900, resources={"metadata": {"path": str(REPOSITORY / "notebooks")}}).execute()
    for cell in book.cells[-len(examples) :]:
        assert any("data" in output or output.get("name") == "stdout" for output in cell.outputs), cell.source


def test_the_studys_report_is_its_notebook_without_code_or_progress(tmp_path):
    places, v4 = Places("study", tmp_path), nbformat.v4
    dot = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    outputs = [
        v4.new_output("stream", text="runs 6 of 6"),
        v4.new_output("display_data", {"image/png": dot}, metadata={"image/png": {"alt": "05_x"}}),
        v4.new_output("display_data", {"text/markdown": "| a |\n| --- |\n| 1 |"}),
    ]
    cells = [v4.new_markdown_cell("# Title"), v4.new_code_cell("secret = 1", outputs=outputs)]
    cells += [v4.new_markdown_cell("aside", metadata={"tags": ["detail"]})]
    cells += [v4.new_markdown_cell("## Try this"), v4.new_code_cell("more = 2")]
    places.reports.mkdir(parents=True)
    nbformat.write(v4.new_notebook(cells=cells), places.reports / f"{NOTEBOOKS[-1]}.ipynb")
    job.write_report(places)
    text, page = ((places.reports / f"summary.{kind}").read_text() for kind in ("md", "html"))
    assert "![05_x](../../figures/study/05_x.png)" in text and "| 1 |" in text and f"base64,{dot}" in page
    assert not any(word in found for word in ("secret", "runs 6", "aside", "Try this", "more = 2") for found in (text, page))
