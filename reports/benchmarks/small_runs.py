"""Measure how many optimizer steps a second many small runs on one GPU make in all, and what a step consists of.

Run `python reports/benchmarks/small_runs.py --data FOLDER`. Each case has a number of workers and a way to run a step.
All workers first make a short run, which imports packages, starts CUDA and compiles. Then the same processes make timed
runs, of IR-Tuning and of Full PEFT in turn, evaluation included. Rows of `small_runs.json` without `same_processes` are
older: their timed runs were made in new processes, which took their compiled code from a folder. A row is written as
soon as its case ends. `profile` counts the kernels of a step of one run and the time that the GPU is busy with them.
With NVIDIA's multi-process service (`nvidia-cuda-mps-control -d`, and CUDA_MPS_PIPE_DIRECTORY set) kernels of several
processes run at the same time.
"""

import functools
import json
import os
import time
from pathlib import Path

import torch
import typer
from torch.profiler import ProfilerActivity, profile, schedule
from transformers import TrainerCallback

from irtuning.companion.paths import REPOSITORY
from irtuning.comparison.workers import cores, outcomes
from irtuning.corpora.base import Corpus
from irtuning.corpora.load import load_corpus
from irtuning.training.record import provenance, write_text
from irtuning.training.run import train

PATH = REPOSITORY / "reports" / "benchmarks" / "small_runs.json"
COMMON = {"model": "smollm2-135m-q4", "form": "marked", "rank": 32, "batch_size": 16, "learning_rate": 1e-3}
CASES = {  # name: workers on the GPU, speed, mode of torch.compile, or `cpp_wrapper`: kernels are launched by compiled code
    "12 plain": (12, (), None), "14 plain": (14, (), None), "12 uncast": (12, ("uncast",), None),
    "8 plain": (8, (), None), "16 plain": (16, (), None), "16 uncast": (16, ("uncast",), None),
    "8 compiled": (8, ("uncast", "compile"), None), "16 compiled": (16, ("uncast", "compile"), None),
    **{f"{n} wrapped": (n, ("uncast", "compile"), "cpp_wrapper") for n in (16, 20)}, "1 wrapped": (1, ("uncast", "compile"), "cpp_wrapper"),
    "1 graphs": (1, ("uncast", "compile"), "reduce-overhead"), "8 graphs": (8, ("uncast", "compile"), "reduce-overhead"),
    "1 plain": (1, (), None), "1 compiled": (1, ("uncast", "compile"), None),
}  # fmt: skip
app = typer.Typer(add_completion=False, help=__doc__)


