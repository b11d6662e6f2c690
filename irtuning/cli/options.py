"""What commands share: their options, and how they read settings and show results."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from irtuning.errors import InputError
from irtuning.method.processes import is_first

IN_A_LINE = 6  # single values, at most

Corpus = Annotated[str, typer.Option(help="A corpus name (see `irtuning corpus --help`) or a CSV / JSON Lines file.")]
Data = Annotated[Path | None, typer.Option(help="Folder with the corpus's files; else IRTUNING_DATA, else its home.")]
Model = Annotated[str, typer.Option(help="A model name, a Hub id (owner/name) or a local folder.")]
Adapter = Annotated[str, typer.Option(help="lora, dora or bottleneck.")]
MaxSteps = Annotated[int | None, typer.Option(help="Optimizer steps; the model's own number of epochs where absent.")]
Setting = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any other setting as name=value, repeatable; `irtuning settings` lists them."),
]
ScoreTest = Annotated[bool, typer.Option(help="Score the test split too, at the end; the record counts it.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Jobs = Annotated[
    int | None,
    typer.Option(min=1, help="Runs at a time, each in its own process; on one GPU they share it. By default one a core for "
                 "mini on the CPU, else 1."),
]  # fmt: skip
Scheduler = Annotated[
    str | None,
    typer.Option(help="Address of a Dask scheduler (tcp://host:8786) whose workers run them instead; it brings records back, "
                 "no weights."),
]  # fmt: skip
Before = Annotated[str, typer.Option(help="Column of the original text, in a file of your own.")]
After = Annotated[str, typer.Option(help="Column of the revised text.")]
Label = Annotated[str, typer.Option(help="Column of the intention.")]
Group = Annotated[str | None, typer.Option(help="Column of what no two splits may share, such as the writer.")]


def steps(max_steps: int | None, score_test: bool) -> dict:
    return {"score_test": score_test} | ({} if max_steps is None else {"max_steps": max_steps})


def merge(texts: dict[str, str], given: dict) -> dict:
    """Settings from --set beside those that have an option of their own."""
    twice = sorted(set(texts) & set(given))
    if twice:
        raise InputError(f"{', '.join(twice)}: given with --set, but there is an option --{twice[0].replace('_', '-')}")
    return texts | given


def numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"folds {text!r} is not a list of numbers such as 0,1,2") from None


def parsed(name: str, text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        raise InputError(f"{name}={text} is not JSON; write a text as '{name}=\"...\"', a list as [0, 1]") from None


def show(shown: dict, as_json: bool) -> None:
    """Print a result as one JSON object, or as lines of name and value; once, however many processes made it."""
    if not is_first():
        return
    if as_json:
        typer.echo(json.dumps(shown, ensure_ascii=False))
        return
    typer.echo("\n".join(_lines(shown)))


def _lines(shown: dict, indent: str = "") -> Iterator[str]:
    """Name and value, nested ones indented; a few single values in one line."""
    width = max(map(len, shown))
    for name, value in shown.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            value = {part.get("name", str(i)): part for i, part in enumerate(value)}
        if not isinstance(value, dict):
            yield f"{indent}{name:<{width}}  {_short(value)}"
        elif len(value) > IN_A_LINE or any(isinstance(part, dict) for part in value.values()):
            yield f"{indent}{name}:"
            yield from _lines(value, indent + "  ")
        else:
            yield f"{indent}{name:<{width}}  {', '.join(f'{key} {_short(part)}' for key, part in value.items())}"


def _short(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value
