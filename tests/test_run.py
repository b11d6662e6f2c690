"""Runs from end to end on a small corpus: the record's contract, comparisons, prediction, bad input."""

import copy
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import IA3Config
from safetensors.torch import load_file
from transformers import TrainerCallback

from irtuning.training.classifier import RevisionClassifier
from irtuning.comparison.runs import compare, run_comparison
from irtuning.training.config import RunConfig
from irtuning.corpora.base import Revision
from irtuning.corpora.load import load_corpus
from irtuning.training.curve import ValidationCurve
from irtuning.errors import InputError, TrainingStopped
from irtuning.training.metrics import balanced_weights
from irtuning.training.run import train
from irtuning.analysis.tables import layer_frequency, mean_share


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
    assert list(record["predictions"]) == ["validation"] and record["scores"]["test_scored"] == 0
    rows = record["predictions"]["validation"]
    right = np.mean([row["intention"] == row["predicted"] for row in rows])
    assert right == record["scores"]["validation"]["accuracy"] == record["train"]["validation"][-1]["accuracy"]
    assert record["meta"]["status"] == "complete" and len(record["meta"]["step_seconds"]) == 6
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"record.json", "adapter", "tokenizer", "SHA256SUMS"}
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
    revisions = load_corpus(
        own_corpus["corpus"], **{k: v for k, v in own_corpus.items() if k not in ("corpus", "precision", "model")}
    ).validation
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
    return {name: value for name, value in own_corpus.items() if name not in ("corpus", "precision", "model")}


def test_a_frozen_head_stays(own_corpus, tmp_path):
    heads = {}
    for head in ("learns", "frozen"):
        for steps in (1, 6):  # the first step has learning rate 0
            config = RunConfig.of(own_corpus | {"max_steps": steps, "warmup_steps": 0, "head": head, "method": "full"})
            folder = tmp_path / f"{head}{steps}"
            train(config, output=folder, progress=False)
            weights = load_file(folder / "adapter" / "adapter_model.safetensors")
            heads[head, steps] = next(value for name, value in weights.items() if "score" in name)
    assert (heads["frozen", 1] == heads["frozen", 6]).all()
    assert (heads["learns", 1] != heads["learns", 6]).any()


def test_class_weights_change_the_loss(own_corpus):
    plain, weighted = (quick(own_corpus, method="full", class_weights=kind) for kind in ("none", "balanced"))
    assert plain.record["train"]["steps"][0]["loss"] != weighted.record["train"]["steps"][0]["loss"]
    corpus = load_corpus(own_corpus["corpus"], **_columns(own_corpus))
    counts = [sum(r.intention == label for r in corpus.train) for label in corpus.labels]
    expected = [sum(counts) / (2 * count) for count in counts]
    assert balanced_weights([r.intention for r in corpus.train], corpus.labels).tolist() == pytest.approx(expected)


def test_accumulation_is_the_same_run(own_corpus):
    settings = {"method": "ir", "dropout": 0.0, "precision": "fp32"}  # on a GPU too, where bf16 would hide the rest
    runs = [quick(own_corpus, accumulation=n, **settings).record for n in (1, 2, 4)]
    for other in runs[1:]:
        for a, b in zip(runs[0]["train"]["steps"], other["train"]["steps"], strict=True):
            assert a["layers"] == b["layers"] and a["loss"] == pytest.approx(b["loss"], abs=1e-5)


def test_the_best_checkpoint_is_the_one_scored(own_corpus):
    run = quick(own_corpus, max_steps=24, eval_every=4, checkpoint="best", learning_rate=2e-2)
    points = run.record["train"]["validation"]
    best = max(points, key=lambda p: p["macro_f1"])
    assert run.record["train"]["kept_step"] == best["step"]
    assert run.scores["validation"]["macro_f1"] == pytest.approx(best["macro_f1"])


