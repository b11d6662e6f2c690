"""How many short runs of mini a machine makes a minute, with 1, 4, 8 and 12 at a time on its one GPU (or its CPU).

Run `python tests/benchmarks/runs_at_a_time.py`; it writes reports/benchmarks/runs_at_a_time.json after every number
of jobs. Each number has a process of its own. Its workers are warm: every one has made one run before the clock starts,
and what that took, imports with it, is `start_seconds`.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import threading
import time
from typing import Self

from irtuning.config import RunConfig
from irtuning.corpora import Corpus, load_corpus
from irtuning.jobs import cores, outcomes
from irtuning.paths import REPOSITORY
from irtuning.provenance import provenance
from irtuning.records import write_text
from irtuning.run import train

PAUSE = 0.2  # seconds between two looks at the GPU's memory


def one_run(seed: int, steps: int, corpus: Corpus) -> dict:
    """Train; seconds of the whole run and of its training, and the peak of its own tensors."""
    config = RunConfig(model="mini", method="ir", seed=seed, max_steps=steps, eval_every=steps)
    meta = train(config, corpus=corpus, progress=False).record["meta"]
    return meta["seconds"] | {"peak_memory_bytes": meta["peak_memory_bytes"]}


def used_bytes() -> int:
    """Memory in use on the first GPU, of all processes."""
    words = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout) * 2**20


class DeviceMemory(threading.Thread):
    """The highest use of the first GPU's memory while it watches, above what was in use before; None without a GPU."""

    def __enter__(self) -> Self:
        self.peak, self.over = None, threading.Event()
        if shutil.which("nvidia-smi"):
            self.before, self.peak = used_bytes(), 0
            self.start()
        return self

    def run(self) -> None:
        while not self.over.wait(PAUSE):
            self.peak = max(self.peak, used_bytes() - self.before)

    def __exit__(self, *error: object) -> None:
        self.over.set()
        if self.peak is not None:
            self.join()


def measure(jobs: int, runs: int, steps: int) -> dict:
    """One row: `runs` runs, `jobs` at a time."""
    corpus = load_corpus("synthetic")
    with DeviceMemory() as memory:
        started = time.perf_counter()
        checked(outcomes(one_run, [(seed, steps, corpus) for seed in range(jobs)], jobs=jobs))
        warm = time.perf_counter()
        found = checked(outcomes(one_run, [(171 + i, steps, corpus) for i in range(runs)], jobs=jobs))
        seconds = time.perf_counter() - warm
    return {
        "jobs": jobs,
        "threads_each": max(1, cores() // jobs),
        "start_seconds": warm - started,
        "seconds": seconds,
        "runs_per_minute": 60 * runs / seconds,
        "median_run_seconds": statistics.median(run["total"] for run in found),
        "median_training_seconds": statistics.median(run["train"] for run in found),
        "outside_runs_seconds": seconds * min(jobs, runs) / runs - statistics.mean(run["total"] for run in found),
        "run_peak_memory_bytes": max(run["peak_memory_bytes"] for run in found),
        "device_peak_memory_bytes": memory.peak,
    }


def checked(ended) -> list[dict]:
    """The outcomes; a run that failed fails the measurement."""
    found = [outcome for _, outcome in ended]
    for outcome in found:
        if isinstance(outcome, Exception):
            raise outcome
    return found


def main() -> None:
    """Measure every number of jobs for which there is time, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", default="1,4,8,12", help="numbers of runs at a time, comma-separated")
    parser.add_argument("--runs", type=int, default=24)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=3600, help="a number of jobs that is not done by then is left out")
    parser.add_argument("--one", type=int, help="measure this number only and print its row")
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(asked.one, asked.runs, asked.steps)))
        return
    rows, left_out, deadline = [], [], time.monotonic() + asked.seconds
    for jobs in map(int, asked.jobs.split(",")):
        words = [sys.executable, __file__, "--one", str(jobs), "--runs", str(asked.runs), "--steps", str(asked.steps)]
        try:
            left = max(0.0, deadline - time.monotonic())
            found = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, timeout=left)
            rows.append(json.loads(found.stdout.splitlines()[-1]))
            print(rows[-1])
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
            left_out.append({"jobs": jobs, "why": type(error).__name__})
            print(left_out[-1])
        what = f"{asked.runs} runs of mini, method ir, {asked.steps} steps, synthetic corpus, nothing saved; warm workers"
        record = {"what": what, "cores": cores(), "rows": rows, "left_out": left_out, "meta": provenance()}
        write_text(REPOSITORY / "reports" / "benchmarks" / "runs_at_a_time.json", json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
