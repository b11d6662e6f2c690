"""Tests of the notebooks: parameters, committed outputs, examples, and execution with other settings from anywhere."""

import ast
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tomllib
from unittest import mock

import nbformat
import papermill
import pytest

from irtuning.companion.experiments import read_manifest
from irtuning.companion.paths import NOTEBOOKS, REPOSITORY, notebook_path
from irtuning.corpora.sources import CORPORA
from irtuning.errors import InputError

CHANGES = {"models": ["tiny-random"], "seeds": 1, "max_steps": 4, "settings": {"batch_size": 4, "device": "cpu", "eval_every": 4}}
STAMP = (r"· \w[\w., -]* \((random weights, )?[\d.]+ M parameters\).* · (seeds [\d, to]+|\d+ seeds from \d+ on) · (folds [\d, to]+ · )?steps [\d, to]+.* · (CPU|NVIDIA)"
         r"|· no model, no seed, no steps$|· no corpus · ")  # fmt: skip


@pytest.fixture(autouse=True)
def one_run_at_a_time(monkeypatch):
    """Make short runs in this process, because new processes would take longer to start."""
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")


def cells_of(name, kind="code"):
    return [cell for cell in nbformat.read(notebook_path(name), 4).cells if cell.cell_type == kind]


def sources(name, kind="code"):
    """The texts of the cells that batches execute, or of the Markdown cells."""
    return [cell.source for cell in cells_of(name, kind) if not is_for_readers(cell)]


def is_for_readers(cell):
    """Whether papermill and nbval skip a cell, by its tags."""
    return {"skip-execution", "nbval-skip"} <= {*cell.metadata.get("tags", [])}


def run_cells(cells, names):
    """Run cells in this process; return what the last one shows, its text or its last value."""
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        for text in cells:
            *statements, last = ast.parse(text).body
            if isinstance(last, ast.Expr):
                exec(compile(ast.Module(statements, []), "cell", "exec"), names)
                value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
            else:
                value = exec(text, names)
    return value if value is not None else shown.getvalue()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_notebook_has_three_parameters_a_question_and_what_we_saw_in_three_sentences(name):
    parameters = {n: ast.literal_eval(p["default"]) for n, p in papermill.inspect_notebook(str(notebook_path(name))).items()}
    assert parameters == {"profile": "quick", "folders": {}, "changes": {}}
    assert "Companion.open(profile, changes=changes, **folders)" in sources(name)[1]
    assert len(sources(name)[0].splitlines()) == 3 and len(sources(name)[1].splitlines()) <= 5
    texts = sources(name, "markdown")
    assert "**Question.**" in texts[0] and "**Time.**" in texts[0]
    assert f"notebook {name[1]} " in texts[0].split("```")[1]  # where it stands on the way from text to figure
    assert "## What we saw" in texts and texts[-1].startswith("**Next.**") and ".ipynb)" in texts[-1]
    assert len(re.findall(r"^- ", sources(name)[-1], flags=re.MULTILINE)) == 3
    assert not re.search(r"tests/|test_\w+", " ".join(texts))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_committed_notebooks_are_executed_and_clean(name):
    book = json.loads((REPOSITORY / "notebooks" / f"{name}.ipynb").read_text())
    cells = [c for c in book["cells"] if c["cell_type"] == "code"]
    for_readers = [c for c in cells if {"skip-execution", "nbval-skip"} & {*c["metadata"].get("tags", [])}]
    assert all(is_for_readers(nbformat.from_dict(c)) and not (c["execution_count"] or c["outputs"]) for c in for_readers)
    assert all(c["execution_count"] for c in cells if c not in for_readers), "a cell without a count is never compared by nbval"
    outputs = [o for c in cells for o in c["outputs"]]
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert all(o["metadata"]["image/png"]["alt"] for o in outputs if "image/png" in o.get("data", {}))
    assert {kind for c in book["cells"] for kind in c["metadata"]} <= {"tags"}, "times of papermill"
    shown = {kind for output in outputs for kind in output.get("data", {})}
    assert ({"text/markdown"} if name == "05_the_study" else {"image/png", "text/html"}) <= shown
    assert not [o for o in outputs if "...</td>" in "".join(o.get("data", {}).get("text/html", ""))], "a cell is cut off"
    assert book["metadata"]["kernelspec"]["name"] == "python3"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_a_notebook_says_to_try_runs_and_one_cell_breaks_with_the_error_that_it_shows(name, tmp_path, monkeypatch):
    """Each cell stands alone. Here they run two steps of a tiny model with one seed, in this process."""
    monkeypatch.chdir(tmp_path)
    cells = [cell for cell in cells_of(name) if is_for_readers(cell)]
    broken = [cell for cell in cells if "raises-exception" in cell.metadata["tags"]]
    assert 3 <= len(cells) <= 4 and broken == cells[-1:]
    for cell in cells:
        short = re.sub(r'(seeds"?[=:] ?)\d+', r"\g<1>1", re.sub(r'(max_steps"?[=:] ?)\d+', r"\g<1>2", cell.source))
        tiny = short.replace('device="cpu"', 'device="cpu", model="tiny-random"')
        tiny, names = tiny.replace('"device": "cpu"', '"device": "cpu", "model": "tiny-random"'), {"__name__": "__main__"}
        if cell in broken:
            with pytest.raises(InputError) as raised:
                run_cells([tiny], names)
        else:
            shown = run_cells([tiny], names)
            assert shown is not None and str(shown), cell.source
    message = re.sub(r"^\S+(?=/mine.csv)", "...", str(raised.value))  # the folder is a new one each time
    assert f"`{message}`" in "\n".join(sources(name, "markdown")), message


