"""Commands about corpora and runs: corpus, train, compare, predict."""

import json
from pathlib import Path
from typing import Annotated

import typer

from irtuning.cli.app import app
from irtuning.cli.options import (
    Adapter, After, Before, Corpus, Data, Group, Jobs, Json, Label, MaxSteps, Model, Scheduler, ScoreTest, Setting,
    merge, numbers, show, steps,
)  # fmt: skip
from irtuning.errors import InputError


@app.command()
def corpus(
    name: Annotated[str, typer.Argument(help="argrewrite, arxivedits, iterater, argrevision, synthetic, or a file.")],
    data: Data = None,
    fold: Annotated[int, typer.Option(help="0 to 4, for a corpus split by us.")] = 0,
    labels: Annotated[str | None, typer.Option(help="fine or coarse; the corpus's own choice where absent.")] = None,
    before: Before = "before",
    after: After = "after",
    label: Label = "label",
    group: Group = None,
    floors: Annotated[bool, typer.Option(help="Also score the two floors on validation.")] = False,
    as_json: Json = False,
) -> None:
    """Show a corpus: its labels, splits, licence and where it comes from.

    \b
    irtuning corpus synthetic --floors
    irtuning corpus argrewrite --data DIR --fold 2 --labels coarse
    irtuning corpus mine.csv --before old --after new --label why --group writer
    """
    from irtuning.corpora.load import load_corpus

    found = load_corpus(name, data, fold, labels=labels, before=before, after=after, label=label, group=group)
    shown = {
        "name": found.name,
        "labels": list(found.labels),
        "splits": {split: sum(counts.values()) for split, counts in found.counts().items()},
        "counts": found.counts(),
        "synthetic": found.synthetic,
        "fold": found.fold,
        "licence": found.licence,
        "citation": found.citation,
        "checksum": found.checksum,
    }
    if floors:
        from irtuning.comparison.runs import corpus_floors

        shown["floors"] = corpus_floors(found)
    show(shown, as_json)


@app.command()
def train(
    output: Annotated[Path, typer.Option(help="Folder for record, adapter and tokenizer; new, or of this very run.")],
    corpus: Corpus = "synthetic",
    data: Data = None,
    model: Model = "mini",
    adapter: Adapter = "lora",
    method: Annotated[str, typer.Option(help="See `irtuning methods`; options as ir:variant=exact:splits=2.")] = "ir",
    seed: Annotated[int, typer.Option(help="Of head, adapters, batch order, dropout and choice.")] = 171,
    fold: Annotated[int, typer.Option(help="0 to 4, for a corpus split by us.")] = 0,
    max_steps: MaxSteps = None,
    save_every: Annotated[
        int | None, typer.Option(help="Steps between two checkpoints; the evaluations' where absent, 0: none.")
    ] = None,
    report_to: Annotated[
        str, typer.Option(help="Trackers such as tensorboard, commas between; they get every layer's score.")
    ] = "",
    like: Annotated[Path | None, typer.Option(help="Saved IR-Tuning run whose budget a baseline takes.")] = None,
    settings: Setting = None,
    score_test: ScoreTest = False,
    before: Before = "before",
    after: After = "after",
    label: Label = "label",
    group: Group = None,
    as_json: Json = False,
) -> None:
    """Fine-tune one classifier and record it. Interrupted, the same command goes on from the last checkpoint, exactly.

    \b
    irtuning train --corpus argrewrite --data DIR --method ir --output runs/ir
    irtuning train --corpus argrewrite --data DIR --method rst --like runs/ir --output runs/rst
    irtuning train --corpus mine.csv --model smollm2-135m --set rank=8 --set head=frozen --output runs/mine
    """
    from irtuning.comparison.runs import with_budget
    from irtuning.training.config import RunConfig, parse_settings
    from irtuning.training.record import read_record
    from irtuning.training.run import train as train_run

    given = {"corpus": corpus, "model": model, "adapter": adapter, "method": method, "seed": seed, "fold": fold}
    columns = {"before": before, "after": after, "label": label, "group": group}
    config = RunConfig.of(merge(parse_settings(settings or []), given | columns | steps(max_steps, score_test)))
    if like:
        config = with_budget(config, read_record(like))
    run = train_run(
        config,
        data_dir=data,
        output=output,
        save_every=save_every,
        report_to=[name for name in report_to.split(",") if name],
        progress=not as_json,
    )
    show({"output": str(output), "config": run.config, "scores": run.scores}, as_json)


