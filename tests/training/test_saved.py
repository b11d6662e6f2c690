"""Saved runs and local models are trusted no further than needed: whole, nothing outside, no code, no secret in them."""

import hashlib
import json
import os
import pickle
import random
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from irtuning.training.classifier import RevisionClassifier
from irtuning.training.config import RunConfig
from irtuning.models.mini import CHECKSUMS
from irtuning.errors import InputError
from irtuning.models.loading import load_classifier, load_tokenizer, resolve
from irtuning.companion.paths import REPOSITORY
from irtuning.training.record import read_record
from irtuning.training.run import train
from irtuning.training.saved import check_saved, seal

SMALL = 2_000  # bytes; files up to that are cut at every place, larger ones at a sample, in the soak at all of the first 50,000
SAMPLE = 100
PAIR = [("He go home.", "He goes home.")]
opened: list[str] = []
watching = False


def watch(event, arguments):
    if watching and event == "open":
        opened.append(str(arguments[0]))


sys.addaudithook(watch)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """An adapter and a whole model, each trained two steps."""
    folder = tmp_path_factory.mktemp("runs")
    corpus = folder / "own.jsonl"
    rows = [{"before": f"a {i}", "after": f"b {i}", "label": "xy"[i % 2]} for i in range(40)]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, method in (("adapter", "ir"), ("model", "full-ft")):
        settings = {"corpus": str(corpus), "model": "tiny-random", "max_steps": 2, "method": method}
        train(RunConfig.of(settings), output=folder / name, progress=False)
    return folder


@pytest.fixture
def copy(runs, tmp_path):
    return lambda kind: Path(shutil.copytree(runs / kind, tmp_path / kind))


def forge(folder):
    """Seal a folder as someone would who changed it."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != CHECKSUMS]
    sums = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder).as_posix()}\n" for p in files]
    (folder / CHECKSUMS).write_text("".join(sums))


def change_json(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def places(path: Path, every: bool) -> list[int]:
    """Where to cut a file: everywhere, or round the ends of a safetensors header and at a sample."""
    size, rng = path.stat().st_size, random.Random(path.name)
    if size <= SMALL or every:
        return [*range(min(size, 50_000)), *range(50_000, size, 997)]
    ends = {0, 1, 7, 8, 9, size - 2, size - 1}
    if path.suffix == ".safetensors":
        header = struct.unpack("<Q", path.read_bytes()[:8])[0]
        ends |= {8 + header - 1, 8 + header, 8 + header + 1}
    return sorted(ends | set(rng.sample(range(size), SAMPLE)))


def cut_everywhere(folder: Path, every: bool = False) -> int:
    """Cut each file of a run at its places; each must be refused by name. Returns how many were."""
    count = 0
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        whole = path.read_bytes()
        for end in places(path, every):
            path.write_bytes(whole[:end])
            if path.name == CHECKSUMS and end == len(whole) - 1:
                continue  # without its last line's end it says the same
            with pytest.raises(InputError) as caught:
                RevisionClassifier.load(folder)
            assert path.name in str(caught.value), (path, end)
            count += 1
        path.write_bytes(whole)
    RevisionClassifier.load(folder)
    return count


@pytest.mark.parametrize("kind", ["adapter", "model"])
def test_a_file_cut_anywhere_is_refused_by_name(copy, kind):
    assert cut_everywhere(copy(kind)) > 1_500


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["adapter", "model"])
def test_a_file_cut_at_every_byte_is_refused_by_name(copy, kind):
    assert cut_everywhere(copy(kind), every=True) > 50_000


def test_a_record_cut_at_any_byte_is_refused_without_checksums(copy):
    path = copy("adapter") / "record.json"
    whole = path.read_bytes()
    for end in range(0, len(whole) - 1, 11):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"record\.json is damaged"):
            read_record(path.parent)
    path.write_bytes(whole[:-1])  # only the end of its line is gone
    read_record(path.parent)


def weights_of(folder):
    (path,) = folder.glob("*/*.safetensors")
    return path


def header_changed(path, change):
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    change(header)
    new = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(new)) + new + content[8 + size :])


def first(header):
    return header[min(name for name in header if name != "__metadata__")]


def tensors_changed(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def size_flipped(path):
    path.write_bytes(struct.pack("<Q", 2**40) + path.read_bytes()[8:])


WEIGHTS = {
    "size of the header": size_flipped,
    "cut in the weights": lambda p: p.write_bytes(p.read_bytes()[:-4]),
    "cut in the header": lambda p: p.write_bytes(p.read_bytes()[:100]),
    "places beyond the end": lambda p: header_changed(p, lambda h: first(h).update(data_offsets=[0, 2**50])),
    "places over one another": lambda p: header_changed(p, lambda h: first(h).update(data_offsets=[0, 0])),
    "shape in the header": lambda p: header_changed(p, lambda h: first(h).update(shape=[7])),
    "whole numbers": lambda p: header_changed(p, lambda h: first(h).update(dtype="I32")),
    "another shape": lambda p: tensors_changed(p, lambda t: t.update({min(t): torch.zeros(3, 3)})),
    "a tensor missing": lambda p: tensors_changed(p, lambda t: t.pop(min(t))),
    "the head missing": lambda p: tensors_changed(p, lambda t: t.pop(next(n for n in t if "score" in n))),
    "a tensor more": lambda p: tensors_changed(p, lambda t: t.update(more=torch.zeros(2))),
}


@pytest.mark.parametrize("kind", ["adapter", "model"])
@pytest.mark.parametrize("change", WEIGHTS)
def test_weights_that_are_not_the_runs_are_refused_though_sealed(copy, kind, change):
    folder = copy(kind)
    path = weights_of(folder)
    WEIGHTS[change](path)
    forge(folder)
    with pytest.raises(InputError) as caught:
        RevisionClassifier.load(folder)
    assert path.name in str(caught.value) or str(path.parent) in str(caught.value)


class Evil:
    """Unpickled, it leaves a file."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (Path.touch, (self.canary,))


