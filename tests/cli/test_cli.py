"""The command line as a user meets it: help, one JSON object, errors on one line with exit code 2."""

import json
import subprocess
import sys

import pytest

import irtuning
from irtuning.cli.options import show

COMMANDS = ("corpus", "train", "compare", "predict", "memory", "reproduce", "methods", "settings")


def irt(*arguments, stdin=None):
    """Run the command as its own process."""
    code = "from irtuning.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, input=stdin)


@pytest.fixture(scope="module")
def saved_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "run"
    found = irt(
        "train", "--corpus", "synthetic", "--method", "ir", "--max-steps", "2", "--output", str(folder), "--json"
    )
    assert found.returncode == 0, found.stderr
    return folder, json.loads(found.stdout)


def test_help_teaches():
    assert all(name in irt("--help").stdout for name in COMMANDS)
    for name in COMMANDS[:6]:
        shown = irt(name, "--help").stdout
        assert f"irtuning {name}" in shown or name == "reproduce" and "irtuning reproduce" in shown, name
        assert "--json" in shown


def test_corpus_gives_name_labels_and_splits():
    shown = json.loads(irt("corpus", "synthetic", "--json").stdout)
    assert shown["name"] == "synthetic" and shown["synthetic"] is True
    assert shown["labels"] == ["clarity", "fluency", "coherence", "style", "meaning-changed"]
    assert shown["splits"] == {"train": 1600, "validation": 200, "test": 200}


def test_train_prints_one_object_and_writes_the_record(saved_run):
    folder, shown = saved_run
    record = json.loads((folder / "record.json").read_text())
    assert shown["scores"] == record["scores"] and shown["config"] == record["run"]["config"]


def test_text_output_nests_what_is_nested_and_keeps_short_parts_in_a_line(capsys):
    show({"name": "ir", "scores": {"macro_f1": 0.123456, "per_class": {"a": {"f1": 1.0, "support": 4}}}, "floors": [{"name": "x", "f1": 0.5}]}, False)
    assert capsys.readouterr().out.splitlines() == [
        "name    ir", "scores:", "  macro_f1   0.1235", "  per_class:", "    a  f1 1, support 4", "floors:", "  x  name x, f1 0.5",
    ]  # fmt: skip


def test_predict_takes_a_pair_a_file_and_standard_input(saved_run, tmp_path):
    folder, lines = str(saved_run[0]), ""
    for i in range(3):
        lines += json.dumps({"before": f"He go {i}.", "after": f"He goes {i}."}) + "\n"
    (tmp_path / "pairs.jsonl").write_text(lines)
    pair = irt("predict", folder, "--before", "He go.", "--after", "He goes.")
    file = irt("predict", folder, "--file", str(tmp_path / "pairs.jsonl"), "--json")
    stdin = irt("predict", folder, "--file", "-", "--json", stdin=lines)
    assert pair.returncode == 0 and "meaning-changed 0." in pair.stdout, pair.stderr
    rows = [json.loads(line) for line in file.stdout.splitlines()]
    assert len(rows) == 3 and file.stdout == stdin.stdout
    assert sum(rows[0]["probabilities"].values()) == pytest.approx(1, abs=1e-4)


def test_like_takes_the_budget_of_a_saved_run(saved_run, tmp_path):
    found = irt("train", "--method", "random-counts", "--like", str(saved_run[0]), "--max-steps", "2",
                "--output", str(tmp_path / "run"), "--json")  # fmt: skip
    assert found.returncode == 0, found.stderr
    counts = [len(s["layers"]) for s in json.loads((saved_run[0] / "record.json").read_text())["train"]["steps"]]
    assert json.loads(found.stdout)["config"]["counts"] == counts


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["corpus", "synthetik"], "did you mean 'synthetic'"),
        (["train", "--method", "irr", "--output", "X"], "unknown method 'irr'"),
        (["train", "--set", "rank", "--output", "X"], "'rank' is not name=value"),
        (["train", "--set", "seed=3", "--output", "X"], "there is an option --seed"),
        (["compare", "--folds", "a"], "not a list of numbers"),
        (["compare", "--methods", "random-counts"], "add ir to the methods"),
        (["predict", "absent"], "nothing to predict"),
        (["predict", "absent", "--after", "x"], "no run in absent"),
        (["reproduce", "--profile", "quikc"], "did you mean 'quick'"),
        (["reproduce", "--output", "/proc/none"], "cannot write to"),
        (["reproduce", "--data", "/absent"], "is not a folder"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, tmp_path):
    found = irt(*[a.replace("X", str(tmp_path / "run")) for a in arguments])
    assert found.returncode == 2 and message in found.stderr, found.stderr
    assert found.stderr.startswith("error: ") and found.stderr.count("\n") == 1 and not found.stdout
    assert not (tmp_path / "run").exists()


def test_nothing_heavy_is_imported_before_it_is_needed():
    code = "import irtuning, irtuning.cli, sys; print(sorted({'torch', 'transformers', 'pandas', 'sklearn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_public_names_are_all_there():
    assert dir(irtuning) == irtuning.__all__
    assert all(getattr(irtuning, name) is not None for name in irtuning.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = irtuning.nothing
