"""The command line as a user meets it: help, one JSON object, errors on one line with exit code 2."""

import json
import re
import subprocess
import sys

import pandas
import pytest
from typer.main import get_command
from typer.testing import CliRunner

import irtuning
from irtuning.cli import app
from irtuning.corpora.sources import CORPORA
from irtuning.errors import InputError
from irtuning.method.registry import METHODS
from irtuning.models.catalog import model_names
from irtuning.training.record import read_record

COMMANDS = ("reproduce", "compare", "train", "predict", "corpus", "memory", "methods", "models", "settings",
            "probe", "study")  # fmt: skip
TINY = ("--model", "tiny-random", "--set", "max_length=32", "--max-steps", "2")
# a shell lets its background jobs, and their children, ignore the signal
INTERRUPTED = "import os, signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\nos.kill(os.getpid(), signal.SIGINT)\n"
OWN = """from irtuning.method.strategies import Strategy

class Mine(Strategy):
    \"\"\"The lower half of the layers learns.\"\"\"

    name = "mine"

    def choose(self, step, scores, rng):
        return list(range(self.count // 2))

    def worst_case(self, count):
        return list(range(count // 2)), list(range(count // 2))
"""


def irt(*arguments, **options):
    made = CliRunner().invoke(app, arguments, catch_exceptions=False, **options)
    assert made.exit_code == 0, made.output
    return made.stdout


@pytest.fixture(scope="module")
def saved_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "run"
    return folder, json.loads(irt("train", *TINY, "--output", str(folder), "--json"))


def test_help_teaches_and_nothing_is_cut():
    start, commands = irt("--help", env={"COLUMNS": "80"}), get_command(app).commands
    assert all(re.search(rf"^  {name} +[A-Z].*\.$", start, re.MULTILINE) for name in COMMANDS)
    assert start.count("...") == 1 and set(commands) == set(COMMANDS)  # [ARGS]...
    for name, command in commands.items():
        assert name in ("methods", "models") or f"irtuning {name}" in command.help, "examples"
        assert "..." not in irt(name, "--help", env={"COLUMNS": "160"})
        for option in command.params:
            assert option.help[0].isupper() and option.help.endswith("."), f"{name} --{option.name}: not a sentence"
    assert irt("--version") == f"irtuning {irtuning.__version__}\n"


def own_words(own_corpus):
    return [word for name in ("before", "after", "label", "group") for word in (f"--{name}", own_corpus[name])]


def test_corpus_gives_name_labels_and_splits():
    shown, text = json.loads(irt("corpus", "synthetic", "--json")), irt("corpus", "synthetic")
    labels = ["clarity", "fluency", "coherence", "style", "meaning-changed"]
    assert (shown["name"], shown["synthetic"], shown["labels"]) == ("synthetic", True, labels)
    assert shown["splits"] == {"train": 1600, "validation": 200, "test": 200}
    names = "name labels splits counts synthetic fold licence citation checksum leaks split groups shared_groups"
    assert set(shown) == {*names.split(), "dropped"}
    assert "'pairs with two labels': 0" in text and set(shown["leaks"].values()) == {0}
    assert re.search(r"^clarity +325 +37 +41$", text, re.MULTILINE)
    assert all(name in irt("corpus", "--help") for name in CORPORA)


def test_corpus_tells_split_and_shared_documents(real_data):
    data = ["corpus", "iterater", "--data", str(real_data)]
    folds, published = (json.loads(irt(*data, *more, "--json")) for more in ([], ["--split", "published"]))
    assert (folds["split"], folds["groups"]["validation"], folds["dropped"]) == ("folds", 40, {"others": 58})
    assert folds["splits"]["validation"] == 388
    assert (published["split"], published["shared_groups"], published["splits"]["test"]) == ("published", 29, 360)


def test_train_prints_one_object_or_a_few_lines_and_writes_the_record(saved_run, tmp_path):
    (folder, shown), record = saved_run, read_record(saved_run[0])
    floors = shown.pop("floors")
    assert shown == {"output": str(folder), "config": record["run"]["config"], "scores": record["scores"]}
    assert [floor["name"] for floor in floors] == ["operation", "edit-aware"]
    text = irt("train", *TINY, "--output", str(folder))  # it is recorded already
    assert "ir on synthetic, fold 0: tiny-random with lora, seed 171, 2 steps" in text and str(folder) in text
    assert f"macro F1 {shown['scores']['validation']['macro_f1']:.3f}" in text and len(text.splitlines()) == 5
    assert "to beat:  macro F1 of operation 0.108, edit-aware 0.59" in text
    words = ["--method", "random-counts", "--like", str(folder), "--output", str(tmp_path / "run"), "--json"]
    plain = irt("train", *TINY, "--method", "full-ft", "--output", str(tmp_path / "full"))
    assert "full-ft on synthetic, fold 0: tiny-random, seed 171" in plain and "lora" not in plain
    like = json.loads(irt("train", *TINY, *words))
    assert like["config"]["counts"] == [len(step["layers"]) for step in record["train"]["steps"]]


