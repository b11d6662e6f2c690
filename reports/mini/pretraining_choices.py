"""Pre-train candidates for `irtuning-mini` for the same time, and fine-tune each one to choose among them.

    python reports/mini/pretraining_choices.py TEXT --held-out TEXT --data DIR --variants tail128,tail256

This needs a GPU. All LoRA fine-tunings of a candidate (corpora x folds x class weights) run as one batch and are
scored on the validation parts. Each variant becomes one block of reports/benchmarks/pretraining_choices.json.
"""

import dataclasses
import json
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from pretrain_model import Recipe, bits_per_byte, fit, make_model
from pretrain_text import encode_documents, encode_pairs, make_tokenizer, read_documents
from pretraining_pays import Plan, fine_tune, language_model, load_parts

from irtuning.corpora.floors import macro_f1
from irtuning.models.loading import load_tokenizer, resolve
from irtuning.companion.paths import REPOSITORY
from irtuning.training.record import provenance
from irtuning.training.record import write_text

STEPS = 500
SHAPES = {128: 352, 192: 512, 256: 704}  # width and intermediate width
MIXES = {"plain": {"pairs": 0.0, "tail": False}, "pairs": {"tail": False}, "tail": {}}


def fine_tuned(model, tokenizer, parts) -> list[dict]:
    """Fine-tune with LoRA on every part, with and without class weights, and return the validation macro F1."""
    plans = [Plan(part, 1e-3, weights, 0) for part in parts for weights in ("none", "balanced")]
    rows = []
    for plan, found in zip(plans, fine_tune(model, tokenizer, plans, STEPS, full=False), strict=True):
        truth = [r.intention for r in plan.corpus.validation]
        row = {"corpus": plan.corpus.name, "fold": plan.corpus.fold, "learning_rate": plan.learning_rate}
        f1 = macro_f1(plan.corpus.labels, truth, found)
        rows.append(row | {"class_weights": plan.class_weights, "macro_f1": round(f1, 4)})
    return rows


def steps_in(seconds: float, recipe: Recipe, vocabulary: int, plain, pairs) -> int:
    """Return how many steps of a recipe, once compiled, fit into this many seconds."""
    model = make_model(recipe, vocabulary).cuda()
    fit(model, dataclasses.replace(recipe, steps=40), plain, pairs)
    started = time.perf_counter()
    fit(model, dataclasses.replace(recipe, steps=80), plain, pairs)
    return int(80 * seconds / (time.perf_counter() - started))


def main(
    texts: list[Path],
    held_out: Annotated[Path, typer.Option()],
    data: Annotated[Path, typer.Option(help="Folder of the published corpora.")],
    variants: Annotated[str, typer.Option(help="Mix and width, such as plain192,tail128.")] = "tail128,tail192,tail256",
    seconds: Annotated[float, typer.Option(help="Time of pre-training, without compilation.")] = 42,
    batch_tokens: Annotated[int, typer.Option(help="Tokens in a step.")] = 49152,
    output: Annotated[Path, typer.Option()] = REPOSITORY / "reports" / "benchmarks" / "pretraining_choices.json",
) -> None:
    """Pre-train every variant for the same time, and fine-tune it."""
    base = Recipe(batch_tokens=batch_tokens)
    documents, scored = read_documents(texts), read_documents([held_out])
    tokenizer = make_tokenizer(documents, base.vocabulary, base.context)
    plain, pairs = encode_documents(documents, tokenizer), {}
    parts = load_parts(data)
    blocks = json.loads(output.read_text()) if output.exists() else []
    shipped = {"variant": "mini", "fine_tuning": fine_tuned(language_model("mini").cuda(), load_tokenizer(resolve("mini")), parts)}
    blocks = [b for b in blocks if b["variant"] != "mini"] + [shipped | {"meta": provenance()}]
    for variant in variants.split(","):
        mix, width = variant[:-3], int(variant[-3:])
        recipe = dataclasses.replace(base, width=width, intermediate=SHAPES[width], **MIXES[mix])
        if recipe.pairs and recipe.tail not in pairs:
            pairs[recipe.tail] = encode_pairs(documents, tokenizer, len(plain), tail=recipe.tail)
        edited = pairs.get(recipe.tail) if recipe.pairs else None
        recipe = dataclasses.replace(recipe, steps=steps_in(seconds, recipe, len(tokenizer), plain, edited))
        torch.manual_seed(0)
        model = make_model(recipe, len(tokenizer)).cuda()
        curve = fit(model, recipe, plain, edited)
        found = {"bits_per_byte": bits_per_byte(model, tokenizer, scored), "curve": curve}
        found |= {"fine_tuning": fine_tuned(model, tokenizer, parts), "meta": provenance()}
        blocks.append({"variant": variant, "seconds": seconds, "recipe": dataclasses.asdict(recipe)} | found)
        means = {}
        for row in found["fine_tuning"]:
            means.setdefault((row["corpus"], row["class_weights"]), []).append(row["macro_f1"])
        typer.echo(f"{variant} {recipe.steps} steps {found['bits_per_byte']:.3f} bits a byte")
        for key, values in means.items():
            typer.echo(f"  {key} {np.mean(values):.3f}")
        write_text(output, json.dumps(blocks, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
