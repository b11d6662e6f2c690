"""Measure how far the gradients of `backward=skip` are from the exact ones, layer by layer, on a CPU in a few minutes.

Run `python reports/benchmarks/skip_bias.py`; it writes skip_bias.json and skip_bias.png into reports/benchmarks/.

Each model is first trained with IR-Tuning, with exact gradients, on the training part of ITERATER. Then its weights
stay as they are. The layers that IR-Tuning chose last, and as many layers drawn at random, have their gradients
computed on the same batches with the exact and with the skipping backward pass. The record holds the cosine and the
ratio of the norms of both, no text.
"""

import json

import numpy as np
import torch
import typer
from matplotlib.figure import Figure
from transformers import set_seed

from irtuning.analysis.figures.style import DOUBLE, canvas, method_colour, styled, to_image
from irtuning.companion.paths import REPOSITORY
from irtuning.corpora.load import load_corpus
from irtuning.method.layers import candidate_layers, find_layers
from irtuning.method.tuner import LayerTuner
from irtuning.models.adapters import adapted_classifier
from irtuning.models.backward import skip_backward
from irtuning.models.loading import load_classifier, load_tokenizer, resolve
from irtuning.models.prompts import encode
from irtuning.training.record import provenance, write_bytes, write_text
from irtuning.training.trainer import batch_order

MODELS = ("mini", "smollm2-135m-q4")
SEED, DRAWS = 171, 2
FOLDER = REPOSITORY / "reports" / "benchmarks"


def batches_of(name: str, tokenizer, labels, rows, count: int, size: int, length: int) -> list[dict]:
    """Return the first batches of the training part, in the order in which the Trainer takes them."""
    ids = encode(rows, tokenizer, labels, resolve(name).form, length)
    order = batch_order(SEED, 0, [len(row) for row in ids], size)
    chunks = [order[start : start + size] for start in range(0, count * size, size)]
    padded = [dict(tokenizer.pad({"input_ids": [ids[i] for i in chunk]}, return_tensors="pt")) for chunk in chunks]
    classes = [torch.tensor([labels.index(rows[i].intention) for i in chunk]) for chunk in chunks]
    return [batch | {"labels": of_batch} for batch, of_batch in zip(padded, classes, strict=True)]


def trained(name: str, steps: int, count: int, size: int, length: int) -> tuple[torch.nn.Module, list[int], list[dict]]:
    """Return a model after some steps of IR-Tuning, the layers it chose at the last step, and batches not yet seen."""
    source, corpus = resolve(name), load_corpus("iterater")
    tokenizer = load_tokenizer(source)
    set_seed(SEED)
    own = {key: source.settings[key] for key in ("rank", "alpha")}
    model = load_classifier(source, corpus.labels, tokenizer, precision="fp32")
    model = adapted_classifier(model, "lora", dropout=0.0, **own).train()
    batches = batches_of(name, tokenizer, corpus.labels, corpus.train, steps + count, size, length)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], source.settings["learning_rate"], weight_decay=0.0)
    tuner = LayerTuner(model, "ir", optimizer, SEED, steps)
    for batch in batches[:steps]:
        tuner.begin_step()
        model(**batch).loss.backward()
        tuner.end_backward()
        optimizer.step()
        optimizer.zero_grad()
    chosen = tuner.history[-1]["layers"]
    print(f"{name}: trained", flush=True)
    tuner.detach()
    return model, chosen, batches[steps:]


def gradients(model: torch.nn.Module, chosen: list[int], batch: dict) -> list[torch.Tensor]:
    """Return the gradient of each chosen layer as one vector, where only these layers and the head learn."""
    layers = candidate_layers(model)
    layers.freeze_all_but(chosen)
    model.zero_grad()
    model(**batch).loss.backward()
    return [torch.cat([p.grad.flatten() for p in layers.parameters[index]]) for index in chosen]


