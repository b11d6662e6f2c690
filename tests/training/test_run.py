"""One run from end to end on a small corpus: what its record holds, what decides it, and bad input."""

import json
import shutil
from dataclasses import dataclass
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from peft import IA3Config
from safetensors.torch import load_file
from transformers import TrainerCallback

from irtuning import InputError, Revision, RunConfig, load_corpus, train
from irtuning.analysis.layers import late_shares
from irtuning.analysis.tables import mean_share, stamp
from irtuning.errors import TrainingStopped
from irtuning.method.strategies import Strategy
from irtuning.training.metrics import balanced_weights
from irtuning.training.prepare import Prepared, corpus_of, prepare


@dataclass
class EveryOther(Strategy):
    """Every second layer learns."""

    offset: int = 0
    colour = "#123456"

    def choose(self, step, scores, rng):
        return list(range(self.offset, self.count, 2))


def quick(own_corpus, output=None, **settings):
    return train(output=output, progress=False, **own_corpus | {"max_steps": 4} | settings)


def losses(run):
    return [step["loss"] for step in run.record["train"]["steps"]]


def test_the_record_keeps_its_contract_and_is_read_by_the_same_run_and_refused_to_another(own_corpus, tmp_path):
    settings, file = {"score_test": True, "eval_every": 2}, tmp_path / "run" / "record.json"
    run = quick(own_corpus, tmp_path / "run", **settings)
    record = json.loads(file.read_text())
    assert list(record) == ["schema", "run", "train", "scores", "predictions", "meta"] and record["schema"] == 1
    config = record["run"]["config"]
    assert {"corpus", "model", "adapter", "method", "seed", "fold"} <= set(config)
    assert None not in {config[n] for n in ("learning_rate", "warmup_steps", "rank", "eval_every", "precision")}
    assert record["run"]["strategy"].items() >= {"scope": "adapters", "importance": "gradient", "keep": "high"}.items()
    assert [s["step"] for s in record["train"]["steps"]] == [1, 2, 3, 4]
    for step in record["train"]["steps"]:
        assert {"loss", "learning_rate", "layers", "scores"} <= set(step) and np.isfinite(step["loss"])
    assert [point["step"] for point in record["train"]["validation"]] == [2, 4]
    assert config["device"] == "auto" and list(record["predictions"]) == ["validation", "test"]
    assert record["scores"]["test_scored"] == 1
    for split, rows in record["predictions"].items():
        right = np.mean([row["intention"] == row["predicted"] for row in rows])
        assert right == record["scores"][split]["accuracy"]
    assert record["train"]["validation"][-1]["accuracy"] == record["scores"]["validation"]["accuracy"]
    assert record["meta"]["status"] == "complete" and len(record["meta"]["step_seconds"]) == 4
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"record.json", "adapter", "tokenizer"}
    assert run.layers == [step["layers"] for step in record["train"]["steps"]]
    assert run._repr_png_().startswith(b"\x89PNG")
    stamp = file.stat().st_mtime_ns
    assert quick(own_corpus, tmp_path / "run", **settings).record == json.loads(json.dumps(run.record))
    assert file.stat().st_mtime_ns == stamp
    older = config | {"activation_budget": 1.0}  # a setting that there was once; `train_share` was added
    file.write_text(json.dumps(record | {"run": record["run"] | {"config": {n: older[n] for n in older if n != "train_share"}}}))
    assert quick(own_corpus, tmp_path / "run", **settings).config == json.loads(file.read_text())["run"]["config"]
    with pytest.raises(InputError, match="holds another run .*seed: 171 / 5"):
        quick(own_corpus, tmp_path / "run", seed=5, **settings)


def test_the_same_command_gives_the_same_record_and_another_seed_another(own_corpus):
    one, two, other = (quick(own_corpus, seed=seed) for seed in (1, 1, 2))
    first, again = ({name: value for name, value in run.record.items() if name != "meta"} for run in (one, two))
    assert first == again and list(first["predictions"]) == ["validation"] and first["scores"]["test_scored"] == 0
    assert losses(one)[0] != losses(other)[0] and one.layers != other.layers


def test_a_model_learns_and_shows_one_bar_with_its_last_score(own_corpus, capfd):
    run = train(**own_corpus | {"max_steps": 60, "method": "full"})
    printed = capfd.readouterr()
    assert run.scores["validation"]["macro_f1"] > 0.9 and not printed.out
    assert "60/60" in printed.err and "{" not in printed.err and printed.err.count("| 0/60") == 1
    shown = f"macro F1 {run.scores['validation']['macro_f1']:.3f}]"
    assert shown in printed.err.splitlines()[-1].split("60/60")[-1] and "<00:" in printed.err  # and the time left


