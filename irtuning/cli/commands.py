"""The commands. Each imports what is slow to import only when it is called."""

import dataclasses
import json
from inspect import signature
from pathlib import Path

from irtuning.cli import options as opt
from irtuning.corpora.load import load_corpus
from irtuning.errors import InputError, read_as
from irtuning.memory.fit import fit_report, parse_gpu
from irtuning.memory.predict import PARTS, predict_memory
from irtuning.method.registry import METHODS, facts
from irtuning.models.loading import resolve
from irtuning.training.config import RunConfig, parse_settings
from irtuning.training.record import read_record

KINDS = {"rank": int, "alpha": int, "dropout": float, "width": int, "share": float, "accumulation": int, "labels": int,
         "precision": str, "optimizer": str, "padded": bool, "target_modules": tuple[str, ...]}  # fmt: skip


def corpus(
    name: opt.Name, data: opt.Data = None, fold: opt.Fold = 0, labels: opt.LabelSet = None,
    before: opt.Before = "before", after: opt.After = "after", label: opt.Label = "label", group: opt.Group = None,
    floors: opt.Floors = False, as_json: opt.Json = False) -> None:  # fmt: skip
    """Show a corpus: its labels, splits, licence and origin.

    \b
    irtuning corpus mine.csv --before old --after new --label why --group writer --floors
    """
    import pandas
    shown = load_corpus(name, data, fold, labels=labels, before=before, after=after, label=label, group=group)
    facts = {key: getattr(shown, key) for key in ("name", "synthetic", "fold", "licence", "citation", "checksum")}
    table = pandas.DataFrame(shown.counts()).rename_axis("examples", axis="columns")
    texts = ["\n".join(f"{key}: {value}" for key, value in facts.items()), table.to_string()]
    result = facts | {"labels": list(shown.labels), "counts": shown.counts(), "splits": table.sum().to_dict()}
    if floors:
        from irtuning.comparison.runs import corpus_floors
        result["floors"] = corpus_floors(shown)
        texts += [pandas.DataFrame(result["floors"]).round(3).to_string(index=False)]
    opt.show(result, as_json, "\n\n".join(texts))


def train(
    output: opt.RunFolder, corpus: opt.Corpus = "synthetic", data: opt.Data = None, model: opt.Model = "mini",
    adapter: opt.Adapter = "lora", method: opt.Method = "ir", seed: opt.Seed = 171, fold: opt.Fold = 0,
    max_steps: opt.MaxSteps = None, save_every: opt.SaveEvery = None, report_to: opt.ReportTo = "",
    like: opt.Like = None, settings: opt.Setting = None, score_test: opt.ScoreTest = False,
    before: opt.Before = "before", after: opt.After = "after", label: opt.Label = "label", group: opt.Group = None,
    as_json: opt.Json = False) -> None:  # fmt: skip
    """Fine-tune one classifier and record the run. `irtuning settings` lists what --set takes.

    If it is interrupted, repeat the same command. It resumes from the last checkpoint and has the same result.

    \b
    irtuning train --corpus mine.csv --model smollm2-135m --method rst --like runs/ir --set rank=8 --output runs/rst
    """
    config = RunConfig.of(opt.run_settings(locals()))  # before the imports, which take seconds
    from irtuning.comparison.runs import with_budget
    from irtuning.training.run import train as train_run
    config = with_budget(config, read_record(like) if like else None)
    options = {"output": output, "data_dir": data, "save_every": save_every, "progress": not as_json}
    run = train_run(config, report_to=report_to.replace(",", " ").split(), **options)
    adapted = f" with {run.config['adapter']}" if facts(run.config["method"])["scope"] == "adapters" else ""
    trained = "trained:  {method} on {corpus}, fold {fold}: {model}{0}, seed {seed}, {max_steps} steps"
    score = "scores:   macro F1 {macro_f1:.3f}, accuracy {accuracy:.3f} on {0}"
    scores = [score.format(split, **run.scores[split]) for split in ("validation", "test") if split in run.scores]
    lines = [trained.format(adapted, **run.config), *scores,
             f"saved:    {output} (record.json has all settings and scores)",
             f'next:     irtuning predict {output} --before "He go home." --after "He goes home."']  # fmt: skip
    opt.show({"output": str(output), "config": run.config, "scores": run.scores}, as_json, "\n".join(lines))