def test_the_best_weights_come_back():
    model, curve = torch.nn.Linear(2, 2), ValidationCurve("best")
    curve.on_train_begin(None, SimpleNamespace(global_step=0), None, model=model)
    names = ("loss", "auprc", "accuracy", "macro_precision", "macro_recall")
    for step, macro_f1 in ((1, 0.2), (2, 0.5), (3, 0.4)):
        torch.nn.init.constant_(model.weight, step)
        metrics = {f"eval_{name}": 0.0 for name in names} | {"eval_macro_f1": macro_f1}
        curve.on_evaluate(None, SimpleNamespace(global_step=step), None, metrics=metrics)
    curve.on_train_end(None, None, None)
    assert curve.kept_step == 2 and (model.weight == 2).all()


def test_the_seed_makes_the_adapters(own_corpus, tmp_path):
    for seed in (1, 2):
        config = RunConfig.of(own_corpus | {"max_steps": 1, "seed": seed, "method": "full"})
        train(config, output=tmp_path / str(seed), progress=False)
    one, two = (load_file(tmp_path / s / "adapter" / "adapter_model.safetensors") for s in ("1", "2"))
    assert all((one[name] != two[name]).any() for name in one if "lora_A" in name or "score" in name)


def test_test_is_scored_only_when_asked_and_counted(own_corpus):
    run = quick(own_corpus, score_test=True)
    assert set(run.record["predictions"]) == {"validation", "test"} and run.scores["test_scored"] == 1


def test_a_finished_run_is_read_and_another_is_refused(own_corpus, tmp_path):
    config = RunConfig.of(own_corpus | {"max_steps": 3})
    first = train(config, output=tmp_path / "run", progress=False)
    stamp = (tmp_path / "run" / "record.json").stat().st_mtime_ns
    assert train(config, output=tmp_path / "run", progress=False).record == json.loads(json.dumps(first.record))
    assert (tmp_path / "run" / "record.json").stat().st_mtime_ns == stamp
    with pytest.raises(InputError, match="holds another run .*seed: 171 / 5"):
        train(RunConfig.of(own_corpus | {"max_steps": 3, "seed": 5}), output=tmp_path / "run", progress=False)


def test_compare_shares_budgets_skips_what_is_there_and_goes_on_after_a_stop(own_corpus, tmp_path, monkeypatch):
    import irtuning.comparison.runs as comparison

    original, calls = comparison.train, []

    def stop_at_third(config, **options):
        calls.append(config.method)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(config, **options)

    monkeypatch.setattr(comparison, "train", stop_at_third)
    options = {"seeds": [1], "output": tmp_path, "progress": False, "max_steps": 6, "jobs": 1} | own_corpus
    methods = ["rst", "random-counts", "ir"]
    with pytest.raises(KeyboardInterrupt):
        compare(methods, **options)
    written = {p: p.stat().st_mtime_ns for p in tmp_path.glob("*/record.json")}
    assert len(written) == 2
    table = compare(methods, **options)
    assert list(table.index) == ["operation floor", "edit-aware floor", "ir", "rst", "random-counts"]
    assert all(p.stat().st_mtime_ns == time for p, time in written.items())
    assert len(list(tmp_path.iterdir())) == 3
    records, floors = run_comparison(methods, **options)
    by_method = {r["run"]["config"]["method"]: r for r in records}
    counts = {m: [len(s["layers"]) for s in r["train"]["steps"]] for m, r in by_method.items()}
    assert counts["random-counts"] == counts["ir"] and len(floors) == 2
    assert by_method["rst"]["run"]["config"]["share"] == pytest.approx(np.mean(counts["ir"]) / 12, abs=1e-3)


def test_a_lowest_layer_keeps_shares_and_frequencies_true(own_corpus):
    record = quick(own_corpus, method="ir:min_layer=6").record
    chosen = [layer for step in record["train"]["steps"] for layer in step["layers"]]
    assert record["run"]["depth"] == 12 and record["run"]["candidate_layers"] == list(range(6, 12))
    assert mean_share(record) == pytest.approx(len(chosen) / 6 / 12) and min(chosen) >= 6
    frequency = layer_frequency([record]).iloc[0]
    assert frequency[:6].sum() == 0 and frequency.sum() == pytest.approx(len(chosen) / 6)


def test_any_peft_configuration_trains_from_its_folder(own_corpus, tmp_path):
    IA3Config(
        task_type="SEQ_CLS", target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]
    ).save_pretrained(tmp_path)
    run = quick(own_corpus, adapter=str(tmp_path))
    assert all(np.isfinite(step["loss"]) for step in run.record["train"]["steps"])