def measure(name: str, steps: int, count: int, size: int, length: int) -> dict:
    """Return the row of a model: its layers, and for every choice of layers the cosines and ratios by batch."""
    model, chosen, batches = trained(name, steps, count, size, length)
    depth, rng = len(find_layers(model)), np.random.default_rng(SEED)
    sets = [chosen] + [sorted(rng.choice(depth, len(chosen), replace=False).tolist()) for _ in range(DRAWS)]
    exact = [[gradients(model, layers, batch) for batch in batches] for layers in sets]
    skip_backward(model)
    choices = []
    for kind, layers, by_batch in zip(["ir", *["random"] * DRAWS], sets, exact, strict=True):
        pairs = [list(zip(gradients(model, layers, b), g, strict=True)) for b, g in zip(batches, by_batch, strict=True)]
        choices.append({
            "choice": kind, "layers": layers,
            "cosine": [[round(torch.cosine_similarity(s, e, dim=0).item(), 5) for s, e in row] for row in pairs],
            "norm_ratio": [[round((s.norm() / e.norm()).item(), 5) for s, e in row] for row in pairs],
            "cosine_of_all": [round(torch.cosine_similarity(*map(torch.cat, zip(*row, strict=True)), dim=0).item(), 5) for row in pairs],
        })  # fmt: skip
    return {"model": name, "title": resolve(name).title, "depth": depth, "choices": choices}


@styled
def figure(record: dict) -> Figure:
    """Draw the mean cosine by layer, one panel a model, with the range over the batches."""
    drawn, axes = canvas(DOUBLE, 2.8, 1, len(record["rows"]), sharey=True)
    names = {"ir": "IR-Tuning's choice", "random": f"as many layers at random, {DRAWS} draws"}
    for axis, row in zip(axes, record["rows"], strict=True):
        for choice in reversed(row["choices"]):
            cosines, kind = np.array(choice["cosine"]), choice["choice"]
            mean, colour = cosines.mean(0), method_colour("ir") if kind == "ir" else "#949494"
            spread = np.abs([mean - cosines.min(0), cosines.max(0) - mean])
            axis.errorbar(choice["layers"], mean, spread, color=colour, marker="o", markersize=3, linewidth=1, elinewidth=0.6, label=names.pop(kind, None))
        axis.set(title=row["title"], xlabel="layer", xlim=(-0.8, row["depth"] - 0.2), ylim=(min(0, axis.get_ylim()[0]), 1.03))
    axes[0].set_ylabel("cosine of skipped and exact gradient")
    handles = axes[0].get_legend_handles_labels()
    axes[0].legend(handles[0][::-1], handles[1][::-1], loc="lower right")
    drawn.suptitle(takeaway(record), fontsize=9, fontweight="bold")
    return drawn


def takeaway(record: dict) -> str:
    """Return the title, with the lowest mean cosine among the layers that IR-Tuning chose in each model."""
    lowest = {row["title"].split("-")[0]: np.mean(row["choices"][0]["cosine"], axis=0).min() for row in record["rows"]}
    numbers = ", ".join(f"{value:.2f} ({name})" for name, value in lowest.items())
    return f"Skipped layers bias the gradients below, with IR-Tuning to cosine {numbers}"


def main(steps: int = 16, batches: int = 3, batch_size: int = 8, length: int = 96) -> None:
    """Measure all models, and write the record and the figure."""
    rows = [measure(name, steps, batches, batch_size, length) for name in MODELS]
    setting = {"corpus": "iterater, training part", "steps_before": steps, "batches": batches, "batch_size": batch_size,
               "max_length": length, "adapter": "lora", "dropout": 0.0, "precision": "fp32", "seed": SEED}  # fmt: skip
    record = {"setting": setting, "rows": rows, "meta": provenance("cpu")}
    write_text(FOLDER / "skip_bias.json", json.dumps(record, indent=1) + "\n")
    write_bytes(FOLDER / "skip_bias.png", to_image(figure(record)))
    for row in rows:
        for choice in row["choices"]:
            print(row["model"], choice["choice"], choice["layers"], np.mean(choice["cosine"], axis=0).round(3).tolist())


if __name__ == "__main__":
    typer.run(main)