@pytest.mark.parametrize("kind", ["class", "instance", "file"])
def test_a_strategy_of_ones_own_trains_and_its_record_names_it(own_corpus, tmp_path, kind):
    body = "colour = '#123456'\n def choose(self, *_): return list(range(0, self.count, 2))"
    head = "from irtuning.method.strategies import Strategy\nclass EveryOther(Strategy):"
    (tmp_path / "mine.py").write_text(f"{head}\n {body}\n")
    method = {"class": EveryOther, "instance": EveryOther(offset=1), "file": f"{tmp_path}/mine.py:EveryOther"}[kind]
    run = quick(own_corpus, method=method, max_steps=2)
    offset = int(kind == "instance")
    assert run.layers == [list(range(offset, 12, 2))] * 2
    assert run.config["method"] == "EveryOther" + ":offset=1" * offset
    facts = {"scope": "adapters", "importance": None, "keep": "high", "leads": False, "colour": "#123456"}
    assert run.record["run"]["strategy"] == facts


def test_a_prepared_run_trains_twice_alike_and_can_be_prepared_for_another_machine(own_corpus):
    prepared = prepare(RunConfig.of(own_corpus | {"max_steps": 2, "method": "lisa-adapters"}))
    first, second = (train(prepared, progress=False).record for _ in range(2))
    assert first["train"] == second["train"]  # a strategy's state stays in its run
    away = prepare(corpus="synthetic", method=EveryOther, on_device="cuda")
    assert isinstance(away, Prepared) and away.device == "cuda"
    assert (away.config.precision, away.config.batch_size) == ("bf16", away.source.settings["batch_size"])
    assert RunConfig.of({"method": EveryOther(offset=1)}).method == "EveryOther:offset=1"


def adapter_weights(own_corpus, folder, **settings):
    quick(own_corpus, folder, method="full", **settings)
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def test_a_frozen_head_stays_and_the_seed_makes_the_adapters(own_corpus, tmp_path):
    given = [{"head": "learns"}, {"head": "frozen"}, {"head": "frozen", "max_steps": 4},
             {"head": "learns", "max_steps": 4}, {"seed": 5}]  # fmt: skip
    one, frozen, still, moved, other = (
        adapter_weights(own_corpus, tmp_path / str(i), **{"max_steps": 1, "warmup_steps": 0} | settings)
        for i, settings in enumerate(given)
    )
    name = next(name for name in one if "score" in name)
    assert torch.equal(frozen[name], still[name]) and not torch.equal(one[name], moved[name])
    assert not [name for name in one if ("lora_A" in name or "score" in name) and (one[name] == other[name]).all()]


def test_class_weights_change_the_loss(own_corpus):
    settings = {"max_steps": 1, "method": "full"}
    plain, weighted = (losses(quick(own_corpus, class_weights=kind, **settings)) for kind in ("none", "balanced"))
    assert plain != weighted
    corpus = corpus_of(RunConfig.of(own_corpus))
    counts = [sum(r.intention == label for r in corpus.train) for label in corpus.labels]
    expected = [sum(counts) / (2 * count) for count in counts]
    assert balanced_weights([r.intention for r in corpus.train], corpus.labels).tolist() == pytest.approx(expected)


def test_accumulation_is_the_same_run(own_corpus):
    settings = {"method": "ir", "dropout": 0.0, "precision": "fp32"}  # on a GPU too, where bf16 would hide the rest
    runs = [quick(own_corpus, accumulation=n, max_steps=6, **settings) for n in (1, 2, 4)]
    for run in runs[1:]:
        assert run.layers == runs[0].layers and losses(run) == pytest.approx(losses(runs[0]), abs=1e-5)


def test_a_lowest_layer_keeps_shares_true(own_corpus):
    record = quick(own_corpus, method="ir:min_layer=6").record
    chosen = [layer for step in record["train"]["steps"] for layer in step["layers"]]
    assert record["run"]["depth"] == 12 and record["run"]["candidate_layers"] == list(range(6, 12))
    assert mean_share(record) == pytest.approx(len(chosen) / 4 / 12) and min(chosen) >= 6
    late = sum(len(step["layers"]) for step in record["train"]["steps"][1:])
    assert late_shares(record).index.tolist() == [*range(6, 12)] and late_shares(record).sum() == pytest.approx(late / 3)


