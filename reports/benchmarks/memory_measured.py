"""Compare predicted peak memory with `torch.cuda.max_memory_allocated`, setting by setting.

    python reports/benchmarks/memory_measured.py measure memory.json
    python reports/benchmarks/memory_measured.py predict memory.json

The first command needs a GPU. It trains each setting of SETTINGS for a few steps through our Trainer and callback, with
random weights made on the GPU. The second one adds the predictions and prints the errors. It leaves out
the HELD_OUT settings, drawn with a fixed seed, unless `--held-out` is given. That was done once, at the end. `--options`
and `--four-bit` measure other lists of settings. With `--shape tiny` the first command only checks the script on a CPU,
where it measures nothing.

The layers that learn are those that the prediction assumes. At the first step, all layers that ever learn do, so that
their optimizer state exists. The peak is taken over the steps after it, at which the worst choice of layers learns.
"""

import argparse
import gc
import json
import random
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import (
    AutoModelForSequenceClassification, PrinterCallback, TrainerCallback, TrainingArguments, default_data_collator,
)  # fmt: skip
from transformers.initialization import no_init_weights

from irtuning.models.adapters import adapted_classifier
from irtuning.training.callback import LayerwiseTuning
from irtuning.memory.estimate import layers_that_learn
from irtuning.memory.predict import predict_memory
from irtuning.models.backward import skip_backward
from irtuning.models.loading import load_shape, resolve
from irtuning.models.speed import accelerate
from irtuning.training.idle import IdleStates
from irtuning.training.record import provenance, write_text
from irtuning.method.strategies import Strategy
from irtuning.method.registry import make_strategy
from irtuning.training.trainer import LayerwiseTrainer

STEPS = 4


@dataclass(frozen=True)
class Setting:
    """Settings of one training run to measure."""

    model: str
    method: str
    batch: int
    length: int
    checkpointing: bool = False
    dropout: float = 0.05
    adapter: str = "lora"
    min_layer: int = 0
    padded: bool = True
    speed: tuple[str, ...] = ()
    backward: str = "exact"
    idle: str = "keep"
    quantize: str = "none"


LLAMA, MISTRAL, QWEN, PHI = "llama-3.1-8b", "mistral-7b", "qwen3-8b", "phi-2"
SETTINGS = [
    Setting(LLAMA, "full", 16, 256),
    Setting(LLAMA, "full", 16, 256, checkpointing=True),
    Setting(LLAMA, "full", 8, 512, dropout=0.0, padded=False),
    Setting(LLAMA, "ir", 16, 256),
    Setting(LLAMA, "ir", 16, 256, dropout=0.0, padded=False),
    Setting(LLAMA, "ir", 8, 128),
    Setting(LLAMA, "ir", 16, 256, min_layer=16),
    Setting(LLAMA, "rst", 16, 256),
    Setting(LLAMA, "last-k", 16, 256),
    Setting(LLAMA, "last-k", 32, 256, checkpointing=True),
    Setting(MISTRAL, "full", 8, 256),
    Setting(MISTRAL, "ir", 16, 128, padded=False),
    Setting(MISTRAL, "ir", 16, 512, checkpointing=True),
    Setting(MISTRAL, "rst", 4, 512, dropout=0.0),
    Setting(MISTRAL, "last-k", 16, 256, dropout=0.0),
    Setting(MISTRAL, "full", 8, 256, adapter="bottleneck"),
    Setting(QWEN, "full", 8, 256, padded=False),
    Setting(QWEN, "ir", 16, 256),
    Setting(QWEN, "ir", 16, 256, checkpointing=True, dropout=0.0),
    Setting(QWEN, "rst", 16, 128),
    Setting(QWEN, "last-k", 8, 512, padded=False),
    Setting(QWEN, "last-k", 4, 256),
    Setting(PHI, "full", 16, 256),
    Setting(PHI, "ir", 16, 256, dropout=0.0),
    Setting(PHI, "ir", 32, 256, checkpointing=True),
    Setting(PHI, "last-k", 16, 512, padded=False),
    Setting(PHI, "full-ft", 8, 256),
    Setting(PHI, "full-ft", 8, 128, checkpointing=True),
    Setting(PHI, "lisa", 8, 256),
    Setting(PHI, "full", 4, 256, adapter="dora"),
]
TINY = [Setting("tiny-random", method, 4, 32, checkpointing=checkpointing, padded=padded)
        for method in ("full", "ir", "last-k", "lisa")
        for checkpointing, padded in ((False, True), (True, False))]  # fmt: skip
