"""What goes in and out of a run besides the corpus: prompts, metrics, configurations, records."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irtuning import InputError, Revision, RunConfig
from irtuning.models.loading import MODELS, load_tokenizer, model_names, resolve
from irtuning.models.prompts import FORMS, encode, instruction
from irtuning.models.speed import ACCELERATIONS
from irtuning.training.config import parse_settings
from irtuning.training.metrics import score
from irtuning.training.record import new_folder, read_record, write_record, write_text

LABELS = ("a", "b", "c")
RECORD = {"schema": 1, "run": {"config": {}}, "train": {}, "scores": {}, "predictions": {}, "meta": {}}


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(resolve("mini"))


def encoded(tokenizer, before, after, *options, **spans):
    return encode([Revision("1", before, after, "a", **spans)], tokenizer, LABELS, *options)[0]


def test_both_forms_keep_the_sides_apart_and_mark_the_edit(tokenizer):
    assert tokenizer.decode(encoded(tokenizer, "one", "two")).replace(" ", "") == "<s>one<sep>two</s>"
    assert encoded(tokenizer, "", "two").index(tokenizer.sep_token_id) == 1  # nothing stands before it
    marked = encoded(tokenizer, "a b c", "a x c", before_span=(1, 2), after_span=(1, 2))
    assert marked.count(tokenizer.convert_tokens_to_ids("<edit>")) == 2
    text = instruction("old text", "new text", LABELS)
    assert "a, b, c" in text and text.index("Original text") < text.index("old text") < text.index("Revised text")
    assert text.endswith("new text")


@pytest.mark.parametrize("form", ["pair", "instruction"])
def test_long_prompts_lose_the_ends_of_their_texts_and_keep_the_revised_side(tokenizer, form):
    long, short = "word " * 400, "the revised side is short and must survive whole"
    for before, after in ((long, short), (short, long), (long, long)):
        ids = encoded(tokenizer, before, after, form, 128)
        assert len(ids) <= 128
        kept = tokenizer.decode(ids)
        if after == short:
            assert short.replace(" ", "") in kept.replace(" ", "")
        elif form == "pair":
            sides = kept.split("<sep>")
            assert len(sides) == 2 and len(sides[1]) >= len(sides[0]) - 10


def test_the_marked_forms_keep_a_long_edit_whole_and_the_words_around_it(tokenizer):
    before = "far " * 300 + "near old near " + "far " * 300
    for form, room in (("marked", 32), ("instruction-marked", 96)):
        ids = encoded(tokenizer, before, before.replace("old", "brand new"), form, room)
        text = " ".join(tokenizer.decode(ids).split())
        assert room - 2 <= len(ids) <= room and "far near <del> old </del> <ins> brand new </ins> near far" in text
        assert ("one of: a, b, c. Deleted words" in text) == (form == "instruction-marked")
    cut = tokenizer.decode(encoded(tokenizer, "old " * 300, "new " * 30, "marked", 64))
    assert min(cut.count("old"), cut.count("new")) > 10  # both sides of the edit keep their beginning


@settings(deadline=None)  # the first example loads the tokenizer
@given(st.text(max_size=200), st.text(max_size=200))
def test_any_text_fits(tokenizer, before, after):
    for form in FORMS:
        assert len(encoded(tokenizer, before, after, form, 96)) <= 96


def test_tokenizer_gives_any_text_back_and_no_room_is_an_error(tokenizer):
    text = "Zürich — 東京\t\n 🙂 naïve  spaces"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    for form, length, message in (("instruction", 20, "leaves"), ("pairs", 128, "did you mean 'pair'")):
        with pytest.raises(InputError, match=message):
            encoded(tokenizer, "a", "b", form, length)


def test_scores_by_hand():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1]])
    found = score([0, 1, 1, 1], probabilities, LABELS)
    first = {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "auprc": 1.0, "support": 1}
    assert found["accuracy"] == 0.75 and found["per_class"]["a"] == first
    assert found["per_class"]["b"]["recall"] == pytest.approx(2 / 3)
    assert found["per_class"]["c"] == {"precision": 0, "recall": 0, "f1": 0, "auprc": 0, "support": 0}
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0.8 + 0) / 3)
    assert found["auprc"] == pytest.approx((1 + (1 + 1 + 1) / 3 + 0) / 3)  # b: 0.7, 0.6 and 0.3 rank above 0.1


def test_settings_are_read_as_their_fields_type_and_can_be_keys():
    config = RunConfig.of(parse_settings(["learning_rate=1e-3", "rank=4", "checkpointing=true", "target_modules=q,v"]))
    found = config.learning_rate, config.rank, config.checkpointing, config.target_modules
    assert found == (1e-3, 4, True, ("q", "v"))
    config = RunConfig.of({"speed": ["uncast"], "target_modules": ["q_proj"]})
    assert {config: 1}[config] == 1 and config.to_dict()["speed"] == ["uncast"]


@pytest.mark.parametrize(("given", "message"), [
    ({"rnak": "3"}, "did you mean 'rank'"), ({"rank": "three"}, "cannot be read as int"),
    ({"warmup_steps": 20}, "as long as the run"), ({"batch_size": 0}, "batch_size is 0"),
    ({"accumulation": 3}, "not a multiple"), ({"accumulation": 0}, "accumulation is 0"),
    ({"learning_rate": 0.0}, "learning_rate is 0.0"), ({"head": "cold"}, "head is 'cold'"),
    ({"epochs": float("inf")}, "epochs is inf"), ({"seed": 2**32}, r"seed is 4294967296, give less than 2\*\*32"),
    ({"dropout": 1.0, "clip": -1.0}, "clip is -1.0.*dropout is 1.0"),
    ({"speed": "uncast,recompute"}, "speed has 'recompute' without 'compile'"),
    ({"speed": "fast"}, f"speed is 'fast', give some of {', '.join(ACCELERATIONS)}"),
    ({"backward": "skp", "idle": "swap"}, "backward is 'skp', give one of .*'skip'.*idle is 'swap', give one of .*'drop'"),
])  # fmt: skip
def test_bad_settings_are_refused_all_at_once(given, message):
    with pytest.raises(InputError, match=message):
        config = RunConfig.of({"max_steps": 20} | given)
        config.complete(resolve(config.model), 100, False, "cpu")


def test_defaults_belong_to_the_model():
    large = RunConfig(model="llama-3.1-8b").complete(resolve("llama-3.1-8b"), 3000, False, "cuda")
    assert (large.rank, large.alpha, large.learning_rate, large.warmup_steps) == (32, 64, 2e-4, 75)
    assert (large.batch_size, large.max_length, large.form, large.eval_every) == (16, 256, "instruction", 10)
    assert large.max_steps == 4 * 188
    tiny = RunConfig(max_steps=50).complete(resolve("tiny-random"), 3000, False, "cpu")
    assert (tiny.warmup_steps, tiny.precision, tiny.form) == (5, "fp32", "pair")
    for steps, given, warmup in ((4, None, 0), (500, None, 50), (5000, None, 100), (500, 300, 300)):
        config = RunConfig(model="roberta-base", max_steps=steps, warmup_steps=given)
        assert config.complete(resolve("roberta-base"), 3000, False, "cpu").warmup_steps == warmup


def test_models_resolve_to_pinned_revisions():
    for name, entry in MODELS.items():
        source = resolve(name)
        assert len(source.revision) == (64 if source.path.endswith(".gguf") else 40) and source.path.count("/") == 1, name
        if entry.instruct:
            assert resolve(name, "pair").path != source.path == entry.instruct[0]
    assert resolve("some/model").revision is None
    with pytest.raises(InputError, match="did you mean 'qwen3-8b'"):
        resolve("qwen-8b")
    assert model_names()[0] == "mini"


def test_a_record_comes_back_and_a_damaged_one_is_refused(tmp_path):
    write_record(tmp_path, RECORD)
    assert read_record(tmp_path) == RECORD
    for text in ((tmp_path / "record.json").read_text()[:-3], json.dumps(RECORD | {"schema": 99}), '{"schema": 1}'):
        (tmp_path / "record.json").write_text(text)
        with pytest.raises(InputError, match="record.json"):
            read_record(tmp_path)
    with pytest.raises(InputError, match="no run in"):
        read_record(tmp_path / "absent")


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), new_folder(tmp_path / "run") as folder:
        (folder / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "run") as folder:
        (folder / "all").write_text("x")
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target", target_is_directory=True)
    for path, message in (("run", "holds something"), ("link", "cannot write"), ("run/all/run", "cannot write")):
        with pytest.raises(InputError, match=message), new_folder(tmp_path / path):
            pass
    with pytest.raises(OSError, match="late"), new_folder(tmp_path / "late") as folder:
        (folder / "all").write_text("x")  # stays, although the name is taken meanwhile
        (tmp_path / "late" / "other").mkdir(parents=True)
    assert (folder / "all").read_text() == "x"


def test_writing_leaves_what_was_there_when_it_fails(tmp_path, monkeypatch):
    write_text(tmp_path / "record.json", "old")
    monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(InputError, match="No space left"):
        write_text(tmp_path / "record.json", "new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
