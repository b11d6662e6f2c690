"""A saved run predicts as it was scored; damaged folders are refused by name, and no code or secret is in the way."""

import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from irtuning import InputError, RevisionClassifier, load_corpus, train
from irtuning.models.loading import load_classifier, load_tokenizer, resolve

RUNS = {"ir": {}, "lisa": {}, "full-ft": {}, "dora": {"adapter": "dora"}, "bottleneck": {"adapter": "bottleneck"},
        "float8": {"speed": ("float8",)}}  # fmt: skip
PAIR = [("He go home.", "He goes home.")]


@pytest.fixture(scope="module")
def runs(own_corpus, tmp_path_factory):
    """A short run of every kind, made when it is asked for."""
    folder = tmp_path_factory.mktemp("runs")

    def make(name):
        method = name if name in ("lisa", "full-ft") else "ir"
        settings = own_corpus | {"method": method, "max_steps": 3} | RUNS[name]
        train(**settings, output=folder / name, progress=False)  # read if it was made before
        return folder / name

    return make


@pytest.fixture
def copy(runs, tmp_path):
    return lambda name: Path(shutil.copytree(runs(name), tmp_path / name))


@pytest.mark.parametrize("name", RUNS)
def test_a_saved_run_predicts_what_it_was_scored_on(runs, own_corpus, name):
    classifier = RevisionClassifier.load(runs(name))
    columns = {key: own_corpus[key] for key in ("before", "after", "label", "group")}
    predictions = classifier.predict(load_corpus(own_corpus["corpus"], **columns).validation)
    recorded = json.loads((runs(name) / "record.json").read_text())["predictions"]["validation"]
    assert [p.intention for p in predictions] == [row["predicted"] for row in recorded]
    for prediction, row in zip(predictions, recorded, strict=True):
        assert list(prediction.probabilities.values()) == pytest.approx(row["probabilities"], abs=1e-4)
    assert classifier.predict([]) == []
    notes = [(p.intention is None, p.note) for p in classifier.predict([("", " "), ("a", "a "), ("a", "")])]
    assert notes == [(True, "both sides are empty"), (True, "nothing was revised"), (False, "")]
    for wrong in ([(None, "x")], (None, "x"), ("He go.", "He goes."), [("x",)], [("x", 1)]):
        with pytest.raises(InputError, match=r"is no pair; give a list of \(before, after\)"):
            classifier.predict(wrong)


def lose_the_head(path):
    tensors = load_file(path)
    save_file({name: value for name, value in tensors.items() if "score" not in name}, path, metadata={"format": "pt"})


@pytest.mark.parametrize("name", ["ir", "full-ft"])
@pytest.mark.parametrize(("file", "damage"), [
    ("record.json", Path.unlink), ("*/*.safetensors", lambda path: path.write_bytes(path.read_bytes()[:-4])),
    ("*/*.safetensors", lose_the_head),
], ids=["no record", "weights cut", "no head"])  # fmt: skip
def test_a_damaged_folder_is_named(copy, name, file, damage):
    folder = copy(name)
    damage(next(folder.glob(file)))
    with pytest.raises(InputError, match=str(folder)):
        RevisionClassifier.load(folder)


class Evil:
    """Unpickled, it leaves a file."""

    def __reduce__(self):
        return (Path.touch, (self.canary,))


def test_no_pickle_and_no_code_in_a_run_or_a_local_model_is_run(copy, tmp_path):
    canary, folder, evil = tmp_path / "canary", copy("full-ft"), Evil()
    evil.canary = canary
    for part in ("model", "tokenizer"):
        (folder / part / "pytorch_model.bin").write_bytes(pickle.dumps(evil))
        (folder / part / "evil.py").write_text(f"open({str(canary)!r}, 'w')\nclass Evil: pass\n")
    autos = {"AutoModelForSequenceClassification": "evil.Evil", "AutoTokenizer": ["evil.Evil", None]}
    for config in (folder / "model" / "config.json", folder / "tokenizer" / "tokenizer_config.json"):
        config.write_text(json.dumps(json.loads(config.read_text()) | {"auto_map": autos}))
    assert RevisionClassifier.load(folder).predict(PAIR)
    shutil.copytree(folder / "tokenizer", folder / "model", dirs_exist_ok=True)
    model = resolve(str(folder / "model"))
    load_classifier(model, ("a", "b"), load_tokenizer(model))
    (folder / "model" / "model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be loaded"):
        load_classifier(model, ("a", "b"), load_tokenizer(model))
    assert not canary.exists()
    pickle.loads(pickle.dumps(evil))
    assert canary.exists()  # the trap works


def test_no_secret_and_no_name_of_the_machine_is_written_and_fcntl_and_resource_are_not_needed(own_corpus, tmp_path):
    """As on Windows: what only Unix has is hidden, once libraries that need it on Linux are imported."""
    planted = {"HF_TOKEN": "hf_plantedsecret0123456789", "MY_SECRET": "plantedsecret-mine", "USER": "planteduser",
               "HOME": str(tmp_path / "planted-home"), "HOSTNAME": "plantedhost"}  # fmt: skip
    code = f"""import sys, peft, torch.utils.tensorboard; from transformers import Trainer
for name in [name for name in sys.modules if name.startswith('filelock')]: del sys.modules[name]
sys.modules |= {{'fcntl': None, 'resource': None}}
from irtuning import train
run = train(output='run', report_to=['tensorboard'], progress=False, max_steps=2, device='cpu', **{own_corpus!r})
assert run.record['meta']['peak_memory_bytes'] is None and len(run.layers) == 2"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=os.environ | planted, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert {".json", ".safetensors"} <= {path.suffix for path in files}
    words = [*planted.values(), str(Path(own_corpus["corpus"]).parent)]
    words += [socket.gethostname()] if len(socket.gethostname()) > 6 else []
    for path in files:
        assert not [word for word in words if word.encode() in path.read_bytes()], path
