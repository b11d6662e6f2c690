"""Tests of the command that reproduces a profile: checks beforehand, execution of a notebook, report and times."""

import json
import os
from threading import Event
from unittest.mock import Mock, patch

import nbformat
import pytest
from jupyter_client.kernelspec import NoSuchKernel

from irtuning.companion import reproduce as reproduction
from irtuning.companion.experiments import Companion
from irtuning.companion.paths import NOTEBOOKS, REPOSITORY, Folders
from irtuning.companion.profiles import PROFILES, missing, profile_parameters
from irtuning.errors import InputError
from irtuning.memory import predict
from irtuning.method import registry
from irtuning.method.strategies import Strategy
from irtuning.training.record import write_text

V4 = nbformat.v4


def test_what_is_missing_is_named_before_anything_runs(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="iterater"):
        reproduction.check(Companion.open("quick", data=tmp_path))
    reproduction.check(Companion.open("small", data=tmp_path))  # its notebook 1 shows no other corpora
    if missing(profile_parameters("paper")):
        with pytest.raises(InputError, match=r"profile paper cannot run here: .*argrevision.* --dry-run"):
            reproduction.reproduce("paper", output=tmp_path / "out")
    other, kernel = tmp_path / "python", tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    other.write_text("#!/bin/sh\necho /another/environment\n")
    other.chmod(0o755)
    write_text(kernel, json.dumps({"argv": [str(other), "-m", "ipykernel_launcher"], "display_name": "Python 3"}))
    with monkeypatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
        with pytest.raises(InputError, match=f"named python3 is another environment's, {other}; run `python -m ipyk"):
            reproduction.reproduce("quick", output=tmp_path / "out")
        other.unlink()
        with pytest.raises(InputError, match="named python3 is another environment's"):
            reproduction.reproduce("quick", output=tmp_path / "out")
    missing_kernel = Mock(side_effect=NoSuchKernel("python3"))
    monkeypatch.setattr("jupyter_client.kernelspec.KernelSpecManager.get_kernel_spec", missing_kernel)
    with pytest.raises(InputError, match="no Jupyter kernel named python3; run"):
        reproduction.reproduce("quick", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for options in ({"profile": "study"}, {"changes": {"seeds": 1}}, {"output": "elsewhere"}):
        with pytest.raises(InputError, match="update_notebooks needs the quick profile"):
            reproduction.reproduce(**options, update_notebooks=True)


def test_a_method_that_was_added_is_predicted_before_anything_runs(monkeypatch):
    """Notebook 3 predicts the memory of every method."""
    class Added(Strategy):
        def choose(self, step, scores, rng):
            return [step % 2]

    monkeypatch.setattr(registry, "METHODS", METHODS := dict(registry.METHODS))
    monkeypatch.setattr(predict, "METHODS", METHODS)
    registry.register(Added)
    reproduction.check(Companion.open("quick"))
    Added.worst_case = lambda self, count: ([count], [count])
    with pytest.raises(IndexError):
        reproduction.check(Companion.open("quick"))


def test_a_dry_run_lists_the_runs():
    shown = reproduction.dry_run("paper")
    assert shown["runs"] > 100 and shown["run by us"] == "no"
    assert set(shown["by model"]) == set(PROFILES["paper"]["models"])
    shown = reproduction.dry_run("study")
    assert shown["run by us"].startswith("yes") and shown["runs"] == sum(shown["by experiment"].values()) == 690
    committed = json.loads((REPOSITORY / "notebooks" / "run_time.json").read_text())  # of a whole reproduction
    assert set(committed["seconds"]) == {"training", *NOTEBOOKS, "all"} and committed["cores"] >= 1


def test_a_notebook_is_executed_into_a_folder_and_replaced_only_on_request(tmp_path, monkeypatch):
    book = V4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}})
    book.cells = [V4.new_code_cell("profile = 'quick'", metadata={"tags": ["parameters"]}), V4.new_code_cell("import os\nprint(profile, os.environ.get('IRTUNING_DATA'))"), V4.new_markdown_cell("text")]
    source, folder = tmp_path / "source.ipynb", tmp_path / "reports"
    nbformat.write(book, source)
    monkeypatch.setattr(reproduction, "notebook_path", lambda name: source)
    before = source.read_text()
    reproduction.execute("02_small", folder, {"profile": "study"})
    executed = nbformat.read(folder / "02_small.ipynb", 4)
    assert source.read_text() == before and executed.cells[-2].outputs[0].text.startswith("study ")
    assert "!important } }</style></head>" in (folder / "02_small.html").read_text()  # no wide tables
    assert "papermill" not in (folder / "02_small.ipynb").read_text()
    assert executed.cells[0].metadata == {"tags": ["parameters"]} and executed.metadata.kernelspec.name == "python3"
    monkeypatch.setenv("IRTUNING_DATA", "given")
    reproduction.execute("02_small", folder, {}, update=True)
    assert nbformat.read(source, 4).cells[-2].outputs[0].text == "quick \n" and os.environ["IRTUNING_DATA"] == "given"
    assert source.read_text() == (folder / "02_small.ipynb").read_text() and len(nbformat.read(source, 4).cells) == 3
    book.cells.append(V4.new_code_cell("raise ValueError('no such layer')"))
    nbformat.write(book, source)
    with pytest.raises(InputError, match="notebook 02_small, cell .: ValueError: no such layer"):
        reproduction.execute("02_small", folder, {}, update=True)
    assert "no such layer" in (folder / "02_small.ipynb").read_text() and nbformat.read(source, 4) == book


