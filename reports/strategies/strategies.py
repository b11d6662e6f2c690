"""Compare all strategies at equal numbers of layers on validation parts: scores, how often the choice changes, cost.

    python reports/strategies/strategies.py scores --data DIR --workers 16 --minutes 8
    python reports/strategies/strategies.py cost --data DIR          # one run at a time, on an otherwise idle machine
    python reports/strategies/strategies.py draw

Each run is an ordinary run of this package, and its row is written when it ends. Rows that are there are not made
again, so a command is repeated until it says that nothing is missing. Test parts are never scored: the validation part
of fold 0 is the one that folds 0 to 3 share. The table gives no verdict, and the study decides nothing by it.
"""

import argparse
import json
import statistics
import time
from itertools import pairwise, product
from pathlib import Path

import pandas

from irtuning.analysis.tables import markdown
from irtuning.companion.paths import REPOSITORY
from irtuning.comparison.workers import gpus, outcomes
from irtuning.corpora.base import Corpus
from irtuning.method.registry import as_strategy
from irtuning.models.loading import load_tokenizer, resolve
from irtuning.training.config import RunConfig
from irtuning.training.prepare import corpus_of, prepare
from irtuning.training.record import provenance, write_bytes, write_text
from irtuning.training.run import train

HERE = REPOSITORY / "reports" / "strategies"
CORPORA, SEEDS = {"iterater": {"split": "folds"}, "arxivedits": {"split": "folds"}}, (181, 182)  # seeds used nowhere else
MODELS = {"smollm2-135m-q4": {"form": "marked", "rank": 32, "alpha": 64, "learning_rate": 1e-3, "speed": ["uncast"]}, "mini": {}}
METHODS = ["full", "ir:score=l2", "ir:score=rms", "ir:variant=exact", "ir:refresh_every=5", "ir:unit=block", "ir-weight",
           "ir-cosine", "ir-upper", "rst", "ist", "lisa-adapters", "last-k", "middle-k", "random-counts", "random-static",
           "probe", "sampled", "transplant from the other seed", "transplant from the other corpus", "full-ft"]  # fmt: skip
RATES = {"full-ft": {"smollm2-135m-q4": 1e-4}}  # others share one rate
KEYS = ["corpus", "model", "method", "seed"]


def rows_in(path: Path) -> list[dict]:
    """The rows of a table that was written before."""
    return pandas.read_csv(path, keep_default_na=False, dtype={"last": str}).to_dict("records") if path.exists() else []


def config_of(row: dict, leaders: dict[tuple, dict], **more: object) -> RunConfig:
    """The configuration of a run, with the number of layers that IR-Tuning chose with the same seed."""
    corpus, model, method, seed = (row[name] for name in KEYS)
    given = {"epochs": 4.0, "batch_size": 16} | CORPORA.get(corpus, {}) | MODELS.get(model, {})
    rate = RATES.get(method, {}).get(model, given.get("learning_rate"))
    leader = leaders.get((corpus, model, seed))
    if method.startswith("transplant"):  # a fixed set, so that a run's folder is not needed
        other = min(set(SEEDS) - {seed}), min(set(CORPORA) - {corpus})
        of = leaders[(corpus, model, other[0]) if "seed" in method else (other[1], model, seed)]
        method = f"fixed:layers={of['last']}"
    elif leader and (takes := as_strategy(method).takes):
        sizes = json.loads(leader["sizes"])
        more |= {"counts": tuple(sizes)} if takes == "counts" else {"share": round(leader["layers"] / leader["depth"], 4)}
    named = given | {"corpus": corpus, "model": model, "method": method, "seed": seed, "learning_rate": rate}
    return RunConfig.of(named | more)


