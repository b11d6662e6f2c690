"""Fine-tune `irtuning-mini` and the same model with random weights, to see whether pre-training matters.

    python reports/mini/pretraining_pays.py --data DIR

This needs a GPU. It writes reports/mini/runs.json, from which `model_card.py` makes a table. Only validation is read:
ArgRewrite (5 folds), arXivEdits and the synthetic corpus. Learning rate and class weights of each row are chosen
from one grid with seed 0, on some of the parts and with fewer steps. The table uses seeds 1 to 3.
"""

import itertools
import json
import sys
import time
from pathlib import Path
from typing import Annotated

import torch
import typer

from irtuning.corpora.load import load_corpus
from irtuning.corpora.floors import macro_f1
from irtuning.models.loading import load_tokenizer, resolve
from irtuning.companion.paths import REPOSITORY
from irtuning.training.record import provenance
from irtuning.training.record import write_text

sys.path.append(str(REPOSITORY / "reports" / "benchmarks"))
from side_by_side import Plan, fine_tune  # noqa: E402

ROWS = {
    "LoRA on mini": ("mini", False),
    "LoRA on random weights": ("mini-random", False),
    "full fine-tuning on mini": ("mini", True),
    "full fine-tuning on random weights": ("mini-random", True),
}
GRID = list(itertools.product((3e-4, 1e-3), ("none", "balanced")))
CHOICE_STEPS, STEPS, SEEDS = 300, 500, (1, 2, 3)
CHOICE_PARTS = (0, 1, 5, 6)  # two folds of ArgRewrite, arXivEdits, synthetic
REPORTS = REPOSITORY / "reports" / "mini"
Data = Annotated[Path, typer.Option(help="Folder of the published corpora.")]
app = typer.Typer(add_completion=False)


def load_parts(data: Path) -> list:
    """Return the five folds of ArgRewrite, then arXivEdits and the synthetic corpus."""
    from joblib import Parallel, delayed

    names = [("argrewrite", fold) for fold in range(5)] + [("arxivedits", 0), ("synthetic", 0)]
    return Parallel(n_jobs=-1)(delayed(load_corpus)(name, data, fold) for name, fold in names)


def language_model(name: str):
    """Return `mini`, or a model of its shape with random weights from a fixed seed."""
    from transformers import AutoConfig, AutoModelForCausalLM

    path = resolve("mini").path
    if name == "mini":
        return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path), dtype=torch.float32)


def scored(row: str, phase: str, plans: list[Plan], answers: list) -> list[dict]:
    """Return a record of each run, with its scores and answers."""
    records = []
    for plan, found in zip(plans, answers, strict=True):
        corpus = plan.corpus
        truth = [r.intention for r in corpus.validation]
        records.append({
            "row": row, "phase": phase, "corpus": corpus.name, "fold": corpus.fold, "seed": plan.seed,
            "checksum": corpus.checksum, "learning_rate": plan.learning_rate, "class_weights": plan.class_weights,
            "macro_f1": macro_f1(corpus.labels, truth, found),
            "accuracy": sum(a == b for a, b in zip(truth, found, strict=True)) / len(truth),
            "predictions": [corpus.labels.index(label) for label in found],
        })  # fmt: skip
    return records


def mean_over_corpora(records: list[dict]) -> float:
    """Return the mean macro F1, in which every corpus counts once."""
    names = {r["corpus"] for r in records}
    means = [[r["macro_f1"] for r in records if r["corpus"] == name] for name in names]
    return sum(sum(m) / len(m) for m in means) / len(means)


@app.command()
def run(data: Data, output: Annotated[Path, typer.Option()] = REPORTS / "runs.json") -> None:
    """Fine-tune every row. A row is saved when it ends, and saved rows are not run again."""
    parts, tokenizer = load_parts(data), load_tokenizer(resolve("mini"))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    done = json.loads(output.read_text()) if output.exists() else {"records": [], "meta": {}}
    for row, (name, full) in ROWS.items():
        if row in done["meta"]:
            continue
        started, model = time.perf_counter(), language_model(name).to(device)
        plans = [Plan(parts[i], rate, weights, 0) for i in CHOICE_PARTS for rate, weights in GRID]
        choice = scored(row, "choice", plans, fine_tune(model, tokenizer, plans, CHOICE_STEPS, full=full))
        best = max(GRID, key=lambda g: mean_over_corpora(
            [r for r in choice if (r["learning_rate"], r["class_weights"]) == g]))  # fmt: skip
        plans = [Plan(part, *best, seed) for part in parts for seed in SEEDS]
        final = scored(row, "final", plans, fine_tune(model, tokenizer, plans, STEPS, full=full))
        done["records"] += choice + final
        done["meta"][row] = provenance() | {"seconds": round(time.perf_counter() - started, 1)}
        write_text(output, json.dumps(done) + "\n")
        typer.echo(f"{row}: {best}, mean {mean_over_corpora(final):.3f}, {done['meta'][row]['seconds']} s")


if __name__ == "__main__":
    app()
