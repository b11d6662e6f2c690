"""Measure the time of a training step of `mini` on this machine's CPU, and what each saving in it is worth.

Run `python reports/benchmarks/cpu_steps.py` on an idle machine (two minutes). It writes
reports/benchmarks/cpu_steps.json. Every variant undoes one saving. The variants take turns in one process, so that a
slow minute affects all of them alike. With `--parts` it writes cpu_run.json instead: where the processor's seconds of
one run of the quick profile go, without waiting, so that other programs disturb it less.
"""

import cProfile
import json
import pstats
import statistics
import time
from contextlib import nullcontext
from functools import partial
from unittest.mock import patch

import torch
import typer
from torch.nn.attention import sdpa_kernel
from transformers import DataCollatorWithPadding, Trainer

import irtuning.training.build
from irtuning.companion.paths import REPOSITORY
from irtuning.companion.profiles import QUICK
from irtuning.training.build import build
from irtuning.training.prepare import prepare
from irtuning.training.record import provenance, write_text
from irtuning.training.run import train
from irtuning.training.trainer import ATTENTION, LayerwiseTrainer

WARM = 4
PADDED = partial(DataCollatorWithPadding, padding="max_length", max_length=160)
VARIANTS = {
    "as it is": nullcontext,
    "modules walked and operations counted at each step": lambda: patch.multiple(
        LayerwiseTrainer, train=sdpa_kernel(ATTENTION)(Trainer.train), _get_grad_norm=Trainer._get_grad_norm
    ),
    "padded to 160 tokens": lambda: patch.object(
        irtuning.training.build, "DataCollatorWithPadding", lambda tokenizer, **_: PADDED(tokenizer)
    ),
    "two threads instead of one": lambda: threads(2),
}
PARTS = {  # of a run: functions and the end of their file's name, whose seconds include what it calls
    "model, tokenizer and examples are made": (["build"], "training/build.py"),
    "forward passes of the steps": (["training_step"], "training/trainer.py"),  # without what follows
    "backward passes": (["<method 'run_backward' of 'torch._C._EngineBase' objects>"], "~"),
    "two evaluations of 200 examples": (["evaluate"], "transformers/trainer.py"),
    "choice, freezing and scores of layers": (["on_step_begin", "on_pre_optimizer_step"], "training/callback.py"),
    "optimizer": (["step"], "accelerate/optimizer.py"),
}
EVALUATION = (64, 32, 16, 8)  # examples in a batch of an evaluation
METHODS = {"full": "every layer learns", "last-k": "the upper half learns", "ir": "IR-Tuning's layers learn"}


class threads:
    """Context manager that sets the number of threads of PyTorch."""

    def __init__(self, count: int):
        self.count = count

    def __enter__(self):
        torch.set_num_threads(self.count)

    def __exit__(self, *_):
        torch.set_num_threads(1)


def step_seconds(method: str, steps: int) -> list[float]:
    """Return the seconds of each step of a run on the synthetic corpus, without warm-up steps and evaluation."""
    run = train(
        corpus="synthetic", method=method, batch_size=6, max_steps=steps, eval_every=steps, progress=False
    )
    return run.record["meta"]["step_seconds"][WARM:]


def run_parts(begun: float) -> dict:
    """Return the processor's seconds of each part of one run, and of an evaluation with batches of several sizes."""
    seconds = {"imports": begun}
    settings = QUICK["settings"] | {"max_steps": QUICK["max_steps"]}
    settings.pop("rates")  # of other methods
    prepared = prepare(corpus="synthetic", method="ir", **settings)
    seconds["corpus read and settings checked"] = time.process_time() - begun
    profile = cProfile.Profile(time.process_time)
    record = profile.runcall(train, prepared, progress=False).record
    stats = pstats.Stats(profile).stats
    for part, (names, file) in PARTS.items():
        calls = [row for (path, _, name), row in stats.items() if path.endswith(file) and name in names]
        seconds[part] = sum(row[3] for row in calls)
    seconds["forward passes of the steps"] -= seconds["backward passes"]
    seconds["whole run"] = sum(row[2] for row in stats.values())
    trainer, splits = build(prepared, progress=False, callbacks=(), report_to=(), output=None, save_every=0)
    sizes: dict[int, list[float]] = {size: [] for size in EVALUATION}
    for size in EVALUATION * 4:
        trainer.args.per_device_eval_batch_size, started = size, time.process_time()
        trainer.predict(splits["validation"].examples)
        sizes[size].append(time.process_time() - started)
    batches = {size: statistics.median(values[1:]) for size, values in sizes.items()}  # the first ones warm up
    return {"run": record["run"]["config"], "cpu_seconds": seconds, "evaluation_by_batch": batches}


def main(steps: int = 24, turns: int = 4, parts: bool = False) -> None:
    """Measure all variants and methods in turn, or the parts of one run, and write the record."""
    begun = time.process_time()
    torch.set_num_threads(1)
    if parts:
        record = run_parts(begun) | {"meta": provenance("cpu")}
        write_text(REPOSITORY / "reports" / "benchmarks" / "cpu_run.json", json.dumps(record, indent=1) + "\n")
        return typer.echo(json.dumps(record, indent=1))
    seconds: dict[str, list[float]] = {name: [] for name in [*VARIANTS, *METHODS.values()]}
    for _ in range(turns):
        for name, variant in VARIANTS.items():
            with variant():
                seconds[name] += step_seconds("ir", steps)
        for method, name in METHODS.items():
            seconds[name] += step_seconds(method, steps)
    rows = {n: {"median_ms": 1e3 * statistics.median(s), "steps": len(s)} for n, s in seconds.items()}
    record = {"model": "mini", "batch": 6, "threads": 1, "rows": rows, "meta": provenance("cpu")}
    write_text(REPOSITORY / "reports" / "benchmarks" / "cpu_steps.json", json.dumps(record, indent=1) + "\n")
    typer.echo(json.dumps(rows, indent=1))


if __name__ == "__main__":
    typer.run(main)
