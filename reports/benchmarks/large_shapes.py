"""Measure step time and peak memory of 7B and 8B shapes with random weights, one training run for each case.

Run `python reports/benchmarks/large_shapes.py --cases core` on a machine with a GPU. When a case ends, its row,
or its error if it fails, is written to reports/benchmarks/large_shapes_SHAPE.json. `--list` prints the cases. Most
cases measure a given sequence of layers. Not measured is which layers a trained model would choose, and so what it
would save.
"""

import gc
import json
import statistics
import tempfile
import time
import warnings
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch._inductor.config
import transformers
import typer
from torch._dynamo.utils import counters
from transformers import AutoModelForSequenceClassification, PrinterCallback, TrainerCallback, TrainingArguments

from irtuning.models.adapters import add_adapter
from irtuning.training.callback import LayerwiseTuning
from irtuning.errors import InputError
from irtuning.method.layers import adapter_parameters, attention_output, find_layers, linear_modules
from irtuning.models.backward import skip_backward
from irtuning.models.loading import checkpoint_layers
from irtuning.companion.paths import REPOSITORY
from irtuning.training.record import provenance, write_text
from irtuning.method.selector import split_scores
from irtuning.models.speed import accelerate
from irtuning.method.strategies import Strategy
from irtuning.method.registry import make_strategy
from irtuning.training.idle import IdleStates
from irtuning.training.trainer import LayerwiseTrainer