def one_run(corpus: Corpus, seed: int, steps: int, speed: tuple, mode: str | None, callbacks: tuple = ()) -> float:
    """Train once, and return the last validation loss, by which two ways of running a step are compared."""
    if mode == "cpp_wrapper":
        from torch._inductor import config  # a global name could not travel to the workers
        config.cpp_wrapper = True
    elif mode and not isinstance(torch.compile, functools.partial):
        torch.compile = functools.partial(torch.compile, mode=mode)
    method = ("ir", "full")[seed % 2]
    run = train(corpus=corpus, method=method, seed=seed, max_steps=steps, eval_every=max(1, steps // 4), speed=speed,
                progress=False, callbacks=list(callbacks), **COMMON)  # fmt: skip
    return run.record["train"]["validation"][-1]["loss"]


def case_row(name: str, corpus: Corpus, steps: int, rounds: int) -> dict:
    """Make a case's runs and return its row."""
    workers, speed, mode = CASES[name]

    items = [(corpus, seed, min(40, steps), speed, mode) for seed in range(workers)]
    began, ended, warm = time.perf_counter(), {}, 0.0
    for index, loss in outcomes(one_run, items, workers=workers):
        ended[index] = loss
        if len(ended) == workers and not any(isinstance(loss, Exception) for loss in ended.values()):
            warm = time.perf_counter() - began
            items += [(corpus, seed, steps, speed, mode) for seed in range(workers * rounds)]
    took, losses = time.perf_counter() - began - warm, [ended[index] for index in sorted(ended)][workers:] or [*ended.values()]
    errors = [repr(loss)[:300] for loss in losses if isinstance(loss, Exception)]
    held = torch.cuda.mem_get_info() if torch.cuda.is_available() else (0, 0)
    return {"case": name, "mps": "CUDA_MPS_PIPE_DIRECTORY" in os.environ, "workers": workers, "speed": list(speed), "mode": mode, "steps": steps, "runs": len(losses), "same_processes": True,
            "warm_s": warm, "timed_s": took, "steps_per_second": 0 if errors else len(losses) * steps / took,
            "gpu_gib_held_by_all": (held[1] - held[0]) / 2**30, "cores": cores(), "errors": errors[:1],
            "losses": [] if errors else losses[:2], "settings": COMMON, "meta": provenance()}  # fmt: skip


@app.command("measure")
def measure(data: Path | None = None, cases: str = ",".join(CASES), steps: int = 120, rounds: int = 2,
            seconds: float = 1e9, out: Path = PATH) -> None:  # fmt: skip
    """Measure the named cases in turn, until `seconds` have passed."""
    corpus, began = load_corpus("iterater", data), time.perf_counter()
    for name in cases.split(","):
        if time.perf_counter() - began > seconds:
            break
        record = json.loads(out.read_text()) if out.exists() else {"corpus": corpus.name, "rows": []}
        record["rows"].append(row := case_row(name, corpus, steps, rounds))
        write_text(out, json.dumps(record, indent=1) + "\n")
        typer.echo(f"{name}: {row['steps_per_second']:.1f} steps/s in all, warm-up {row['warm_s']:.0f} s {row['errors']}")


class Profiled(TrainerCallback):
    """Callback that profiles a few steps after the first ones."""
    def __init__(self, wait: int, active: int):
        kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
        self.active, self.seconds = active, []
        self.profiler = profile(activities=kinds, schedule=schedule(wait=wait, warmup=2, active=active, repeat=1))

    def on_train_begin(self, args, state, control, **kwargs):
        self.profiler.start()

    def on_step_end(self, args, state, control, **kwargs):
        self.seconds.append(time.perf_counter())
        self.profiler.step()


@app.command("profile")
def profile_step(data: Path | None = None, case: str = "1 plain", wait: int = 30, active: int = 5,
                 out: Path = PATH.with_name("small_runs_profile.json")) -> None:  # fmt: skip
    """Profile a step of one run: kernels, GPU time, wall time, and the ten longest kernels."""
    _, speed, mode = CASES[case]
    seen = Profiled(wait, active)
    one_run(load_corpus("iterater", data), 0, wait + active + 10, speed, mode, (seen,))
    kernels = [e for e in seen.profiler.events() if e.device_type == torch.autograd.DeviceType.CUDA
               and not e.name.startswith("ProfilerStep")]
    by_name: dict[str, list[float]] = {}
    for event in kernels:
        by_name.setdefault(event.name[:80], []).append(event.time_range.elapsed_us())
    longest = sorted(by_name.items(), key=lambda item: -sum(item[1]))[:10]
    row = {"case": case, "kernels_per_step": len(kernels) / active,
           "gpu_ms_per_step": sum(map(sum, by_name.values())) / active / 1e3,
           "wall_ms_per_step": 1e3 * (seen.seconds[wait - 1] - seen.seconds[10]) / (wait - 11),
           "longest": [{"kernel": n, "count": len(t) / active, "ms": sum(t) / active / 1e3} for n, t in longest],
           "meta": provenance()}  # fmt: skip
    rows = json.loads(out.read_text()) if out.exists() else []
    write_text(out, json.dumps([*rows, row], indent=1) + "\n")
    typer.echo(json.dumps({name: value for name, value in row.items() if name != "meta"}, indent=1))


if __name__ == "__main__":
    app()
