"""Write tables.md: a step of Llama-3.1-8B's shape, and many small runs on one GPU, from their records."""

import json
from pathlib import Path

import pandas
from large_shapes import plan
from steps_a_second import throughput

from irtuning.analysis.tables import markdown
from irtuning.companion.archive import read_archive
from irtuning.companion.paths import REPOSITORY
from irtuning.memory.predict import predict_memory
from irtuning.training.record import write_text

HERE = Path(__file__).parent
ENGINES = {"uncast,compile": "bfloat16, compiled", "float8,uncast,compile": "float8, compiled",
           "float8,uncast,compile,recompute": "float8, compiled, recompute", "float8,uncast": "float8"}  # fmt: skip
SCATTERED = {"method": f"fixed:layers={'+'.join(map(str, plan('scattered', 32, 1)[0]))}"}
SEEDS, PROCESSES, CARDS = range(3, 7), 32, 2  # the last digits of the seeds whose runs were made together, and where
TARGETS = {"scattered": (165, 24), "upper": (125, 18), "all": (170, 29), "checkpointing": (290, 10)}  # ms and GiB, set before the measurement


def large_steps() -> tuple[pandas.DataFrame, str]:
    """Return a row for each measured engine and set of layers: time, peak, target of float8; and how far off each is."""
    rows = [r for r in measured() if r["speed"] in ENGINES and r["group"] in ("core", "float8") and r["dropout"]
            and r["backward"] != "skip" and not r["inductor"]]  # fmt: skip
    rows.sort(key=lambda row: ([*ENGINES].index(row["speed"]), row["checkpointing"], [*TARGETS].index(row["layers"])))
    found, off = [], {}
    for row in rows:
        case = "checkpointing" if row["checkpointing"] else row["layers"]
        aims = TARGETS[case] if "float8" in row["speed"] and "compile" in row["speed"] else ("", "")
        engine = ENGINES[row["speed"]] + ", checkpointing" * row["checkpointing"] + ", no callback" * (not row["callback"])
        found.append({"layers": row["layers"], "engine": engine, "step (ms)": f"{row['step_ms']:.0f}", "target (ms)": aims[0],
                      "peak (GiB)": f"{row['peak_gib']:.1f}", "target (GiB)": aims[1]})  # fmt: skip
        if aims[0] and row["callback"]:
            of = off.setdefault(engine, [])
            of.append(tuple(is_ / aim - 1 for is_, aim in zip((row["step_ms"], row["peak_gib"]), aims, strict=True)))
    said = (f"with {engine}, a step by {spread([time for time, _ in of])}, its peak by {spread([peak for _, peak in of])}" for engine, of in off.items())
    return pandas.DataFrame(found), f"Compared with their targets: {'; '.join(said)}."


def spread(shares: list[float]) -> str:
    """Return the lowest and the highest of some shares as text, or the only one."""
    low, high = (f"{end(shares):+.1%}" for end in (min, max))
    return low if low == high else f"{low} to {high}"


def shorter_steps() -> tuple[pandas.DataFrame, str]:
    """Return a row for each case before and after two changes, on one H200, and sentences on what they do."""
    record = json.loads((HERE / "float8_steps.json").read_text())
    of = {(row["code"], row["name"]): row for row in record["rows"]}
    table = pandas.DataFrame([{
        "layers": row["layers"], "engine": ENGINES[row["speed"]] + ", backward=skip" * (row["backward"] == "skip") + ", no callback" * (not row["callback"]),
        "changes": code, "step (ms)": f"{row['step_ms']:.1f}", "peak (GiB)": f"{row['peak_gib']:.1f}",
        **dict(zip(("target (ms)", "target (GiB)"), TARGETS[row["layers"]] if "float8" in row["speed"] and row["backward"] == "exact" else ("", ""), strict=True)),
    } for (code, _), row in of.items()])  # fmt: skip
    first, last = (of[code, "scattered/float8"]["step_ms"] for code in ("before", "after"))
    added = of["after", "all/float8"]["step_ms"] / of["after", "all/float8/no-callback"]["step_ms"] - 1
    gaps = [", ".join(f"{gap['ms']:.1f}" for gap in profile["gaps"][:3]) for profile in record["profiles"]]
    return table, (
        "`before`, the Trainer walked through all modules in each step: to set train mode, to clear gradients, to count operations "
        f"and to measure the gradient again. The GPU waited meanwhile; the longest gaps of a profiled step were {gaps[0]} ms. They are "
        f"{gaps[1]} ms `after`. The package's own runs had no such walks; `LayerwiseTrainer` alone had, and it is what is measured. "
        "Also, the backward pass in float8 stored the product of the gradient with the weight's scales in float32 before it scaled its "
        f"rows. Both changes make a step of 14 scattered layers {1 - last / first:.0%} shorter. The callback adds {added:.1%} to a step of "
        "all layers. Peaks are without `recompute`. Another process trained small models on the host's other GPU meanwhile.")  # fmt: skip