PEAK_FLOPS = 788e12  # measured for bf16 matrix products on the H200
WARM, TIMED = 8, 24
COMPILED = "uncast,compile"
FLOAT8 = f"float8,{COMPILED}"
SHAPES = {  # configuration class and numbers, as in the config.json of each model
    "llama-3.1-8b": ("LlamaConfig", {"vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
                     "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072}),
    "mistral-7b": ("MistralConfig", {"vocab_size": 32768, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
                   "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 32768, "sliding_window": None}),
    "qwen3-8b": ("Qwen3Config", {"vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36,
                 "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 40960}),
    "phi-2": ("PhiConfig", {"vocab_size": 51200, "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 32,
              "num_attention_heads": 32, "max_position_embeddings": 2048}),
    "tiny": ("LlamaConfig", {"vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4,
             "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024}),
}  # fmt: skip
# One step on the H200: targets that were set before the measurement, and an earlier measurement with dropout 0.05.
PREDICTED = {
    "scattered": {"step_ms": 200, "peak_gib": {0.05: 33, 0.0: 30}, "measured_before": {"step_ms": 224, "peak_gib": 33.5}},
    "upper": {"step_ms": 150, "peak_gib": {0.05: 26, 0.0: 24}, "measured_before": {"step_ms": 169, "peak_gib": 26.3}},
    "all": {"step_ms": 215, "peak_gib": {0.05: 38, 0.0: 36}, "measured_before": {"step_ms": 228, "peak_gib": 38.1}},
}


@dataclass
class Case:
    """Settings of one training run. `layers` names a list made by `plan`, which is not used if `method` is set."""

    name: str
    group: str
    layers: str = "scattered"
    speed: str = COMPILED
    dropout: float = 0.05
    adapter: str = "lora"  # or `none`: the layers' own weights learn
    steps: int = WARM + TIMED
    batch: int = 16
    length: int = 256
    spread: str = "all 256"  # `iterater`: most prompts have 90 to 160 tokens; `padded`: then padded to `length`
    callback: bool = True
    method: str | None = None
    waits: bool = False
    checkpointing: bool = False
    alternating: bool = False  # the callback is off and on in turn
    warm: int = WARM
    backward: str = "exact"
    idle: str = "keep"
    inductor: str = ""  # settings of torch's compiler that are on, with commas between them


def all_cases() -> list[Case]:
    """Return all cases, with the most important ones first."""
    cases = [Case(f"{layers}/compile", "core", layers) for layers in ("scattered", "upper", "all")]
    cases += [Case(f"{layers}/compile/dropout0", "core", layers, dropout=0.0) for layers in ("scattered", "upper", "all")]
    cases += [Case("all/compile/no-callback", "callback", "all", callback=False),
              Case("all/compile/again", "callback", "all"),
              Case("all/compile/alternating", "callback", "all", alternating=True, steps=WARM + 80),
              Case("ir/compile", "callback", method="ir"),
              Case("waits/callback", "callback", "all", waits=True, steps=WARM + 10),
              Case("waits/no-callback", "callback", "all", callback=False, waits=True, steps=WARM + 10)]
    cases += [Case(f"{layers}/compile", "last-k", layers) for layers in ("last14", "last16")]
    cases += [Case("changing/compile", "changing", "changing", steps=WARM + 100),
              Case("fixed/compile", "changing", "scattered", steps=WARM + 100)]
    cases += [Case(f"{layers}/checkpointing", "checkpointing", layers, "uncast", checkpointing=True) for layers in ("scattered", "upper", "all")]
    cases += [Case(f"{layers}/uncast", "eager", layers, "uncast") for layers in ("scattered", "upper", "all")]
    cases += [Case(f"{layers}/plain", "eager", layers, "") for layers in ("scattered", "upper", "all")]
    cases += [Case(f"{spread}/{name}", "dynamic", "all", speed, spread=spread, steps=30 + 60, warm=30)
              for name, speed in (("compile", COMPILED), ("uncast", "uncast")) for spread in ("iterater", "padded")]
    cases += [Case("trajectory/compile", "trajectory", "trajectory", steps=200),
              Case("trajectory/uncast", "trajectory", "trajectory", "uncast", steps=200),
              Case("trajectory/plain", "trajectory", "trajectory", "", steps=200)]
    cases += [Case(f"all/checkpointing/{batch}x{length}", "reach", "all", "uncast", batch=batch, length=length, steps=6, checkpointing=True)
              for batch, length in ((64, 256), (256, 256), (512, 256), (16, 2048), (16, 8192))]
    cases += [Case(f"{layers}/float8", "float8", layers, FLOAT8) for layers in ("scattered", "upper", "all")]
    cases += [Case("all/float8/no-callback", "float8", "all", FLOAT8, callback=False),
              Case("all/float8/again", "float8", "all", FLOAT8), Case("ir/float8", "float8", speed=FLOAT8, method="ir"),
              *(Case(f"scattered/float8/checkpointing/{name}", "float8", speed=speed, checkpointing=True)
                for name, speed in (("compile", FLOAT8), ("uncast", "float8,uncast")))]
    cases += [Case(f"{layers}/float8/recompute", "float8", layers, f"{FLOAT8},recompute") for layers in ("scattered", "upper", "all")]
    cases += [Case("scattered/float8/skip", "float8", speed=FLOAT8, backward="skip")]
    cases += [Case(f"{layers}/{adapter}/{name}", "adapters", layers, speed, adapter=adapter)
              for adapter, speeds in (("bottleneck", {"compile": COMPILED, "uncast": "uncast"}), ("dora", {"uncast": "uncast"}))
              for name, speed in speeds.items() for layers in ("scattered", "all")]
    cases += [Case(f"method/{m}", "methods", method=m) for m in ("full", "ir-weight", "ir-cosine", "rst", "ist", "lisa-adapters", "last-k", "middle-k")]
    cases += [Case(f"{layers}/{name}/skip", "skip", layers, speed, checkpointing=name == "checkpointing", backward="skip")
              for name, speed in (("compile", COMPILED), ("plain", ""), ("checkpointing", "uncast"))
              for layers in ("scattered", "upper", "all", "changing")]  # beside the cases of the same names without /skip
    cases += [Case(f"changing/plain/{idle}", "idle", "changing", "", idle=idle) for idle in ("keep", "drop", "offload")]
    cases += [Case(f"lisa/{idle}", "idle", adapter="none", speed="", method="lisa:every=4", checkpointing=True, idle=idle)
              for idle in ("keep", "drop", "offload")]
    return cases  # fmt: skip


def plan(name: str, depth: int, steps: int) -> list[list[int]]:
    """Return the layers that learn at each step. The numbers are meant for 32 layers and scale with `depth`."""
    rng = np.random.default_rng(0)
    half, count = depth // 2, round(depth * 14 / 32)
    if name == "trajectory":
        return trajectory(depth, steps)
    if name == "changing":
        return [[0, *sorted(rng.choice(np.arange(1, depth), count - 1, replace=False).tolist())] for _ in range(steps)]
    fixed = {
        "scattered": [0, *sorted(rng.choice(np.arange(1, depth), count - 1, replace=False).tolist())],
        "upper": [half, *sorted(rng.choice(np.arange(half + 1, depth), count - 1, replace=False).tolist())],
        "last14": list(range(depth - count, depth)),  # the same count
        "last16": list(range(half, depth)),  # the same lowest layer as `upper`
        "all": list(range(depth)),
    }
    return [fixed[name]] * steps


def trajectory(depth: int, steps: int) -> list[list[int]]:
    """Return the selector's choice at each step from artificial scores that drift and are seen when a layer learns."""
    rng = np.random.default_rng(171)
    true, scores, sets = rng.normal(0, 0.5, depth), [None] * depth, []
    for _ in range(steps):
        sets.append(split_scores(scores, rng=rng))
        true += rng.normal(0, 0.05, depth)
        for layer in sets[-1]:
            scores[layer] = float(np.exp(true[layer] + rng.normal(0, 0.2)))
    return sets


@dataclass
class Replay(Strategy):
    """Strategy that lets a given set of layers learn at each step."""

    sets: list[list[int]] = field(default_factory=list)

    def choose(self, step, scores, rng):
        """Return the given set of this step."""
        return self.sets[step]


class Alternating(LayerwiseTuning):
    """Callback that is off for four steps and on for four, in turn, in one run in which all layers learn."""

    def on_step_begin(self, args, state, control, **kwargs):
        """Switch the callback, and choose layers if it is on."""
        self.on = state.global_step % 8 >= 4
        args.max_grad_norm = 0.0 if self.on else self._clip
        if self.on:
            super().on_step_begin(args, state, control, **kwargs)

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        """Score and clip if the callback is on."""
        if self.on:
            super().on_pre_optimizer_step(args, state, control, **kwargs)


class Clock(TrainerCallback):
    """Callback that marks when each step begins, without waiting for the device, and counts graphs and host waits."""

    def __init__(self, count_from: int | None):
        self.marks, self.graphs, self.count_from = [], [], count_from
        self.gpu = torch.cuda.is_available()

    def on_step_begin(self, args, state, control, **kwargs):
        """Mark the beginning of a step."""
        if state.global_step == self.count_from and self.gpu:
            torch.cuda.set_sync_debug_mode("warn")
        self.graphs.append(counters["stats"]["unique_graphs"])
        self.marks.append(self._now())

    def on_train_end(self, args, state, control, **kwargs):
        """Mark the end of the last step."""
        if self.gpu:
            torch.cuda.set_sync_debug_mode("default")
        self.graphs.append(counters["stats"]["unique_graphs"])
        self.marks.append(self._now())

    def milliseconds(self) -> list[float]:
        """Return the time of each step, from its beginning to that of the next one."""
        if self.gpu:
            torch.cuda.synchronize()
            return [a.elapsed_time(b) for a, b in zip(self.marks, self.marks[1:])]
        return [1e3 * (b - a) for a, b in zip(self.marks, self.marks[1:])]

    def _now(self):
        if not self.gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


class Pad:
    """Collator that pads on the left to the longest example, rounded up to a multiple of 8, or to a given length."""

    def __init__(self, to: int | None):
        self.to = to

    def __call__(self, rows: list[dict]) -> dict:
        width = self.to or -(-max(len(row["input_ids"]) for row in rows) // 8) * 8
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        for line, row in zip(ids, rows):
            line[width - len(row["input_ids"]) :] = torch.tensor(row["input_ids"])
        return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": torch.tensor([r["labels"] for r in rows])}


def examples(case: Case, vocabulary: int) -> list[dict]:
    """Return random tokens for all steps of a run."""
    rng, count = np.random.default_rng(0), case.batch * case.steps
    lengths = np.full(count, case.length)
    if case.spread != "all 256":
        lengths = np.clip(rng.normal(125, 25, count).astype(int), 60, case.length)
    return [{"input_ids": rng.integers(10, vocabulary, n).tolist(), "labels": i % 5} for i, n in enumerate(lengths)]


def build(shape: str, case: Case) -> torch.nn.Module:
    """Return a classifier with random bfloat16 weights, float32 adapters and a float32 head."""
    transformers.set_seed(0)
    kind, numbers = SHAPES[shape]
    config = getattr(transformers, kind)(**numbers, num_labels=5, pad_token_id=0, use_cache=False)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForSequenceClassification.from_config(config, dtype=torch.bfloat16)
        if case.adapter != "none":
            model = add_adapter(model, case.adapter, r=32, alpha=64, dropout=case.dropout, width=256)
    if case.checkpointing:
        checkpoint_layers(model)
    accelerate(model, [name for name in case.speed.split(",") if name])
    if case.backward == "skip":
        skip_backward(model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


def work(model: torch.nn.Module, layers: list[int], batch: int, length: int) -> float:
    """Return the floating point operations of a step: the forward pass and the gradients that these layers need.

    Backpropagation needs the input gradient of every linear map above the lowest layer that learns and, inside that
    layer, of all maps but those that begin attention. It needs weight gradients only for the adapters that learn.
    """
    tokens, stack = batch * length, find_layers(model)
    total = 0.0
    for index, layer in enumerate(stack):
        linears = linear_modules(layer)
        base = sum(linear.weight.numel() for _, linear in linears)
        output, (kind, _) = attention_output(layer)[1], attention_output(layer)[0].split(".", 1)
        begins = sum(m.weight.numel() for n, m in linears if n.startswith(f"{kind}.") and m is not output)
        adapters = sum(p.numel() for p in adapter_parameters(layer))
        attention = 2 * batch * length * length * output.weight.shape[1]  # two causal products
        total += 2 * tokens * (base + adapters) + attention
        if layers and index >= min(layers):
            total += 2 * tokens * (base + adapters - (begins if index == min(layers) else 0)) + 2 * attention
        total += 2 * tokens * adapters if index in layers else 0
    return total


def measure(shape: str, case: Case) -> dict:
    """Run a case and return its row."""
    gpu = torch.cuda.is_available()
    before = torch.cuda.memory_allocated() if gpu else 0
    breaks = sum(counters["graph_break"].values())
    numbers = SHAPES[shape][1]
    depth, warm, started = numbers["num_hidden_layers"], min(case.warm, case.steps // 2), time.perf_counter()
    clock = Clock(warm if case.waits else None)
    strategy = make_strategy(case.method) if case.method else Replay(sets=plan(case.layers, depth, case.steps))
    callback = (Alternating if case.alternating else LayerwiseTuning)(strategy, seed=0)
    with ExitStack() as stack:
        seen = stack.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always" if case.waits else "ignore")
        if case.inductor:
            stack.enter_context(torch._inductor.config.patch(dict.fromkeys(case.inductor.split(","), True)))
            torch._dynamo.reset()  # or the code of an earlier case would be used, and that of this one later
            stack.callback(torch._dynamo.reset)
        model = build(shape, case)
        if gpu:  # a run of the package makes its base on the host, so that of building is not its peak
            torch.cuda.reset_peak_memory_stats()
        trainer = make_trainer(model, case, numbers["vocab_size"], [clock, *[callback] * case.callback, IdleStates(case.idle)], stack)
        trainer.train()
        waits = sum("synchronizing" in str(w.message) for w in seen)
    times = clock.milliseconds()
    chosen = [step["layers"] for step in callback.history]
    sets = chosen if len(chosen) == case.steps else [list(range(depth))] * case.steps
    median, mean = statistics.median(times[warm:]), statistics.mean(times[warm:])
    flops = statistics.mean(work(model, layers, case.batch, case.length) for layers in sets[warm:])
    losses, counted = trainer.step_losses(), case.spread == "all 256" and case.backward == "exact"
    return {
        "step_ms": median, "step_ms_mean": mean, "step_ms_stdev": statistics.pstdev(times[warm:]), "steps_timed": len(times) - warm,
        "examples_per_s": 1e3 * case.batch / mean,
        "tokens_per_s": 1e3 * case.batch * case.length / mean if case.spread == "all 256" else None,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if gpu else None, "allocated_before_gib": before / 2**30,
        "roofline_ms": 1e3 * flops / PEAK_FLOPS if counted else None,
        "roofline_share": 1e3 * flops / PEAK_FLOPS / median if counted else None,
        "graphs": clock.graphs[-1] - clock.graphs[0], "graphs_after_warm_up": clock.graphs[-1] - clock.graphs[warm],
        "graph_breaks": sum(counters["graph_break"].values()) - breaks,
        "callback_off_on_ms": turns(times[warm:]) if case.alternating else None,
        "host_waits_per_step": waits / (case.steps - warm) if case.waits else None,
        "cudnn_attention": False, "skipped_steps": sum(step["skipped"] for step in callback.history), "layers_per_step": statistics.mean(map(len, sets)), "first_loss": losses[0], "last_loss": losses[-1],
        "finite": bool(np.isfinite(losses).all()), "total_s": time.perf_counter() - started,
        "all_step_ms": [round(t, 2) for t in times],
    }  # fmt: skip


def turns(times: list[float]) -> list[float]:
    """Return the median step without and with the callback. The first of the four steps after a switch is left out."""
    of_turn = np.array(times[: len(times) // 8 * 8]).reshape(-1, 2, 4)[:, :, 1:]
    return [float(np.median(of_turn[:, on])) for on in (0, 1)]


def make_trainer(model, case: Case, vocabulary: int, callbacks: list, stack: ExitStack) -> LayerwiseTrainer:
    """Return a Trainer with the settings of this package's runs and with logging."""
    gpu = torch.cuda.is_available()
    arguments = TrainingArguments(
        stack.enter_context(tempfile.TemporaryDirectory()), max_steps=case.steps, per_device_train_batch_size=case.batch,
        learning_rate=2e-4, lr_scheduler_type="constant", bf16=True, optim="adamw_torch_fused", save_strategy="no",
        logging_steps=10, logging_nan_inf_filter=False, report_to="none", disable_tqdm=True, use_cpu=not gpu, seed=171,
        dataloader_pin_memory=gpu, label_names=["labels"],
    )  # fmt: skip
    trainer = LayerwiseTrainer(
        model, arguments, train_dataset=examples(case, vocabulary),
        data_collator=Pad(case.length if case.spread == "padded" else None), callbacks=callbacks,
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    return trainer


def attempt(shape: str, case: Case) -> dict:
    """Return a row with the results of a case or its error, and free its memory."""
    row = asdict(case)
    try:
        row |= measure(shape, case)
    except (RuntimeError, ValueError, TypeError, AttributeError, ImportError, KeyError, IndexError, AssertionError) as error:
        torch.cuda.set_sync_debug_mode("default") if torch.cuda.is_available() else None
        row["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"  # the cause is below the first line
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    expected = PREDICTED.get(case.layers) if shape == "llama-3.1-8b" and case.method is None else None
    if expected and case.batch == 16 and case.spread == "all 256" and case.speed == COMPILED:
        row["target_h200"] = {"step_ms": expected["step_ms"], "peak_gib": expected["peak_gib"][case.dropout]}
        row["measured_before_h200"] = expected["measured_before"]
    return row


def chosen(names: str) -> list[Case]:
    """Return the cases with these names or in these groups. InputError for a name that does not exist."""
    wanted, cases = set(names.split(",")) if names else set(), all_cases()
    if unknown := wanted - {c.name for c in cases} - {c.group for c in cases}:
        raise InputError(f"there is no case or group named {', '.join(sorted(unknown))}; --list prints them all")
    return [c for c in cases if not wanted or c.name in wanted or c.group in wanted]


def main(
    shape: str = "llama-3.1-8b",
    cases: Annotated[str, typer.Option(help="names or groups, separated by commas; if empty, all")] = "",
    seconds: Annotated[float, typer.Option(help="start no case after this many seconds")] = 1e9,
    output: Annotated[Path | None, typer.Option(help="file to write instead of large_shapes_SHAPE.json")] = None,
    steps: Annotated[int | None, typer.Option(help="steps of every case, to try the script")] = None,
    batch: Annotated[int | None, typer.Option(help="batch of every case, to try the script")] = None,
    inductor: Annotated[str, typer.Option(help="settings of torch's compiler to switch on, such as cpp_wrapper")] = "",
    list_cases: Annotated[bool, typer.Option("--list")] = False,
) -> None:
    """Measure cases. Each row is written at once and replaces a row of the same name in the file."""
    path, started = output or REPOSITORY / "reports" / "benchmarks" / f"large_shapes_{shape}.json", time.perf_counter()
    for case in chosen(cases):
        if list_cases:
            typer.echo(f"{case.group:11}{case.name}")
            continue
        if time.perf_counter() - started > seconds:
            typer.echo(f"no time left for {case.name}")
            continue
        case.steps, case.batch, case.inductor = steps or case.steps, batch or case.batch, inductor
        case.name += f"/{inductor}" * bool(inductor)
        row = attempt(shape, case)
        save(path, shape, row)
        typer.echo(json.dumps({k: v for k, v in row.items() if k not in ("all_step_ms", "target_h200", "measured_before_h200")}))


def replaced(rows: list[dict], row: dict) -> list[dict]:
    """Return the rows with `row` in place of the one of the same name. It keeps that one's median as `earlier_ms`."""
    for earlier in (r for r in rows if r["name"] == row["name"] and "step_ms" in r and "step_ms" in row):
        if earlier["cudnn_attention"] == row["cudnn_attention"]:
            row["earlier_ms"] = [*earlier.get("earlier_ms", []), earlier["step_ms"]]
    return [r for r in rows if r["name"] != row["name"]] + [row]


def save(path: Path, shape: str, row: dict) -> None:
    """Write a row into the file, in place of an earlier row of the same name."""
    record = json.loads(path.read_text()) if path.exists() else {"rows": []}
    depth = SHAPES[shape][1]["num_hidden_layers"]
    record |= {
        "shape": {"name": shape, **SHAPES[shape][1]}, "roofline_flops_per_s": PEAK_FLOPS,
        "trajectory": plan("trajectory", depth, 200), "scattered": plan("scattered", depth, 1)[0],
        "upper": plan("upper", depth, 1)[0], "not_measured": "which layers a trained model chooses; what that saves",
    }  # fmt: skip
    row["meta"] = provenance()
    record.setdefault("meta", row["meta"])  # of older rows, which have none of their own
    row["device"] = row["meta"]["device"]
    record["rows"] = replaced(record["rows"], row)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
