"""The commands. Each imports what is slow to import only when it is called."""

import json
import logging
import os
from pathlib import Path

from irtuning.cli import options as opt
from irtuning.corpora.base import Revision
from irtuning.corpora.documents import read_documents
from irtuning.corpora.folds import leaks
from irtuning.corpora.load import has_fixed_splits, load_corpus
from irtuning.errors import InputError, brief, read_as, unknown
from irtuning.memory.predict import PARTS, fit_answer, fit_report, parse_gpu, predict_memory
from irtuning.method.registry import facts
from irtuning.training.config import RunConfig, meant, parse_settings
from irtuning.training.record import read_record

logger = logging.getLogger(__name__)
KINDS = {"rank": int, "alpha": int, "dropout": float, "width": int, "share": float, "accumulation": int, "labels": int,
         "precision": str, "padded": bool, "backward": str, "idle": str, "target_modules": tuple[str, ...],
         "quantize": str, "speed": tuple[str, ...]}  # fmt: skip


def corpus(name: opt.Name, data: opt.Data = None, split: opt.Split = None, fold: opt.Fold = 0,
           labels: opt.LabelSet = None, before: opt.Before = "before", after: opt.After = "after",
           label: opt.Label = "label", group: opt.Group = None, as_json: opt.Json = False) -> None:  # fmt: skip
    """Show a corpus: its labels, splits, licence and origin.

    \b
    irtuning corpus mine.csv --before old --after new --label why --group writer
    """
    import pandas
    options = {"labels": labels, "split": split, "before": before, "after": after, "label": label, "group": group}
    shown = load_corpus(name, data, fold, **options)
    table = pandas.DataFrame(shown.counts()).rename_axis("examples", axis="columns")
    keys = ("name", "synthetic", "fold", "licence", "citation", "checksum", "shared_groups", "dropped", "labels")
    result = {key: getattr(shown, key) for key in keys} | {"splits": table.sum().to_dict(), "leaks": leaks(shown)}
    result["split"] = "published" if has_fixed_splits(name, split) else "folds"
    result["groups"] = {part: len({r.group for r in shown.split(part)} - {""}) for part in shown.counts()}
    lines = [f"{key}: {value}" for key, value in result.items() if value not in ("", {})]
    opt.show(result | {"counts": shown.counts()}, as_json, "\n".join([*lines, "", table.to_string()]))


def train(output: opt.RunFolder, corpus: opt.Corpus = "synthetic", data: opt.Data = None, model: opt.Model = "mini",
          adapter: opt.Adapter = "lora", method: opt.Method = "ir", seed: opt.Seed = 171, fold: opt.Fold = 0,
          max_steps: opt.MaxSteps = None, save_every: opt.SaveEvery = None, report_to: opt.ReportTo = "",
          like: opt.Like = None, settings: opt.Setting = None, score_test: opt.ScoreTest = False,
          before: opt.Before = "before", after: opt.After = "after", label: opt.Label = "label",
          group: opt.Group = None, as_json: opt.Json = False) -> None:  # fmt: skip
    """Fine-tune one classifier and record the run. `irtuning settings` lists what --set takes.

    If it is interrupted, repeat the same command. It resumes from the last checkpoint and has the same result.

    \b
    irtuning train --corpus mine.csv --model smollm2-135m --method rst --like runs/ir --set rank=8 --output runs/rst
    """
    config = RunConfig.of(opt.run_settings(locals()))  # before the imports, which take seconds
    from irtuning.comparison.runs import corpus_floors, with_budget
    from irtuning.training.prepare import prepare
    from irtuning.training.run import train as train_run
    prepared = prepare(with_budget(config, read_record(like) if like else None), data_dir=data)
    options = {"output": output, "save_every": save_every, "progress": not as_json}
    run = train_run(prepared, report_to=report_to.replace(",", " ").split(), **options)
    floors = [{name: of[name] for name in ("name", "macro_f1", "accuracy")} for of in corpus_floors(prepared.corpus)]
    adapted = f" with {run.config['adapter']}" if facts(run.config["method"])["scope"] == "adapters" else ""
    trained = "trained:  {method} on {corpus}, fold {fold}: {model}{0}, seed {seed}, {max_steps} steps"
    score = "scores:   macro F1 {macro_f1:.3f}, accuracy {accuracy:.3f} on {0}"
    scores = [score.format(split, **run.scores[split]) for split in ("validation", "test") if split in run.scores]
    beat = ", ".join("{name} {macro_f1:.3f}".format(**floor) for floor in floors)
    lines = [trained.format(adapted, **run.config), *scores, f"to beat:  macro F1 of {beat} on validation",
             f"saved:    {output} (record.json has all settings and scores)",
             f'next:     irtuning predict {output} --before "He go home." --after "He goes home."']  # fmt: skip
    result = {"output": str(output), "config": run.config, "scores": run.scores, "floors": floors}
    opt.show(result, as_json, "\n".join(lines))


