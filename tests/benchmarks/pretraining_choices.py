"""How `irtuning-mini` was chosen: candidates pre-trained for equal time, then fine-tuned on validation.

    python tests/benchmarks/pretraining_choices.py TEXT --held-out TEXT --data DIR --variants tail128,tail256

Needs a GPU. Each candidate's LoRA fine-tunings (corpora x folds x learning rates x class weights) run as one batch
over the shared frozen weights. Writes reports/benchmarks/pretraining_choices.json, a block per variant and length;
test parts are never read.
"""

import copy
import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from irtuning.corpora import load_corpus
from irtuning.floors import macro_f1
from irtuning.paths import REPOSITORY
from irtuning.pretrain.text import encode_documents, encode_pairs, make_tokenizer, read_documents
from irtuning.pretrain.training import Recipe, bits_per_byte, fit, make_model
from irtuning.prompts import encode
from irtuning.provenance import provenance
from irtuning.records import write_text

LENGTH, BATCH, STEPS, LOOKS, RANK = 128, 16, 500, (300, 500), 16
SHAPES = {128: 352, 192: 512, 256: 704}  # width and intermediate width
MIXES = {
    "plain": {"pairs": 0.0, "tail": False},
    "pairs": {"tail": False},
    "tail": {},
}


class ManyLora(torch.nn.Module):
    """One frozen linear map under as many adapters as runs; input (runs * rows, tokens, width)."""

    def __init__(self, linear: torch.nn.Linear, runs: int):
        super().__init__()
        weight = linear.weight.detach()
        self.register_buffer("weight", weight)
        self.runs = runs
        bound = 1 / math.sqrt(weight.shape[1])
        shape = (runs, weight.shape[1], RANK)
        self.a = torch.nn.Parameter(torch.empty(shape, device=weight.device).uniform_(-bound, bound))
        self.b = torch.nn.Parameter(torch.zeros(runs, RANK, weight.shape[0], device=weight.device))

    def forward(self, x):
        rows = x.reshape(self.runs, -1, x.shape[-1])
        low = torch.bmm(torch.bmm(rows, self.a.to(x.dtype)), self.b.to(x.dtype)) * 2.0
        return torch.nn.functional.linear(x, self.weight) + low.view(*x.shape[:-1], -1)


class Tables:
    """Token ids, lengths and labels of a split for every run: shapes (runs, examples, LENGTH), (runs, examples)."""

    def __init__(self, corpora, split, tokenizer):
        rows = [encode(c.split(split), tokenizer, c.labels, "pair", LENGTH) for c in corpora]
        shape = len(corpora), max(map(len, rows))
        self.ids = torch.zeros(*shape, LENGTH, dtype=torch.long)
        self.lengths, self.labels = torch.ones(shape, dtype=torch.long), torch.full(shape, -100)
        for run, corpus in enumerate(corpora):
            for i, (ids, revision) in enumerate(zip(rows[run], corpus.split(split), strict=True)):
                self.ids[run, i, : len(ids)] = torch.tensor(ids)
                self.lengths[run, i] = len(ids)
                self.labels[run, i] = corpus.labels.index(revision.intention)
        self.ids, self.lengths, self.labels = self.ids.cuda(), self.lengths.cuda(), self.labels.cuda()


