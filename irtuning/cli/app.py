"""The typer application on which the commands register."""

from typing import Annotated

import typer

import irtuning

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"irtuning {irtuning.__version__}")
        raise typer.Exit


@app.callback()
def start(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Fine-tune classifiers of revision intentions, a few layers at a time: IR-Tuning and its baselines.

    All of these run without a network, on a small model that is part of the package:

    \b
    irtuning reproduce                                make every notebook, figure and table
    irtuning compare --methods full,ir,rst --seeds 2  compare three methods
    irtuning train --method ir --output runs/ir       train and save one classifier
    irtuning predict runs/ir --before "He go." --after "He goes."
    """
