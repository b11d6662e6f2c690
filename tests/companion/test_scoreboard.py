"""A strategy of one's own on the scoreboard, beside a small store that the study's own script made."""

import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from unittest import mock

import pandas
import pytest
from typer.testing import CliRunner

from irtuning import InputError
from irtuning.cli import app
from irtuning.companion import scoreboard
from irtuning.companion.archive import read_archive, write_archive
from irtuning.companion.paths import REPOSITORY
from irtuning.companion.scoreboard import add_strategy
from irtuning.corpora.base import Corpus, Revision
from irtuning.corpora.folds import cut
from irtuning.corpora.sources import CORPORA, CorpusSource
from irtuning.method.registry import METHODS

sys.path.append(str(REPOSITORY / "reports" / "study" / "second"))
import second  # noqa: E402

SMALL = {"model": "tiny-random", "batch_size": 8, "max_length": 64, "form": "marked", "epochs": 1.0}
MINE = """from pathlib import Path

from irtuning.method.baselines import LastLayers
from irtuning.method.strategies import Strategy, IRTuningStrategy

class Mine(Strategy):
    \"\"\"Even and odd layers learn in turn.\"\"\"
    def choose(self, step, scores, rng):
        return list(range(step % 2, self.count, 2))

class Stopped(Mine):
    \"\"\"The third run is interrupted in its fourth step.\"\"\"
    def choose(self, step, scores, rng):
        with Path("calls").open("a") as calls:
            calls.write(".")
        if Path("calls").stat().st_size == 18:
            raise KeyboardInterrupt
        return super().choose(step, scores, rng)

class Budgeted(LastLayers):
    \"\"\"As many layers as IR-Tuning.\"\"\"

class Whole(Budgeted):
    \"\"\"As many layers as IR-Tuning, with all their weights.\"\"\"
    scope = "parameters"
"""


def verbs(folder, fold, label_set):
    """Eighty small revisions of twenty writers. Of each seven one has the other label, so that no score is perfect."""
    ends = (("This are text", "This is text", "grammar"), ("It is good", "It is excellent", "style"))
    rows = [Revision(f"v{i}", f"{ends[i % 2][0]} {i} .", f"{ends[i % 2][1]} {i} .", ends[(i + (i % 7 == 0)) % 2][2], group=f"w{i // 4}")
            for i in range(80)]  # fmt: skip
    return Corpus("verbs", ("grammar", "style"), *cut(rows, fold), fold=fold)


VERBS = CorpusSource(load=verbs, labels=("grammar", "style"), home="this test", splits=("folds",))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two seeds of ir and full in folds 0 to 2 and 4, and a gate, on a small corpus with a tiny model: their store."""
    folder, planned = tmp_path_factory.mktemp("study"), second.planned
    settings = {"seeds": 2, "rates": {"verbs": {"many": 1e-3, "full": 2e-3}}, "class_weights": "none"}
    (folder / "store").mkdir()
    (folder / "store" / "settings.json").write_text(json.dumps(settings))
    (folder / "plan.md").write_text("Closed.")
    here = {"commit": "a" * 12, "plan": "p", "code": second.training_fingerprint()}
    values = {"PLAN": folder / "plan.md", "SETTINGS": folder / "store" / "settings.json", "COMMON": SMALL,
              "HEADLINE": ["ir", "full"], "CORPORA": {"verbs": {}}, "SEEDS": folder / "none.json", "state": lambda: here,
              "planned": lambda *given: [run for run in planned(*given) if run["fold"] != 3]}  # fmt: skip
    with pytest.MonkeyPatch.context() as change, mock.patch.dict(CORPORA, verbs=VERBS):
        for name, value in values.items():
            change.setattr(second, name, value)
        assert second.run_stages(["headline", "gate"], ["verbs"], None, folder / "runs", 1, 9) == 0
        second.collect(folder / "runs", folder / "store")
    return folder


@pytest.fixture
def board(made, monkeypatch, tmp_path):
    """A function that adds a strategy of `mine.py` to that store's board, in an empty folder."""
    monkeypatch.setattr(scoreboard, "STORE", made / "store")
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    with mock.patch.dict(METHODS), mock.patch.dict(CORPORA, verbs=VERBS):
        yield lambda add="mine=mine.py:Mine", corpus="verbs", **more: add_strategy(add, corpus, progress=False, **more)


