"""The script that compares the input forms: its runs, its rows, what it resumes, and what it does without."""

import subprocess
import sys

import pandas
import pytest
import typer

from irtuning import InputError
from irtuning.companion.paths import REPOSITORY

sys.path.append(str(REPOSITORY / "reports" / "forms"))
import forms  # noqa: E402

SMALL = {"MODELS": ("tiny-random",), "SEEDS": (171,), "COMMON": forms.COMMON | {"max_length": 96}}
WITHOUT = """
import sys
from importlib.machinery import PathFinder
class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, *more):
        hidden = ("datasets", "nbformat", "papermill", "pooch", "openpyxl")  # absent where the runs are made
        return None if name.split(".")[0] in hidden else PathFinder.find_spec(name, *more)
sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
sys.path.append("reports/forms")
import forms
config = forms.RunConfig(model="tiny-random", form="marked", max_length=96, max_steps=1, train_share=0.1)
print(forms.make(config, forms.corpus_of(config))["form"])
forms.app(["figure", "--out", sys.argv[1]])
"""


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The script with one tiny model, one seed and one small corpus, whose settings are returned."""
    sides = [(f"car {i} stops", f"red car {i} stops", "add") for i in range(60)]
    rows = [(*(side if i % 3 else (side[1], side[0], "drop")), f"w{i // 3}") for i, side in enumerate(sides)]
    names = ["before", "after", "label", "group"]
    pandas.DataFrame(rows, columns=names).to_csv(tmp_path / "own.csv", index=False)
    corpus = {"corpus": str(tmp_path / "own.csv"), "group": "group"}
    for name, value in (SMALL | {"CORPORA": dict.fromkeys(forms.CORPORA, (corpus,))}).items():
        monkeypatch.setattr(forms, name, value)
    return corpus


def in_this_process(function, items, **options):
    """Make the calls here, because a new process would take longer to start than two short runs take."""
    return ((index, function(*item)) for index, item in enumerate(items))


def test_rows_appear_run_by_run_are_not_made_twice_and_become_a_picture(small, tmp_path, capsys, monkeypatch):
    forms.forms(out=tmp_path, steps=2)  # in a process of its own
    monkeypatch.setattr(forms, "outcomes", in_this_process)
    table = pandas.read_csv(tmp_path / "forms.csv")
    assert len(table) == 8 and set(table.form) == {"pair", "marked", "instruction", "instruction-marked"}
    assert set(table.part) == {"validation"} and set(table.steps) == {2} and set(table.mean_layers) == {12}
    assert table[["accuracy", "macro_f1", "validation_loss", "seconds", "device", "versions"]].notna().all(axis=None)
    table.drop(index=3).to_csv(tmp_path / "forms.csv", index=False)
    capsys.readouterr()
    forms.forms(out=tmp_path, steps=2)
    again = pandas.read_csv(tmp_path / "forms.csv")
    assert len(again) == 8 and capsys.readouterr().out.count(" rows, ") == 1
    one, other = (sorted(t[["form", "class_weights", "macro_f1"]].to_numpy().tolist()) for t in (table, again))
    assert one == other
    headline = {"out": tmp_path, "model": "tiny-random", "steps": 2}
    with pytest.raises(InputError, match="class_weights is 'heavy'"):
        forms.headline(**headline, class_weights="heavy", form="pair")
    forms.headline(**headline)
    rows, means = pandas.read_csv(tmp_path / "headline.csv"), table.groupby(["form", "class_weights"]).macro_f1.mean()
    assert sorted(rows.method) == ["full", "ir"] and set(zip(rows.form, rows.class_weights, strict=True)) == {
        means.idxmax()}  # fmt: skip
    run = subprocess.run([sys.executable, "-c", WITHOUT, str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout == "marked\n", run.stderr
    assert (tmp_path / "forms.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "forms.md").read_text()
    assert f"{rows.macro_f1[0]:.3f}" in text and "edit-aware" in text and "validation parts of fold 0" in text


def test_a_failed_run_is_told_and_the_rows_of_the_others_are_written(small, tmp_path, capsys, monkeypatch):
    config = forms.RunConfig.of(SMALL["COMMON"] | small | {"model": "tiny-random", "max_steps": 1})
    corpora = {(config.corpus, None): forms.corpus_of(config)}
    outcomes = [(1, ValueError("no luck")), (0, {name: "x" for name in (*forms.KEYS, "macro_f1")})]
    monkeypatch.setattr(forms, "outcomes", lambda *given, **options: iter(outcomes))
    with pytest.raises(typer.Exit):
        forms.make_rows(tmp_path / "t.csv", [config, config], corpora, 1)
    assert "no luck" in capsys.readouterr().err and len(pandas.read_csv(tmp_path / "t.csv")) == 1
