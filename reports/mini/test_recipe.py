"""The recipe that made the embedded model, and what its card says."""

import hashlib
import json
import random
import re
import subprocess
import sys

import pytest
from pretrain_model import Recipe, bits_per_byte
from pretrain_pairs import EDITS, WordSource, pairs_of
from pretrain_text import read_documents
from transformers import AutoModelForCausalLM

from irtuning import InputError, embedded_model_path
from irtuning.companion.paths import REPOSITORY
from irtuning.corpora.base import Revision
from irtuning.models.loading import load_classifier, load_tokenizer, resolve
from irtuning.models.prompts import encode

RECIPE = REPOSITORY / "reports" / "mini"
SAMPLE = REPOSITORY / "tests" / "sample.txt"
SHAPE = {"layers": 2, "width": 32, "intermediate": 48, "steps": 12, "vocabulary": 400, "context": 64,
         "batch_tokens": 256, "learning_rate": 1e-2}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(resolve("mini"))


def test_the_loss_on_our_own_sample_is_the_recorded_one(tokenizer):
    model = AutoModelForCausalLM.from_pretrained(embedded_model_path(), dtype="float32")
    recorded = json.loads((RECIPE / "sample.json").read_text())["bits_per_byte"]
    assert bits_per_byte(model, tokenizer, read_documents([SAMPLE])) == pytest.approx(recorded, rel=0.02)


def test_a_pair_is_written_as_the_classifier_reads_it(tokenizer):
    ids = encode([Revision("1", "He go home.", "He goes home.", "a")], tokenizer, ("a", "b"))[0]
    assert tokenizer("<s>He go home.<sep>He goes home.</s>", add_special_tokens=False)["input_ids"] == ids


def test_pairs_tell_direction_and_every_change():
    text, rng = SAMPLE.read_text(), random.Random(0)
    source = WordSource.of([text])
    pairs = [pair for _ in range(40) for pair in pairs_of(text, rng, source)]
    told = [p for p in pairs if "<sep>" in p and p.count("<del>") == 1 and "<edit>" not in p and "<s>###" not in p]
    assert len(told) > 50
    for pair in told:
        before, after, tail = re.fullmatch("<s>(.*)<sep>(.*)</s>(.*)", pair, re.DOTALL).groups()
        deleted, inserted = tail.split("<del>")[1].split("<ins>")
        assert tail.startswith(("<before>", "<after>"))
        assert set(deleted.split()) <= set(before.split()) and set(inserted.split()) <= set(after.split())
    assert not any("<del>" in pair for pair in pairs_of(text, rng, source, tail=False))
    for edit in EDITS:  # each changes some text
        words = "In 2019 Smith said, however, that they were a Few".split()
        assert any(edit(list(words), at, rng, source) != words for at in range(len(words)) for _ in range(20)), edit


def test_the_recipe_writes_a_folder_that_loads_and_names_wrong_settings(tmp_path):
    text, out = tmp_path / "text.txt", tmp_path / "out"
    text.write_text(SAMPLE.read_text() * 8)
    given = [f"--set={name}={value}" for name, value in SHAPE.items()]
    words = [sys.executable, RECIPE / "pretrain.py", text, "--held-out", SAMPLE, "--output", out, *given]
    run = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    record = json.loads((out / "training.json").read_text())
    curve = record["curve"]
    assert curve[-1]["step"] == 12 and curve[-1]["loss"] < curve[0]["loss"] and 0 < record["bits_per_byte"] < 10
    source = resolve(str(out))
    model = load_classifier(source, ("a", "b"), load_tokenizer(source))
    assert sum(p.numel() for p in model.model.parameters()) == record["parameters"]
    for given, message in (
        ({"widht": "3"}, "did you mean 'width'"), ({"width": "30"}, "width 30 is not a multiple of head_width 32"),
        ({"steps": "0", "pairs": "2"}, "steps is 0, give 1 or more; pairs is 2.0, give 0 to 1"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            Recipe.of(given)


def test_the_files_are_those_of_the_checksums_and_the_card_is_what_its_template_says():
    """Every sentence of the template that holds no number stands in the card, so the card is not out of date."""
    folder = embedded_model_path()
    sums = dict(reversed(line.split("  ")) for line in (folder / "SHA256SUMS").read_text().splitlines())
    files = [path for path in folder.iterdir() if path.name != "SHA256SUMS"]
    assert sums == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    card = (folder / "README.md").read_text(encoding="utf-8")
    pieces = re.split(r"\{[a-z_]+\}", (RECIPE / "model_card.md").read_text(encoding="utf-8"))
    assert len(pieces) > 20 and [piece for piece in pieces if piece not in card] == []
    stamp = json.loads((REPOSITORY / "figures/mini/manifest.json").read_text())["pays.png"]["stamp"]
    runs = json.loads((RECIPE / "runs.json").read_text())["meta"].values()
    assert all(run["device"] in stamp for run in runs)  # the figure names every device