def fine_tune(model, tokenizer, plan) -> list[dict]:
    """Fine-tune with LoRA once per (corpus, learning rate, class weights) of the plan, all in one batch."""
    torch.manual_seed(0)
    runs, corpora = len(plan), [corpus for corpus, *_ in plan]
    body = copy.deepcopy(model.model).bfloat16().eval().requires_grad_(False)
    for module in list(body.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Linear):
                setattr(module, name, ManyLora(child, runs))
    most = max(len(c.labels) for c in corpora)
    head = torch.nn.Parameter(torch.randn(runs, body.config.hidden_size, most, device="cuda") * 0.02)
    learning = [p for p in body.parameters() if p.requires_grad] + [head]
    train, validation = Tables(corpora, "train", tokenizer), Tables(corpora, "validation", tokenizer)
    weights, beyond = torch.zeros(runs, most).cuda(), torch.zeros(runs, most).cuda()
    orders = []
    for run, (corpus, _, balanced) in enumerate(plan):
        counts = np.array([corpus.counts()["train"][label] for label in corpus.labels])
        found = counts.sum() / (len(counts) * counts) if balanced == "balanced" else np.ones(len(counts))
        weights[run, : len(counts)] = torch.from_numpy(found).float()
        beyond[run, len(counts) :] = -1e9
        rng, order = np.random.default_rng(run), []
        while len(order) < STEPS * BATCH:
            order += rng.permutation(len(corpus.train)).tolist()
        orders.append(order[: STEPS * BATCH])
    orders = torch.tensor(orders).view(runs, STEPS, BATCH).cuda()
    each = torch.arange(runs, device="cuda")[:, None]

    def logits(table, places):
        hidden = body(table.ids[each, places].flatten(0, 1), use_cache=False).last_hidden_state
        last = table.lengths[each, places].flatten() - 1
        hidden = hidden[torch.arange(len(hidden), device="cuda"), last].view(runs, -1, hidden.shape[-1])
        return torch.bmm(hidden.float(), head) + beyond[:, None]

    # a learning rate and a clipped norm per run: Adam over stacked parameters
    rates = torch.tensor([rate for _, rate, _ in plan]).cuda()
    first, second = ([torch.zeros_like(p) for p in learning] for _ in range(2))
    results = [{"corpus": c.name, "fold": c.fold, "learning_rate": r, "class_weights": w} for c, r, w in plan]
    for step in range(1, STEPS + 1):
        places = orders[:, step - 1]
        labels = train.labels[each, places]
        losses = torch.nn.functional.cross_entropy(
            logits(train, places).flatten(0, 1), labels.flatten(), reduction="none"
        ).view(runs, -1)
        weight = weights.gather(1, labels)
        ((losses * weight).sum(1) / weight.sum(1)).sum().backward()
        with torch.no_grad():
            norm = torch.stack([p.grad.flatten(1).square().sum(1) for p in learning]).sum(0).sqrt()
            clip = (1 / (norm + 1e-6)).clamp(max=1)[:, None, None]
            rate = (rates * min(step / (STEPS // 10), (STEPS - step + 1) / (STEPS - STEPS // 10)))[:, None, None]
            for p, m, v in zip(learning, first, second, strict=True):
                m.lerp_(p.grad * clip, 0.1)
                v.lerp_((p.grad * clip).square(), 0.001)
                p.sub_(rate * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8))
                p.grad = None
        if step in LOOKS:
            with torch.no_grad():
                count = validation.labels.shape[1]
                blocks = [torch.arange(i, min(i + 32, count), device="cuda") for i in range(0, count, 32)]
                answers = torch.cat([logits(validation, block.expand(runs, -1)).argmax(-1) for block in blocks], 1)
            for run, (corpus, *_) in enumerate(plan):
                truth = [r.intention for r in corpus.validation]
                found = [corpus.labels[i] for i in answers[run, : len(truth)].tolist()]
                results[run][f"macro_f1_{step}"] = round(macro_f1(corpus.labels, truth, found), 4)
    return results


def steps_in(seconds: float, recipe: Recipe, vocabulary: int, plain, pairs) -> int:
    """How many steps of a recipe fit into the time, once it is compiled."""
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
    seconds: Annotated[float, typer.Option(help="Of pre-training, compilation not counted.")] = 42,
    output: Annotated[Path, typer.Option()] = REPOSITORY / "reports" / "benchmarks" / "pretraining_choices.json",
) -> None:
    """Pre-train each variant for equal time and fine-tune it."""
    base = Recipe()
    documents, scored = read_documents(texts), read_documents([held_out])
    tokenizer = make_tokenizer(documents, base.vocabulary, base.context)
    plain, pairs = encode_documents(documents, tokenizer), {}
    corpora = [load_corpus("argrewrite", data, fold) for fold in range(5)]
    corpora += [load_corpus("arxivedits", data), load_corpus("synthetic")]
    plan = [(c, r, w) for c in corpora for r in (1e-3,) for w in ("none", "balanced")]
    blocks = json.loads(output.read_text()) if output.exists() else []
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
        found |= {"fine_tuning": fine_tune(model, tokenizer, plan), "meta": provenance()}
        blocks.append({"variant": variant, "seconds": seconds, "recipe": dataclasses.asdict(recipe)} | found)
        means = {}
        for row in found["fine_tuning"]:
            means.setdefault((row["corpus"], row["learning_rate"], row["class_weights"]), []).append(
                row["macro_f1_500"]
            )
        typer.echo(f"{variant} {recipe.steps} steps {found['bits_per_byte']:.3f} bits a byte")
        for key, values in means.items():
            typer.echo(f"  {key} {np.mean(values):.3f}")
        write_text(output, json.dumps(blocks, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