def test_any_peft_configuration_trains_from_its_folder(own_corpus, tmp_path):
    targets = {"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]}
    IA3Config(task_type="SEQ_CLS", **targets).save_pretrained(tmp_path)
    assert np.isfinite(losses(quick(own_corpus, adapter=str(tmp_path)))).all()


def test_a_run_whose_splits_share_writers_says_so_in_its_record_and_stamp(own_corpus, tmp_path):
    for name in ("train", "dev", "test"):
        shutil.copy(own_corpus["corpus"], tmp_path / f"{name}.jsonl")
    shared, apart = (quick(own_corpus, max_steps=1, **of).record for of in ({"corpus": str(tmp_path)}, {}))
    assert shared["run"]["shared_groups"] == 30 and "shared_groups" not in apart["run"]
    assert f"{tmp_path.name} (real, 30 groups in several splits)" in stamp([shared], "quick")
    assert "own.jsonl (real) ·" in stamp([apart], "quick")


def test_objects_show_themselves_and_what_a_config_says_and_what_is_used_are_one():
    corpus = load_corpus("synthetic")
    for config, settings, message in (
        (RunConfig(), {"method": "rst"}, "put method into the config"), (None, {"lr": 1}, "lr"),
        (RunConfig(corpus="iterater"), {}, "read with corpus='synthetic', but the run says 'iterater'"),
        (RunConfig(fold=2), {}, "read with fold=0, but the run says 2"), (None, {"fold": 1}, "fold=0, but .* says 1"),
        (None, {"split": "folds"}, "split=None, but the run says 'folds'"), (None, {"group": "who"}, "group=None, but"),
        (RunConfig(before="old"), {}, "before='before', but the run says 'old'; make them agree"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            train(config, corpus=corpus, **settings)
    shown = Revision("1", "a <b> c", "a d c", "style")._repr_html_()
    assert "&lt;b&gt;" in shown and "line-through" in shown and "<b>style</b>" in shown


@pytest.mark.parametrize(("settings", "message"), [
    ({"model": "tiny-randon"}, "did you mean 'tiny-random'"), ({"adapter": "lorra"}, "did you mean 'lora'"),
    ({"method": "irr"}, "unknown method"), ({"method": "random-counts"}, "--like RUN"),
    ({"method": "ir:min_layer=11"}, "a split needs 2 or more"), ({"method": int}, "is not a method"),
    ({"method": "absent.py:Mine"}, "no file 'absent.py'"), ({"target_modules": ("absent",)}, "cannot be put on"),
    ({"max_length": 4096}, "tiny-random has a context of 512"), ({"clip": float("inf")}, "clip is inf"),
    ({"quantize": "4bit", "method": "full-ft"}, "tunes all weights"), ({"fold": 7}, "so fold 7 does not exist"),
    ({"method": "full", "share": 0.5}, "takes no share"), ({"method": "ist:every=0"}, "give 1 or more"),
])  # fmt: skip
def test_bad_input_ends_before_anything_is_written(own_corpus, tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        quick(own_corpus, tmp_path / "run", **settings)
    assert list(tmp_path.iterdir()) == []


def test_trackers_get_losses_scores_and_layers(own_corpus, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.raises(InputError, match="tracker .*tensorbord"):
        quick(own_corpus, tmp_path / "run", report_to=["tensorbord"])
    run = quick(own_corpus, tmp_path / "run", report_to=["tensorboard"], eval_every=2)
    (folder,) = (path for path in tmp_path.iterdir() if path.name != "run")
    events = EventAccumulator(str(folder))
    events.Reload()
    counts = [event.value for event in events.Scalars("train/learning_layers")]
    assert counts[:4] == [len(layers) for layers in run.layers]
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx(losses(run), abs=1e-3)
    norms = [event.value for event in events.Scalars("train/grad_norm")]
    assert norms == pytest.approx([step["gradient_norm"] for step in run.record["train"]["steps"]], rel=1e-4)
    assert len([tag for tag in events.Tags()["scalars"] if "layer_score/" in tag]) == 12
    assert events.Scalars("eval/macro_f1")[-1].value == pytest.approx(run.scores["validation"]["macro_f1"])


@pytest.mark.parametrize("method, broken", [("ir", False), (EveryOther, False), ("ir", True)])
def test_a_gpu_that_is_too_small_is_told_of_with_what_is_predicted_and_the_cure(monkeypatch, method, broken):
    """The error is CUDA's, raised by hand; the advice is what `irtuning memory` predicts, for a user's strategy too."""
    card = type("card", (), {"total_memory": 2 * 2**30})

    class Full(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
            if broken:
                fail = Mock(side_effect=AttributeError("broken"))
                monkeypatch.setattr("irtuning.method.strategies.IRTuningStrategy.worst_case", fail)
            raise torch.OutOfMemoryError

    needs = r": this run needs about \d+\.\d GiB; raise accumulation"
    if broken:
        needs = "; raise accumulation"
    options = {"corpus": "synthetic", "model": "mini", "batch_size": 64, "max_steps": 1, "max_length": 512}
    with pytest.raises(TrainingStopped, match=f"GPU of 2.0 GiB is out of memory{needs}"):
        train(progress=False, callbacks=[Full()], method=method, **options)