def records(folder, stage="headline"):
    """The records of a stage in a store, or on a board."""
    return read_archive(folder, stage)[0]


def test_a_new_strategy_runs_in_the_settings_of_the_stored_runs_beside_them(board, made):
    table, folder = board()
    assert list(table.index) == ["mine", "IR-Tuning", "Full PEFT"] and set(table.runs) == {6}
    (ir, *_), new = records(made / "store"), records(folder)
    assert [r["run"]["config"]["seed"] for r in new] == [171, 181, 191, 172, 182, 192]
    differ = {n for n, value in new[0]["run"]["config"].items() if value != ir["run"]["config"][n]}
    assert differ == {"method", "score_test"} and {*new[0]["predictions"]} == {"validation"}
    of_ir = [r for r in records(made / "store") if r["run"]["config"]["method"] == "ir" and r["run"]["config"]["fold"] < 4]
    means = [sum(r["scores"]["validation"]["macro_f1"] for r in of) / 6 for of in (new, of_ir)]
    assert float(table.difference["IR-Tuning"]) == pytest.approx(means[0] - means[1], abs=0.05)
    assert float(table["low of difference"]["IR-Tuning"]) < float(table.difference["IR-Tuning"]) < float(table["high of difference"]["IR-Tuning"])
    assert table["layer share"]["mine"] == "0.500" and table["layer share"]["Full PEFT"] == "1.000"
    assert float(table.changes["mine"]) >= 4 and float(table.changes["Full PEFT"]) == 0
    text = (folder / "scoreboard.md").read_text()
    assert "| mine |" in text and "the stored runs of `headline`." in text and "training code" not in text
    assert (folder / "scoreboard.png").stat().st_size > 5_000
    for name in ("runs", "steps", "predictions"):
        of = [set(pandas.read_parquet(place / f"{name}.parquet")) for place in (folder, made / "store")]
        assert of[0] == of[1]
    made_at = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("record.json")}
    words = ["study", "--add", "mine=mine.py:Mine", "--corpus", "verbs"]
    text = CliRunner().invoke(app, words, catch_exceptions=False).stdout
    assert "IR-Tuning" in text and f"table, figure and runs in {folder}" in text
    shown = json.loads(CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False).stdout)
    assert [row["method"] for row in shown["table"]] == list(table.index) and len(made_at) == 6
    assert {path: path.stat().st_mtime_ns for path in made_at} == made_at  # none is made again
    Path("mine.py").write_text(MINE.replace("step % 2", "(step + 1) % 2"))
    assert records(board()[1])[0]["train"]["steps"][0]["layers"] == new[0]["train"]["steps"][1]["layers"]  # a changed source is run anew


def test_a_test_part_is_scored_once_and_an_interrupted_training_goes_on(board):
    log, mine = Path("runs/scoreboard/scored.jsonl"), "mine=mine.py:Stopped"
    with pytest.raises(KeyboardInterrupt):
        board(mine, final=True)
    assert len(log.read_text().splitlines()) == 2
    _, folder = board(mine, final=True)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line[1:] for line in lines] == [["verbs", fold, 171 + 10 * fold + s] for s in (0, 1) for fold in range(3)]
    assert {r["scores"]["test_scored"] for r in records(folder)} == {1}
    assert [r["meta"]["starts"] for r in records(folder)] == [[0], [0], [0, 3], [0], [0], [0]]  # from its checkpoint
    assert "test part of verbs" in (folder / "scoreboard.md").read_text()
    for again in (mine, "other=mine.py:Stopped"):  # a new name makes no new strategy
        with pytest.raises(InputError, match="has scored its test part, as .*scored.jsonl says"):
            board(again, final=True)
    board(mine)  # validation may go on


