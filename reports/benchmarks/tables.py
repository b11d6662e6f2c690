"""Write tables.md: a step of Llama-3.1-8B's shape on one H100, and many small runs on one GPU, from their records."""

import json
from pathlib import Path

import pandas

from irtuning.analysis.tables import markdown
from irtuning.training.record import write_text

HERE = Path(__file__).parent
ENGINES = {"uncast,compile": "bfloat16, compiled", "float8,uncast,compile": "float8, compiled", "float8,uncast": "float8"}
TARGETS = {"scattered": (165, 24), "upper": (125, 18), "all": (170, 29)}  # ms and GiB, set before the measurement


def large_steps() -> pandas.DataFrame:
    """Return a row for each measured engine and set of layers: time, peak and the target of float8 on an H100."""
    rows = json.loads((HERE / "large_shapes_llama-3.1-8b_h100.json").read_text())["rows"]
    found = []
    for row in rows:
        budget, error = row.get("activation_memory_budget"), row.get("error", "")
        engine = ENGINES[row["speed"]] + ", checkpointing" * row["checkpointing"] + f", {budget} of activations" * bool(budget)
        aims = TARGETS[row["layers"]] if "float8" in engine and not row["checkpointing"] else ("", "")
        found.append({"layers": row["layers"], "engine": engine + ", no callback" * (not row["callback"]),
                      "step (ms)": "failed" if error else f"{row['step_ms']:.0f}", "target (ms)": aims[0],
                      "peak (GiB)": "" if error else f"{row['peak_gib']:.1f}", "target (GiB)": aims[1]})  # fmt: skip
    return pandas.DataFrame(found)


def building() -> str:
    """Return a sentence about the rows whose peak is that of building the model, which several cases share."""
    rows = json.loads((HERE / "large_shapes_llama-3.1-8b_h100.json").read_text())["rows"]
    peaks = [row["peak_gib"] for row in rows if "float8" in row["speed"] and "peak_gib" in row]
    shared = {peak for peak in peaks if peaks.count(peak) > 1 and peak < max(peaks)}
    return "".join(f"{peaks.count(peak)} rows have the same peak of {peak:.1f} GiB: it is not the step's but that of "
                   "turning a bfloat16 base on the GPU into float8. The package has since freed each weight on the "
                   "way; their steps need less, and how much is not measured.\n" for peak in shared)  # fmt: skip


def small_runs() -> tuple[pandas.DataFrame, str]:
    """Return a row for each case of many runs on one GPU, and a sentence on what a step of one run consists of."""
    record = json.loads((HERE / "small_runs.json").read_text())
    rows = [{"runs at a time": row["workers"], "speed": ", ".join(row["speed"]) or "plain",
             "multi-process service": "on" if row["mps"] else "off", "steps a second in all": f"{row['steps_per_second']:.1f}",
             "first runs (s)": f"{row['warm_s']:.0f}", "memory of all (GiB)": f"{row['gpu_gib_held_by_all']:.0f}"}
            for row in record["rows"]]  # fmt: skip
    (step,) = json.loads((HERE / "small_runs_profile.json").read_text())
    (cores,) = {row["cores"] for row in record["rows"]}
    share = step["gpu_ms_per_step"] / step["wall_ms_per_step"]
    return pandas.DataFrame(rows), (
        f"A step of one run alone takes {step['wall_ms_per_step']:.0f} ms and launches {step['kernels_per_step']:,.0f} kernels, "
        f"which keep the GPU busy for {step['gpu_ms_per_step']:.0f} ms, {share:.0%} of the time. The host is the limit: "
        f"its {cores} cores could start {1e3 * cores / step['wall_ms_per_step']:.0f} such steps a second.")  # fmt: skip


def main() -> None:
    """Write tables.md."""
    rows, sentence = small_runs()
    head = "Made by `python reports/benchmarks/tables.py` from the records beside it."
    text = f"# Tables\n\n{head}\n\n## A step at the shape of Llama-3.1-8B, one H100, random weights\n\n"
    text += "LoRA of rank 32, 16 x 256 tokens, dropout 0.05, the callback on. Targets were set before the measurement.\n\n"
    text += f"{markdown(large_steps())}\n{building()}\n## Many runs of SmolLM2-135M on one H100\n\nLoRA of rank 32, batches of 16, IR-Tuning and "
    text += f"Full PEFT in turn, 100 or 150 steps a run, four evaluations in it and the start included.\n\n{markdown(rows)}\n{sentence}\n"
    write_text(HERE / "tables.md", text)


if __name__ == "__main__":
    main()