def compare(methods: opt.Methods = "full,ir,rst,ist", corpus: opt.Corpus = "synthetic", data: opt.Data = None,
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
    options |= {"seeds": seeds, "folds": [read_as("folds", fold, int) for fold in folds.split(",")], "budget": budget}
    options |= {"workers": workers, "scheduler": scheduler, "data_dir": data, "output": output}
    records, floors = run_comparison(opt.method_texts(methods), progress=not as_json, **options)
    result, texts = {"output": str(output)}, []
    for split in ("validation", "test") if score_test else ("validation",):
        table = summary_table(records, floors if split == "validation" else (), split=split)
        result["table" if split == "validation" else split] = json.loads(table.reset_index().to_json(orient="records"))
        texts.append(f"{table.round(3).to_string(na_rep='')}\nscores on {split}; records in {output}")
    opt.show(result, as_json, "\n\n".join(texts))


def predict(
    run: opt.Run, before: opt.Before = "", after: opt.After = "", label: opt.Label = "", file: opt.File = None,
    output: opt.Predictions = None, as_json: opt.Json = False) -> None:  # fmt: skip
    """Predict the intentions of revisions with a saved run.

    With --file, --before, --after and --label name columns. By default they are those of the corpus of the run. If the
    file has labels, the run is scored on them, beside two simple rules that know the file's labels. With --json each
    line of the output is the JSON object of one revision, in the order of the input.

    If --before and --after name two text files, these are two versions of a document, whose sentences are aligned.

    \b
    irtuning predict runs/ir --before "He go home." --after "He goes home."
    irtuning predict runs/ir --before draft1.txt --after draft2.txt --output changes.html
    irtuning predict runs/ir --file pairs.csv --output intentions.csv
    """
    from irtuning.training.classifier import RevisionClassifier, read_revisions, scores_of, write_predictions
    paths = [t for t in (before, after) if not file and (os.path.isfile(t) or t.lower().endswith((".txt", ".md")))]
    if len(paths) == 1 or not (file or before or after):
        raise InputError("give --before and --after, both as texts or both as files, or a table as --file")
    if output and output.suffix.lower() not in (".csv", ".jsonl", ".html"):
        raise InputError(f"cannot write {output}: its name must end in .csv, .jsonl or .html")
    columns, config = {"before": before, "after": after, "label": label}, read_record(run)["run"]["config"]
    revisions = read_revisions(file, config, columns) if file else [Revision("", before, after, "")]
    revisions = read_documents(*paths) if paths else revisions
    classifier, rows, lines = RevisionClassifier.load(run), [], []
    predictions, page = classifier.predict(revisions), output and output.suffix.lower() == ".html"
    shown = [(r, p) for r, p in zip(revisions, predictions, strict=True) if p.intention or page or not paths]
    for r, p in shown:  # only a page shows the unchanged sentences of a document
        rows.append(({"id": r.id} if r.id else {}) | {"before": r.before, "after": r.after} | vars(p))
        shares = ", ".join(f"{label} {share:.2f}" for label, share in p.probabilities.items())
        lines.append(f"{p.intention}  ({shares})" if p.intention else p.note)
        lines[-1] = f"{r.id}: {lines[-1]}  {brief(r.before)} -> {brief(r.after)}" if r.id else lines[-1]
    scores = scores_of(predictions, revisions, classifier.labels)
    if output:
        write_predictions(output, rows)
        lines = [f"{len(rows)} {'sentences' if paths and page else 'predictions'} in {output}"]
    if scores:
        import pandas
        lines += ["", pandas.DataFrame(scores).round(3).to_string(index=False)]
    if output or not as_json:
        return opt.show({"output": str(output), "rows": len(rows), "scores": scores}, as_json, "\n".join(lines))
    for row in rows:
        opt.show(row, as_json)
    if scores:
        logger.info("scores: %s", json.dumps(scores, ensure_ascii=False))


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
        plan = reproduction.dry_run(profile, data=data, changes=changes)
        return opt.show(plan, as_json, json.dumps(plan, ensure_ascii=False, indent=2))
    options = {"output": output, "workers": workers, "scheduler": scheduler, "update_notebooks": update_notebooks}
    folders = reproduction.reproduce(profile, data=data, fresh=fresh, changes=changes, **options)
    shown = {name: str(path) for name, path in folders.items()}
    opt.show(shown, as_json, "\n".join(f"{name}: {path}" for name, path in shown.items()))


def study(add: opt.Add, corpus: opt.Stored = "iterater", data: opt.Data = None, final: opt.Final = False,
          output: opt.Boards = Path("runs/scoreboard"), as_json: opt.Json = False) -> None:  # fmt: skip
    """Put a strategy of your own on the study's scoreboard.

    It is trained with the model, rates, folds and seeds of the stored runs, and compared with them pair by pair. Work
    on validation as long as you like, then use --final. If it is interrupted, repeat the same command.

    \b
    irtuning study --add mine=mine.py:Mine --data DIR
    """
    from irtuning.companion.scoreboard import add_strategy
    table, folder = add_strategy(add, corpus, data=data, final=final, output=output, progress=not as_json)
    result = {"output": str(folder), "table": json.loads(table.reset_index().to_json(orient="records"))}
    opt.show(result, as_json, f"{table.to_string()}\nscores on {folder.name}; table, figure and runs in {folder}")


def memory(model: opt.Model = "mini", method: opt.Method = "ir", adapter: opt.Adapter = "lora", batch: opt.Batch = None,
           length: opt.Length = None, checkpointing: opt.Checkpointing = False, min_layer: opt.MinLayer = 0,
           gpu: opt.Gpu = None, settings: opt.Setting = None, as_json: opt.Json = False) -> None:  # fmt: skip
    """Predict the peak GPU memory of training, without a GPU.

    No weights are needed: --model also takes a config.json. For a method that draws its layers, the worst draw counts:
    the most layers, with the lowest one among them. A higher --min-layer ends backpropagation earlier and saves memory.
    --set takes rank, alpha, dropout, width, share, accumulation, labels, precision (bf16 or fp32), padded (true or
    false), target_modules, backward (exact or skip), idle (keep, drop or offload), quantize (4bit) and speed (float8).

    \b
    irtuning memory --model llama-3.1-8b --method last-k --set share=0.25 --batch 16 --length 256 --gpu 24GB
    """
    gpu_bytes, texts = gpu and parse_gpu(gpu), parse_settings(settings or [])
    if wrong := sorted(set(texts) - set(KINDS)):
        raise unknown("setting of a memory prediction", wrong[0], KINDS, {*meant(wrong[0])} & {*KINDS})
    asked = {"batch": batch, "length": length, "checkpointing": checkpointing, "min_layer": min_layer}
    asked |= {name: read_as(name, text, KINDS[name]) for name, text in texts.items()}
    found = predict_memory(model, method, adapter, **asked).to_dict()
    found |= fit_report(gpu_bytes, model, method, adapter, **asked) if gpu else {}
    lines = ["{model}, {method}, batch {batch}, {length} tokens; sizes in GiB; {note}".format(**found)]
    lines += [f"{name:<16} {found[name]:>6}" for name in ("layers", "lowest_layer")]
    lines += [f"{name.removesuffix('_bytes'):<16} {found[name] / 2**30:>6.2f}" for name in (*PARTS, "peak_bytes")]
    lines.append(fit_answer(found) if gpu else "Give --gpu 24GB to be told whether it fits.")
    opt.show(found, as_json, "\n".join(lines))


def probe(output: opt.ProbeFolder, corpus: opt.Corpus = "synthetic", data: opt.Data = None, model: opt.Model = "mini",
          adapter: opt.Adapter = "lora", share: opt.Share = 0.5, batches: opt.Batches = 5, score: opt.Score = "rms",
          chunk: opt.Chunk = None, seed: opt.Seed = 171, fold: opt.Fold = 0, settings: opt.Setting = None,
          before: opt.Before = "before", after: opt.After = "after", label: opt.Label = "label",
          group: opt.Group = None, as_json: opt.Json = False) -> None:  # fmt: skip
    """Choose layers before training, for any trainer of peft models.

    Nothing is trained. The folder gets adapter_config.json, which LoraConfig.from_pretrained and any trainer of peft
    models read, also with FSDP or DeepSpeed, and probe.json with the scores. `irtuning train` takes it as --adapter.

    \b
    irtuning probe --corpus mine.csv --model smollm2-135m --share 0.5 --chunk 8 --output layers
    irtuning train --corpus mine.csv --model smollm2-135m --adapter layers --method full --output runs/probed
    """
    method = f"probe:score={score}:batches={batches}"
    config = RunConfig.of(opt.run_settings(locals()))  # before the imports, which take seconds
    from irtuning.training.prepare import prepare
    from irtuning.training.probe import probe_layers
    peft, table = probe_layers(prepare(config, data_dir=data), output=output, chunk=chunk)
    result = {"output": str(output), "layers": peft.layers_to_transform, "scores": table.score.to_dict()}
    lines = [table.round(6).to_string(), f"layers: {', '.join(map(str, peft.layers_to_transform))}",
             f"saved:  {output} (adapter_config.json for peft, probe.json with the scores)"]  # fmt: skip
    opt.show(result, as_json, "\n".join(lines))