@mock.patch.dict(CORPORA)  # undoes the registration
def test_notebook_1_shows_a_corpus_that_was_added_as_the_guide_says(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "notebooks" / "README.md").read_text(), flags=re.DOTALL)
    exec(next(text for text in blocks if "register_corpus" in text).partition("\ntrain(")[0], {})
    given = f"profile, folders, changes = 'quick', {{'output': {str(tmp_path)!r}}}, {{'corpora': ['verbs']}}"
    shown = run_cells([given, *sources(NOTEBOOKS[0])[1:]], {"__name__": "__main__"})
    assert "verbs does not give the labels of each annotator" in shown.data
    assert "01_intentions_verbs.png" in read_manifest(tmp_path / "figures/quick-changed")


def test_a_notebook_runs_by_papermill_from_another_folder_and_writes_no_secret_or_name_of_the_machine(tmp_path):
    secrets = {"HF_TOKEN": "hf_plantedsecret0123456789", "AWS_SECRET_ACCESS_KEY": "plantedsecret/aws"}
    names = {"USER": "planteduser", "LOGNAME": "planteduser", "HOSTNAME": "plantedhost"}
    command = [sys.executable, "-m", "papermill", str(notebook_path(NOTEBOOKS[0])), "out.ipynb", "-y", f"folders: {{output: {tmp_path / 'written'}}}"]
    environment = os.environ | secrets | names | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    files = {path: path.read_bytes() for path in (tmp_path / "written").rglob("*") if path.is_file()}
    assert {".png", ".svg", ".csv", ".md", ".json", ".lock"} == {path.suffix for path in files}
    assert "01_intentions_synthetic.png" in read_manifest(tmp_path / "written/figures/quick")
    words = [word.encode() for word in (*secrets.values(), *names.values(), str(REPOSITORY))]
    assert not [path for path, content in files.items() if any(word in content for word in words)]
    assert not [word for word in secrets.values() if word in (tmp_path / "out.ipynb").read_text()]


@pytest.mark.parametrize("name", [*NOTEBOOKS[1:4], "06_your_own_revisions"])
def test_a_notebook_runs_with_changed_settings(name, tmp_path_factory, monkeypatch):
    """The runs are shared between the notebooks. nbval executes the committed notebooks with their own parameters."""
    output = tmp_path_factory.getbasetemp() / "changed"
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))
    given = f"profile, folders, changes = 'quick', {{'output': {str(output)!r}}}, {CHANGES!r}"
    shown = run_cells([given, *sources(name)[1:]], {"__name__": "__main__"})
    assert len(re.findall(r"^- ", shown.data, flags=re.MULTILINE)) >= 3
    made = read_manifest(output / "figures/quick-changed")
    assert any(entry.startswith(name[:3]) for entry in made)
    if name.startswith("06"):  # its figure of recorded numbers says what was real
        assert "no corpus" not in made["06_circle.png"]["stamp"] and "argrewrite (real)" in made["06_circle.png"]["stamp"]


