"""The command line. Its commands are thin, and they import heavy libraries only when they are called."""

import logging
import signal
import sys

import typer

from irtuning import __version__
from irtuning.cli import commands, lists
from irtuning.errors import InputError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, invoke_without_command=True,
    rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
for command in (commands.reproduce, commands.compare, commands.train, commands.predict, commands.corpus, commands.study,
                commands.memory, lists.methods, lists.models, lists.settings, commands.probe):  # fmt: skip
    app.command()(command)


@app.callback()
def start(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    """Fine-tune classifiers of revision intentions, a few layers at a time: IR-Tuning and its baselines.

    These examples need no network. They use a small model that is part of the package, and a synthetic corpus:

    \b
    irtuning reproduce                                make every notebook, figure and table
    irtuning compare --methods full,ir,rst --seeds 2  compare three methods
    irtuning train --method ir --output runs/ir       train and save one classifier
    irtuning predict runs/ir --before "He go home." --after "He goes home."
    """
    if version:
        typer.echo(f"irtuning {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line. Bad input ends with one line on standard error and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    logging.getLogger("irtuning").setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception, so that worker processes are ended too
    try:
        app()
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except SystemExit as ending:
        if ending.code in (130, 143):  # Ctrl-C and SIGTERM, about which typer says nothing
            typer.echo("interrupted; what was recorded is kept", err=True)
        raise