def link_to(outside):
    def change(path):
        path.unlink()
        path.symlink_to(outside)

    return change


def pipe(path):
    path.unlink()
    os.mkfifo(path)


TRICKS = {  # what someone may do to a run before sealing it anew, with the file that must be named
    "a link": ("tokenizer/tokenizer.json", lambda p, out: link_to(out)(p)),
    "a linked record": ("record.json", lambda p, out: link_to(out)(p)),
    "linked weights": ("adapter/adapter_model.safetensors", lambda p, out: link_to(out)(p)),
    "a linked folder": ("tokenizer", lambda p, out: (p.rename(p.parent / "moved"), p.symlink_to(p.parent / "moved"))),
    "a pipe": ("adapter/adapter_config.json", lambda p, out: pipe(p)),
    "a name outside": (CHECKSUMS, lambda p, out: p.write_text(f"{'0' * 64}  ../outside.json\n" + p.read_text())),
    "linked checksums": (CHECKSUMS, lambda p, out: link_to(out)(p)),
    "code": ("tokenizer/evil.py", lambda p, out: p.write_text("raise SystemExit")),
    "a pickle": ("adapter/adapter_model.bin", lambda p, out: p.write_bytes(pickle.dumps(Evil(out)))),
    "a module": ("tokenizer/tokenizer_config.json", lambda p, out: change_json(p, auto_map={"AutoTokenizer": "evil.Evil"})),
    "a tokenizer elsewhere": ("tokenizer/tokenizer_config.json", lambda p, out: change_json(p, tokenizer_file=str(out))),
    "tokenizers elsewhere": ("tokenizer/tokenizer_config.json", lambda p, out: change_json(p, fast_tokenizer_files=["../../tokenizer.9.json"])),
    "an imported library": ("adapter/adapter_config.json", lambda p, out: change_json(p, megatron_config={"a": 1}, megatron_core="megatron.evil")),
    "an adapter's cache": ("adapter/adapter_config.json", lambda p, out: change_json(p, corda_config={"cache_file": str(out)})),
    "adapters elsewhere": ("adapter/adapter_config.json", lambda p, out: change_json(p, peft_type="XLORA", adapters={"a": str(out.parent)})),
    "a prompt's tokenizer": ("adapter/adapter_config.json", lambda p, out: change_json(p, tokenizer_name_or_path=str(out.parent))),
    "a deep record": ("record.json", lambda p, out: p.write_text("[" * 100_000)),
    "a record without a model": ("record.json", lambda p, out: change_json(p, run={"config": {}, "labels": []})),
    "no such adapter": ("adapter", lambda p, out: change_json(p / "adapter_config.json", peft_type="NONE")),
    "a tokenizer of junk": ("tokenizer", lambda p, out: (p / "tokenizer.json").write_text("{}")),
}  # fmt: skip
MODEL_TRICKS = {
    "code": ("model/config.json", lambda p, out: change_json(p, auto_map={"AutoModelForSequenceClassification": "evil.Evil"})),
    "attention from the Hub": ("model/config.json", lambda p, out: change_json(p, attn_implementation="someone/kernel")),
    "parts elsewhere": ("model/model.safetensors.index.json", lambda p, out: p.write_text('{"weight_map": {"a": "../../outside.json"}}')),
    "an adapter elsewhere": ("model/adapter_config.json", lambda p, out: p.write_text(json.dumps({"base_model_name_or_path": str(out.parent)}))),
    "a pickle": ("model/pytorch_model.bin", lambda p, out: p.write_bytes(pickle.dumps(Evil(out)))),
    "numbers as words": ("model", lambda p, out: change_json(p / "config.json", hidden_size="64")),
}  # fmt: skip
CASES = [("adapter", name) for name in TRICKS] + [("model", name) for name in MODEL_TRICKS]