def test_objects_show_themselves(own_corpus):
    corpus = load_corpus("synthetic")
    assert "SYNTHETIC" in corpus._repr_html_() and "meaning-changed" in corpus._repr_html_()
    shown = Revision("1", "a <b> c", "a d c", "style")._repr_html_()
    assert "&lt;b&gt;" in shown and "line-through" in shown and "<b>style</b>" in shown
    assert quick(own_corpus)._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "tiny-randon"}, "did you mean 'tiny-random'"),
        ({"adapter": "lorra"}, "did you mean 'lora'"),
        ({"method": "irr"}, "unknown method"),
        ({"method": "random-counts"}, "--like RUN"),
        ({"method": "ir:min_layer=11"}, "a split needs 2 or more"),
        ({"max_length": 4096}, "beyond tiny-random's context of 512"),
        ({"target_modules": ("absent",)}, "cannot be put on"),
        ({"quantize": "8bit", "method": "full-ft"}, "tunes all weights"),
        ({"fold": 7}, "fold must be 0 to 4"),
        ({"method": "full", "share": 0.5}, "takes no share"),
        ({"method": "ist:every=0"}, "give 1 or more"),
        ({"clip": float("inf")}, "clip is inf"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_input_ends_before_anything_is_written(own_corpus, tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        train(RunConfig.of(own_corpus | {"max_steps": 4} | settings), output=tmp_path / "run", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_what_a_config_says_and_what_is_used_are_one():
    corpus = load_corpus("synthetic")
    with pytest.raises(InputError, match="put method into it"):
        train(RunConfig(), method="rst")
    with pytest.raises(InputError, match="the corpus is synthetic, fold 0, and the config says iterater, fold 0"):
        train(RunConfig(corpus="iterater"), corpus=corpus)
    with pytest.raises(InputError, match="the corpus is synthetic, fold 0, and the config says synthetic, fold 2"):
        train(RunConfig(fold=2), corpus=corpus)
    with pytest.raises(InputError, match="lr"):
        train(corpus=corpus, lr=1)


def test_too_little_space_is_seen_before_training(own_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000})())
    with pytest.raises(InputError, match="1,000 bytes free"):
        train(RunConfig.of(own_corpus | {"max_steps": 4}), output=tmp_path / "run", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_trackers_get_losses_scores_and_layers(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = {"corpus": "synthetic", "model": "tiny-random", "max_steps": 4, "batch_size": 4, "eval_every": 2}
    options = {"output": tmp_path / "run", "progress": False}
    with pytest.raises(InputError, match="tracker .*tensorbord"):
        train(RunConfig.of(settings), report_to=["tensorbord"], **options)
    run = train(RunConfig.of(settings), report_to=["tensorboard"], **options)
    (folder,) = (path for path in tmp_path.iterdir() if path.name != "run")
    events = EventAccumulator(str(folder))
    events.Reload()
    counts = [event.value for event in events.Scalars("train/learning_layers")]
    losses = [event.value for event in events.Scalars("train/loss")]
    assert counts[:4] == [len(layers) for layers in run.layers]
    assert losses == pytest.approx([step["loss"] for step in run.record["train"]["steps"]], abs=1e-3)
    assert len([tag for tag in events.Tags()["scalars"] if "layer_score/" in tag]) == 12
    assert events.Scalars("eval/macro_f1")[-1].value == pytest.approx(run.scores["validation"]["macro_f1"])


def test_a_gpu_that_is_too_small_gets_a_setting_that_fits(monkeypatch):
    """The error is CUDA's, raised by hand; the advice is what `irtuning memory` predicts."""
    card = type("card", (), {"total_memory": 2 * 2**30})

    class Full(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
            raise torch.OutOfMemoryError

    options = {"corpus": "synthetic", "model": "mini", "batch_size": 64, "max_steps": 1, "max_length": 512}
    with pytest.raises(TrainingStopped, match=r"GPU of 2.0 GiB is out of memory: predicted .* set accumulation=\d+ \(predicted 1"):
        train(progress=False, callbacks=[Full()], **options)
