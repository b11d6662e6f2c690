"""The options of all commands, and how commands read settings and print results."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Annotated

import typer

from irtuning.corpora.sources import CORPORA
from irtuning.errors import InputError
from irtuning.method.processes import is_first
from irtuning.method.registry import as_strategy
from irtuning.models.loading import resolve
from irtuning.training.config import RunConfig, parse_settings


def _option(kind: type, text: str, *names: str, **more: object) -> object:
    return Annotated[kind, typer.Option(*names, help=text, **more)]


# fmt: off
Run = Annotated[Path, typer.Argument(help="The folder of a saved run.")]
Name = Annotated[str, typer.Argument(help=f"A name ({', '.join(CORPORA)}), or a file of your own.")]
Corpus = _option(str, "The corpus: a name from `irtuning corpus --help`, or a file of your own.")
Data = _option(Path | None, "The folder of the corpus's files. By default IRTUNING_DATA, or they are downloaded.")
LabelSet = _option(str | None, "The label set, fine or coarse. By default the corpus decides.", "--labels")
Split = _option(str | None, "The split: published, or folds that we make. By default the corpus decides.", "--split")
Fold = _option(int, "The fold, 0 to 4, of a corpus that has no split of its own.")
Folds = _option(str, "The folds, 0 to 4, with commas between them, of a corpus that has no split of its own.")
Before = _option(str, "The original text, or the column of a corpus of your own that has it.")
After = _option(str, "The revised text, or the column of a corpus of your own that has it.")
Label = _option(str, "The column of a corpus of your own that has the intention.")
Group = _option(str | None, "The column of a corpus of your own, such as the writer, that no two splits share.")
Model = _option(str, "The model: a name such as mini, a Hub id (owner/name), a local folder or a GGUF file.")
Adapter = _option(str, "The kind of adapter: lora, dora or bottleneck.")
Method = _option(str, "The method: a name from `irtuning methods`, or a class of your own as FILE.py:Class.")
Methods = _option(str, "The methods, as names or FILE.py:Class, with commas between them.", "--methods", "--method")
Budget = _option(str, "How many layers baselines learn: equal (the share that IR-Tuning used) or own (as published).")
Like = _option(Path | None, "The folder of a saved IR-Tuning run. A baseline then learns as many layers as that run.")
Seed = _option(int, "The seed of the head, the adapters, the order of batches, dropout and random layers.")
Seeds = _option(int, "How many seeds. The first one is 171.", min=1)
MaxSteps = _option(int | None, "How many optimizer steps to train. By default the model's own number of epochs.")
Setting = _option(list[str] | None, "Change another setting. It can be repeated.", "--set", metavar="NAME=VALUE")
ScoreTest = _option(bool, "Score the test split too. The record says so.", "--score-test")
SaveEvery = _option(int | None, "Steps between two checkpoints; 0 makes none. By default each evaluation makes one.")
ReportTo = _option(str, "Trackers such as tensorboard, with commas between them. They get the score of every layer.")
RunFolder = _option(Path, "The folder for the record and the trained weights. It is new or holds this run.", "--output")
RunsFolder = _option(Path | None, "The folder for the runs. By default runs/CORPUS-MODEL-ADAPTER.", "--output")
ProbeFolder = _option(Path, "The new folder for the peft configuration and the scores.", "--output")
Share = _option(float, "The share of the layers to choose. At least one layer is chosen.")
Batches = _option(int, "How many training batches to measure the layers on.")
Score = _option(str, "The score of a layer: rms, l2 or reference.")
Chunk = _option(int | None, "How many layers have gradients at a time, to save memory. By default all.")
Workers = _option(int | None, "Runs at a time: one per core for mini on CPU, else 1.", "--workers", "--jobs", min=1)
Scheduler = _option(str | None, "The address of a Dask scheduler, such as tcp://host:8786, whose workers make runs.")
File = _option(str | None, "A table, such as the one a run was trained on, or - for JSON Lines on standard input.")
Predictions = _option(Path | None, "The file for the predictions, which ends in .csv, .jsonl or .html.", "--output")
Batch = _option(int | None, "Examples in a step. By default the model's own batch size.")
Length = _option(int | None, "Tokens in an example. By default the model's own maximum.")
Checkpointing = _option(bool, "Recompute the activations of each layer in the backward pass.", "--checkpointing")
MinLayer = _option(int, "The lowest layer that may learn. Backpropagation ends there.")
Gpu = _option(str | None, "The memory of a GPU, such as 24GB. The answer tells whether it fits, and what would fit.")
Profile = _option(str, "What to run: quick (synthetic, minutes on 2 CPU cores), study (real corpora, hours on a GPU), "
                  "small (16 GB GPU) or paper (80 GB GPU). The last two have not been run in full yet.")
Everything = _option(Path | None, "The folder for everything. By default figures/ and reports/ here.", "--output")
Fresh = _option(bool, "Delete the recorded runs first, so that all are made again.", "--fresh")
Stored = _option(str, "A corpus that the study has stored runs of. For any other, an error lists them.", "--corpus")
Add = _option(str, "The name that it gets on the board, and the class of your own.", metavar="NAME=FILE.py:Class")
Final = _option(bool, "Score the test parts, once. It is recorded, and a second time is refused.", "--final")
Boards = _option(Path, "The folder for the boards, the runs and the record of scored test parts.", "--output")
Update = _option(bool, "Also write the executed notebooks over those in notebooks/.", "--update-notebooks")
Dry = _option(bool, "Run nothing. List the runs, and what is missing here.", "--dry-run")
Json = _option(bool, "Print JSON instead of text.", "--json")
# fmt: on


def run_settings(options: dict) -> dict:
    """Return the fields of `RunConfig` among the options of a command, and those that its --set changes."""
    given = {f.name: options[f.name] for f in dataclasses.fields(RunConfig) if f.name in options}
    resolve(given["model"])  # what is unknown is told before torch is imported, which takes seconds
    for method in method_texts(options["methods"]) if "methods" in options else [options["method"]]:
        as_strategy(method)
    texts = parse_settings(options["settings"] or [])
    if twice := sorted(set(texts) & set(given)):
        raise InputError(f"{twice[0]} is given with --set, but there is an option --{twice[0].replace('_', '-')}")
    return given | texts


def method_texts(text: str) -> list[str]:
    """Return the methods that a text names with commas between them. In `3,5` the comma is part of an option."""
    return [method for method in re.split(r"\s*,(?!\s*\d)\s*", text.strip()) if method]


def show(result: dict, as_json: bool, text: str = "") -> None:
    """Print a result as one line of JSON, or as its text, from the first process alone."""
    if is_first():
        typer.echo(json.dumps(result, ensure_ascii=False) if as_json else text)
