"""The command line: thin commands over the package's functions, which import heavy libraries when they are called."""

import logging
import sys

import typer

from irtuning.cli import companion, memory, runs  # noqa: F401 (they register their commands)
from irtuning.cli.app import app
from irtuning.errors import InputError


def main() -> None:
    """Run the command line; bad input ends with one line on standard error and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    logging.getLogger("irtuning").setLevel(logging.INFO)
    try:
        app()
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
