"""Measure the time of a training step of `mini` on this machine's CPU, and what each saving in it is worth.

Run `python reports/benchmarks/cpu_steps.py` on an idle machine (two minutes). It writes
reports/benchmarks/cpu_steps.json. Every variant undoes one saving. The variants take turns in one process, so that a
slow minute affects all of them alike.
"""

import json
import statistics
from contextlib import nullcontext
from functools import partial
from unittest.mock import patch

import torch
import typer
from transformers import DataCollatorWithPadding

import irtuning.training.build
from irtuning.companion.paths import REPOSITORY
from irtuning.training.record import provenance, write_text
from irtuning.training.resume import ResumableTrainer
from irtuning.training.run import train
from irtuning.training.trainer import LayerwiseTrainer

WARM = 4
PADDED = partial(DataCollatorWithPadding, padding="max_length", max_length=160)
VARIANTS = {
    "as it is": nullcontext,
    "modules walked and operations counted at each step": lambda: patch.object(ResumableTrainer, "train", LayerwiseTrainer.train),
    "padded to 160 tokens": lambda: patch.object(
        irtuning.training.build, "DataCollatorWithPadding", lambda tokenizer, **_: PADDED(tokenizer)
    ),
    "two threads instead of one": lambda: threads(2),
}
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


def main(steps: int = 24, turns: int = 4) -> None:
    """Measure all variants and methods in turn, and write the record."""
    torch.set_num_threads(1)
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
