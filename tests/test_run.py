"""Runs from end to end on a small corpus: the record's contract, comparisons, prediction, bad input."""

import copy
import json

import numpy as np
import pytest

from irtuning.classifier import RevisionClassifier
from irtuning.comparison import compare, read_comparison
from irtuning.config import RunConfig
from irtuning.corpora import load_corpus
from irtuning.errors import InputError
from irtuning.run import _balanced_weights, train

COLOURS = ("red", "green", "blue", "black", "white", "brown", "pink", "grey", "gold", "teal")


@pytest.fixture(scope="module")
def own_corpus(tmp_path_factory):
    """A file of one's own: 'add' puts a colour in, 'drop' takes it out."""
    rows = []
    for i in range(120):
        plain, coloured = f"the car {i} stops", f"the {COLOURS[i % 10]} car {i} stops"
        pair = (plain, coloured, "add") if i % 3 else (coloured, plain, "drop")
        rows.append(dict(zip(("old", "new", "why"), pair, strict=True)) | {"writer": f"w{i // 4}"})
    path = tmp_path_factory.mktemp("corpus") / "own.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"corpus": str(path), "before": "old", "after": "new", "label": "why", "group": "writer", "precision": "fp32"}


def quick(own_corpus, **settings):
    return train(
        RunConfig.of(own_corpus | {"max_steps": 6} | settings), output=settings.pop("output", None), progress=False
    )


def without_clock(record):
    record = copy.deepcopy(record)
    record.pop("meta")
    return record


def test_the_record_keeps_its_contract(own_corpus, tmp_path):
    run = train(RunConfig.of(own_corpus | {"max_steps": 6}), output=tmp_path / "run", progress=False)
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert list(record) == ["schema", "run", "train", "scores", "predictions", "meta"] and record["schema"] == 1
    config = record["run"]["config"]
    for name in ("corpus", "model", "adapter", "method", "seed", "fold"):
        assert name in config
    assert None not in {config[n] for n in ("learning_rate", "warmup_steps", "rank", "eval_every", "precision")}
    assert [s["step"] for s in record["train"]["steps"]] == [1, 2, 3, 4, 5, 6]
    for step in record["train"]["steps"]:
        assert {"loss", "learning_rate", "layers", "scores"} <= set(step) and np.isfinite(step["loss"])
    assert record["train"]["validation"][-1]["step"] == 6
    assert list(record["predictions"]) == ["validation"] and record["scores"]["test_scored"] is False
    rows = record["predictions"]["validation"]
    right = np.mean([row["intention"] == row["predicted"] for row in rows])
    assert right == record["scores"]["validation"]["accuracy"] == record["train"]["validation"][-1]["accuracy"]
    assert record["meta"]["status"] == "complete" and len(record["meta"]["step_seconds"]) == 6
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"record.json", "adapter", "tokenizer"}
    assert run.layers == [step["layers"] for step in record["train"]["steps"]]


def test_the_same_command_gives_the_same_record_and_another_seed_another(own_corpus):
    first, again, other = (quick(own_corpus, seed=seed).record for seed in (1, 1, 2))
    assert without_clock(first) == without_clock(again)
    assert first["train"]["steps"][0]["loss"] != other["train"]["steps"][0]["loss"]
    assert [s["layers"] for s in first["train"]["steps"]] != [s["layers"] for s in other["train"]["steps"]]


def test_a_model_learns_and_predicts_what_it_was_scored_on(own_corpus, tmp_path):
    run = train(RunConfig.of(own_corpus | {"max_steps": 60, "method": "full"}), output=tmp_path / "run", progress=False)
    assert run.scores["validation"]["macro_f1"] > 0.9
    classifier = RevisionClassifier.load(tmp_path / "run")
    revisions = load_corpus(own_corpus["corpus"], **{k: v for k, v in own_corpus.items() if k not in ("corpus", "precision")}).validation
    found = classifier.predict(revisions)
    recorded = run.record["predictions"]["validation"]
    assert [f.intention for f in found] == [row["predicted"] for row in recorded]
    for one, row in zip(found, recorded, strict=True):
        assert list(one.probabilities.values()) == pytest.approx(row["probabilities"], abs=1e-4)
    assert classifier.predict([]) == []
    with pytest.raises(InputError, match="two empty sides"):
        classifier.predict([("", " ")])


@pytest.mark.parametrize("method", ["lisa", "full-ft"])
def test_full_parameter_runs_save_and_load(own_corpus, tmp_path, method):
    run = train(RunConfig.of(own_corpus | {"max_steps": 4, "method": method}), output=tmp_path / "run", progress=False)
    found = RevisionClassifier.load(tmp_path / "run").predict([("the car 1 stops", "the red car 1 stops")])
    assert set(found[0].probabilities) == set(run.record["run"]["labels"])


@pytest.mark.parametrize("adapter", ["dora", "bottleneck"])
def test_other_adapters_save_and_load(own_corpus, tmp_path, adapter):
    config = RunConfig.of(own_corpus | {"max_steps": 4, "adapter": adapter})
    run = train(config, output=tmp_path / "run", progress=False)
    pairs = [(r["id"], r) for r in run.record["predictions"]["validation"]]
    revisions = {r.id: r for r in load_corpus(own_corpus["corpus"], **_columns(own_corpus)).validation}
    found = RevisionClassifier.load(tmp_path / "run").predict([revisions[i] for i, _ in pairs])
    for one, (_, row) in zip(found, pairs, strict=True):
        assert list(one.probabilities.values()) == pytest.approx(row["probabilities"], abs=1e-4)


