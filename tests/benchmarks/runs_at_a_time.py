"""How many short runs of `mini` a machine makes in a minute when 1, 4, 8 or 12 go at a time; on a GPU they share it.

Run `python tests/benchmarks/runs_at_a_time.py`; it writes reports/benchmarks/runs_at_a_time.json, a row as soon as it is
measured. The workers' start and imports are timed apart, as they are made once for a whole comparison.
"""

import json
import time

import torch
import typer

from irtuning.corpora.load import load_corpus
from irtuning.comparison.workers import cores, outcomes
from irtuning.companion.paths import REPOSITORY
from irtuning.training.provenance import provenance
from irtuning.training.record import write_text
from irtuning.training.run import train


def one_run(seed: int, steps: int) -> float:
    """Train once; seconds. The first call in a worker imports and, on a GPU, starts CUDA."""
    started = time.perf_counter()
    train(corpus=CORPUS, model="mini", seed=seed, max_steps=steps, eval_every=steps, progress=False)
    return time.perf_counter() - started


CORPUS = load_corpus("synthetic")


def together(jobs: int, seeds: list[int], steps: int) -> tuple[float, list[float]]:
    """Seconds for all of these runs, and for each."""
    started = time.perf_counter()
    found = [outcome for _, outcome in outcomes(one_run, [(seed, steps) for seed in seeds], jobs=jobs)]
    if failed := [outcome for outcome in found if isinstance(outcome, Exception)]:
        raise failed[0]
    return time.perf_counter() - started, found


def main(jobs: str = "1,4,8,12", runs: int = 24, steps: int = 60, seconds: float = 1e9) -> None:
    """Measure each number of jobs in turn, until the seconds are spent."""
    path, rows, began = REPOSITORY / "reports" / "benchmarks" / "runs_at_a_time.json", [], time.perf_counter()
    for count in map(int, jobs.split(",")):
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
