"""Commands about corpora and runs: corpus, train, compare and predict."""

import json
from pathlib import Path
from typing import Annotated

import typer

from irtuning.cli.app import app
from irtuning.cli.options import (
    Adapter, After, Before, Corpus, Data, Fold, Group, Json, Label, MaxSteps, Method, Model, Scheduler, ScoreTest, Setting,
    Workers, listed, merge, numbers, show,
)  # fmt: skip
from irtuning.errors import InputError


@app.command()
def corpus(
    name: Annotated[
        str,
        typer.Argument(help="The corpus: argrewrite, arxivedits, iterater, argrevision, synthetic, or a file of your own "
                       "(CSV, JSON Lines or xlsx)."),
    ],  # fmt: skip
    data: Data = None,
    fold: Fold = 0,
    labels: Annotated[
        str | None, typer.Option(help="The label set, fine or coarse. By default the corpus decides.")
    ] = None,
    before: Before = "before",
    after: After = "after",
    label: Label = "label",
    group: Group = None,
    floors: Annotated[
        bool, typer.Option("--floors", help="Also score two simple rules on validation, which a model has to beat.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show a corpus: its labels, splits, licence and origin.

    \b
    irtuning corpus synthetic --floors
    irtuning corpus argrewrite --data DIR --fold 2 --labels coarse
    irtuning corpus mine.csv --before old --after new --label why --group writer
    """
    import pandas

    from irtuning.corpora import load_corpus

    shown = load_corpus(name, data, fold, labels=labels, before=before, after=after, label=label, group=group)
    counts = shown.counts()
    result = {"name": shown.name, "labels": list(shown.labels)}
    result |= {"splits": {split: sum(by_label.values()) for split, by_label in counts.items()}, "counts": counts}
    result |= {key: getattr(shown, key) for key in ("synthetic", "fold", "licence", "citation", "checksum")}
    table = pandas.DataFrame(counts, index=list(shown.labels)).fillna(0).astype(int)
    table.loc["all labels"] = table.sum()
    facts = [f"{key}: {result[key]}" for key in ("name", "synthetic", "fold", "licence", "citation", "checksum")]
    text = "\n".join(facts) + f"\n\nexamples of each label:\n{table.to_string()}"
    if floors:
        from irtuning.comparison.runs import corpus_floors

        result["floors"] = corpus_floors(shown)
        scores = pandas.DataFrame(result["floors"])[["name", "split", "macro_f1", "accuracy"]]
        text += f"\n\nscores of simple rules:\n{scores.round(3).to_string(index=False)}"
    show(result, as_json, text)


@app.command()
def train(
    output: Annotated[
        Path, typer.Option(help="The folder for the record, the adapter and the tokenizer. It must be new, or of this run.")
    ],
    corpus: Corpus = "synthetic",
    data: Data = None,
    model: Model = "mini",
    adapter: Adapter = "lora",
    method: Method = "ir",
    seed: Annotated[
        int, typer.Option(help="The seed of the head, the adapters, the order of batches, dropout and random layers.")
    ] = 171,
    fold: Fold = 0,
    max_steps: MaxSteps = None,
    save_every: Annotated[
        int | None,
        typer.Option(help="Steps between two checkpoints; 0 makes none. By default one is made at each evaluation."),
    ] = None,
    report_to: Annotated[
        str,
        typer.Option(help="Trackers such as tensorboard, with commas between them. They get the score of every layer."),
    ] = "",
    like: Annotated[
        Path | None, typer.Option(help="The folder of a saved IR-Tuning run, whose number of layers a baseline takes.")
    ] = None,
    settings: Setting = None,
    score_test: ScoreTest = False,
    before: Before = "before",
    after: After = "after",
    label: Label = "label",
    group: Group = None,
    as_json: Json = False,
) -> None:
    """Fine-tune one classifier and record the run.

    If it is interrupted, repeat the same command: it resumes from the last checkpoint, with the same result.

    \b
    irtuning train --corpus argrewrite --data DIR --method ir --output runs/ir
    irtuning train --corpus argrewrite --data DIR --method rst --like runs/ir --output runs/rst
    irtuning train --corpus mine.csv --model smollm2-135m --set rank=8 --set head=frozen --output runs/mine
    """
    from irtuning.comparison.runs import with_budget
    from irtuning.training.config import RunConfig, parse_settings
    from irtuning.training.record import read_record
    from irtuning.training.run import train as train_run

    options = {"corpus": corpus, "model": model, "adapter": adapter, "method": method, "seed": seed, "fold": fold}
    options |= {"max_steps": max_steps, "score_test": score_test}
    options |= {"before": before, "after": after, "label": label, "group": group}
    config = RunConfig.of(merge(parse_settings(settings or []), options))
    if like:
        config = with_budget(config, read_record(like))
    trackers = [name.strip() for name in report_to.split(",") if name.strip()]
    run = train_run(
        config, data_dir=data, output=output, save_every=save_every, report_to=trackers, progress=not as_json
    )
    done = run.config
    text = f"trained:  {done['model']} with {done['adapter']} by {done['method']}, {done['max_steps']} steps, seed {seed}"
    text += f", on {done['corpus']}, fold {fold}"
    for split, scores in run.scores.items():
        text += f"\nscores:   macro F1 {scores['macro_f1']:.3f}, accuracy {scores['accuracy']:.3f} on {split}"
    text += f"\nsaved:    {output} (all settings and scores are in record.json)"
    text += f'\nnext:     irtuning predict {output} --before "He go home." --after "He goes home."'
    show({"output": str(output), "config": run.config, "scores": run.scores}, as_json, text)


@app.command()
def compare(
    methods: Annotated[
        str,
        typer.Option("--methods", "--method", help="The methods, with commas between them: names from `irtuning methods`, "
                     "with options as in ir:variant=exact, or classes of your own as FILE.py:Class."),
    ] = "full,ir,rst,ist",  # fmt: skip
    corpus: Corpus = "synthetic",
    data: Data = None,
    model: Model = "mini",
    adapter: Adapter = "lora",
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds. The first one is 171.")] = 2,
    folds: Annotated[
        str, typer.Option(help="The folds, 0 to 4, with commas between them, of a corpus that has no split of its own.")
    ] = "0",
    max_steps: MaxSteps = None,
    budget: Annotated[
        str,
        typer.Option(help="How many layers baselines learn. equal: as large a share as IR-Tuning used. own: as their "
                     "authors did."),
    ] = "equal",  # fmt: skip
    output: Annotated[
        Path | None, typer.Option(help="The folder for the runs. By default runs/CORPUS-MODEL-ADAPTER.")
    ] = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    settings: Setting = None,
    score_test: ScoreTest = False,
    before: Before = "before",
    after: After = "after",
    label: Label = "label",
    group: Group = None,
    as_json: Json = False,
) -> None:
    """Train with several methods and seeds and compare the scores.

    Runs that are recorded in the folder already are not made again. An interrupted command can simply be repeated.

    \b
    irtuning compare --methods full,ir,ist,rst,lisa-adapters --seeds 2 --max-steps 60
    irtuning compare --methods full,ir,mine.py:Mine --seeds 4 --max-steps 60
    irtuning compare --corpus argrewrite --data DIR --methods ir,ir:variant=exact --folds 0,1,2,3,4 --workers 4
    """
    from irtuning.analysis.tables import summary_table
    from irtuning.comparison.runs import run_comparison
    from irtuning.training.config import parse_settings

    output = output or Path("runs") / f"{Path(corpus).stem}-{Path(model).name}-{adapter}"
    options = {"corpus": corpus, "model": model, "adapter": adapter, "max_steps": max_steps, "score_test": score_test}
    options |= {"before": before, "after": after, "label": label, "group": group}
    records, floors = run_comparison(
        listed(methods), seeds=seeds, folds=numbers(folds), budget=budget, jobs=workers, scheduler=scheduler,
        output=output, data_dir=data, progress=not as_json, **merge(parse_settings(settings or []), options),
    )  # fmt: skip
    tables = {"table": summary_table(records, floors)}
    if score_test:
        tables["test"] = summary_table(records, split="test")
    rows = {name: json.loads(table.reset_index().to_json(orient="records")) for name, table in tables.items()}
    texts = [
        f"{table.round(3).to_string(na_rep='')}\nscores on {'test' if name == 'test' else 'validation'}; records in {output}"
        for name, table in tables.items()
    ]
    show({"output": str(output)} | rows, as_json, "\n\n".join(texts))


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="The folder of a saved run.")],
    before: Annotated[str | None, typer.Option(help="The original text of one revision.")] = None,
    after: Annotated[str | None, typer.Option(help="The revised text of one revision.")] = None,
    file: Annotated[
        str | None,
        typer.Option(help="A file (CSV, JSON Lines or xlsx) with the columns before and after, or - to read JSON Lines "
                     "from standard input."),
    ] = None,  # fmt: skip
    as_json: Json = False,
) -> None:
    """Predict the intentions of revisions with a saved run.

    With --json there is one JSON object in each line, for each revision in its order.

    \b
    irtuning predict runs/ir --before "He go home." --after "He goes home."
    irtuning predict runs/ir --file pairs.jsonl --json > intentions.jsonl
    """
    from irtuning.training.classifier import RevisionClassifier, read_pairs

    if file is None and before is None and after is None:
        raise InputError("nothing to predict: give --before and --after, or --file (- for standard input)")
    pairs = [(before or "", after or "")] if file is None else read_pairs(file)
    for pair, prediction in zip(pairs, RevisionClassifier.load(run).predict(pairs), strict=True):
        row = {"before": pair[0], "after": pair[1], "intention": prediction.intention}
        shares = ", ".join(f"{label} {share:.2f}" for label, share in prediction.probabilities.items())
        show(row | {"probabilities": prediction.probabilities}, as_json, f"{prediction.intention}  ({shares})")