def _columns(own_corpus):
    return {name: value for name, value in own_corpus.items() if name not in ("corpus", "precision")}


def test_a_frozen_head_stays_and_class_weights_change_the_loss(own_corpus):
    plain, frozen = quick(own_corpus, method="full"), quick(own_corpus, method="full", head="frozen")
    weighted = quick(own_corpus, method="full", class_weights="balanced")
    losses = [[s["loss"] for s in r.record["train"]["steps"]] for r in (plain, frozen, weighted)]
    assert losses[0][0] == losses[1][0] and losses[0][-1] != losses[1][-1]
    assert losses[0][0] != losses[2][0]
    corpus = load_corpus(own_corpus["corpus"], **_columns(own_corpus))
    counts = [sum(r.intention == label for r in corpus.train) for label in corpus.labels]
    expected = [sum(counts) / (2 * count) for count in counts]
    assert _balanced_weights(corpus).tolist() == pytest.approx(expected)


def test_accumulation_is_the_same_run(own_corpus):
    runs = [quick(own_corpus, method="ir", dropout=0.0, accumulation=n).record for n in (1, 2, 4)]
    for other in runs[1:]:
        for a, b in zip(runs[0]["train"]["steps"], other["train"]["steps"], strict=True):
            assert a["layers"] == b["layers"] and a["loss"] == pytest.approx(b["loss"], abs=1e-5)


def test_the_best_checkpoint_is_the_one_scored(own_corpus):
    run = quick(own_corpus, max_steps=24, eval_every=4, checkpoint="best", learning_rate=2e-2)
    points = run.record["train"]["validation"]
    best = max(points, key=lambda p: p["macro_f1"])
    assert run.record["train"]["kept_step"] == best["step"]
    assert run.scores["validation"]["macro_f1"] == pytest.approx(best["macro_f1"])


def test_test_is_scored_only_when_asked_and_counted(own_corpus):
    run = quick(own_corpus, score_test=True)
    assert set(run.record["predictions"]) == {"validation", "test"} and run.scores["test_scored"] is True


def test_a_finished_run_is_read_and_another_is_refused(own_corpus, tmp_path):
    config = RunConfig.of(own_corpus | {"max_steps": 3})
    first = train(config, output=tmp_path / "run", progress=False)
    stamp = (tmp_path / "run" / "record.json").stat().st_mtime_ns
    assert train(config, output=tmp_path / "run", progress=False).record == json.loads(json.dumps(first.record))
    assert (tmp_path / "run" / "record.json").stat().st_mtime_ns == stamp
    with pytest.raises(InputError, match="holds another run .*seed: 171 / 5"):
        train(RunConfig.of(own_corpus | {"max_steps": 3, "seed": 5}), output=tmp_path / "run", progress=False)


def test_compare_shares_budgets_skips_what_is_there_and_goes_on_after_a_stop(own_corpus, tmp_path, monkeypatch):
    import irtuning.comparison as comparison

    trained, original = [], comparison.train

    def stop_at_third(config, **options):
        if len(trained) == 2 and "stopped" not in seen:
            seen.append("stopped")
            raise KeyboardInterrupt
        run = original(config, **options)
        trained.append(config.method)
        return run

    seen = []
    monkeypatch.setattr(comparison, "train", stop_at_third)
    call = {
        "methods": ["rst", "random-counts", "ir"],
        "seeds": [1],
        "output": tmp_path,
        "progress": False,
        "max_steps": 6,
    }
    with pytest.raises(KeyboardInterrupt):
        compare(**call, **own_corpus)
    table = compare(**call, **own_corpus)
    assert list(table.index) == ["operation floor", "edit-aware floor", "ir", "rst", "random-counts"]
    assert trained == ["ir", "rst", "ir", "rst", "random-counts"]
    records, floors = read_comparison(tmp_path)
    by_method = {r["run"]["config"]["method"]: r for r in records}
    counts = {m: [len(s["layers"]) for s in r["train"]["steps"]] for m, r in by_method.items()}
    assert counts["random-counts"] == counts["ir"]
    assert by_method["rst"]["run"]["config"]["share"] == pytest.approx(np.mean(counts["ir"]) / 12, abs=1e-3)
    assert len(floors) == 2 and not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "tiny-randon"}, "did you mean 'tiny-random'"),
        ({"adapter": "lorra"}, "did you mean 'lora'"),
        ({"method": "irr"}, "unknown method"),
        ({"method": "random-counts"}, "--like RUN"),
        ({"method": "ir:min_layer=11"}, "a split needs 2 or more"),
        ({"max_length": 4096}, "beyond tiny-random's context of 256"),
        ({"target_modules": ("absent",)}, "cannot be put on"),
        ({"quantize": "8bit", "method": "full-ft"}, "tunes all weights"),
        ({"fold": 7}, "fold must be 0 to 4"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_input_ends_before_anything_is_written(own_corpus, tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        train(RunConfig.of(own_corpus | {"max_steps": 4} | settings), output=tmp_path / "run", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_too_little_space_is_seen_before_training(own_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000})())
    with pytest.raises(InputError, match="1,000 bytes free"):
        train(RunConfig.of(own_corpus | {"max_steps": 4}), output=tmp_path / "run", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_damaged_weights_are_named(own_corpus, tmp_path):
    train(RunConfig.of(own_corpus | {"max_steps": 2}), output=tmp_path / "run", progress=False)
    weights = tmp_path / "run" / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot be loaded"):
        RevisionClassifier.load(tmp_path / "run")
    weights.unlink()
    with pytest.raises(InputError, match="no adapter_model.safetensors"):
        RevisionClassifier.load(tmp_path / "run")