@pytest.mark.parametrize(("kind", "trick"), CASES, ids=lambda value: value)
def test_a_folder_that_leads_outside_is_refused_though_sealed(copy, tmp_path, kind, trick):
    global watching
    folder, outside = copy(kind), tmp_path / "outside.json"
    outside.write_text('{"secret": "planted"}')
    name, change = (TRICKS if kind == "adapter" else MODEL_TRICKS)[trick]
    if trick not in ("a name outside", "linked checksums"):
        change(folder / name, outside)
        forge(folder)
    else:
        change(folder / name, outside)
    before = outside.stat()
    opened.clear()
    watching = True
    try:
        with pytest.raises(InputError) as caught:
            RevisionClassifier.load(folder)
    finally:
        watching = False
    assert str(folder / name) in str(caught.value) or name == CHECKSUMS and "outside.json" in str(caught.value)
    assert "planted" not in str(caught.value)
    assert not [path for path in opened if "outside" in path or "evil" in path or path.endswith(".bin")]
    assert outside.stat().st_mtime_ns == before.st_mtime_ns  # touched by nobody


def test_what_a_run_does_not_read_may_lie_beside_it(copy, tmp_path):
    folder, canary = copy("adapter"), tmp_path / "canary"
    expected = RevisionClassifier.load(folder).predict(PAIR)
    for name in ("pytorch_model.bin", "adapter_model.bin", "training_args.bin"):
        (folder / name).write_bytes(pickle.dumps(Evil(canary)))
    assert RevisionClassifier.load(folder).predict(PAIR) == expected
    assert not canary.exists()


