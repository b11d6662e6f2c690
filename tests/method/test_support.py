"""What works with what: every strategy with every adapter and every way of training, as notebooks/README.md says.

The default run makes one cell for each path through the code. `pytest -m slow tests/method/test_support.py` makes all.
"""

import functools
import math

import pytest
import torch
from conftest import make_examples
from peft import IA3Config, LoHaConfig, LoraConfig, get_peft_model
from test_invariants import CORPUS, train_together
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments


from irtuning import InputError, LayerwiseTuning, make_strategy, predict_memory, train
from irtuning.companion.paths import REPOSITORY
from irtuning.method.processes import refuse_sharding
from irtuning.method.registry import METHODS
from irtuning.models.adapters import BottleneckConfig

ADAPTERS = ("LoRA", "DoRA", "bottleneck", "other peft tuners", "full parameters")
WAYS = ("classification", "causal LM", "accumulation", "checkpointing", "compile", "float8", "DDP", "resume",
        "memory prediction", "unit=block", "FSDP, DeepSpeed")  # fmt: skip
STEPS = 4
SETTINGS = {"corpus": "synthetic", "model": "tiny-random", "dropout": 0.0, "batch_size": 8, "max_steps": STEPS,
            "eval_every": STEPS, "max_length": 32, "device": "cpu", "warmup_steps": 0}  # fmt: skip
OPTIONS = {"ist": ":every=2", "lisa": ":every=2", "lisa-adapters": ":every=2", "probe": ":batches=2",
           "sampled": ":every=2", "ir-cosine": ":score=token", "fixed": ":layers=1-2"}  # fmt: skip
INSIDE = ["q_proj", "v_proj", "up_proj"]


def expected(method, adapter, way):
    """`works`, `refused` or, in words, why the question does not arise."""
    if (METHODS[method].scope == "parameters") != (adapter == "full parameters"):
        return "not applicable"
    if way == "float8" and adapter == "full parameters":  # nothing is frozen for a whole run
        return "refused"
    if way == "FSDP, DeepSpeed" or (way == "unit=block" and not METHODS[method].blocks):
        return "refused"
    return "works"


