"""The commands corpus, train, compare and predict."""

import json
import re
from pathlib import Path

from irtuning.cli import options as opt
from irtuning.corpora.load import load_corpus
from irtuning.errors import InputError, read_as
from irtuning.training.config import RunConfig
from irtuning.training.record import read_record


def corpus(
    name: opt.Name, data: opt.Data = None, fold: opt.Fold = 0, labels: opt.LabelSet = None,
    before: opt.Before = "before", after: opt.After = "after", label: opt.Label = "label", group: opt.Group = None,
    floors: opt.Floors = False, as_json: opt.Json = False,
) -> None:  # fmt: skip
    """Show a corpus: its labels, splits, licence and origin.

    \b
    irtuning corpus argrewrite --data DIR --fold 2 --labels coarse
    irtuning corpus mine.csv --before old --after new --label why --group writer --floors
    """
    import pandas
    shown = load_corpus(name, data, fold, labels=labels, before=before, after=after, label=label, group=group)
    table = pandas.DataFrame(shown.counts())
    facts = {"name": shown.name, "splits": table.sum().to_dict()}
    facts |= {key: getattr(shown, key) for key in ("synthetic", "fold", "licence", "citation", "checksum")}
    texts = ["\n".join(f"{key}: {value}" for key, value in facts.items())]
    texts += [table.rename_axis("examples", axis="columns").to_string()]
    result = facts | {"labels": list(shown.labels), "counts": shown.counts()}
    if floors:
        from irtuning.comparison.runs import corpus_floors
        result["floors"] = corpus_floors(shown)
        scores = pandas.DataFrame(result["floors"])[["name", "split", "macro_f1", "accuracy"]]
        texts += [scores.round(3).to_string(index=False)]
    opt.show(result, as_json, "\n\n".join(texts))


def train(
    output: opt.RunFolder, corpus: opt.Corpus = "synthetic", data: opt.Data = None, model: opt.Model = "mini",
    adapter: opt.Adapter = "lora", method: opt.Method = "ir", seed: opt.Seed = 171, fold: opt.Fold = 0,
    max_steps: opt.MaxSteps = None, save_every: opt.SaveEvery = None, report_to: opt.ReportTo = "",
    like: opt.Like = None, settings: opt.Setting = None, score_test: opt.ScoreTest = False,
    before: opt.Before = "before", after: opt.After = "after", label: opt.Label = "label", group: opt.Group = None,
    as_json: opt.Json = False,
) -> None:  # fmt: skip
    """Fine-tune one classifier and record the run. `irtuning settings` lists what --set takes.

    If it is interrupted, repeat the same command. It resumes from the last checkpoint and has the same result.

    \b
    irtuning train --corpus argrewrite --data DIR --method rst --like runs/ir --output runs/rst
    irtuning train --corpus mine.csv --model smollm2-135m --set rank=8 --set head=frozen --output runs/mine
    """
    config = RunConfig.of(opt.run_settings(locals()))
    from irtuning.comparison.runs import with_budget
    from irtuning.training.run import train as train_run
    config = with_budget(config, read_record(like) if like else None)
    trackers = [name.strip() for name in report_to.split(",") if name.strip()]
    run = train_run(config, output=output, data_dir=data, save_every=save_every, report_to=trackers, progress=not as_json)
    trained = "trained:  {method} on {corpus}, fold {fold}: {model} with {adapter}, seed {seed}, {max_steps} steps"
    score = "scores:   macro F1 {macro_f1:.3f}, accuracy {accuracy:.3f} on {0}"
    scores = [score.format(split, **run.scores[split]) for split in ("validation", "test") if split in run.scores]
    lines = [trained.format(**run.config), *scores, f"saved:    {output} (record.json has all settings and scores)",
             f'next:     irtuning predict {output} --before "He go home." --after "He goes home."']  # fmt: skip
    opt.show({"output": str(output), "config": run.config, "scores": run.scores}, as_json, "\n".join(lines))


def compare(
    methods: opt.Methods = "full,ir,rst,ist", corpus: opt.Corpus = "synthetic", data: opt.Data = None,
    model: opt.Model = "mini", adapter: opt.Adapter = "lora", seeds: opt.Seeds = 2, folds: opt.Folds = "0",
    max_steps: opt.MaxSteps = None, budget: opt.Budget = "equal", output: opt.RunsFolder = None,
    workers: opt.Workers = None, scheduler: opt.Scheduler = None, settings: opt.Setting = None,
    score_test: opt.ScoreTest = False, before: opt.Before = "before", after: opt.After = "after",
    label: opt.Label = "label", group: opt.Group = None, as_json: opt.Json = False,
) -> None:  # fmt: skip
    """Train with several methods and seeds and compare the scores. `irtuning settings` lists what --set takes.

    Recorded runs are not made again. If it is interrupted, repeat the same command.

    \b
    irtuning compare --methods full,ir,mine.py:Mine --seeds 4 --max-steps 60
    irtuning compare --corpus argrewrite --data DIR --methods ir,ir:variant=exact --folds 0,1,2,3,4 --workers 4
    """
    options = opt.run_settings(locals())
    from irtuning.analysis.tables import summary_table
    from irtuning.comparison.runs import run_comparison
    numbers = [read_as("folds", fold, int) for fold in folds.split(",")]
    output = output or Path("runs") / f"{Path(corpus).stem}-{Path(model).name}-{adapter}"
    texts = [method.strip() for method in re.split(r",(?!\s*\d)", methods)]  # 3,5 is one value of an option
    records, floors = run_comparison(
        [text for text in texts if text], seeds=seeds, folds=numbers, budget=budget, workers=workers,
        scheduler=scheduler, output=output, data_dir=data, progress=not as_json, **options,
    )  # fmt: skip
    result, texts = {"output": str(output)}, []
    for split in ("validation", "test") if score_test else ("validation",):
        table = summary_table(records, floors if split == "validation" else (), split=split)
        result["table" if split == "validation" else split] = json.loads(table.reset_index().to_json(orient="records"))
        texts.append(f"{table.round(3).to_string(na_rep='')}\nscores on {split}; records in {output}")
    opt.show(result, as_json, "\n\n".join(texts))


def predict(
    run: opt.Run, before: opt.Before = "", after: opt.After = "", file: opt.File = None, as_json: opt.Json = False,
) -> None:  # fmt: skip
    """Predict the intentions of revisions with a saved run.

    With --json each line of the output is the JSON object of one revision, in the order of the input.

    \b
    irtuning predict runs/ir --before "He go home." --after "He goes home."
    irtuning predict runs/ir --file pairs.jsonl --json > intentions.jsonl
    """
    from irtuning.training.classifier import RevisionClassifier, read_pairs
    if not (file or before or after):
        raise InputError("nothing to predict: give --before and --after, or --file (- for standard input)")
    pairs = read_pairs(file) if file else [(before, after)]
    for pair, prediction in zip(pairs, RevisionClassifier.load(run).predict(pairs), strict=True):
        row = {"before": pair[0], "after": pair[1], "intention": prediction.intention}
        shares = ", ".join(f"{label} {share:.2f}" for label, share in prediction.probabilities.items())
        opt.show(row | {"probabilities": prediction.probabilities}, as_json, f"{prediction.intention}  ({shares})")