OPTIONS = [  # a base in float8, layers left out of the backward pass, and idle states
    Setting(LLAMA, "full", 16, 256, speed=("float8",)),
    Setting(LLAMA, "ir", 16, 256, speed=("float8",)),
    Setting(LLAMA, "last-k", 16, 256, checkpointing=True, speed=("float8",)),
    Setting(QWEN, "ir", 8, 256, padded=False, speed=("float8",)),
    Setting(LLAMA, "ir", 16, 256, backward="skip"),
    Setting(MISTRAL, "rst", 16, 128, padded=False, backward="skip"),
    Setting(PHI, "ir", 8, 256, checkpointing=True, backward="skip"),
    Setting(LLAMA, "ir", 16, 256, idle="offload"),
    Setting(PHI, "lisa", 8, 256, idle="drop"),
    Setting(QWEN, "rst", 16, 256, speed=("float8",), backward="skip", idle="offload"),
]
FOUR_BIT = [  # a base in 4 bits
    Setting(LLAMA, "ir", 16, 256, quantize="4bit"),
    Setting(LLAMA, "ir", 16, 256, checkpointing=True, quantize="4bit"),
    Setting(QWEN, "full", 8, 256, padded=False, quantize="4bit"),
]
HELD_OUT = random.Random(20251002).sample(SETTINGS, 8) + random.Random(20251127).sample(OPTIONS, 4)


class Scripted(Strategy):
    """Strategy with given layers at every step but the first, at which all layers that ever learn do."""

    def __init__(self, chosen: list[int], ever: list[int], scope: str):
        super().__init__()
        self.chosen, self.ever, self.scope = chosen, ever, scope

    def choose(self, step, scores, rng):
        """Return the layers of this step."""
        return self.ever if step == 0 else self.chosen


class ForgetFirstStep(TrainerCallback):
    """Callback that resets the measured peak after the first step."""

    def on_step_end(self, args, state, control, **kwargs):
        """Reset the peak if this was the first step."""
        if state.global_step == 1 and torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()


def prediction(setting: Setting):
    """Return the prediction of `predict_memory` for a setting."""
    values = asdict(setting)
    if values.pop("method") in ("full-ft", "lisa"):
        values.pop("dropout")
    return predict_memory(method=setting.method, **values)


def make_model(setting: Setting, scope: str, device: str) -> torch.nn.Module:
    """Return the classifier that a run trains, with random weights made on the device."""
    low = not resolve(setting.model).random_weights and scope == "adapters"
    with torch.device(device), no_init_weights():
        kind = torch.bfloat16 if low else torch.float32
        model = AutoModelForSequenceClassification.from_config(load_shape(setting.model), dtype=kind)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.02)
        else:
            torch.nn.init.constant_(parameter, float(name.endswith("weight")))
    if setting.quantize == "4bit":
        in_four_bits(model)
    settings = {name: resolve(setting.model).settings[name] for name in ("rank", "alpha", "width")}
    settings |= {"dropout": setting.dropout, "checkpointing": setting.checkpointing}
    model = adapted_classifier(model, setting.adapter if scope == "adapters" else None, **settings)
    accelerate(model, setting.speed)
    if setting.backward == "skip":
        skip_backward(model)
    return model


def in_four_bits(model: torch.nn.Module) -> None:
    """Turn the layers' linear maps into those of bitsandbytes, as transformers does when it loads a model in 4 bits."""
    from bitsandbytes.nn import Linear4bit, Params4bit
    model.is_loaded_in_4bit = True  # where peft looks
    for parent, name, linear in [(m, n, c) for m in model.modules() for n, c in m.named_children()
                                 if isinstance(c, torch.nn.Linear) and c.out_features != model.config.num_labels]:  # fmt: skip
        small = Linear4bit(linear.in_features, linear.out_features, linear.bias is not None, torch.bfloat16, quant_type="nf4")
        small.weight = Params4bit(linear.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=False).to(linear.weight.device)
        small.bias = linear.bias
        setattr(parent, name, small)


def examples(setting: Setting, vocabulary: int) -> list[dict]:
    """Return random tokens of one length. If padded, the first token of every other example is padding."""
    draw = random.Random(0)
    rows = []
    for number in range(setting.batch * STEPS):
        mask = [int(not (setting.padded and number % 2 == 0)), *[1] * (setting.length - 1)]
        ids = [draw.randrange(10, vocabulary) for _ in range(setting.length)]
        rows.append({"input_ids": ids, "attention_mask": mask, "labels": number % 9})
    return rows


