"""The table of strategies: budgets are IR-Tuning's, a repeated command makes nothing anew, and the picture is drawn."""

import os
import runpy
import subprocess
import sys

import pandas
import pytest

from irtuning.companion.paths import REPOSITORY

SCRIPT = REPOSITORY / "reports" / "strategies" / "strategies.py"
TRY = """
import runpy, sys
sys.argv = ["strategies.py", *sys.argv[2:]]
names = runpy.run_path(FILE, run_name="tried")
main = names["main"].__globals__
main["METHODS"] = ["full", "random-counts", "random-static", "ir:unit=block", "transplant from the other seed",
                   "transplant from the other corpus"]
main["main"]()
""".replace("FILE", repr(str(SCRIPT)))


@pytest.mark.slow
def test_every_command(tmp_path):
    data = os.environ.get("IRTUNING_DATA") or pytest.skip("IRTUNING_DATA names no folder of the corpora")

    def run(command):
        words = [command, "--models", "tiny-random", "--steps", "4", "--out", str(tmp_path), "--data", data]
        done = subprocess.run([sys.executable, "-c", TRY, "", *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "nothing is missing" in run("scores")
    rows = pandas.read_csv(tmp_path / "scores.csv")
    counts = rows.pivot_table(index=["corpus", "seed"], columns="method", values="layers")
    assert len(rows) == 28 and (counts["random-counts"] == counts["ir"]).all() and (counts["full"] == 12).all()
    assert (counts["random-static"] - counts["ir"]).abs().max() <= 0.5
    sets = rows.set_index(["corpus", "seed", "method"])["last"]
    assert sets["iterater", 181, "transplant from the other seed"] == sets["iterater", 182, "ir"]
    assert sets["iterater", 181, "transplant from the other corpus"] == sets["arxivedits", 181, "ir"]
    assert rows[rows.method.str.startswith("transplant")].changed.eq(0).all()
    assert run("scores").count("\n") == 2  # nothing is made again, for IR-Tuning and for the others
    run("cost")
    run("draw")
    assert "| ir" in (tmp_path / "strategies.md").read_text() and (tmp_path / "strategies.png").stat().st_size > 10_000


def test_a_run_that_learned_nothing_is_named_and_one_that_learned_its_training_part_by_heart_is_not():
    said = runpy.run_path(str(SCRIPT), run_name="tried")["not_learned"](pandas.read_csv(SCRIPT.parent / "scores.csv"))
    assert "ir on arxivedits with seed 181 (macro F1 0.179). " in said and "full-ft" not in said
