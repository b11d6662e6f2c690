"""Measure how many short runs of `mini` a machine makes per minute with 1, 4, 8 or 12 workers that share its GPU.

Run `python reports/benchmarks/runs_at_a_time.py`; rows go to reports/benchmarks/runs_at_a_time.json at once.
The start of the workers is timed separately, because they start only once for a comparison of many runs.
"""

import json
import time

import torch
import typer

from irtuning.corpora.load import load_corpus
from irtuning.comparison.workers import cores, outcomes
from irtuning.companion.paths import REPOSITORY
from irtuning.training.record import provenance, write_text
from irtuning.training.run import train


def one_run(seed: int, steps: int) -> float:
    """Train once and return the seconds. The first call in a worker also imports packages and starts CUDA."""
    started = time.perf_counter()
    train(corpus=CORPUS, model="mini", seed=seed, max_steps=steps, eval_every=steps, progress=False)
    return time.perf_counter() - started


CORPUS = load_corpus("synthetic")


def together(workers: int, seeds: list[int], steps: int) -> tuple[float, list[float]]:
    """Return the seconds that all runs take together, and the seconds of each one."""
    started = time.perf_counter()
    each = [outcome for _, outcome in outcomes(one_run, [(seed, steps) for seed in seeds], workers=workers)]
    if failed := [outcome for outcome in each if isinstance(outcome, Exception)]:
        raise failed[0]
    return time.perf_counter() - started, each


def main(workers: str = "1,4,8,12", runs: int = 24, steps: int = 60, seconds: float = 1e9) -> None:
    """Measure each number of workers in turn, until `seconds` have passed."""
    path, rows, began = REPOSITORY / "reports" / "benchmarks" / "runs_at_a_time.json", [], time.perf_counter()
    for count in map(int, workers.split(",")):
        if time.perf_counter() - began > seconds:
            break
        start, _ = together(count, list(range(count)), 1)
        took, each = together(count, list(range(runs)), steps)
        free, total = torch.cuda.mem_get_info() if torch.cuda.is_available() else (0, 0)
        rows.append({
            "jobs": count, "runs": runs, "start_s": start, "total_s": took, "runs_per_minute": 60 * runs / took,
            "each_s": sum(each) / runs, "gpu_gib_held_by_all": (total - free) / 2**30 if total else None,
        })  # fmt: skip
        record = {"model": "mini", "corpus": "synthetic", "steps": steps, "cores": cores(), "rows": rows, "meta": provenance()}
        write_text(path, json.dumps(record, indent=1) + "\n")
        typer.echo(json.dumps(rows[-1]))


if __name__ == "__main__":
    typer.run(main)