def compare(
    methods: opt.Methods = "full,ir,rst,ist", corpus: opt.Corpus = "synthetic", data: opt.Data = None,
    model: opt.Model = "mini", adapter: opt.Adapter = "lora", seeds: opt.Seeds = 2, folds: opt.Folds = "0",
    max_steps: opt.MaxSteps = None, budget: opt.Budget = "equal", output: opt.RunsFolder = None,
    workers: opt.Workers = None, scheduler: opt.Scheduler = None, settings: opt.Setting = None,
    score_test: opt.ScoreTest = False, before: opt.Before = "before", after: opt.After = "after",
    label: opt.Label = "label", group: opt.Group = None, as_json: opt.Json = False) -> None:  # fmt: skip
    """Train with several methods and seeds and compare the scores. `irtuning settings` lists what --set takes.

    If it is interrupted, repeat the same command: recorded runs are not made again.

    \b
    irtuning compare --corpus argrewrite --data DIR --methods ir,ir:variant=exact,mine.py:Mine --folds 0,1,2,3,4
    """
    options = opt.run_settings(locals())
    RunConfig.of(options)
    from irtuning.analysis.tables import summary_table
    from irtuning.comparison.runs import run_comparison
    output = output or Path("runs") / f"{Path(corpus).stem}-{Path(model).name}-{adapter}"
    records, floors = run_comparison(
        opt.method_texts(methods), seeds=seeds, folds=[read_as("folds", fold, int) for fold in folds.split(",")],
        budget=budget, workers=workers, scheduler=scheduler, data_dir=data, output=output, progress=not as_json,
        **options)
    result, texts = {"output": str(output)}, []
    for split in ("validation", "test") if score_test else ("validation",):
        table = summary_table(records, floors if split == "validation" else (), split=split)
        result["table" if split == "validation" else split] = json.loads(table.reset_index().to_json(orient="records"))
        texts.append(f"{table.round(3).to_string(na_rep='')}\nscores on {split}; records in {output}")
    opt.show(result, as_json, "\n\n".join(texts))


def predict(run: opt.Run, before: opt.Before = "", after: opt.After = "", file: opt.File = None,
            as_json: opt.Json = False) -> None:  # fmt: skip
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


def reproduce(
    profile: opt.Profile = "quick", data: opt.Data = None, output: opt.Everything = None, fresh: opt.Fresh = False,
    workers: opt.Workers = None, scheduler: opt.Scheduler = None, settings: opt.Setting = None,
    update_notebooks: opt.Update = False, dry_run: opt.Dry = False, as_json: opt.Json = False) -> None:  # fmt: skip
    """Make every notebook, figure and table of a profile. --set changes a parameter of the notebooks, in JSON.

    If it is interrupted, repeat the same command. With --data, the quick profile shows the real corpora in notebook 1.

    \b
    irtuning reproduce --profile paper --dry-run
    irtuning reproduce --profile study --data DIR --set folds=[0] --set max_steps=20 --output /tmp/study
    """
    from irtuning.companion import reproduce as reproduction
    changes = parse_settings(settings or [])
    for name, text in changes.items():
        try:
            changes[name] = json.loads(text)
        except ValueError:
            raise InputError(f"{name}={text} is not JSON; write a text as '\"...\"', a list as [0, 1]") from None
    if dry_run:
        plan = reproduction.dry_run(profile, data=data, changes=changes, memory=True)
        return opt.show(plan, as_json, json.dumps(plan, ensure_ascii=False, indent=2))
    options = {"output": output, "workers": workers, "scheduler": scheduler, "update_notebooks": update_notebooks}
    folders = reproduction.reproduce(profile, data=data, fresh=fresh, changes=changes, **options)
    opt.show({name: str(path) for name, path in folders.items()}, as_json)