def test_predict_takes_a_pair_a_file_and_standard_input(saved_run, tmp_path):
    folder = str(saved_run[0])
    lines = "".join(json.dumps({"before": f"He go {i}.", "after": f"He goes {i}."}) + "\n" for i in range(3))
    (tmp_path / "pairs.jsonl").write_text(lines)
    assert re.search(r"meaning-changed 0\.\d\d", irt("predict", folder, "--before", "He go.", "--after", "He goes."))
    file = irt("predict", folder, "--file", str(tmp_path / "pairs.jsonl"), "--json")
    assert file.count("\n") == 3 and file == irt("predict", folder, "--file", "-", "--json", input=lines)
    assert [sum(json.loads(r)["probabilities"].values()) for r in file.splitlines()] == pytest.approx([1] * 3, abs=1e-4)


def test_predict_reads_the_file_of_the_run_marks_what_was_not_revised_and_scores_labels(own_corpus, tmp_path):
    folder = str(tmp_path / "run")
    irt("train", *TINY, "--corpus", own_corpus["corpus"], *own_words(own_corpus), "--output", folder)
    text = irt("predict", folder, "--file", own_corpus["corpus"])
    assert text.startswith("1: ") and "'the red car 0 stops' -> 'the car 0 stops'" in text
    assert re.search(r"this run +120 .*majority +120 +0.4 +0.667.*operation +120 +0.4 +0.667", text, re.DOTALL)
    rows = ("x,He go.,He goes.,add", "y,, ,add", "z,a,a,drop", "w,a,b,other")
    (tmp_path / "new.csv").write_text("\n".join(["ID,v 1,V2,Why", *rows]))
    words = ["--file", str(tmp_path / "new.csv"), "--before", "v1", "--after", "v2", "--output"]
    shown = json.loads(irt("predict", folder, *words, str(tmp_path / "out.jsonl"), "--json"))
    irt("predict", folder, *words, str(tmp_path / "out.csv"))
    lines, table = (tmp_path / "out.jsonl").read_text().splitlines(), pandas.read_csv(tmp_path / "out.csv")
    assert [(row["id"], row["note"], row["intention"] is None) for row in map(json.loads, lines)] == [
        ("x", "", False), ("y", "both sides are empty", True), ("z", "nothing was revised", True), ("w", "", False)]
    assert table.columns.tolist() == ["id", "before", "after", "intention", "note", "p(add)", "p(drop)"]
    assert shown["rows"] == 4 and [row["rows"] for row in shown["scores"]] == [1, 1, 1]
    assert irt("predict", folder, "--file", "-", input='{"before": "a", "after": "a"}') == "1: nothing was revised  'a' -> 'a'\n"
    with pytest.raises(InputError, match="unknown column 'text'"):
        irt("predict", folder, *words[:2], "--before", "text")


def test_predict_aligns_two_versions_of_a_document(saved_run, tmp_path):
    drafts, page = [str(tmp_path / name) for name in ("d1.txt", "d2.txt")], tmp_path / "changes.html"
    for path, text in zip(drafts, ("It rained. He go home.", "It rained. He goes home. We stay."), strict=True):
        (tmp_path / path).write_text(text)
    words = ["predict", str(saved_run[0]), "--before", drafts[0], "--after", drafts[1]]
    text, rows = irt(*words), [json.loads(line) for line in irt(*words, "--json").splitlines()]
    assert [(row["id"], row["before"], row["after"]) for row in rows] == [("2>2", "He go home.", "He goes home."), (">3", "", "We stay.")]
    assert [line.split(":")[0] for line in text.splitlines() if line] == ["2>2", ">3"]
    assert irt(*words, "--output", str(page)) == f"3 sentences in {page}\n"
    assert "2 of 3 were revised" in page.read_text() and "It rained.</div>" in page.read_text()
    irt(*words, "--output", str(tmp_path / "changes.csv"))
    assert pandas.read_csv(tmp_path / "changes.csv").id.tolist() == ["2>2", ">3"]


