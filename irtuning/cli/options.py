"""The options of all commands, and how commands read settings and print results."""

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from irtuning.errors import InputError
from irtuning.method.processes import is_first


def _option(kind: type, text: str, *names: str, **more: object) -> object:
    return Annotated[kind, typer.Option(*names, help=text, **more)]


# fmt: off
Run = Annotated[Path, typer.Argument(help="The folder of a saved run.")]
Name = Annotated[str, typer.Argument(help="argrewrite, arxivedits, iterater, argrevision, synthetic or your own file.")]
Corpus = _option(str, "The corpus: a name from `irtuning corpus --help`, or a file of your own.")
Data = _option(Path | None, "The folder of the corpus's files. By default IRTUNING_DATA, or they are downloaded.")
LabelSet = _option(str | None, "The label set, fine or coarse. By default the corpus decides.", "--labels")
Fold = _option(int, "The fold, 0 to 4, of a corpus that has no split of its own.")
Folds = _option(str, "The folds, 0 to 4, with commas between them, of a corpus that has no split of its own.")
Before = _option(str, "In a file of your own, the column with the original text.")
After = _option(str, "In a file of your own, the column with the revised text.")
Label = _option(str, "In a file of your own, the column with the intention.")
Group = _option(str | None, "In a file of your own, a column such as the writer, whose values no two splits share.")
Floors = _option(bool, "Also score two simple rules on validation, which a model has to beat.", "--floors")
Model = _option(str, "The model: a name such as mini, a Hub id (owner/name) or a local folder.")
Adapter = _option(str, "The kind of adapter: lora, dora or bottleneck.")
Method = _option(str, "The method: a name from `irtuning methods`, with options as in ir:variant=exact:splits=2, or a "
                 "class of your own as FILE.py:Class.")
Methods = _option(str, "The methods, with commas between them: names from `irtuning methods`, with options as in "
                  "ir:variant=exact, or classes of your own as FILE.py:Class.", "--methods", "--method")
Budget = _option(str, "How many layers baselines learn: equal (the share that IR-Tuning used) or own (as published).")
Like = _option(Path | None, "The folder of a saved IR-Tuning run. A baseline then learns as many layers as that run.")
Seed = _option(int, "The seed of the head, the adapters, the order of batches, dropout and random layers.")
Seeds = _option(int, "How many seeds. The first one is 171.", min=1)
MaxSteps = _option(int | None, "How many optimizer steps to train. By default the model's own number of epochs.")
Setting = _option(list[str] | None, "Change another setting. It can be repeated, and `irtuning settings` lists them.",
                  "--set", metavar="NAME=VALUE")
ScoreTest = _option(bool, "Score the test split too. The record says so.", "--score-test")
SaveEvery = _option(int | None, "Steps between two checkpoints; 0 makes none. By default each evaluation makes one.")
ReportTo = _option(str, "Trackers such as tensorboard, with commas between them. They get the score of every layer.")
RunFolder = _option(Path, "The folder for the record and the trained weights. It is new or holds this run.", "--output")
RunsFolder = _option(Path | None, "The folder for the runs. By default runs/CORPUS-MODEL-ADAPTER.", "--output")
Workers = _option(int | None, "How many runs to make at a time, each in its own process. On one GPU they share it. By "
                  "default as many as there are cores for mini on a CPU, else 1.", "--workers", "--jobs", min=1)
Scheduler = _option(str | None, "The address of a Dask scheduler, such as tcp://host:8786, whose workers make runs.")
PairBefore = _option(str | None, "The original text of one revision.", "--before")
PairAfter = _option(str | None, "The revised text of one revision.", "--after")
File = _option(str | None, "A table with columns before and after, or - for JSON Lines on standard input.")
Batch = _option(int | None, "Examples in a step. By default the model's own batch size.")
Length = _option(int | None, "Tokens in an example. By default the model's own maximum.")
Checkpointing = _option(bool, "Recompute the activations of each layer in the backward pass.", "--checkpointing")
MinLayer = _option(int, "The lowest layer that may learn. Backpropagation ends there.")
Gpu = _option(str | None, "The memory of a GPU (24GB, 24GiB or 80). The answer then says whether training fits, the "
              "largest batch that fits, and the --min-layer that is needed.")
MemorySetting = _option(list[str] | None, "Change a setting. It can be repeated.", "--set", metavar="NAME=VALUE")
Every = _option(bool, "Show every method, one in each row.", "--all")
Profile = _option(str, "What to run. quick: a synthetic corpus, minutes on 2 CPU cores. study: the real corpora, hours "
                  "on one GPU. small: a model of 0.6 B parameters, a 16 GB GPU. paper: the paper's models and corpora, "
                  "an 80 GB GPU. The last two have not been run in full yet.")
RealData = _option(Path | None, "The folder of the real corpora. The quick profile shows them in notebook 1.", "--data")
Everything = _option(Path | None, "The folder for everything. By default figures/ and reports/ here.", "--output")
Fresh = _option(bool, "Delete the recorded runs first, so that all are made again.", "--fresh")
Parameters = _option(list[str] | None, "Change a parameter of the notebooks. It can be repeated.", "--set",
                     metavar="NAME=JSON")
UpdateNotebooks = _option(bool, "Also write the executed notebooks over those in notebooks/.", "--update-notebooks")
DryRun = _option(bool, "Run nothing. List the runs, their predicted memory, and what is missing here.", "--dry-run")
Json = _option(bool, "Print JSON instead of text.", "--json")
Version = _option(bool, "Print the version and exit.", "--version")
# fmt: on


def merge(texts: dict[str, str], options: dict) -> dict:
    """Return the settings given with --set together with those that have an option of their own."""
    if twice := sorted(set(texts) & set(options)):
        raise InputError(f"{twice[0]} is given with --set, but there is an option --{twice[0].replace('_', '-')}")
    return texts | options


def listed(text: str) -> list[str]:
    """Return the methods in a text; a comma before a digit belongs to the value of an option.

    >>> listed("full, fixed:layers=3,5,mine.py:Mine")
    ['full', 'fixed:layers=3,5', 'mine.py:Mine']
    """
    return [method.strip() for method in re.split(r",(?!\s*\d)", text) if method.strip()]


def show(result: dict, as_json: bool, text: str = "") -> None:
    """Print a result as a line of JSON, or its text, or indented JSON; of several processes the first one prints."""
    if is_first():
        dump = json.dumps(result, ensure_ascii=False, indent=None if as_json else 2)
        typer.echo(dump if as_json or not text else text)