def compiler_settings() -> str:
    """Return sentences on a step in float8 with settings of torch's compiler on, beside the same step without."""
    pairs: dict[str, list[float]] = {}
    for of in ({row["name"]: row for row in measured(card)} for card in ("", "_h100")):
        for row in (row for row in of.values() if row.get("inductor")):
            plain = of[row["name"].removesuffix(f"/{row['inductor']}")]
            pairs.setdefault(row["inductor"], []).append(row["step_ms"] / plain["step_ms"] - 1)
    said = ", ".join(f"{spread(changes)} with `{name}`" for name, changes in sorted(pairs.items()))
    return (
        "Settings of torch's compiler were tried in float8. `cpp_wrapper` launches kernels by compiled code, `triton.multi_kernel` tries "
        "several kernels where it reduces, `combo_kernels` joins small kernels, and `coordinate_descent_tuning` tunes the sizes "
        f"of blocks. They change the median step by {said}. None is on in the package. Some rows are of another card than the step beside "
        "them, or of an H100 and the code before the two changes below.")  # fmt: skip


def peak(**settings) -> float:
    """Return the predicted peak of an eager step of this shape, in GiB."""
    shape = {"model": "llama-3.1-8b", "batch": 16, "length": 256, "padded": False, "labels": 5, "rank": 32, "dropout": 0.05}
    return predict_memory(**shape, **settings).peak_bytes / 2**30


def skipped_and_idle() -> tuple[pandas.DataFrame, str]:
    """Return a row for each way to treat layers that do not learn, and a sentence on what it saves."""
    rows = {row["name"]: row for row in measured("_h100") if not row.get("error")}
    names = {**{f"scattered/{engine}{skip}": f"14 scattered layers{how}{', backward=skip' * bool(skip)}"
                for engine, how in (("plain", ""), ("compile", ", compiled"), ("checkpointing", ", checkpointing")) for skip in ("", "/skip")},
             "changing/compile/skip": "14 layers drawn anew at each step, compiled, backward=skip",
             **{f"{kind}/{idle}": f"{what}, idle={idle}" for kind, what in (
                 ("changing/plain", "14 layers drawn anew at each step, LoRA"), ("lisa", "2 whole layers drawn anew every 4 steps"))
                for idle in ("keep", "drop", "offload")}}  # fmt: skip
    sets = {"scattered": SCATTERED, "changing": {"method": "rst", "share": 14 / 32}}  # `lisa` rows have a base that a run does not have
    predicted = {name: f"{peak(**sets[first], **{k: rows[name][k] for k in ('backward', 'idle', 'checkpointing')}):.1f}"
                 for name in names if (first := name.split("/")[0]) in sets and "compile" not in name}  # fmt: skip
    table = pandas.DataFrame([{"what learns": text, "step, median (ms)": f"{rows[name]['step_ms']:.0f}",
                               "step, mean (ms)": f"{rows[name]['step_ms_mean']:.0f}", "peak (GiB)": f"{rows[name]['peak_gib']:.1f}", "predicted (GiB)": predicted.get(name, "")}
                              for name, text in names.items()])  # fmt: skip
    pairs = [(rows[f"scattered/{engine}"], rows[f"scattered/{engine}/skip"]) for engine in ("plain", "compile", "checkpointing")]
    shorter, less = [1 - skip["step_ms"] / exact["step_ms"] for exact, skip in pairs], [exact["peak_gib"] - skip["peak_gib"] for exact, skip in pairs]
    saved = [rows[f"{kind}/keep"]["peak_gib"] - rows[f"{kind}/offload"]["peak_gib"] for kind in ("changing/plain", "lisa")]
    return table, (f"Skipping the layers that do not learn makes a step {shorter[0]:.0%} shorter and saves {less[0]:.1f} GiB; compiled "
                   f"{shorter[1]:.0%} and {less[1]:.1f} GiB, with checkpointing {shorter[2]:.0%} and {less[2]:.1f} GiB. Keeping the optimizer's state of idle layers on the "
                   f"host saves {saved[0]:.1f} GiB with LoRA, whose states are small, and {saved[1]:.1f} GiB where whole layers "
                   "learn. There the median hides the steps in which states move; the mean shows them. In these "
                   "short runs most layers leave for the first time, so that host memory is still allocated.")  # fmt: skip


