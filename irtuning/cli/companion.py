"""The commands reproduce, memory, methods and settings."""

import dataclasses
import json
from inspect import signature

from irtuning.cli import options as opt
from irtuning.cli.runs import train
from irtuning.errors import InputError, read_as
from irtuning.memory.fit import fit_report, parse_gpu
from irtuning.memory.predict import PARTS, predict_memory
from irtuning.method.registry import METHODS
from irtuning.models.loading import resolve
from irtuning.training.config import RunConfig, parse_settings

KINDS = {"rank": int, "alpha": int, "dropout": float, "width": int, "share": float, "accumulation": int, "labels": int,
         "precision": str, "optimizer": str, "padded": bool, "target_modules": tuple[str, ...]}  # fmt: skip


def reproduce(
    profile: opt.Profile = "quick", data: opt.Data = None, output: opt.Everything = None, fresh: opt.Fresh = False,
    workers: opt.Workers = None, scheduler: opt.Scheduler = None, settings: opt.Setting = None,
    update_notebooks: opt.UpdateNotebooks = False, dry_run: opt.DryRun = False, as_json: opt.Json = False,
) -> None:  # fmt: skip
    """Make every notebook, figure and table of a profile. --set changes a parameter of the notebooks, in JSON.

    Recorded runs are not made again. If it is interrupted, repeat the same command. With --data, notebook 1 of the
    quick profile also shows the real corpora.

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
            cure = f"write a text as '{name}=\"...\"' and a list as [0, 1]"
            raise InputError(f"{name}={text} is not JSON; {cure}") from None
    if dry_run:
        plan = reproduction.dry_run(profile, data=data, changes=changes, memory=True)
        return opt.show(plan, as_json, json.dumps(plan, ensure_ascii=False, indent=2))
    where = {"output": output, "workers": workers, "scheduler": scheduler, "update_notebooks": update_notebooks}
    folders = reproduction.reproduce(profile, data=data, fresh=fresh, changes=changes, **where)
    opt.show({name: str(path) for name, path in folders.items()}, as_json)


def memory(
    model: opt.Model = "mini", method: opt.Method = "ir", adapter: opt.Adapter = "lora", batch: opt.Batch = None,
    length: opt.Length = None, checkpointing: opt.Checkpointing = False, min_layer: opt.MinLayer = 0,
    gpu: opt.Gpu = None, every: opt.Every = False, settings: opt.Setting = None, as_json: opt.Json = False,
) -> None:  # fmt: skip
    """Predict the peak GPU memory of training, without a GPU.

    No weights are needed either: --model also takes a config.json. If a method draws its layers, the prediction is for
    its worst draw, which is as many layers as it can take with the lowest one among them. What saves memory is where
    backpropagation ends: compare --min-layer 0 with half the depth of the model.

    Settings for --set: rank, alpha, dropout, width, share, accumulation, labels, precision (bf16 or fp32), optimizer
    (fused or foreach), padded (true or false) and target_modules.

    \b
    irtuning memory --model llama-3.1-8b --batch 16 --length 256 --gpu 24GB --all --checkpointing
    irtuning memory --model phi-2 --method last-k --set share=0.25 --set rank=8 --set padded=false
    """
    import pandas
    gpu_bytes, texts = parse_gpu(gpu) if gpu else None, parse_settings(settings or [])
    if wrong := sorted(set(texts) - set(KINDS)):
        raise InputError(f"unknown setting {wrong[0]!r}; a memory prediction takes {', '.join(KINDS)}")
    asked = {"batch": batch, "length": length, "checkpointing": checkpointing, "min_layer": min_layer}
    asked |= {name: read_as(name, text, KINDS[name]) for name, text in texts.items()}
    rows = [predict_memory(model, name, adapter, **asked).to_dict() for name in (METHODS if every else [method])]
    rows = [row | fit_report(gpu_bytes, model, row["method"], adapter, **asked) for row in rows]
    table, sizes = pandas.DataFrame(rows, dtype=object).set_index("method"), [*PARTS, "peak_bytes"]
    table[sizes] = (table[sizes].astype(float) / 2**30).round(2)
    table = table.where(table.notna(), "none fits").rename(columns={"peak_bytes": "predicted_peak"})
    table = table.drop(columns=["model", "adapter", "batch", "length", "checkpointing", "note", *table.filter(["gpu_bytes"])])
    title = "{model}, batch {batch}, {length} tokens; sizes in GiB; {note}".format(**rows[0])
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
    """List the settings that --set of train and compare takes, with their values.

    Where a value depends on the model, it is that of --model. None stands for a value that is chosen when training
    starts. An example is `irtuning settings --model smollm2-135m`.
    """
    of_model, options = resolve(model).settings, {*signature(train).parameters, "counts"}
    fields = [f for f in dataclasses.fields(RunConfig) if f.name not in options]
    values = {f.name: of_model.get(f.name, f.default) for f in fields}
    lines = [f"{f.name:<18} {values[f.name]!s:<10} ({getattr(f.type, '__name__', f.type)})" for f in fields]
    opt.show(values, as_json, "\n".join(lines))
