"""The embedded model and the recipe that made it."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irtuning import embedded_model_path
from irtuning.corpora.base import Revision
from irtuning.models.mini import checked
from irtuning.errors import InputError
from irtuning.models.loading import load_classifier, load_tokenizer, resolve
from irtuning.companion.paths import REPOSITORY
from irtuning.pretrain.pairs import EDITS, Source, edited, pairs_of
from irtuning.pretrain.text import BEGIN, Rows, encode_documents, encode_pairs, make_tokenizer, read_documents
from irtuning.pretrain.training import Recipe, bits_per_byte, fit, learning_rate_share, make_model
from irtuning.models.prompts import encode

SAMPLE = Path(__file__).parent / "sample.txt"
TEXT = SAMPLE.read_text()
SMALL = Recipe(
    vocabulary=400, layers=2, width=32, intermediate=48, context=64, steps=12, batch_tokens=256, learning_rate=1e-2
)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(resolve("mini"))


def test_the_model_loads_offline_in_under_two_seconds():
    code = (
        "import socket, time, torch, transformers\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM\n"
        "socket.socket.connect = None\n"
        "from irtuning import embedded_model_path\n"
        "started = time.perf_counter()\n"
        "folder = embedded_model_path()\n"
        "AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)\n"
        "print(time.perf_counter() - started)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert found.returncode == 0, found.stderr
    assert float(found.stdout) < 2


def test_size_layers_and_context_are_as_promised():
    config = json.loads((embedded_model_path() / "config.json").read_text())
    assert config["num_hidden_layers"] >= 12 and config["max_position_embeddings"] >= 512
    assert (embedded_model_path() / "model.safetensors").stat().st_size <= 24e6


@settings(deadline=None)  # the first example loads the tokenizer
@given(st.text(max_size=200))
def test_any_unicode_text_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_the_loss_on_our_own_sample_is_the_recorded_one(tokenizer):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(embedded_model_path(), dtype="float32")
    recorded = json.loads((REPOSITORY / "reports" / "mini" / "sample.json").read_text())["bits_per_byte"]
    assert bits_per_byte(model, tokenizer, read_documents([SAMPLE])) == pytest.approx(recorded, rel=0.02)


def test_a_damaged_file_is_named(tmp_path):
    folder = Path(shutil.copytree(embedded_model_path(), tmp_path / "mini"))
    assert checked(folder) == folder
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors fails its checksum"):
        checked(folder)
    (folder / "model.safetensors").write_bytes(b"")
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"config\.json fails its checksum \(no file"):
        checked(folder)


def test_random_counterparts_share_the_shape_and_not_the_weights(tokenizer):
    mini, other = (load_classifier(resolve(name), ("a", "b"), tokenizer) for name in ("mini", "mini-random"))
    mine, theirs = mini.state_dict(), other.state_dict()
    assert {n: p.shape for n, p in mine.items()} == {n: p.shape for n, p in theirs.items()}
    matrices = [n for n, p in mine.items() if p.ndim == 2]
    assert all((mine[n] != theirs[n]).any() for n in matrices)
    again = load_classifier(resolve("mini-random"), ("a", "b"), tokenizer).state_dict()
    assert all((theirs[n] == again[n]).all() for n in matrices if n != "score.weight")


def test_an_incomplete_checkpoint_is_refused(tmp_path, tokenizer):
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(embedded_model_path(), tmp_path / "cut"))
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.layers.3.mlp.up_proj.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 of its weights, model\.layers\.3\.mlp\.up_proj"):
        load_classifier(resolve(str(folder)), ("a", "b"), tokenizer)


def test_a_pair_is_written_as_the_classifier_reads_it(tokenizer):
    before, after = "He go home.", "He goes home."
    read = encode([Revision("1", before, after, "a")], tokenizer, ("a", "b"))[0]
    assert tokenizer(f"<s>{before}<sep>{after}</s>", add_special_tokens=False)["input_ids"] == read


def test_pairs_tell_direction_and_every_change():
    source, rng = Source.of([TEXT]), random.Random(0)
    pairs = [pair for _ in range(40) for pair in pairs_of(TEXT, rng, source)]
    told = [pair for pair in pairs if "<del>" in pair and "<edit>" not in pair and "<s>###" not in pair]
    told = [pair for pair in told if "<sep>" in pair and pair.count("<del>") == 1]
    assert len(told) > 50
    for pair in told:
        texts, tail = pair.split("</s>")
        before, after = texts.removeprefix("<s>").split("<sep>")
        gone, put = tail.split("<del>")[1].split("<ins>")
        assert tail.startswith(("<before>", "<after>"))
        assert set(gone.split()) <= set(before.split()) and set(put.split()) <= set(after.split())
    assert not any("<del>" in pair for pair in pairs_of(TEXT, rng, source, tail=False))


def test_every_edit_changes_some_text_and_none_fails():
    source, rng = Source.of([TEXT]), random.Random(0)
    for edit in EDITS:
        words = "In 2019 Smith said, however, that they were a Few".split()
        assert any(edit(list(words), at, rng, source) != words for at in range(len(words)) for _ in range(20)), edit
        for text in ("a", ".", "1", "I"):
            edit([text], 0, rng, source)
    assert all(edited("Short text.", (), rng, source) for _ in range(200))


def test_rows_are_whole_pairs_and_cover_the_text():
    documents = read_documents([SAMPLE]) * 20
    tokenizer = make_tokenizer(documents, SMALL.vocabulary, SMALL.context)
    pairs = encode_pairs(documents, tokenizer, 5000)
    assert len(pairs) >= 5000 and (encode_pairs(documents, tokenizer, 5000) == pairs).all()
    rows = Rows(pairs, 65, "cpu", True, 0)
    drawn = rows.draw(40)
    assert drawn.shape == (40, 65) and (drawn[:, 0] == BEGIN).all()
    assert {tuple(row.tolist()) for row in drawn} <= {
        tuple(pairs[i : i + 65]) for i in rows.starts if i + 65 <= len(pairs)
    }
    plain = encode_documents(documents, tokenizer)
    seen = Rows(plain, 65, "cpu", False, 0).draw(len(plain) // 65 - 1)
    assert len({tuple(row.tolist()[1:]) for row in seen}) > len(seen) // 2


def test_training_lowers_the_loss_and_the_rate_falls_to_zero():
    documents = read_documents([SAMPLE]) * 20
    tokenizer = make_tokenizer(documents, SMALL.vocabulary, SMALL.context)
    model = make_model(SMALL, len(tokenizer))
    before = bits_per_byte(model, tokenizer, documents[:3])
    curve = fit(model, SMALL, encode_documents(documents, tokenizer), encode_pairs(documents, tokenizer, 2000))
    assert curve[-1]["loss"] < curve[0]["loss"] and bits_per_byte(model, tokenizer, documents[:3]) < before
    assert learning_rate_share(SMALL.steps, SMALL) == 0 and learning_rate_share(0, SMALL) == 1


def pretrain(*words, **more):
    return subprocess.run(
        [sys.executable, "-m", "irtuning.pretrain", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        **more,
    )


def test_the_recipe_runs_on_a_sample_and_writes_a_folder_that_loads(tmp_path):
    settings = [f"--set={n}={v}" for n, v in (("layers", 2), ("width", 32), ("intermediate", 48), ("steps", 3),
                ("vocabulary", 400), ("context", 64), ("batch_tokens", 128))]  # fmt: skip
    found = pretrain(SAMPLE, "--held-out", SAMPLE, "--output", tmp_path / "out", *settings)
    assert found.returncode == 0, found.stderr
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert 0 < record["bits_per_byte"] < 10 and record["curve"][-1]["step"] == 3
    source = resolve(str(tmp_path / "out"))
    model = load_classifier(source, ("a", "b"), load_tokenizer(source))
    assert sum(p.numel() for p in model.model.parameters()) == record["parameters"]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"", (), "no text in"),
        (None, (), "cannot be read"),
        (b"caf\xe9 au lait", (), "is not UTF-8 text at byte 3"),
        (b"One short sentence of text.", (), "less than one context of 512"),
        (b"text", ("--set=widht=3",), "did you mean 'width'"),
        (b"text", ("--set=width=30",), "width 30 is not a multiple of head_width 32"),
        (b"text", ("--set=steps=0", "--set=pairs=2"), "steps is 0, give 1 or more; pairs is 2.0, give 0 to 1"),
        (b"text", ("--output=/proc/none",), "cannot write to /proc/none"),
    ],
)
def test_bad_input_is_named_before_anything_is_written(tmp_path, content, options, message):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    found = pretrain(path, *(("--output", tmp_path / "out") if "--output" not in str(options) else ()), *options)
    assert found.returncode == 2 and message in found.stderr, found.stderr
    assert not (tmp_path / "out").exists()


def test_too_little_space_is_seen_before_training(tmp_path, monkeypatch):
    from irtuning.pretrain.__main__ import pretrain as run_recipe

    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000})())
    with pytest.raises(InputError, match="1,000 bytes free for"):
        run_recipe(read_documents([SAMPLE]) * 20, [], SMALL, tmp_path)


def test_a_damaged_archive_is_named(tmp_path):
    (tmp_path / "text.xz").write_bytes(b"\xfd7zXZ\x00 and then nothing")
    with pytest.raises(InputError, match=r"text\.xz cannot be read"):
        read_documents([tmp_path / "text.xz"])
    (tmp_path / "text.txt").write_bytes(b"\xef\xbb\xbfA paragraph.\r\n\r\nAnother document.\r\n")
    assert read_documents([tmp_path / "text.txt"]) == ["A paragraph.", "Another document."]


def test_help_is_quick_and_shows_an_example():
    started = time.perf_counter()
    found = pretrain("--help")
    assert found.returncode == 0 and "--held-out" in found.stdout and "learning_rate=0.003" in found.stdout
    assert time.perf_counter() - started < 3  # no torch: well under a second on an idle machine


def test_the_card_is_what_its_template_says():
    """Every sentence of the template that holds no number stands in the card: one not made anew fails."""
    template = (REPOSITORY / "tests/benchmarks/model_card.md").read_text(encoding="utf-8")
    card = (REPOSITORY / "irtuning/mini/README.md").read_text(encoding="utf-8")
    pieces = re.split(r"\{[a-z_]+\}", template)
    assert len(pieces) > 20 and [piece for piece in pieces if piece not in card] == []


def test_the_cards_figure_names_every_device_that_its_runs_had():
    stamp = json.loads((REPOSITORY / "figures/mini/manifest.json").read_text())["pays.png"]["stamp"]
    runs = json.loads((REPOSITORY / "reports/mini/runs.json").read_text())["meta"].values()
    assert all(run["device"] in stamp for run in runs)