def measured(card: str = "") -> list[dict]:
    """Return the rows measured on an H200, or on the card that ends the file's name."""
    return json.loads((HERE / f"large_shapes_llama-3.1-8b{card}.json").read_text())["rows"]


def small_runs() -> tuple[pandas.DataFrame, str]:
    """Return a row for each case of many runs on one GPU, and a sentence on what a step of one run consists of."""
    record = json.loads((HERE / "small_runs.json").read_text())
    rows = [{"card": row["meta"]["device"].split()[1], "runs at a time": row["workers"], "speed": ", ".join([*row["speed"], *[row["mode"]] * bool(row.get("mode"))]) or "plain",
             "multi-process service": "on" if row["mps"] else "off",
             "timed in": "the same processes" if row.get("same_processes") else "new processes", "steps a second in all": f"{row['steps_per_second']:.1f}",
             "first runs (s)": f"{row['warm_s']:.0f}", "memory of all (GiB)": f"{row['gpu_gib_held_by_all']:.0f}"}
            for row in record["rows"]]  # fmt: skip
    steps = json.loads((HERE / "small_runs_profile.json").read_text())
    (cores,) = {row["cores"] for row in record["rows"]}
    return pandas.DataFrame(rows), "\n".join(
        f"`{step['case']}`: a step of one run alone takes {step['wall_ms_per_step']:.0f} ms and launches "
        f"{step['kernels_per_step']:,.0f} kernels, which keep the GPU busy for {step['gpu_ms_per_step']:.0f} ms, "
        f"{step['gpu_ms_per_step'] / step['wall_ms_per_step']:.0%} of the time. The host is the limit: its {cores} cores could start "
        f"{1e3 * cores / step['wall_ms_per_step']:.0f} such steps a second.\n" for step in steps)  # fmt: skip


def headline_runs() -> tuple[pandas.DataFrame, str]:
    """Return a row for each corpus with the steps a second of the study's last runs, and sentences on what they are."""
    records, _ = read_archive(REPOSITORY / "reports" / "study" / "second", "headline")
    records = [record for record in records if record["run"]["config"]["seed"] % 10 in SEEDS]
    methods = {record["run"]["config"]["method"]: record["run"]["strategy"]["scope"] for record in records}
    lora = {name for name, scope in methods.items() if scope == "adapters"}
    groups = {"if all trained LoRA": lora, "if all were IR-Tuning or Full PEFT": {"ir", "full"}}
    rates, first = throughput(records, PROCESSES, CARDS, groups)
    titles = {"all": "on one card", "with_end": "one card, the end included", **{name: f"one card, {name}" for name in groups}}
    table = rates[[*titles]].rename(columns=titles)
    table.insert(0, f"steps a second on {CARDS} cards", rates["all"] * CARDS)
    table = table.map("{:.1f}".format)
    table.insert(0, "seconds counted", rates.seconds.map("{:.0f}".format))
    table.insert(0, "corpus", rates.corpus)
    return table, (
        f"These are {len(records)} runs of the study's headline, with {len(methods)} methods mixed, made by {PROCESSES} processes on "
        f"{CARDS} H100s of one host. A run's start, evaluation and test scoring are included. The numbers are computed from the time "
        "at which each run ended and the seconds that it took (`steps_a_second.py`). The first runs of the processes, which "
        f"compile, took up to {first:.0f} s and are left out.\n\n"
        "A corpus counts while no other one runs, until its last run begins. After that, processes run out of work; one column "
        f"includes that end. {len(lora)} of the methods train LoRA of rank 32. The last two columns are computed, not "
        "measured: what those methods' runs make in a second of a process, beside runs of the others, times the processes at work.")  # fmt: skip