def memory(
    model: opt.Model = "mini", method: opt.Method = "ir", adapter: opt.Adapter = "lora", batch: opt.Batch = None,
    length: opt.Length = None, checkpointing: opt.Checkpointing = False, min_layer: opt.MinLayer = 0,
    gpu: opt.Gpu = None, every: opt.Every = False, settings: opt.Setting = None,
    as_json: opt.Json = False) -> None:  # fmt: skip
    """Predict the peak GPU memory of training, without a GPU.

    No weights are needed: --model also takes a config.json. For a method that draws its layers, the worst draw counts:
    the most layers, with the lowest one among them. A higher --min-layer ends backpropagation earlier and saves memory.
    --set takes rank, alpha, dropout, width, share, accumulation, labels, precision (bf16 or fp32), optimizer (fused or
    foreach), padded (true or false) and target_modules.

    \b
    irtuning memory --model llama-3.1-8b --method last-k --set share=0.25 --batch 16 --length 256 --gpu 24GB
    """
    gpu_bytes, texts = gpu and parse_gpu(gpu), parse_settings(settings or [])
    if wrong := sorted(set(texts) - set(KINDS)):
        raise InputError(f"unknown setting {wrong[0]!r}; a memory prediction takes {', '.join(KINDS)}")
    asked = {"batch": batch, "length": length, "checkpointing": checkpointing, "min_layer": min_layer}
    asked |= {name: read_as(name, text, KINDS[name]) for name, text in texts.items()}
    rows = [predict_memory(model, name, adapter, **asked).to_dict() for name in (METHODS if every else [method])]
    rows = [row | fit_report(gpu_bytes, model, row["method"], adapter, **asked) for row in rows]
    import pandas
    sizes, hidden = [*PARTS, "peak_bytes"], ["model", "adapter", *asked, "note", "gpu_bytes"]
    table = pandas.DataFrame(rows, dtype=object).set_index("method").drop(columns=hidden, errors="ignore")
    table[sizes] = (table[sizes].astype(float) / 2**30).round(2)
    table = table.where(table.notna(), "none fits").rename(columns={"peak_bytes": "predicted_peak"})
    title = "{model}, batch {batch}, {length} tokens; sizes in GiB; ".format(**rows[0])
    title += "all predicted" if every else rows[0]["note"]
    result = {"model": model, "gpu_bytes": gpu_bytes, "methods": rows} if every else rows[0]
    opt.show(result, as_json, f"{title}\n{(table if every else table.T).to_string()}")


def methods(as_json: opt.Json = False) -> None:
    """List the methods with their options and defaults.

    An option is written after the name, as in ir:variant=exact:splits=2. Wherever a command takes a method, it also
    takes a strategy class of your own, written as FILE.py:Class.
    """
    texts = {name: " ".join(kind.__doc__.partition("\n\n")[0].split()) for name, kind in METHODS.items()}
    for name, kind in METHODS.items():
        options = [f"{f.name}={f.default}" for f in dataclasses.fields(kind) if f.type in (int, float, str)]
        texts[name] += f" [{' '.join(options)}]"
    opt.show(texts, as_json)


def settings(model: opt.Model = "mini", as_json: opt.Json = False) -> None:
    """List what --set of train and compare takes, with the values.

    None stands for a value that is chosen when training starts. Example: irtuning settings --model smollm2-135m.
    """
    of_model, options = resolve(model).settings, {*signature(train).parameters, "counts"}
    fields = [f for f in dataclasses.fields(RunConfig) if f.name not in options]
    values = {f.name: of_model.get(f.name, f.default) for f in fields}
    lines = [f"{f.name:<18} {values[f.name]!s:<10} ({getattr(f.type, '__name__', f.type)})" for f in fields]
    opt.show(values, as_json, "\n".join(lines))
