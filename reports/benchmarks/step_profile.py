"""Count what the GPU does in a training step of an 8B shape, by kind of kernel, and how long it waits for the host.

Run `python reports/benchmarks/step_profile.py --cases scattered/float8,scattered/compile` on a machine with a GPU. The
cases are those of `large_shapes.py`. A row is written to step_profile.json when its case ends; `tables.py` shows them.
"""

import argparse
import json
import re
from pathlib import Path

import large_shapes
import torch
from small_runs import Profiled

from irtuning.training.record import provenance, write_text

PATH = Path(__file__).with_suffix(".json")
WAIT, ACTIVE = 8, 3  # steps before the profile, and in it
LISTED = 10  # the longest gaps in a step
KINDS = {  # the first pattern that is found in a kernel's name counts
    "products in float8": r"nvjet\w*_qq|e4m3|f8f8|fp8",
    "attention": r"fmha|flash|attention",
    "products in bfloat16": r"nvjet|gemm|cutlass|cublas|splitK",
    "optimizer, norms of gradients": r"[Aa]dam|multi_tensor|foreach|lpnorm",
    "copies": r"[Mm]emcpy|[Mm]emset",
    "scaling to float8": r"triton.*(amax|abs)",
    "dropout": r"triton.*(dropout|bernoulli|rand)|dropout",
    "transposes and casts": r"triton.*(transpose|clone|_to_copy_t|_to_copy_\d)|transpose",
    "other fused kernels": r"triton",
    "other": r"",
}


def by_kind(events: list, steps: int) -> tuple[dict, list]:
    """Return milliseconds and number of kernels in a step by kind, and the twenty kernels that take longest."""
    kinds, names = {}, {}
    for event in events:
        kind = next(kind for kind, pattern in KINDS.items() if re.search(pattern, event.name))
        for table, name in ((kinds, kind), (names, event.name[:120])):
            of = table.setdefault(name, {"ms": 0.0, "count": 0.0})
            of["ms"] += event.time_range.elapsed_us() / 1e3 / steps
            of["count"] += 1 / steps
    return kinds, sorted(({"kernel": n} | of for n, of in names.items()), key=lambda of: -of["ms"])[:20]


def longest_gaps(kernels: list[tuple[str, float, float]], begin: float, end: float) -> list[dict]:
    """Return the longest gaps that begin in a step, longest first, from the names and microseconds of kernels.

    In a gap no kernel runs. The kernel before it is the one that ended last. `at_ms` counts from the step's beginning.
    """
    found, (before, until) = [], ("", float("inf"))
    for name, start, stop in sorted(kernels, key=lambda kernel: kernel[1]):
        if start > until and begin <= until < end:
            gap = {"ms": (start - until) / 1e3, "at_ms": (until - begin) / 1e3}
            found.append(gap | {"before": before[:120], "after": name[:120]})
        if not before or stop > until:
            before, until = name, stop
    return sorted(found, key=lambda gap: -gap["ms"])[:LISTED]


def measure(shape: str, case: large_shapes.Case) -> dict:
    """Profile a case and return its row. The GPU is busy when at least one kernel runs.

    The listed gaps are those of the second profiled step, which begins when the host begins it.
    """
    seen = Profiled(WAIT, ACTIVE)
    case.steps = WAIT + 2 + ACTIVE + 2
    make_trainer = large_shapes.make_trainer
    large_shapes.make_trainer = lambda model, case, size, callbacks, stack: make_trainer(model, case, size, [*callbacks, seen], stack)
    try:
        row = large_shapes.attempt(shape, case)
    finally:
        large_shapes.make_trainer = make_trainer
    events = seen.profiler.events()
    kernels = [e for e in events if e.device_type == torch.autograd.DeviceType.CUDA and not e.name.startswith("ProfilerStep")]
    kinds, longest = by_kind(kernels, ACTIVE)
    busy, until = 0.0, 0.0
    for start, end in sorted((e.time_range.start, e.time_range.end) for e in kernels):
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    on_host = (e for e in events if e.device_type == torch.autograd.DeviceType.CPU)
    steps = sorted(e.time_range.start for e in on_host if e.name.startswith("ProfilerStep"))
    triples = [(e.name, e.time_range.start, e.time_range.end) for e in kernels if not e.is_user_annotation]
    return {"case": case.name, "shape": shape, "step_ms": row.get("step_ms"), "error": row.get("error"), "kinds": kinds,
            "busy_ms": busy / 1e3 / ACTIVE, "longest": longest,
            "gaps": longest_gaps(triples, *steps[1:3]) if len(steps) > 2 else [], "meta": provenance()}  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Profile the named cases in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="scattered/float8,scattered/compile")
    parser.add_argument("--shape", default="llama-3.1-8b", choices=large_shapes.SHAPES)
    parser.add_argument("--out", type=Path, default=PATH)
    given = parser.parse_args(arguments)
    for case in large_shapes.chosen(given.cases):
        row = measure(given.shape, case)
        rows = json.loads(given.out.read_text()) if given.out.exists() else []
        write_text(given.out, json.dumps([r for r in rows if r["case"] != row["case"]] + [row], indent=1) + "\n")
        print(json.dumps({name: row[name] for name in ("case", "step_ms", "busy_ms", "kinds", "error")}), flush=True)


if __name__ == "__main__":
    main()