@app.command()
def compare(
    methods: Annotated[str, typer.Option(help="Comma-separated; see `irtuning methods`.")] = "full,ir,rst,ist",
    corpus: Corpus = "synthetic",
    data: Data = None,
    model: Model = "mini",
    adapter: Adapter = "lora",
    seeds: Annotated[int, typer.Option(min=1, help="How many, from 171 on.")] = 2,
    folds: Annotated[str, typer.Option(help="Comma-separated, 0 to 4.")] = "0",
    max_steps: MaxSteps = None,
    budget: Annotated[str, typer.Option(help="equal: baselines take IR-Tuning's mean share of layers; own.")] = "equal",
    output: Annotated[
        Path | None, typer.Option(help="Folder of the runs; runs/CORPUS-MODEL-ADAPTER by default.")
    ] = None,
    jobs: Jobs = None,
    scheduler: Scheduler = None,
    settings: Setting = None,
    score_test: ScoreTest = False,
    before: Before = "before",
    after: After = "after",
    label: Label = "label",
    group: Group = None,
    as_json: Json = False,
) -> None:
    """Run methods x folds x seeds and show their table; runs already recorded are not run again.

    \b
    irtuning compare --methods full,ir,ist,rst,lisa-adapters --seeds 2 --max-steps 60
    irtuning compare --corpus argrewrite --data DIR --methods ir,ir:variant=exact --folds 0,1,2,3,4 --jobs 4
    """
    from irtuning.comparison.runs import run_comparison
    from irtuning.training.config import parse_settings
    from irtuning.analysis.tables import summary_table

    output = output or Path("runs") / f"{Path(corpus).stem}-{Path(model).name}-{adapter}"
    columns = {"before": before, "after": after, "label": label, "group": group}
    given = {"corpus": corpus, "model": model, "adapter": adapter} | columns | steps(max_steps, score_test)
    records, floors = run_comparison(
        [m.strip() for m in methods.split(",") if m.strip()],
        seeds=seeds,
        folds=numbers(folds),
        budget=budget,
        jobs=jobs,
        scheduler=scheduler,
        output=output,
        data_dir=data,
        progress=not as_json,
        **merge(parse_settings(settings or []), given),
    )
    tables = {"validation": summary_table(records, floors)}
    if score_test:
        tables["test"] = summary_table(records, split="test")
    if as_json:
        shown = {split: json.loads(table.reset_index().to_json(orient="records")) for split, table in tables.items()}
        show({"output": str(output), "table": shown.pop("validation"), **shown}, True)
        return
    for split, table in tables.items():
        typer.echo(table.round(3).to_string(na_rep="") + f"\nscores on {split}; records in {output}\n")


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="Folder of a saved run.")],
    before: Annotated[str | None, typer.Option(help="The original text of one pair.")] = None,
    after: Annotated[str | None, typer.Option(help="The revised text of one pair.")] = None,
    file: Annotated[
        str | None,
        typer.Option(help="CSV or JSON Lines with before and after; - reads JSON Lines from standard input."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Predict the intention of a pair, of every pair in a file, or of those on standard input.

    \b
    irtuning predict runs/ir --before "He go home." --after "He goes home."
    irtuning predict runs/ir --file pairs.jsonl --json > intentions.jsonl
    """
    from irtuning.training.classifier import RevisionClassifier, read_pairs

    if file is None and before is None and after is None:
        raise InputError("nothing to predict: give --before and --after, or --file (- for standard input)")
    pairs = [(before or "", after or "")] if file is None else read_pairs(file)
    for pair, found in zip(pairs, RevisionClassifier.load(run).predict(pairs), strict=True):
        if as_json:
            row = {"before": pair[0], "after": pair[1], "intention": found.intention}
            typer.echo(json.dumps(row | {"probabilities": found.probabilities}, ensure_ascii=False))
        else:
            shares = ", ".join(f"{label} {p:.2f}" for label, p in found.probabilities.items())
            typer.echo(f"{found.intention}  ({shares})")
