"""Options that several commands share, and how commands read settings and print results."""

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from irtuning.errors import InputError
from irtuning.method.processes import is_first

Corpus = Annotated[str, typer.Option(help="The corpus: a name from `irtuning corpus --help`, or a file of your own.")]
Data = Annotated[
    Path | None,
    typer.Option(help="The folder with the corpus's files. By default it is IRTUNING_DATA, or they are downloaded."),
]
Fold = Annotated[int, typer.Option(help="The fold, 0 to 4, of a corpus that has no split of its own.")]
Model = Annotated[str, typer.Option(help="The model: a name such as mini, a Hub id (owner/name) or a local folder.")]
Method = Annotated[
    str,
    typer.Option(help="The method: a name from `irtuning methods`, with options as in ir:variant=exact:splits=2, or a "
                 "class of your own as FILE.py:Class."),
]  # fmt: skip
Adapter = Annotated[str, typer.Option(help="The kind of adapter: lora, dora or bottleneck.")]
MaxSteps = Annotated[int | None, typer.Option(help="How many optimizer steps to train. By default the model's epochs.")]
Setting = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="name=value", help="Change another setting. It can be repeated, and `irtuning "
                 "settings` lists them all."),
]  # fmt: skip
ScoreTest = Annotated[
    bool, typer.Option("--score-test", help="Score the test split too. Every record says how often that was done.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Workers = Annotated[
    int | None,
    typer.Option("--workers", "--jobs", min=1, help="How many runs to make at a time, each in a process of its own. On "
                 "one GPU they share it. By default mini on a CPU has one for each core, and everything else has one."),
]  # fmt: skip
Scheduler = Annotated[
    str | None,
    typer.Option(help="The address of a Dask scheduler, such as tcp://host:8786, whose workers make the runs. Records "
                 "come back and weights do not."),
]  # fmt: skip
Before = Annotated[str, typer.Option(help="In a file of your own, the column with the original text.")]
After = Annotated[str, typer.Option(help="In a file of your own, the column with the revised text.")]
Label = Annotated[str, typer.Option(help="In a file of your own, the column with the intention.")]
Group = Annotated[
    str | None, typer.Option(help="In a file of your own, a column such as the writer, that no two splits may share.")
]


def merge(texts: dict[str, str], options: dict) -> dict:
    """Return the settings given with --set together with those that have an option of their own."""
    if twice := sorted(set(texts) & set(options)):
        raise InputError(f"{twice[0]} was given with --set; use its option --{twice[0].replace('_', '-')}")
    return texts | options


def listed(text: str) -> list[str]:
    """Return the methods in a text; a comma before a digit belongs to an option's value.

    >>> listed("full, fixed:layers=3,5,mine.py:Mine")
    ['full', 'fixed:layers=3,5', 'mine.py:Mine']
    """
    return [method.strip() for method in re.split(r",(?!\s*\d)", text) if method.strip()]


def numbers(text: str) -> list[int]:
    """Return the whole numbers in a text such as `0,1,2`."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"folds {text!r} is not a list of numbers such as 0,1,2") from None


def as_value(name: str, text: str) -> object:
    """Return the value that a JSON text stands for."""
    try:
        return json.loads(text)
    except ValueError:
        raise InputError(f"{name}={text} is not JSON; write a text as '{name}=\"...\"' and a list as [0, 1]") from None


def show(result: dict, as_json: bool, text: str = "") -> None:
    """Print a result as one line of JSON, or its text if it has one, or indented JSON; the first process alone prints."""
    if is_first():
        dump = json.dumps(result, ensure_ascii=False, indent=None if as_json else 2)
        typer.echo(dump if as_json or not text else text)