def test_a_budget_comes_from_ir_and_all_errors_come_before_any_run(board, made, monkeypatch, tmp_path):
    _, folder = board("few=mine.py:Budgeted")
    ir, few = (records(place)[0]["train"]["steps"] for place in (made / "store", folder))
    assert len(few[0]["layers"]) == pytest.approx(sum(len(s["layers"]) for s in ir) / len(ir), abs=1)
    wrong = {"mine.py:Mine": "is not NAME=FILE.py:Class", "a=ir": "is not NAME", "a=no.py:Mine": "no file 'no.py'",
             "a=mine.py:No": "named 'No'", "ir=mine.py:Mine": "belongs to a method of this package",
             "a b=mine.py:Mine": "more than letters", "a=mine.py:IRTuningStrategy": "with a class of your own",
             "a=mine.py:Whole": "needs runs of full-ft"}  # fmt: skip
    for add, message in wrong.items():
        with pytest.raises(InputError, match=message):
            board(add)
    with pytest.raises(InputError, match=r"no stored run predicts the validation part of iterater\. There are: .*"
                                         r"test part of verbs \(headline\)"):  # fmt: skip
        board(corpus="iterater")
    monkeypatch.setattr(scoreboard, "STAGES", ("gate",))
    with pytest.raises(InputError, match="takes its number of layers from IR-Tuning, but gate has no run of it"):
        board("few=mine.py:Budgeted")
    with pytest.raises(InputError, match="test part of verbs.*validation part of verbs"):
        board(final=True)
    table, folder = board()  # all that can be compared before the headline: three runs, so no interval
    assert list(table.index) == ["mine", "Full PEFT"] and table["low of difference"]["Full PEFT"] == ""
    _, figure = scoreboard.board(records(folder, "gate"), scoreboard.stored_runs("verbs", "validation")[1], "validation")
    assert figure.get_suptitle() == f"Too few runs for intervals; difference {float(table.difference['Full PEFT']):+.3f}"
    monkeypatch.setattr(scoreboard, "STORE", tmp_path)
    with pytest.raises(InputError, match="has no stored runs; clone the repository"):
        board()


def test_whole_weights_take_the_rate_of_full_fine_tuning_and_the_budget_of_ir(board, made, monkeypatch, tmp_path):
    stored = [r for r in records(made / "store") if r["run"]["config"]["fold"] == 0]
    for r in stored:  # what full did stands for full fine-tuning
        r["run"]["config"]["method"] = {"full": "full-ft"}.get(name := r["run"]["config"]["method"], name)
    write_archive(tmp_path, {"headline": (stored, [])})
    (tmp_path / "settings.json").write_text((made / "store" / "settings.json").read_text())
    monkeypatch.setattr(scoreboard, "STORE", tmp_path)
    table, folder = board("whole=mine.py:Whole")
    assert table["layer share"]["whole"] < "0.8" and table["layer share"]["full fine-tuning"] == "1.000"
    assert {r["run"]["config"]["learning_rate"] for r in records(folder)} == {2e-3}


def test_of_the_published_runs_those_at_chosen_rates_are_compared(board, monkeypatch, tmp_path):
    """Nobody has chosen rates for arXivEdits here, so that its gate is compared."""
    published = REPOSITORY / "reports" / "study" / "second"
    monkeypatch.setattr(scoreboard, "STORE", shutil.copytree(published, tmp_path / "store"))
    rates = {"many": 5e-4, "full": 1e-3, "ist": 2e-3, "full-ft": 1e-4, "rst": 2e-3, "lisa-adapters": 1e-3}
    chosen = json.loads((published / "settings.json").read_text()) | {"rates": {"iterater": rates}}
    (tmp_path / "store" / "settings.json").write_text(json.dumps(chosen))
    monkeypatch.setattr(scoreboard, "STAGES", ("rates", "gate"))
    stage, runs = scoreboard.stored_runs("iterater", "validation")
    rated = Counter((r["run"]["config"]["method"], r["run"]["config"]["learning_rate"]) for r in runs)
    many = {"ir": 5e-4, "random-static": 5e-4}
    assert stage == "rates" and rated == dict.fromkeys(((rates | many).items() - {("many", 5e-4)}), 3)
    stage, runs = scoreboard.stored_runs("arxivedits", "validation")
    assert stage == "gate" and [r["run"]["config"]["class_weights"] for r in runs] == ["none"] * 3
    with pytest.raises(InputError, match="data folder 'nowhere' is not a folder"):
        board(corpus="iterater", data="nowhere")
