"""Is a run with the frozen base in float8 as good as one in bfloat16? The difference, beside that of another seed.

    python reports/benchmarks/float8_small.py runs --data DIR --workers 12 --minutes 8
    python reports/benchmarks/float8_small.py table

SmolLM2-135M on ITERATER and arXivEdits: Full PEFT and IR-Tuning, in bfloat16 and with `speed=float8`, each with the same
seeds. Scores are of the validation part of fold 0, which folds 0 to 3 share. Test parts are never scored. A pair differs
in the kind of numbers alone, or in the seed alone (two runs in bfloat16). A row is written when its run ends, and a
repeated command makes those that are missing.
"""

import argparse
import json
import statistics
import time
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas

from irtuning.analysis.tables import markdown
from irtuning.companion.paths import REPOSITORY
from irtuning.comparison.workers import outcomes
from irtuning.corpora.base import Corpus
from irtuning.models.loading import load_tokenizer, resolve
from irtuning.training.config import RunConfig
from irtuning.training.prepare import corpus_of, prepare
from irtuning.training.record import provenance, write_text
from irtuning.training.run import train

PATH = REPOSITORY / "reports" / "benchmarks" / "float8_small.json"
CORPORA, METHODS, SEEDS, SPEEDS = ("iterater", "arxivedits"), ("full", "ir"), (191, 192, 193), ("bfloat16", "float8")
COMMON = {"model": "smollm2-135m-q4", "form": "marked", "rank": 32, "alpha": 64, "learning_rate": 1e-3, "batch_size": 16,
          "epochs": 2.0, "split": "folds"}  # fmt: skip
LAST = 20  # steps over which the last training loss is a mean


def make(row: dict, corpus: Corpus, end: float, more: dict) -> dict | None:
    """Make one run in a worker, and return its row. After the time `end`, no run is begun, and there is no row."""
    if time.time() > end:
        return None
    speed = ["uncast"] + ["float8"] * (row["base"] == "float8")
    config = RunConfig.of(COMMON | {n: row[n] for n in ("corpus", "method", "seed")} | {"speed": speed} | more)
    record = train(prepare(config, corpus=corpus), progress=False).record
    steps, answers = record["train"]["steps"], record["predictions"]["validation"]
    return row | {
        "macro_f1": record["scores"]["validation"]["macro_f1"], "steps": len(steps),
        "training_loss": statistics.mean(step["loss"] for step in steps[-LAST:]),
        "validation_loss": record["train"]["validation"][-1]["loss"],
        "predicted": [answer["predicted"] for answer in answers], "layers": [step["layers"] for step in steps],
    }  # fmt: skip


def difference(one: dict, other: dict) -> dict[str, float]:
    """Return how two runs differ: losses and score (other minus one), changed predictions, agreement of the layers.

    The agreement is the mean over steps of the share of layers that both choose among those that one of them chooses.
    """
    shares = [len({*a} & {*b}) / len({*a} | {*b}) for a, b in zip(one["layers"], other["layers"], strict=True)]
    changed = [a != b for a, b in zip(one["predicted"], other["predicted"], strict=True)]
    losses = {name: other[name] - one[name] for name in ("training_loss", "validation_loss", "macro_f1")}
    return losses | {"changed_predictions": statistics.mean(changed), "layer_agreement": statistics.mean(shares)}


def differences(rows: list[dict]) -> pandas.DataFrame:
    """Return one row for each pair of runs that differ in the base alone, or in the seed alone with both in bfloat16."""
    found = []
    for one, other in combinations(sorted(rows, key=lambda r: (r["base"], r["seed"])), 2):
        if (one["corpus"], one["method"]) == (other["corpus"], other["method"]):
            same_base, same_seed = one["base"] == other["base"], one["seed"] == other["seed"]
            if same_seed or (same_base and one["base"] == "bfloat16"):
                kind = "float8 instead of bfloat16" if same_seed else "another seed"
                found.append({"corpus": one["corpus"], "method": one["method"], "change": kind} | difference(one, other))
    return pandas.DataFrame(found)


def table(pairs: pandas.DataFrame) -> pandas.DataFrame:
    """Return the mean of each difference and, for those with a sign, its mean size, for each corpus, method and change."""
    groups, numbers = pairs.groupby(["corpus", "method", "change"], sort=False), pairs.columns[3:]
    made = {"pairs": groups.size()}
    for name in numbers:
        signed = name in ("training_loss", "validation_loss", "macro_f1")
        made |= {f"{name}, mean": groups[name].mean()} | ({f"{name}, size": groups[name].agg(lambda s: s.abs().mean())} if signed else {})
    return pandas.DataFrame(made).reset_index()