@patch.dict(os.environ)
def test_notebooks_are_executed_at_the_same_time_and_the_first_failure_ends_the_command(tmp_path, monkeypatch):
    ended = {name: Event() for name in NOTEBOOKS}
    os.environ.pop("OMP_NUM_THREADS", None)
    def execute(name, folder, parameters, update=False):
        assert os.environ["OMP_NUM_THREADS"] == "1"  # otherwise two kernels with two threads each would wait in loops
        if name == NOTEBOOKS[-1] and not ended[NOTEBOOKS[3]].wait(20):  # it starts after the runs and ends last
            return 99.0
        ended[name].set()
        return float(name[:2])

    def fail(name, *options):
        if name == NOTEBOOKS[-1]:
            ended[name].wait(20)
        if name != NOTEBOOKS[0]:
            raise InputError(f"notebook {name} fails")
        return 1.0

    def store(companion):  # meanwhile the first notebook is executed, which shows no runs
        assert ended[NOTEBOOKS[0]].wait(20) and not any(ended[name].is_set() for name in NOTEBOOKS[1:])

    monkeypatch.setattr(reproduction, "check", lambda companion: None)
    monkeypatch.setattr(Companion, "store", store)
    monkeypatch.setattr(reproduction, "execute", execute)
    reproduction.reproduce("quick", output=tmp_path, workers=2)
    seconds = json.loads((tmp_path / "reports" / "quick" / "run_time.json").read_text())["seconds"]
    assert list(seconds) == ["training", *NOTEBOOKS, "all"] and [seconds[name] for name in NOTEBOOKS] == [1, 2, 3, 4, 5, 6]
    ended[NOTEBOOKS[-1]].clear()
    monkeypatch.setattr(Companion, "store", lambda companion: None)
    monkeypatch.setattr(reproduction, "execute", fail)
    with pytest.raises(InputError, match=f"notebook {NOTEBOOKS[-2]} fails"):
        reproduction.reproduce("quick", output=tmp_path, workers=2)
    ended[NOTEBOOKS[-1]].set()


def test_the_studys_report_is_its_notebook_without_code_and_a_summary_has_all_tables(tmp_path):
    folders = Folders("study", tmp_path)
    dot = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    outputs = [V4.new_output("display_data", {"image/png": dot}, metadata={"image/png": {"alt": "3 < 4", "figure": "05_x"}}),
               V4.new_output("display_data", {"text/markdown": "| a |\n| --- |\n| 1 |"})]  # fmt: skip
    cells = [V4.new_markdown_cell("# Title"), V4.new_code_cell("secret = 1", outputs=outputs)]
    cells += [V4.new_markdown_cell(text, metadata={"tags": [tag]}) for text, tag in (("aside", "detail"), ("more = 2", "try"))]
    folders.reports.mkdir(parents=True)
    nbformat.write(V4.new_notebook(cells=cells), folders.reports / "05_the_study.ipynb")
    reproduction.write_report(folders.reports / "05_the_study.ipynb", folders.figures)
    text, page = ((folders.reports / f"summary.{kind}").read_text() for kind in ("md", "html"))
    assert "![3 < 4](../../figures/study/05_x.png)" in text and "| 1 |" in text and f"base64,{dot}" in page
    assert 'alt="3 &lt; 4"' in page
    assert not any(word in found for word in ("secret", "aside", "more = 2") for found in (text, page))
    (folders.reports / "02_methods.md").write_text("| ir | 0.5 |")  # and a summary has every table of its profile
    text = reproduction.summary(folders)
    assert text.startswith("# Report: study") and "## 02_methods\n\n| ir | 0.5 |" in text and "gives no verdicts" in text