def measure(setting: Setting, device: str) -> dict:
    """Train a few steps and return the peak, which is None if memory ran out or there is no GPU."""
    strategy = make_strategy(setting.method)
    strategy.min_layer = setting.min_layer
    config = load_shape(setting.model)
    chosen, ever = layers_that_learn(strategy, config.num_hidden_layers)
    started, found = time.perf_counter(), {"chosen": chosen, "ever": ever, "measured_bytes": None}
    try:
        model = make_model(setting, strategy.scope, device)
        callback = LayerwiseTuning(Scripted(chosen, ever, strategy.scope), 0)
        with tempfile.TemporaryDirectory() as scratch:
            arguments = TrainingArguments(
                output_dir=scratch, max_steps=STEPS, per_device_train_batch_size=setting.batch, learning_rate=1e-4,
                max_grad_norm=1.0, bf16=True, use_cpu=device == "cpu", eval_strategy="no", save_strategy="no",
                logging_strategy="no", logging_nan_inf_filter=False, report_to="none", disable_tqdm=True,
                dataloader_pin_memory=device != "cpu", label_names=["labels"], seed=0,
            )  # fmt: skip
            trainer = LayerwiseTrainer(
                model, arguments, train_dataset=examples(setting, config.vocab_size),
                data_collator=default_data_collator, callbacks=[ForgetFirstStep(), callback, IdleStates(setting.idle)],
            )  # fmt: skip
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        found |= {"losses": trainer.step_losses(), "skipped": sum(row["skipped"] for row in callback.history)}
        found |= {"optimizer": str(arguments.optim), "padding": setting.padded}
        if device == "cuda":
            stats = torch.cuda.memory_stats()
            found["measured_bytes"] = torch.cuda.max_memory_allocated()
            found["requested_bytes"] = stats["requested_bytes.all.peak"]
            found["reserved_bytes"] = torch.cuda.max_memory_reserved()
    except torch.cuda.OutOfMemoryError as error:
        found["failed"] = str(error).splitlines()[0]
    finally:
        model = trainer = callback = None
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()
            found["left_bytes"] = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
    return found | {"seconds": round(time.perf_counter() - started, 1)}


def measure_all(path: Path, settings: list[Setting]) -> None:
    """Measure every setting, and write the record after each one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows: list[dict] = []
    for number, setting in enumerate(settings):
        row = {"setting": asdict(setting), "held_out": setting in HELD_OUT}
        rows.append(row | measure(setting, device))
        shown = {k: v for k, v in rows[-1].items() if k.endswith("bytes") or k in ("seconds", "failed")}
        print(number, asdict(setting), shown, flush=True)
        write_text(path, json.dumps({"steps": STEPS, "rows": rows, "meta": provenance("auto")}, indent=1) + "\n")


def add_predictions(path: Path, held_out: bool) -> None:
    """Add our predictions to a record, and print their errors."""
    record = json.loads(path.read_text())
    errors = []
    for row in record["rows"]:
        if row["held_out"] and not held_out:
            continue
        found = prediction(Setting(**row["setting"]))
        row["predicted"] = found.to_dict()
        if row["measured_bytes"]:
            row["error"] = found.peak_bytes / row["measured_bytes"] - 1
            errors.append(abs(row["error"]))
        off = f"{row['error']:+.2%}" if "error" in row else "not measured"
        print(f"{off:>13}  {found.peak_bytes / 2**30:7.2f} GiB predicted  {row['setting']}")
    if errors:
        record["errors"] = {"settings": len(errors), "median": statistics.median(errors), "worst": max(errors)}
        print(record["errors"])
    write_text(path, json.dumps(record, indent=1) + "\n")


def main() -> None:
    """Read the command line, and measure or predict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("measure", "predict"))
    parser.add_argument("record", type=Path)
    parser.add_argument("--shape", help="measure only this shape; `tiny` runs on any machine")
    parser.add_argument("--options", action="store_true", help="measure OPTIONS instead of SETTINGS")
    parser.add_argument("--four-bit", action="store_true", help="measure FOUR_BIT instead of SETTINGS")
    parser.add_argument("--held-out", action="store_true", help="predict the held-out settings too")
    given = parser.parse_args()
    if given.what == "predict":
        add_predictions(given.record, given.held_out)
        return
    every = OPTIONS if given.options else FOUR_BIT if given.four_bit else SETTINGS
    chosen = TINY if given.shape == "tiny" else [s for s in every if given.shape in (None, s.model)]
    measure_all(given.record, chosen)


if __name__ == "__main__":
    main()