def table():
    """The matrix as Markdown. What is refused does not depend on the adapter."""
    signs = {"works": "yes", "refused": "refused", "not applicable": "–"}
    rows = [["strategy", *ADAPTERS, *WAYS]]
    rows += [["---"] * len(rows[0])]
    for method, kind in METHODS.items():
        if kind.__module__.startswith("irtuning."):
            own = ADAPTERS[-1] if kind.scope == "parameters" else ADAPTERS[0]
            cells = [expected(method, a, WAYS[0]) for a in ADAPTERS] + [expected(method, own, way) for way in WAYS]
            rows.append([f"`{method}`", *(signs[cell] for cell in cells)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def run_of(name, adapter, folder, output=None, save_every=None, callbacks=(), **changes):
    settings = configuration(name, adapter, folder) | {"corpus": CORPUS} | changes
    return train(**settings, progress=False, output=output, save_every=save_every, callbacks=callbacks).record


def configuration(method, adapter, folder):
    """The settings of a run of this method; another run, the counts or a peft folder are made where it needs them."""
    if method == "transplant":
        run_of("ir", "LoRA", folder, output=folder / "led")
    options = {"transplant": f":run={folder / 'led'}"} | OPTIONS
    if adapter == "other peft tuners":
        IA3Config(target_modules=INSIDE, feedforward_modules=[], task_type="SEQ_CLS").save_pretrained(folder / "ia3")
    named = {"other peft tuners": str(folder / "ia3"), "full parameters": "lora"}.get(adapter, adapter.lower())
    counts = {"counts": (3,) * STEPS} if method == "random-counts" else {}
    return SETTINGS | {"method": method + options.get(method, ""), "adapter": named} | counts


@functools.cache
def plain(method, adapter, folder):
    """The steps of the run with which others are compared."""
    return run_of(method, adapter, folder)["train"]["steps"]


def assert_equal_steps(record, method, adapter, folder):
    for one, other in zip(record["train"]["steps"], plain(method, adapter, folder), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-4) and one["layers"] == other["layers"]


class Stop(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise RuntimeError("stopped after a checkpoint")


def as_causal_lm(method, adapter, folder):
    """Train a language model with the callback in a plain Trainer, and return the history."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, pad_token_id=0))
    config = {"LoRA": LoraConfig(r=2, target_modules=INSIDE),
              "bottleneck": BottleneckConfig(target_modules=INSIDE, width=4),
              "DoRA": LoraConfig(r=2, target_modules=INSIDE, use_dora=True),
              "other peft tuners": IA3Config(target_modules=INSIDE, feedforward_modules=[])}.get(adapter)  # fmt: skip
    model = get_peft_model(model, config) if config else model
    spec, counts = configuration(method, adapter, folder)["method"], {"counts": (2,) * STEPS}
    if method == "transplant":  # the other run has more layers
        spec += ":layers=1-2"
    callback = LayerwiseTuning(make_strategy(spec, **counts if method == "random-counts" else {}))
    arguments = TrainingArguments(str(folder), max_steps=STEPS, report_to="none", disable_tqdm=True, use_cpu=True)
    rows = [{"input_ids": row["input_ids"][:4], "labels": row["input_ids"][:4]} for row in make_examples()]
    Trainer(model, arguments, train_dataset=rows, callbacks=[callback]).train()
    return callback.history


def attempt(method, adapter, way, folder, monkeypatch):
    """Do what a cell says, and check that it has the right result. InputError if it is refused."""
    given = configuration(method, adapter, folder)
    if way == "FSDP, DeepSpeed":
        for name, option in (("FSDP", {"fsdp": ["full_shard"]}), ("DeepSpeed", {"deepspeed": "zero3.json"})):
            with pytest.raises(InputError, match=f"{name} cannot train layer by layer"):
                refuse_sharding(**option)
        raise InputError("a shard does not hold a whole layer")
    if way == "memory prediction":
        method_spec = make_strategy(given["method"], **{"counts": given["counts"]} if "counts" in given else {})
        assert predict_memory("tiny-random", method_spec, given["adapter"], 8, 32, precision="fp32").peak_bytes > 0
    elif way == "causal LM":
        history = as_causal_lm(method, adapter, folder)
        assert len(history) == STEPS and all(math.isfinite(row["gradient_norm"]) and row["layers"] for row in history)
    elif way == "classification":
        assert len(plain(method, adapter, folder)) == STEPS
    elif way == "unit=block":
        record = run_of(method, adapter, folder, method=f"{given['method']}:unit=block")
        names = record["run"]["candidate_blocks"]
        assert "3.attention" in names and "3.mlp" in names
        assert all({*row["blocks"]} <= {*names} and row["blocks"] for row in record["train"]["steps"])
    elif way in ("accumulation", "checkpointing"):
        record = run_of(method, adapter, folder, **{way: 2 if way == "accumulation" else True})
        if way == "checkpointing" or method != "ist":  # which measures the last micro-batch of a step
            assert_equal_steps(record, method, adapter, folder)
    elif way == "compile":
        compile_with = torch.compile  # the same graphs without machine code, which would take minutes
        monkeypatch.setattr(torch, "compile", lambda forward: compile_with(forward, backend="aot_eager"))
        assert_equal_steps(run_of(method, adapter, folder, speed=("compile",)), method, adapter, folder)
    elif way == "float8":
        steps = run_of(method, adapter, folder, speed=("float8",))["train"]["steps"]
        first, exact = steps[0]["loss"], plain(method, adapter, folder)[0]["loss"]
        assert first != exact and first == pytest.approx(exact, rel=0.02)  # later, other layers may learn
        assert all(math.isfinite(row["gradient_norm"]) for row in steps)
    elif way == "DDP":
        records = train_together(2, given)
        assert records[0]["train"]["steps"] == records[1]["train"]["steps"]
        assert_equal_steps(records[0], method, adapter, folder)
    elif way == "resume":
        with pytest.raises(RuntimeError, match="stopped"):
            run_of(method, adapter, folder, output=folder / "cut", save_every=2, callbacks=[Stop()])
        record = run_of(method, adapter, folder, output=folder / "cut", save_every=2)
        assert record["meta"]["starts"] == [0, 2] or record["meta"]["starts"] == 2
        assert record["train"]["steps"] == plain(method, adapter, folder)


CELLS = [(m, a, w) for m in METHODS for a in ADAPTERS for w in WAYS if expected(m, a, w) != "not applicable"]
PATHS = [("ir", "LoRA", way) for way in WAYS if way not in ("DDP", "compile")]  # which test_invariants, test_speed have
PATHS += [("ist", "DoRA", "checkpointing"),
          ("ir-cosine", "other peft tuners", "resume"), ("ir-weight", "LoRA", "unit=block"),
          ("rst", "bottleneck", "accumulation"), ("lisa", "full parameters", "resume"), ("ist", "LoRA", "unit=block"),
          ("full-ft", "full parameters", "causal LM"), ("last-k", "other peft tuners", "memory prediction"),
          ("lisa", "full parameters", "unit=block"), ("random-counts", "bottleneck", "causal LM"),
          ("ist", "DoRA", "float8"), ("full-ft", "full parameters", "float8")]  # fmt: skip


def check(method, adapter, way, folder, monkeypatch):
    if expected(method, adapter, way) == "refused":
        with pytest.raises(InputError):
            attempt(method, adapter, way, folder, monkeypatch)
    else:
        attempt(method, adapter, way, folder, monkeypatch)


@pytest.mark.parametrize(("method", "adapter", "way"), PATHS)
def test_a_cell_of_each_path_is_as_the_guide_says(method, adapter, way, tmp_path, monkeypatch):
    check(method, adapter, way, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "adapter", "way"), CELLS)
def test_every_cell_is_as_the_guide_says(method, adapter, way, tmp_path, monkeypatch):
    check(method, adapter, way, tmp_path, monkeypatch)


def test_two_processes_train_with_a_base_in_float8_as_one(tmp_path):
    given = configuration("ir", "LoRA", tmp_path) | {"speed": ("float8",)}
    (one, same), (alone,) = train_together(2, given), train_together(1, given)
    assert one["train"]["steps"] == same["train"]["steps"]
    first, expected = one["train"]["steps"][0], alone["train"]["steps"][0]
    assert first["layers"] == expected["layers"] and first["loss"] == pytest.approx(expected["loss"], abs=1e-5)


def test_a_tuner_whose_memory_cannot_be_traced_is_refused(tmp_path):
    LoHaConfig(r=2, target_modules=INSIDE, task_type="SEQ_CLS").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="draws numbers: its memory cannot be predicted"):
        predict_memory("tiny-random", "last-k", str(tmp_path), 8, 32)


def test_the_guide_has_this_table():
    assert table() in (REPOSITORY / "notebooks" / "README.md").read_text(encoding="utf-8"), f"write there:\n{table()}"
