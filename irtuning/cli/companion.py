"""Commands about the companion: reproduce, methods and settings."""

import dataclasses
import json
from inspect import signature

from irtuning.cli import options as opt
from irtuning.cli.runs import train
from irtuning.errors import InputError


def reproduce(
    profile: opt.Profile = "quick", data: opt.RealData = None, output: opt.Everything = None, fresh: opt.Fresh = False,
    workers: opt.Workers = None, scheduler: opt.Scheduler = None, parameters: opt.Parameters = None,
    update_notebooks: opt.UpdateNotebooks = False, dry_run: opt.DryRun = False, as_json: opt.Json = False,
) -> None:  # fmt: skip
    """Make every notebook, figure and table of a profile.

    Runs that are recorded already are not made again. If it is interrupted, repeat the same command.

    \b
    irtuning reproduce
    irtuning reproduce --profile paper --dry-run
    irtuning reproduce --profile study --data DIR --set folds=[0] --set max_steps=20 --output /tmp/study
    """
    from irtuning.companion import reproduce as reproduction
    from irtuning.training.config import parse_settings

    changes = {name: _value(name, text) for name, text in parse_settings(parameters or []).items()}
    if dry_run:
        opt.show(reproduction.dry_run(profile, data=data, changes=changes, memory=True), as_json)
        return
    options = {"fresh": fresh, "jobs": workers, "scheduler": scheduler, "changes": changes}
    options |= {"update_notebooks": True} if update_notebooks else {}
    folders = reproduction.reproduce(profile, data=data, output=output, **options)
    written = {name: str(path) for name, path in folders.items()}
    opt.show(written, as_json, "\n".join(f"{name + ':':<9} {path}" for name, path in written.items()))


def _value(name: str, text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        raise InputError(f"{name}={text} is not JSON; write a text as '{name}=\"...\"' and a list as [0, 1]") from None


def methods(as_json: opt.Json = False) -> None:
    """List the methods with their options and defaults.

    An option is written after the name, as in ir:variant=exact:splits=2. Wherever a command takes a method, it also
    takes a strategy class of your own, written as FILE.py:Class.
    """
    from irtuning.method.registry import METHODS

    texts = {name: " ".join(kind.__doc__.partition("\n\n")[0].split()) for name, kind in METHODS.items()}
    options = {
        name: " ".join(f"{f.name}={f.default}" for f in dataclasses.fields(kind) if f.type in (int, float, str))
        for name, kind in METHODS.items()
    }
    lines = [f"{name:<14} {texts[name]}\n{'':<14} options: {options[name]}" for name in METHODS]
    opt.show({name: f"{texts[name]} [{options[name]}]" for name in METHODS}, as_json, "\n".join(lines))


def settings(model: opt.Model = "mini", as_json: opt.Json = False) -> None:
    """List the settings that --set takes, with their values.

    `irtuning train` and `irtuning compare` take them as --set NAME=VALUE. Where a value depends on the model, it is
    shown for --model. None stands for a value that is chosen when training starts.

    \b
    irtuning settings --model smollm2-135m
    irtuning train --set rank=8 --set head=frozen --output runs/frozen
    """
    from irtuning.models.loading import resolve
    from irtuning.training.config import RunConfig

    of_model, options = resolve(model).settings, {*signature(train).parameters, "counts"}
    fields = [f for f in dataclasses.fields(RunConfig) if f.name not in options]
    values = {f.name: of_model.get(f.name, f.default) for f in fields}
    kinds = {f.name: getattr(f.type, "__name__", str(f.type)) for f in fields}
    opt.show(values, as_json, "\n".join(f"{name:<18} {value!s:<10} ({kinds[name]})" for name, value in values.items()))