def test_compare_prints_a_table_of_scores(own_corpus, tmp_path):
    words = ["compare", *TINY, "--methods", "full, last-k:share=0.5", "--seeds", "1", "--score-test", "--workers", "1",
             "--output", str(tmp_path / "runs"), "--corpus", own_corpus["corpus"], *own_words(own_corpus)]  # fmt: skip
    shown, text = json.loads(irt(*words, "--json")), irt(*words)
    assert set(shown) == {"output", "table", "test"}
    assert all(sum(method in str(row) for row in shown["test"]) == 1 for method in ("full", "last-k:share=0.5"))
    assert re.search(rf"edit-aware.*scores on validation; records in {tmp_path}/runs.*scores on test", text, re.DOTALL)


def test_a_class_in_a_file_is_a_method_of_every_command(own_corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    corpus = ("--corpus", own_corpus["corpus"], *own_words(own_corpus))
    (tmp_path / "mine.py").write_text(OWN)
    commands = (["train", *TINY, *corpus, "--method", "mine.py:Mine", "--output", "run"],
                ["memory", "--method", "mine.py:Mine"],
                ["compare", *TINY, *corpus, "--methods", "mine.py:Mine,full", "--seeds", "1", "--workers", "1"])  # fmt: skip
    shown = []
    for words in commands:  # each like a process of its own, which has never heard of the class
        monkeypatch.setattr("irtuning.method.registry.METHODS", dict(METHODS))
        shown.append(json.loads(irt(*words, "--json")))
    assert shown[0]["config"]["method"] == "mine"
    assert [row["method"] for row in shown[2]["table"][2:]] == ["mine", "full"]
    for folder in (tmp_path / "run", *tmp_path.glob("runs/*/mine-*")):
        assert [step["layers"] for step in read_record(folder)["train"]["steps"]] == [list(range(6))] * 2
    assert (shown[1]["layers"], shown[1]["lowest_layer"]) == (6, 0)
    assert re.search(r" 0\.\d\d", irt("predict", "run", "--after", "He goes."))


def test_methods_and_settings_are_listed():
    shown, text = json.loads(irt("methods", "--json")), irt("methods")
    assert set(shown) == set(METHODS) and " public code. [min_layer=0 unit=layer score=reference " in text
    assert shown["rst"].startswith("RST: ") and shown["rst"].endswith("[min_layer=0 unit=layer share=0.125]")
    assert (values := json.loads(irt("settings", "--json")))["rank"] == 16 and "seed" not in values
    assert "(1 or more): ir, ir-weight" in text and "score          formula of the score" in text
    lines = irt("settings", "--model", "smollm2-135m").splitlines()
    assert "rank               32       a whole number, 1 or more: of the lora and dora adapters" in lines
    assert not [line for line in (*lines, *text.splitlines()) if line.rstrip().endswith(":") and line != "The options:"]
    assert not re.search(r"^\w+ +[(:]", text, re.MULTILINE)  # an option without a meaning


def test_models_are_listed_and_other_spellings_are_understood():
    shown, text = json.loads(irt("models", "--json")), irt("models")
    assert set(shown) == set(model_names()) and shown["roberta-base"]["weights"] == "FacebookAI/roberta-base"
    assert re.search(r"^mini +12 +256 +pair +16 +part of this package$", text, re.MULTILINE)


@pytest.mark.parametrize(("gpu", "answer"), [
    ("80GB", r"It fits: 42.6 GiB predicted, 70.3 GiB usable. The largest batch that fits is \d+."),
    ("24GB", "It does not fit: 42.6 GiB predicted, 20.7 GiB usable. What would fit: --batch 3, or --min-layer 26, or .*"),
    ("8GB", "It does not fit: .* What would fit: a smaller model, or a larger GPU."),
])  # fmt: skip
def test_memory_answers_whether_it_fits(gpu, answer):
    assert re.fullmatch(answer, irt("memory", "--model", "llama-3.1-8b", "--gpu", gpu).splitlines()[-1])


def test_reproduce_hands_its_options_on(monkeypatch, tmp_path):
    asked, name = [], "irtuning.companion.reproduce.reproduce"
    monkeypatch.setattr(name, lambda profile, **options: asked.append(options) or {"runs": tmp_path})
    assert irt("reproduce", "--set", "folds=[0]", "--update-notebooks", "--jobs", "2") == f"runs: {tmp_path}\n"
    assert json.loads(irt("reproduce", "--json")) == {"runs": str(tmp_path)}
    assert (asked[0]["update_notebooks"], asked[0]["changes"], asked[0]["workers"]) == (True, {"folds": [0]}, 2)
    assert json.loads(irt("reproduce", "--dry-run"))["profile"] == "quick" and len(asked) == 2


@pytest.mark.parametrize("option", ["--workers", "--seeds"])
def test_no_workers_and_no_seeds_are_refused(option):
    made = CliRunner().invoke(app, ["compare", option, "0", "--methods", "irr"])
    assert made.exit_code == 2 and "greater than or equal to 1" in made.output


@pytest.mark.parametrize(("arguments", "message"), [
    (["corpus", "synthetik"], "did you mean 'synthetic'"), (["predict", "absent"], "give --before and --after"),
    (["train", "--method", "irr", "--output", "X"], "unknown method 'irr'"),
    (["train", "--set", "rank", "--output", "X"], "'rank' is not name=value"),
    (["train", "--set", "seed=3", "--output", "X"], "there is an option --seed"),
    (["compare", "--folds", "a"], "folds='a' cannot be read"), (["reproduce", "--set", "folds=a"], "is not JSON"),
    (["compare", "--methods", "random-counts"], "add ir to the methods"),
    (["predict", "absent", "--after", "x"], "no run in absent"),
    (["predict", "absent", "--before", __file__, "--after", "x"], "both as texts or both as files"),
    (["predict", "absent", "--before", "no-draft.txt", "--after", "x"], "both as texts or both as files"),
    (["predict", "absent", "--after", "x", "--output", "a.xls"], "must end in .csv, .jsonl or .html"),
    (["train", "--set", "lr=1e-3", "--output", "X"], "did you mean 'learning_rate'?"),
    (["train", "--set", "bs", "--output", "X"], "such as batch_size=..."),
    (["memory", "--set", "r=8"], "did you mean 'rank'?"),
    (["train", "--model", "bert-base-uncased", "--output", "X"], "did you mean 'google-bert/bert-base-uncased'"),
    (["train", "--model", "gpt2", "--output", "X"], "did you mean 'openai-community/gpt2'?"),
    (["reproduce", "--profile", "quikc"], "did you mean 'quick'"),
    (["reproduce", "--output", "/proc/none"], "cannot write"), (["reproduce", "--data", "/no"], "is not a folder"),
], ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "")  # fmt: skip
def test_bad_input_is_told_before_anything_is_written(arguments, message, tmp_path):
    made = CliRunner().invoke(app, [a.replace("X", str(tmp_path / "run")) for a in arguments])
    assert isinstance(made.exception, InputError) and message in str(made.exception)
    assert "\n" not in str(made.exception) and not made.stdout and not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_ctrl_c_or_sigterm_before_training_says_so_in_one_line(name, code, tmp_path):
    (tmp_path / "own.py").write_text(INTERRUPTED.replace("getpid(), signal.SIGINT", f"getpid(), signal.{name}") + OWN)
    command = [sys.executable, "-m", "irtuning", "train", "--method", f"{tmp_path}/own.py:Mine", "--output", "run"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "", "interrupted; what was recorded is kept\n")


def test_an_error_is_one_line_and_names_are_imported_when_they_are_needed():
    made = subprocess.run([sys.executable, "-m", "irtuning", "corpus", "synthetik"], capture_output=True, text=True)
    assert (made.returncode, made.stdout) == (2, "") and re.fullmatch(r"error: unknown corpus \([^)]*\) 'synth.*\n", made.stderr)
    heavy = "print({'torch', 'transformers', 'pandas', 'sklearn'} & {*sys.modules} or [])"
    unknown = [["train", "--output", "X", "--method", "irr"], ["compare", "--methods", "full,irr"],
               ["memory", "--method", "irr"], ["train", "--output", "X", "--model", "minni"]]  # fmt: skip
    for words in ([], *unknown):  # they are told before the imports, which take seconds
        code = f"import irtuning.cli, sys\nsys.argv[1:] = {words}\ntry: {words} and irtuning.cli.main()\nfinally: {heavy}"
        made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert made.stdout == "[]\n" and ("unknown m" in made.stderr or "did you mean 'mini'" in made.stderr) == bool(words)
    assert dir(irtuning) == irtuning.__all__
    assert all(getattr(irtuning, name) is not None for name in irtuning.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = irtuning.nothing
