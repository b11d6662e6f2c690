"""Tests of the repository itself: imports go one way, no unsafe loading, pinned versions, no name of a machine."""

import ast
import doctest
import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from irtuning.companion.paths import REPOSITORY

PACKAGE = REPOSITORY / "irtuning"
# the rooms from bottom to top: each imports from those of the rows above its own, and from itself
ROOMS = [
    {"errors"},
    {"method", "corpora"},
    {"models"},
    {"memory", "analysis"},
    {"training"},
    {"comparison"},
    {"companion"},
    {"cli"},
    {"__main__"},
]
NO_TORCH = {"errors", "corpora", "analysis", "cli", "__main__"}


def modules():
    return [p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py" or p.parent != PACKAGE]


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path):
    """Names of our modules a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
        yield from (n.split(".")[1] for n in names if n.startswith("irtuning."))


def test_imports_go_one_way():
    level = {name: i for i, names in enumerate(ROOMS) for name in names}
    assert set(level) == {room(p) for p in modules()}
    for path in modules():
        here = room(path)
        for there in imported(path):
            assert there == here or level[there] < level[here], f"{path.name} imports {there}"


def test_what_needs_no_torch_imports_none_at_its_head():
    for path in modules():
        if room(path) in NO_TORCH:
            heads = [n for n in ast.parse(path.read_text()).body if isinstance(n, (ast.Import, ast.ImportFrom))]
            text = " ".join(ast.unparse(node) for node in heads)
            assert not re.search(r"\b(torch|transformers|peft)\b", text), path.name


def test_the_method_stays_small():
    lines = [line.strip() for path in (PACKAGE / "method").glob("*.py") for line in path.read_text().splitlines()]
    assert len(lines) < 1200 and len([line for line in lines if line and not line.startswith("#")]) < 1000
    assert max(len(p.read_text().splitlines()) for p in modules()) <= 320


def hazards(tree):
    """What unpickles, or runs text as code, a command line or someone else's module."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [getattr(node, "module", None) or "", *(a.name for a in node.names)]
            yield from {name.split(".")[0] for name in names} & {"pickle", "dill", "cloudpickle", "marshal", "shelve"}
        if isinstance(node, ast.Call):
            call, given = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
            if call in ("eval", "exec", "os.system", "os.popen", "yaml.load", "joblib.load") or call.endswith((".read_pickle", ".unsafe_load")):
                yield call
            if call == "torch.load" and given.get("weights_only") != "True":
                yield call
            forbidden = {"trust_remote_code": "False", "shell": "False", "allow_pickle": "False", "use_safetensors": "True"}
            yield from (f"{call}({name}={given[name]})" for name in forbidden if given.get(name, forbidden[name]) != forbidden[name])
            if "AutoModel" in call and call.endswith("from_pretrained") and given.get("use_safetensors") != "True":
                yield call


def test_nothing_is_unpickled_and_no_text_is_run():
    code = "import pickle\neval(x)\ntorch.load(f)\nf(shell=True)\nAutoModel.from_pretrained(x)\nf(trust_remote_code=True)"
    assert len(list(hazards(ast.parse(code)))) == 6
    assert {path.name: found for path in modules() if (found := list(hazards(ast.parse(path.read_text()))))} == {}


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.stem)
def test_examples_in_docstrings_run(path):
    name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
    assert doctest.testmod(importlib.import_module(name.removesuffix(".__init__"))).failed == 0


def test_environment_pins_what_the_project_asks_for():
    import tomllib

    text = (REPOSITORY / "environment.yml").read_text()
    pins = dict(re.findall(r"- ([a-z][\w-]*)==([\d.]+)$", text, flags=re.M))
    asked = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    names = {re.match(r"[\w-]+", d)[0] for d in asked["dependencies"] + asked["optional-dependencies"]["test"]}
    assert names <= set(pins)
    if os.environ.get("IRTUNING_PINNED"):  # CI installs these very versions
        assert {name: importlib.metadata.version(name).partition("+")[0] for name in pins} == pins


def test_no_committed_file_names_this_machine():
    here = [place for place in (str(REPOSITORY), str(Path.home()), sys.prefix) if len(place) > 1]
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True).stdout.split("\n")
    wanted = {".py", ".md", ".toml", ".yml", ".ipynb", ".json", ".cff", ".csv"}
    paths = [REPOSITORY / name for name in listed if Path(name).suffix in wanted]
    for path in paths:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        text = re.sub(r'"image/[a-z+]+": ".*"', "", text)  # base64 may spell anything
        assert not [place for place in here if place in text], path