def smaller(made: pandas.DataFrame) -> list[str]:
    """Return, for each number, in how many settings float8 changes less than another seed does."""
    sides = [made[made.change.eq("another seed") == seed].set_index(["corpus", "method"]) for seed in (False, True)]
    names = [name for name in made.columns if name.endswith("size") or name.startswith("changed")]
    counts = {name.split(",")[0]: int((sides[0][name] < sides[1][name]).sum()) for name in names}
    learned = [side[side.index.get_level_values("method") == "ir"]["layer_agreement, mean"] for side in sides]
    counts["layers that IR-Tuning chose"] = int((learned[0] > learned[1]).sum())
    totals = dict.fromkeys(counts, len(sides[0])) | {"layers that IR-Tuning chose": len(learned[0])}
    return [f"{name.replace('_', ' ')} {count} of {totals[name]}" for name, count in counts.items()]


def interval(pairs: pandas.DataFrame) -> tuple[float, float, float]:
    """Return the mean difference in macro F1 that float8 makes, and its 95 % interval (t over pairs of runs)."""
    from scipy import stats
    values = pairs[pairs.change.str.startswith("float8")].macro_f1.to_numpy()
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def product_error() -> dict[str, float]:
    """Return the relative error of a product with a frozen weight of random numbers, in bfloat16 and in float8."""
    import torch
    from irtuning.models.float8 import Float8Linear
    torch.manual_seed(0)
    linear, inputs = torch.nn.Linear(1024, 1024, bias=False).requires_grad_(False), torch.randn(1024, 1024)
    exact = inputs @ linear.weight.T
    made = {"bfloat16": (inputs.bfloat16() @ linear.weight.bfloat16().T).float(), "float8": Float8Linear(linear)(inputs)}
    return {name: float((value.float() - exact).norm() / exact.norm()) for name, value in made.items()}


def main() -> None:
    """Read the command line and run one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["runs", "table"])
    parser.add_argument("--data", type=Path, help="folder of the corpora; by default IRTUNING_DATA")
    parser.add_argument("--out", type=Path, default=PATH)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1e6, help="after so many minutes no further run begins")
    parser.add_argument("--model", default=COMMON["model"])
    parser.add_argument("--steps", type=int, help="steps of each run, to try the script")
    given = parser.parse_args()
    record = json.loads(given.out.read_text()) if given.out.exists() else {"settings": COMMON, "rows": []}
    keys = ("corpus", "method", "seed", "base")
    if given.command == "runs":
        more, end = {"model": given.model} | ({"max_steps": given.steps} if given.steps else {}), time.time() + 60 * given.minutes
        corpora = {name: corpus_of(RunConfig.of({"corpus": name, "split": "folds"}), given.data) for name in CORPORA}
        load_tokenizer(resolve(given.model))  # a GGUF file is dequantised here, before several workers ask for it
        done = {tuple(row[key] for key in keys) for row in record["rows"]}
        wanted = sorted(product(CORPORA, METHODS, SEEDS, SPEEDS), key=lambda key: key[3], reverse=True)  # slow ones first
        missing = [dict(zip(keys, key, strict=True)) for key in wanted if key not in done]
        for index, row in outcomes(make, [(row, corpora[row["corpus"]], end, more) for row in missing], workers=given.workers):
            if isinstance(row, dict):
                record["rows"].append(row)
                write_text(given.out, json.dumps(record | {"meta": provenance()}) + "\n")
                print(*(row[key] for key in keys), f"{row['macro_f1']:.3f} {row['validation_loss']:.3f}", flush=True)
            elif row:
                print(f"failed: {missing[index]}: {row!r}", flush=True)
        print(f"{len(wanted) - len(record['rows'])} runs are missing")
        return
    pairs = differences(record["rows"])
    mean, low, high = interval(pairs)
    errors = ", ".join(f"{name} {error:.4f}" for name, error in product_error().items())
    made = table(pairs)
    text = f"# A frozen base in float8, beside bfloat16\n\n{__doc__.split(chr(10) * 2, 2)[2]}\n{markdown(made.round(4))}\n"
    text += f"\nSettings in which float8 changes less than another seed does: {', '.join(smaller(made))}.\n\nMacro F1, float8 minus bfloat16: {mean:+.4f}, 95 % interval {low:+.4f} to {high:+.4f} over "
    text += f"{(pairs.change != 'another seed').sum()} pairs; no verdict, since seeds differ by more.\n"
    text += f"\nRelative error of one product of random numbers: {errors}.\n\n{record['meta']['device']}, torch {record['meta']['versions']['torch']}\n"
    write_text(given.out.with_suffix(".md"), text)
    print(text)


if __name__ == "__main__":
    main()