def test_a_seal_refuses_what_it_would_not_read(copy):
    folder = copy("adapter")
    (folder / "adapter" / "more.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"more\.bin is no file that a run holds"):
        seal(folder)
    (folder / "adapter" / "more.bin").unlink()
    seal(folder)
    check_saved(folder)


@pytest.fixture
def local_model(copy, tmp_path):
    """A base model in a folder of the user's own."""
    folder = copy("model")
    for path in (folder / "tokenizer").iterdir():
        shutil.move(path, folder / "model")
    return folder / "model"


def test_a_local_model_is_never_unpickled(local_model, tmp_path):
    canary = tmp_path / "canary"
    for name in ("pytorch_model.bin", "model.safetensors.bin", "training_args.bin", "adapter_model.bin"):
        (local_model / name).write_bytes(pickle.dumps(Evil(canary)))
    tokenizer = load_tokenizer(resolve(str(local_model)))
    load_classifier(resolve(str(local_model)), ("a", "b"), tokenizer)
    (local_model / "model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be loaded as safetensors without remote code"):
        load_classifier(resolve(str(local_model)), ("a", "b"), tokenizer)
    assert not canary.exists()
    torch.save({"a": 1}, canary)  # the canary can be made at all
    pickle.loads(pickle.dumps(Evil(tmp_path / "sings")))
    assert (tmp_path / "sings").exists()


@pytest.mark.parametrize("model_type", ["llama", "unheard-of"])
def test_a_local_models_code_is_never_run(local_model, tmp_path, model_type):
    canary = tmp_path / "canary"
    code = f"import pathlib\npathlib.Path({str(canary)!r}).touch()\n"
    for name in ("modeling_evil", "configuration_evil", "tokenization_evil"):
        (local_model / f"{name}.py").write_text(code + "class Evil: pass\n")
    autos = {"AutoConfig": "configuration_evil.Evil", "AutoModelForSequenceClassification": "modeling_evil.Evil"}
    change_json(local_model / "config.json", auto_map=autos, model_type=model_type)
    change_json(local_model / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_evil.Evil", None]})
    try:
        source = resolve(str(local_model))
        load_classifier(source, ("a", "b"), load_tokenizer(source))
    except InputError as error:
        assert model_type == "unheard-of" or "local_model" in str(error) or str(local_model) in str(error)
    assert not canary.exists()


def test_a_damaged_local_model_is_named(local_model):
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json", "model.safetensors"):
        whole = (local_model / name).read_bytes()
        for share in (0.0, 0.3, 0.9):
            (local_model / name).write_bytes(whole[: int(share * len(whole))])
            with pytest.raises(InputError, match=str(local_model)):
                load_classifier(resolve(str(local_model)), ("a", "b"), load_tokenizer(resolve(str(local_model))))
        (local_model / name).write_bytes(whole)


WORK = """
import sys
from pathlib import Path
from irtuning.companion import reproduce
from irtuning.cli.app import app
from irtuning.companion.experiments import Companion
from irtuning.analysis.figures import score_comparison
from irtuning.companion.paths import NOTEBOOKS
from irtuning.analysis.tables import summary_table
if __name__ == "__main__":
    out = Path(sys.argv[1])
    app(["train", "--max-steps", "2", "--model", "tiny-random", "--output", str(out / "run")], standalone_mode=False)
    companion = Companion("quick", ["synthetic"], models=["tiny-random"], methods=["ir"], panels=["methods"], seeds=1,
                          max_steps=2, settings={"device": "cpu"}, output=str(out / "companion"))
    panel = companion.panel("methods")
    panel.table(summary_table, "02_methods", panel.floors)
    panel.figure(score_comparison, "02_macro_f1", panel.floors)
    companion.store()
    reproduce._run(NOTEBOOKS[0], companion.places, reproduce.profile_parameters("quick") | {"output": str(out / "companion")}, follow=False)
"""


def test_no_secret_and_no_name_of_the_machine_is_written(tmp_path):
    secrets = {
        "HF_TOKEN": "hf_plantedsecret0123456789",
        "AWS_SECRET_ACCESS_KEY": "plantedsecret/aws",
        "MY_SECRET": "plantedsecret-mine",
    }
    names = {
        "HOME": str(tmp_path / "planted-home"),
        "USER": "planteduser",
        "LOGNAME": "planteduser",
        "HOSTNAME": "plantedhost",
    }
    (tmp_path / "planted-home").mkdir()
    (tmp_path / "work.py").write_text(WORK)
    command = [sys.executable, str(tmp_path / "work.py"), str(tmp_path / "out")]
    found = subprocess.run(command, capture_output=True, text=True, env=os.environ | secrets | names, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    endings = {path.suffix for path in files}
    assert {".json", ".safetensors", ".ipynb", ".html", ".png", ".svg", ".csv", ".md", ".parquet"} <= endings
    wanted = [*secrets.values(), *names.values(), str(REPOSITORY)]
    wanted += [name for name in (socket.gethostname(), Path.home().as_posix() + "/") if len(name) > 6]
    for path in files:
        content = path.read_bytes()
        assert not [word for word in wanted if word.encode() in content], path
    said = found.stdout + found.stderr
    assert not [word for word in [*secrets.values(), "planteduser", "plantedhost"] if word in said]
