"""The script that compares the input forms: its runs, its rows, what it resumes, and what it does without."""

import os
import re
import subprocess
import sys

import pandas

from irtuning.companion.paths import REPOSITORY

HIDDEN = ("datasets", "nbformat", "papermill", "pooch", "openpyxl")  # absent where the runs are made
WITHOUT = f"""
import sys
from importlib.machinery import PathFinder
class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, *more):
        return None if name.split(".")[0] in {HIDDEN} else PathFinder.find_spec(name, *more)
sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
"""
SMALL = """
import sys
sys.path.insert(0, "reports/forms")
import forms
forms.CORPORA = dict.fromkeys(forms.CORPORA, ({"corpus": "synthetic"},))
forms.MODELS, forms.SEEDS = ("tiny-random",), (171,)
forms.COMMON |= {"max_length": 96, "train_share": 0.1}
for words in sys.argv[1:]:
    forms.app(words.split(), standalone_mode=False)
"""


def script(folder, *commands, fails=False):
    """Run commands of the script on the synthetic corpus and a tiny model, in processes that lack some packages."""
    (folder / "sitecustomize.py").write_text(WITHOUT)
    path = os.pathsep.join([str(folder), str(REPOSITORY)])
    words = [f"{command} --out {folder}" for command in commands]
    run = subprocess.run([sys.executable, "-c", SMALL, *words], cwd=REPOSITORY, capture_output=True, text=True,
                         env=os.environ | {"PYTHONPATH": path})  # fmt: skip
    assert (run.returncode != 0) == fails, run.stderr
    return run.stdout + run.stderr


def test_rows_appear_run_by_run_are_not_made_twice_and_become_a_picture(tmp_path):
    script(tmp_path, "forms --steps 2 --workers 2")
    table = pandas.read_csv(tmp_path / "forms.csv")
    assert len(table) == 8 and set(table.form) == {"pair", "marked", "instruction", "instruction-marked"}
    assert set(table.part) == {"validation"} and set(table.steps) == {2} and set(table.mean_layers) == {12}
    assert table[["accuracy", "macro_f1", "validation_loss", "seconds", "device", "versions"]].notna().all(axis=None)
    table.drop(index=3).to_csv(tmp_path / "forms.csv", index=False)
    headline = "headline --model tiny-random --steps 2"
    told = script(tmp_path, "forms --steps 2", headline, "figure", f"{headline} --class-weights heavy", fails=True)
    again, headline = (pandas.read_csv(tmp_path / f"{name}.csv") for name in ("forms", "headline"))
    assert len(re.findall(r"^\d+ rows, ", told, re.M)) == 3 and "class_weights is 'heavy'" in told
    one, other = (sorted(t[["form", "class_weights", "macro_f1"]].to_numpy().tolist()) for t in (table, again))
    assert one == other
    means = table.groupby(["form", "class_weights"]).macro_f1.mean()
    assert set(zip(headline.form, headline.class_weights, strict=True)) == {means.idxmax()}
    assert sorted(headline.method) == ["full", "ir"]
    assert set(pandas.read_csv(tmp_path / "floors.csv").name) == {"operation", "edit-aware"}
    assert (tmp_path / "forms.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "forms.md").read_text()
    assert "edit-aware" in text and f"{headline.macro_f1[0]:.3f}" in text and "validation parts of fold 0" in text