def make(row: dict, config: RunConfig, corpus: Corpus, end: float) -> dict | None:
    """Make one run in a worker, and return its row. After the time `end`, no run is begun, and there is no row."""
    if time.time() > end:
        return None
    record = train(prepare(config, corpus=corpus), progress=False).record
    steps, scores, meta = record["train"]["steps"], record["scores"]["validation"], record["meta"]
    sets = [step.get("blocks") or step["layers"] for step in steps]
    sizes = [len(chosen) / (2 if "blocks" in step else 1) for chosen, step in zip(sets, steps, strict=True)]
    return row | {
        "macro_f1": scores["macro_f1"], "accuracy": scores["accuracy"], "layers": statistics.mean(sizes),
        "validation_loss": record["train"]["validation"][-1]["loss"], "training_loss": steps[-1]["loss"],
        "lowest": statistics.mean(min(step["layers"]) for step in steps), "steps": len(steps), "depth": record["run"]["depth"],
        "changed": statistics.mean(one != two for one, two in pairwise(sets)),
        "step_ms": 1e3 * statistics.median(meta["step_seconds"][len(steps) // 4 :]), "peak_bytes": meta["peak_memory_bytes"],
        "last": "+".join(map(str, steps[-1]["layers"])), "sizes": json.dumps([int(s) for s in sizes]) if row["method"] == "ir" else "",
        "device": meta["device"], "versions": ", ".join(f"{n} {meta['versions'][n]}" for n in ("torch", "transformers", "peft")),
    }  # fmt: skip


def run_all(path: Path, wanted: list[dict], leaders: dict, corpora: dict, workers: int, end: float, **more: object) -> None:
    """Make the runs whose rows are missing, until `end`, and write each row when its run ends."""
    rows = rows_in(path)
    done = {tuple(str(row[name]) for name in KEYS) for row in rows}
    missing = [row for row in wanted if tuple(str(row[name]) for name in KEYS) not in done]
    items = [(row, config_of(row, leaders, **more), corpora[row["corpus"]], end) for row in missing]
    for index, outcome in outcomes(make, items, workers=workers):
        if isinstance(outcome, Exception):
            print(f"failed: {missing[index]}: {outcome!r}", flush=True)
        elif outcome:
            rows.append(outcome)
            write_text(path, pandas.DataFrame(rows).to_csv(index=False))
            print(*(outcome[name] for name in KEYS), f"{outcome['macro_f1']:.3f}", flush=True)
    left = len(wanted) - len({tuple(str(row[name]) for name in KEYS) for row in rows_in(path)})
    print(f"{left} runs are missing, repeat the command" if left > 0 else "nothing is missing")


def table_of(scores: pandas.DataFrame, cost: pandas.DataFrame) -> pandas.DataFrame:
    """One row for each model and method: mean scores by corpus with their range over seeds, layers, changes and cost."""
    keys = ["model", "method"]
    groups = scores.groupby([*keys, "corpus"], sort=False).macro_f1
    texts = groups.mean().map("{:.3f}".format) + " (" + (groups.max() - groups.min()).map("{:.3f}".format) + ")"
    table = texts.unstack("corpus")[list(dict.fromkeys(scores.corpus))]
    shares = scores.assign(changed=100 * scores.changed, peak=scores.peak_bytes / 2**30).groupby(keys)
    names = {"layers": "layers that learn", "lowest": "lowest of them", "changed": "steps with a new set (%)", "peak": "peak memory (GiB)"}
    table = table.join(shares[list(names)].mean().round(2).rename(columns=names))
    if len(cost):
        table = table.join(cost.groupby(keys).step_ms.mean().round(0).rename("step alone (ms)"))
    order = dict.fromkeys(zip(*(scores[key] for key in keys), strict=True))
    return table.loc[sorted(order, key=lambda row: list(MODELS).index(row[0]))].reset_index()


def drawn(scores: pandas.DataFrame):
    """Score against memory: a panel for each model and corpus, a numbered point for each method."""
    from irtuning.analysis.figures.style import DOUBLE, canvas, method_colour, styled
    models, corpora, methods = (list(dict.fromkeys(scores[name])) for name in ("model", "corpus", "method"))

    @styled
    def draw():
        figure, axes = canvas(DOUBLE, 2.9 * len(models) + 1.6, len(models), len(corpora), squeeze=False)
        for (model, corpus), axis in zip(product(models, corpora), axes.flat, strict=True):
            part = scores[(scores.model == model) & (scores.corpus == corpus)].groupby("method", sort=False)
            peaks, low = part.peak_bytes.mean() / part.peak_bytes.mean()["full"], part.macro_f1.max().min() - 0.03
            for method, values in part.macro_f1:
                style = {"color": method_colour(method), "label": f"{methods.index(method) + 1} {method}"}
                axis.vlines(peaks[method], max(values.min(), low), values.max(), color=style["color"], lw=1)
                axis.plot(peaks[method], max(values.mean(), low), "o" if values.mean() > low else "v", ms=4, **style)
                spot = {"xytext": (3, 2), "textcoords": "offset points", "fontsize": 7}
                axis.annotate(methods.index(method) + 1, (peaks[method], max(values.mean(), low)), **spot)
            axis.set(title=f"{corpus}, {resolve(model).title.split(',')[0]}", xlabel="peak memory, Full PEFT = 1", ylabel="validation macro F1")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=7)
        figure.suptitle("Score against memory, at the number of layers that IR-Tuning chose; lines span two seeds\n"
                        "and end at the lower edge, where a triangle stands for a mean below it")
        return figure
    return draw()


def not_learned(scores: pandas.DataFrame) -> str:
    """A sentence about the runs that learned hardly more than a guess."""
    lost = scores[scores.macro_f1 < 0.5 * scores.groupby(["model", "corpus"]).macro_f1.transform("median")]
    names = [f"{r.method} on {r.corpus} with seed {r.seed} (macro F1 {r.macro_f1:.3f})" for r in lost.itertuples()]
    return f"Runs that did not learn, with less than half of the median macro F1: {', '.join(names) or 'none'}. They stand in all means.\n"


def main() -> None:
    """Read the command line and run one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["scores", "cost", "draw"])
    parser.add_argument("--data", type=Path, help="folder of the corpora; by default IRTUNING_DATA")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--workers", type=int, default=1, help="runs at a time on each GPU; without a GPU, in all")
    parser.add_argument("--minutes", type=float, default=1e6, help="after so many minutes no further runs begin")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--steps", type=int, help="steps of each run, to try the script")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    scores, cost, end = given.out / "scores.csv", given.out / "cost.csv", time.time() + 60 * given.minutes
    if given.command == "draw":
        from irtuning.analysis.figures.style import to_image
        order = ["full", "ir", *METHODS]
        tables = [pandas.DataFrame(sorted(rows_in(path), key=lambda row: order.index(row["method"]))) for path in (scores, cost)]
        counts = tables[0].model.value_counts()
        tables[0] = tables[0][tables[0].model.map(counts) == (whole := counts.max())]  # a model appears when its runs are whole
        write_bytes(given.out / "strategies.png", to_image(drawn(tables[0])))
        stamps = ["; ".join(", ".join(sorted({*map(str, table[name])})) for name in ("steps", "seed", "device", "versions"))
                  for table in tables if len(table)]  # fmt: skip
        text = f"# All strategies at equal numbers of layers\n\n{__doc__.rsplit(chr(10) * 2, 1)[1]}\n"
        text += "Macro F1 on the validation part of fold 0, mean over two seeds, with their range in brackets. Peak memory is "
        text += f"what a run's tensors take on the GPU, mean over both corpora. A step of so small a model waits for the host "
        places = [f"{model} on {', '.join(sorted({*of.device}))}" for model, of in tables[1].groupby("model", sort=False)] if len(tables[1]) else []
        text += f"(`reports/benchmarks/tables.md`), so its time says little about that of a large one. A step alone is timed with "
        text += f"{' and with '.join(places)}.\n\n{markdown(table_of(*tables))}\n"
        text += "".join(f"{n} of {whole} runs of {model} are made; it appears here when all are.\n\n" for model, n in counts.items() if n < whole)
        text += not_learned(tables[0]) + "".join(
            f"\n{name}: steps, seeds, device and versions {stamp}\n" for name, stamp in zip(("Scores", "Cost, one run at a time"), stamps))
        write_text(given.out / "strategies.md", text)
        return
    corpora = {name: corpus_of(RunConfig.of({"corpus": name} | of), given.data) for name, of in CORPORA.items()}
    models, more = given.models.split(","), {"max_steps": given.steps, "eval_every": given.steps} if given.steps else {}
    for model in models:
        load_tokenizer(resolve(model))  # a GGUF file is dequantised here, before several workers ask for it
    workers = given.workers * max(1, len(gpus()))
    every = [dict(zip(KEYS, key, strict=True)) for key in product(CORPORA, models, ["ir", *METHODS], SEEDS)]
    first = [row for row in every if not row["method"].startswith("transplant") and as_strategy(row["method"]).takes is None]
    if given.command == "scores":  # those that wait for no other come first, IR-Tuning first of all
        run_all(scores, sorted(first, key=lambda row: row["method"] != "ir"), {}, corpora, workers, end, **more)
    leaders = {(r["corpus"], r["model"], int(r["seed"])): r for r in rows_in(scores) if r["method"] == "ir"}
    if given.command == "scores":
        run_all(scores, every, leaders, corpora, workers, end, **more)
    else:
        alone = [row for row in every if row["corpus"] == "iterater" and row["seed"] == SEEDS[0]]
        steps = given.steps or 30
        run_all(cost, alone, leaders, corpora, 1, end, max_steps=steps, eval_every=steps)
    write_text(given.out / "meta.json", json.dumps(provenance(), indent=1) + "\n")


if __name__ == "__main__":
    main()
