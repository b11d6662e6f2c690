"""Commands about the companion: reproduce, methods and settings."""

import dataclasses
from inspect import signature
from pathlib import Path
from typing import Annotated

import typer

from irtuning.cli.app import app
from irtuning.cli.options import Json, Model, Scheduler, Workers, as_value, show
from irtuning.cli.runs import train


@app.command()
def reproduce(
    profile: Annotated[
        str,
        typer.Option(help="The profile to run. quick: a synthetic corpus, minutes on 2 CPU cores. study: the real corpora, "
                     "hours on one GPU. small: a model of 0.6 B parameters, a 16 GB GPU. paper: the paper's models and "
                     "corpora, an 80 GB GPU. Nobody has run small and paper in full yet."),
    ] = "quick",  # fmt: skip
    data: Annotated[
        Path | None, typer.Option(help="The folder with the real corpora. The quick profile shows them in notebook 1.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The folder for everything. By default figures/ and reports/ of this repository.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the recorded runs first, so that all are made again.")] = False,
    workers: Workers = None,
    scheduler: Scheduler = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="name=JSON", help="Change a parameter of the notebooks. It can be repeated, and "
                     "the name of the profile then ends in -changed."),
    ] = None,  # fmt: skip
    update_notebooks: Annotated[
        bool, typer.Option("--update-notebooks", help="Also write the executed notebooks over those in notebooks/.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Run nothing. List the runs, their predicted memory and minutes, and what is "
                     "missing on this machine."),
    ] = False,  # fmt: skip
    as_json: Json = False,
) -> None:
    """Regenerate every notebook, figure and table of a profile.

    Runs that are recorded already are not made again. An interrupted command can simply be repeated.

    \b
    irtuning reproduce
    irtuning reproduce --profile paper --dry-run
    irtuning reproduce --profile study --data DIR --set folds=[0] --set max_steps=20 --output /tmp/study
    """
    from irtuning.companion import reproduce as reproduction
    from irtuning.training.config import parse_settings

    changes = {name: as_value(name, text) for name, text in parse_settings(change or []).items()}
    if dry_run:
        show(reproduction.dry_run(profile, data=data, changes=changes, memory=True), as_json)
        return
    options = {"update_notebooks": True} if update_notebooks else {}
    folders = reproduction.reproduce(
        profile, data=data, output=output, fresh=fresh, jobs=workers, scheduler=scheduler, changes=changes, **options
    )
    written = {name: str(path) for name, path in folders.items()}
    show(written, as_json, "\n".join(f"{name + ':':<9} {path}" for name, path in written.items()))


@app.command()
def methods(as_json: Json = False) -> None:
    """List the methods with their options and defaults.

    An option is written after the name, as in ir:variant=exact:splits=2. Besides these methods, every command that
    takes a method takes a strategy class of your own as FILE.py:Class.
    """
    from irtuning.method.registry import METHODS

    texts = {name: kind.__doc__.partition("\n\n")[0].strip() for name, kind in METHODS.items()}
    options = {
        name: " ".join(f"{f.name}={f.default}" for f in dataclasses.fields(kind) if f.type in (int, float, str))
        for name, kind in METHODS.items()
    }
    lines = [f"{name:<14} {texts[name]}\n{'':<14} options: {options[name]}" for name in METHODS]
    show({name: f"{texts[name]} [{options[name]}]" for name in METHODS}, as_json, "\n".join(lines))


@app.command()
def settings(model: Model = "mini", as_json: Json = False) -> None:
    """List the settings that --set takes, with their values.

    They are the settings of `irtuning train` and `irtuning compare` that have no option of their own. Where a value
    depends on the model, the value of --model is shown; None stands for a choice that is made when training starts.

    \b
    irtuning settings --model smollm2-135m
    irtuning train --set rank=8 --set head=frozen --output runs/frozen
    """
    from irtuning.models.loading import resolve
    from irtuning.training.config import RunConfig

    of_model, options = resolve(model).settings, signature(train).parameters
    fields = [f for f in dataclasses.fields(RunConfig) if f.name not in options and f.name != "counts"]
    values = {f.name: of_model.get(f.name, f.default) for f in fields}
    kinds = {f.name: getattr(f.type, "__name__", str(f.type)) for f in fields}
    show(values, as_json, "\n".join(f"{name:<18} {value!s:<10} ({kinds[name]})" for name, value in values.items()))