def test_every_committed_figure_and_table_has_its_origin_and_those_the_guide_names_are_made():
    for folder in ("figures/study", "figures/mini", "reports/study", "reports/study/first", "reports/mini"):
        manifest, files = read_manifest(REPOSITORY / folder), (REPOSITORY / folder).iterdir()
        assert set(manifest) == {path.name for path in files if path.suffix in (".png", ".csv")}
        for name, entry in manifest.items():
            assert entry["origin"] and entry["stamp"].startswith((folder.split("/")[1], "study")), name
            assert re.search(r"SYNTHETIC|\(real\)| · no corpus · .*(predicted|measured)", entry["stamp"]), name
            assert folder.endswith("mini") or re.search(STAMP, entry["stamp"]), name
    made = "\n".join(text for name in NOTEBOOKS for text in sources(name)) + (REPOSITORY / "reports/study/second/report.py").read_text()
    for name in set(re.findall(r"`(0\d_\w+)`", (REPOSITORY / "notebooks" / "README.md").read_text())) - set(NOTEBOOKS):
        assert f'"{name}"' in made or f'"{re.sub("_[^_]+$", "_", name)}' in made, name


def test_a_wheel_brings_the_notebooks_and_what_they_read():
    table = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    assert all(f"share/irtuning/{pattern.rpartition('/')[0]}" == folder for folder, patterns in table.items() for pattern in patterns)
    packed = {path.relative_to(REPOSITORY).as_posix() for patterns in table.values() for pattern in patterns for path in REPOSITORY.glob(pattern)}
    code = "\n".join(text for name in NOTEBOOKS for text in sources(name))
    read = {f"notebooks/{name}.ipynb" for name in NOTEBOOKS} | {f"reports/study/{name}.parquet" for name in ("runs", "steps", "predictions")}
    read |= {f"reports/benchmarks/{name}.json" for name in re.findall(r'measurement\("([^"]+)"\)', code)}
    read |= {f"reports/{folder}/{name}.json" for name, folder in re.findall(r'measurement\("([^"]+)", "([^"]+)"\)', code)}
    read |= {"/".join(re.findall(r'"([^"]+)"', path)) for path in re.findall(r'REPOSITORY((?: / "[^"]+")+)', code)} - {"reports/study/second", "reports/benchmarks"}
    store = REPOSITORY / "reports/study/second"
    read |= {path.relative_to(REPOSITORY).as_posix() for path in store.glob("*.*") if path.suffix in (".py", ".json", ".parquet") and "test" not in path.name}
    assert len(read) >= 22 and not read - packed and packed >= {"reports/benchmarks/measurements.py"}


def test_what_a_reproduction_writes_is_not_tracked():
    """The repository stays clean after `irtuning reproduce` and the tests."""
    git = lambda *words: subprocess.run(["git", *words], cwd=REPOSITORY, capture_output=True, text=True).stdout.split()  # noqa: E731
    folders = {tuple(name.split("/")[:2]) for name in git("ls-files", "figures", "reports") if name.count("/") > 1}
    if not folders:
        pytest.skip("not a git repository")
    assert {folder for kind, folder in folders if kind == "figures"} == {"study", "mini"}
    assert {folder for kind, folder in folders if kind == "reports"} <= {"study", "forms", "strategies", "mini", "benchmarks", "synthetic", "alignment", "annotation"}
    made = [f"{kind}/{profile}/02.{end}" for profile in ("quick", "small-changed") for kind, end in
            (("figures", "png"), ("figures", "svg"), ("reports", "csv"), ("reports", "ipynb"), ("runs", "record.json"))]  # fmt: skip
    assert git("check-ignore", *made) == made
