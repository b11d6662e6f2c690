"""Commands about the companion: reproduce, methods, settings."""

from inspect import signature
from pathlib import Path
from typing import Annotated

import typer

from irtuning.cli.app import app
from irtuning.cli.options import Jobs, Json, Model, Scheduler, parsed, show
from irtuning.cli.runs import train


@app.command()
def reproduce(
    profile: Annotated[
        str,
        typer.Option(
            help="quick: synthetic corpus, minutes on 2 CPU cores. study: real corpora, one GPU. small: a 0.6 B model, "
            "a 16 GB GPU. paper: the paper's models and corpora, an 80 GB GPU. The last two were not run by us."
        ),
    ] = "quick",
    data: Annotated[Path | None, typer.Option(help="Folder of real corpora; quick shows them in notebook 1.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for everything; else figures/ and reports/ here.")] = None,
    fresh: Annotated[bool, typer.Option(help="Run everything again, also what is recorded.")] = False,
    jobs: Jobs = None,
    scheduler: Scheduler = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a notebook parameter, name=JSON; the profile's name then says so."),
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="List the runs, their predicted memory and minutes, and what is missing here; run nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Run the five notebooks and regenerate every figure and table; what is recorded already is not run again.

    \b
    irtuning reproduce
    irtuning reproduce --profile paper --dry-run
    irtuning reproduce --profile study --data DIR --set folds=[0] --set max_steps=20 --output /tmp/study
    """
    from irtuning.companion import reproduce as job
    from irtuning.training.config import parse_settings

    changes = {name: parsed(name, text) for name, text in parse_settings(change or []).items()}
    if dry_run:
        show(job.dry_run(profile, data=data, changes=changes, memory=True), as_json)
        return
    written = job.reproduce(profile, data=data, output=output, fresh=fresh, jobs=jobs, scheduler=scheduler, changes=changes)
    show({name: str(path) for name, path in written.items()}, as_json)


@app.command()
def methods(as_json: Json = False) -> None:
    """List the methods, with their options and defaults."""
    import dataclasses

    from irtuning.method.registry import METHODS

    def options(kind: type) -> str:
        return " ".join(f"{f.name}={f.default}" for f in dataclasses.fields(kind) if f.type in (int, float, str))

    show({name: f"{kind.__doc__.splitlines()[0]} [{options(kind)}]" for name, kind in METHODS.items()}, as_json)


@app.command()
def settings(model: Model = "mini", as_json: Json = False) -> None:
    """List the settings for --set, with a model's own values where it has them."""
    import dataclasses

    from irtuning.training.config import RunConfig
    from irtuning.models.loading import resolve

    own, options = resolve(model).settings, signature(train).parameters
    names = [f.name for f in dataclasses.fields(RunConfig) if f.name not in options and f.name != "counts"]
    show({name: own.get(name, getattr(RunConfig, name)) for name in names}, as_json)
