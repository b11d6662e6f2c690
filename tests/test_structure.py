"""Tests of the repository itself: imports go one way, no unsafe loading, pinned versions, no name of a machine."""

import ast
import doctest
import graphlib
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
    {"errors", "__init__"},
    {"method", "corpora"},
    {"models"},
    {"memory", "analysis"},
    {"training"},
    {"comparison"},
    {"companion"},
    {"cli"},
    {"__main__"},
]
LEVELS = {name: level for level, names in enumerate(ROOMS) for name in names}
NO_TORCH = {"errors", "corpora", "analysis", "cli", "__main__"}
IN_AN_INIT = {"irtuning.__version__", "irtuning.cli.main"}  # the only names that may be imported from an `__init__`
MOST = {"irtuning": 8000, "irtuning/method": 1200}  # lines of a folder


def modules():
    return [p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py" or p.parent != PACKAGE]


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(tree):
    """Yield all that a module imports, inside functions too, by whole names: `a.b` for `from a import b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def faults(folder):
    """Yield what is wrong with the imports and the sizes of the package in a folder."""
    paths = {".".join(p.relative_to(folder.parent).with_suffix("").parts): p for p in sorted(folder.rglob("*.py"))}
    trees, graph = {name: ast.parse(path.read_text()) for name, path in paths.items()}, {name: set() for name in paths}
    for name, tree in trees.items():
        here, lines = name.split(".")[1], paths[name].read_text().splitlines()
        for whole in (w for w in imported(tree) if w.split(".")[0] in ("", "irtuning")):
            there = whole if whole in trees else whole.rpartition(".")[0] + ".__init__" * (whole in IN_AN_INIT)
            if there not in trees:
                yield f"{name} imports {whole}: relative, or not from the module that defines it"
                continue
            graph[name].add(there)
            if here != there.split(".")[1] and LEVELS[there.split(".")[1]] >= LEVELS[here]:
                yield f"{name} imports upwards: {there}"
        if name.endswith(".__init__") and name not in ("irtuning.__init__", "irtuning.cli.__init__") and tree.body[1:]:
            yield f"{name} holds more than its docstring"
        functions = (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))
        long = [node.name for node in functions if node.end_lineno - node.lineno >= 60]
        wide = [number for number, line in enumerate(lines, 1) if len(line) > 120]
        if long or wide or len(lines) > 300:
            yield f"{name}: {len(lines)} lines, functions over 60 lines {long}, lines over 120 columns {wide}"
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        yield f"import circle: {error.args[1]}"
    for part, most in MOST.items():
        made = sum(len(path.read_text().splitlines()) for path in (folder.parent / part).rglob("*.py"))
        if made > most:
            yield f"{part} has {made} lines"


def test_imports_go_one_way_and_the_package_stays_small():
    assert {room(p) for p in modules()} | {"__init__"} == set(LEVELS)
    assert list(faults(PACKAGE)) == []
    method = [line.strip() for path in (PACKAGE / "method").glob("*.py") for line in path.read_text().splitlines()]
    assert len([line for line in method if line and not line.startswith("#")]) < 1000


SOUND = {"__init__": "__version__ = '0'", "errors": "", "method/__init__": "'The method.'", "models/__init__": "",
         "method/one": "from irtuning.method import two", "method/two": "from irtuning.errors import InputError",
         "models/one": "def f():\n    import irtuning.method.one", "training/one": "",
         "cli/__init__": "from irtuning import __version__",
         "models/two": "x = 1\n" * 299 + "#" + "x" * 119}  # fmt: skip
UNSOUND = [
    ({"method/two": "def f():\n    import irtuning.training.one"}, "imports upwards: irtuning.training.one"),
    ({"method/two": "def f():\n    from irtuning.training import one"}, "imports upwards: irtuning.training.one"),
    ({"corpora/one": "from irtuning.method.one import x"}, "imports upwards"),  # beside is not below
    ({"method/two": "def f():\n    from irtuning.method.one import x"}, "import circle: .*method.(one|two)"),
    ({"models/one": "from . import two"}, "relative"), ({"models/one": "from .two import x"}, "relative"),
    ({"models/one": "from ..method.one import x"}, "relative"), ({"models/one": "import irtuning"}, "defines it"),
    ({"models/one": "from irtuning.method import *"}, "defines it"),
    ({"models/one": "from irtuning.method import Tuner"}, "defines it"),
    ({"models/one": "from irtuning import train"}, "defines it"),
    ({"models/one": "import irtuning.method as m"}, "defines it"),
    ({"method/__init__": "'A room.'\nfrom irtuning.method.one import x"}, "more than its docstring"),
    ({"models/one": "x = 1\n" * 301}, "301 lines"), ({"models/one": "#" + "x" * 120}, r"over 120 columns \[1\]"),
    ({"models/one": "class A:\n    def f():\n" + "        x = 1\n" * 60}, r"over 60 lines \['f'\]"),
    ({f"models/m{i}": "x = 1\n" * 300 for i in range(27)}, "^irtuning has 8[0-9]+ lines"),
    ({f"method/m{i}": "x = 1\n" * 300 for i in range(4)}, "irtuning/method has 1203 lines"),
]  # fmt: skip


@pytest.mark.parametrize(("changed", "message"), [({}, None), *UNSOUND])
def test_each_fault_of_a_package_is_found(changed, message, tmp_path):
    for name, text in (SOUND | changed).items():
        path = tmp_path / "irtuning" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = list(faults(tmp_path / "irtuning"))
    assert len(found) == (message is not None) and all(re.search(message, fault) for fault in found), found


def test_what_needs_no_torch_imports_none_at_its_head():
    for path in modules():
        if room(path) in NO_TORCH:
            heads = [n for n in ast.parse(path.read_text()).body if isinstance(n, (ast.Import, ast.ImportFrom))]
            text = " ".join(ast.unparse(node) for node in heads)
            assert not re.search(r"\b(torch|transformers|peft)\b", text), path.name


def hazards(tree):
    """What unpickles, or runs text as code, a command line or someone else's module."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [getattr(node, "module", None) or "", *(a.name for a in node.names)]
            yield from {name.split(".")[0] for name in names} & {"pickle", "dill", "cloudpickle", "marshal", "shelve"}
        if isinstance(node, ast.Call):
            call, given = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
            named = ("eval", "exec", "os.system", "os.popen", "yaml.load", "joblib.load")
            if call in named or call.endswith((".read_pickle", ".unsafe_load")):
                yield call
            if call == "torch.load" and given.get("weights_only") != "True":
                yield call
            safe = {"trust_remote_code": "False", "shell": "False", "allow_pickle": "False", "use_safetensors": "True"}
            yield from (f"{call}({k}={given[k]})" for k, value in safe.items() if given.get(k, value) != value)
            if "AutoModel" in call and call.endswith("from_pretrained") and given.get("use_safetensors") != "True":
                yield call


def test_nothing_is_unpickled_and_no_text_is_run():
    code = "import pickle\neval(x)\ntorch.load(f)\nf(shell=True)\n"
    code += "AutoModel.from_pretrained(x)\nf(trust_remote_code=True)"
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