def profiles() -> tuple[pandas.DataFrame, str]:
    """Return milliseconds of a step by kind of kernel, for each profiled case, and a sentence on how long the GPU waits."""
    rows = json.loads((HERE / "step_profile.json").read_text())
    name = {"scattered/compile": "bfloat16", "scattered/float8": "float8"}
    table = pandas.DataFrame({name[r["case"]]: {kind: of["ms"] for kind, of in r["kinds"].items()} for r in rows}).fillna(0)
    fused = " and ".join(f"{of[['scaling to float8', 'dropout']].sum():.0f} ms with {kind}" for kind, of in table.items())
    table.loc["the GPU waits"] = [r["step_ms"] - r["busy_ms"] for r in rows]
    table.loc["step"] = [r["step_ms"] for r in rows]
    table = table.sort_values("float8", ascending=False).map("{:.1f}".format).rename_axis("milliseconds").reset_index()
    gaps = ", and for ".join(f"{r['step_ms'] - r['busy_ms']:.0f} ms with {name[r['case']]}, between "
                             f"{sum(k['count'] for k in r['kinds'].values()):,.0f} kernels" for r in rows)  # fmt: skip
    return table, (
        "A kernel that compilation fused counts once, by a word in its name. In float8, the kernels that scale also do most of "
        f"what counts as dropout in bfloat16, SiLU and norms included. Both kinds together take {fused}.\n\n"
        f"In a step the GPU waits for the host for {gaps}. The profiler slows the host down, and so makes the float8 step longer "
        "and its waits too: in the first table above a step takes less.")  # fmt: skip


def main() -> None:
    """Write tables.md."""
    rows, sentence = small_runs()
    head = "Made by `python reports/benchmarks/tables.py` from the records beside it."
    text = f"# Tables\n\n{head}\n\n## A step at the shape of Llama-3.1-8B, random weights, one H200\n\n"
    table, words = large_steps()
    text += "LoRA of rank 32, 16 x 256 tokens, dropout 0.05, the callback on. Targets were set before the measurement. All rows are of "
    text += f"one card and one day; another process trained small models on the host's other GPU.\n\n{markdown(table)}\n{words} "
    text += f"For the step with checkpointing {peak(**SCATTERED, speed=('float8',), checkpointing=True):.1f} GiB are predicted; the "
    text += f"prediction is of a step that is not compiled.\n\n{compiler_settings()}\n\n"
    table, words = shorter_steps()
    text += f"Two changes of 28 November 2026 made steps in float8 shorter. Before and after them, on another H200 (`float8_steps.json`):\n\n{markdown(table)}\n{words}\n\n"
    table, words = profiles()
    text += f"What a step with 14 scattered layers does, compiled (`step_profile.py`; the profiler is on):\n\n{markdown(table)}\n{words}\n\n"
    text += "## Layers that do not learn, at the same shape, on one H100\n\n"
    table, words = skipped_and_idle()
    text += f"These steps were measured before the two changes. The last three rows are with checkpointing. Peaks are predicted for eager steps.\n\n{markdown(table)}\n{words}\n\n"
    text += "## Many runs of SmolLM2-135M on one GPU\n\nLoRA of rank 32, batches of 16, IR-Tuning and Full PEFT in turn, 100 to 450 steps "
    text += f"a run, four evaluations in it and the start included. Each case had 16 cores. During those on the H200, a step of an 8B shape was measured on the host's other GPU.\n\n{markdown(rows)}\n{sentence}\n"
    table, words = headline_runs()
    text += f"The same model in the study, compiled, kernels launched by compiled code, multi-process service on:\n\n{markdown(table)}\n{words}\n"
    write_text(HERE / "tables.md", text)


if __name__ == "__main__":
    main()
