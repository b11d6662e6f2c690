"""The main job: run what a profile trains, then its notebooks through papermill, and gather what they wrote."""

import copy
import json
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from irtuning.errors import InputError, unknown
from irtuning.companion.benchmarks import measurement
from irtuning.companion.paths import NOTEBOOKS, Places, notebook_path
from irtuning.companion.profiles import GPU_GIB, RUN_BY_US, missing, profile_parameters
from irtuning.training.record import RECORD, write_text

if TYPE_CHECKING:
    from irtuning.companion.experiments import Companion
    from irtuning.training.config import RunConfig

logger = logging.getLogger(__name__)
REAL_CORPORA = ["argrewrite", "arxivedits"]  # that notebook 1 shows too where there is data


def reproduce(
    profile: str = "quick",
    *,
    data: str | Path | None = None,
    output: str | Path | None = None,
    fresh: bool = False,
    jobs: int | None = None,
    scheduler: str | None = None,
    changes: dict | None = None,
) -> dict[str, Path]:
    """Train what a profile compares, run its notebooks, return where things were written.

    Leaves executed notebooks, their HTML, tables (CSV, Markdown) and `summary.md` in `reports/`, figures (PNG, SVG)
    in `figures/`, each with a sidecar that names the records it came from. Interrupted or repeated it goes on from
    the recorded runs. Any profile but `quick` leaves its records as parquet beside the tables.

    Args:
        profile: a name of `PROFILES`.
        data: folder of the real corpora; notebook 1 of the quick profile then shows them too.
        output: folder for everything, instead of the repository's own.
        fresh: forget the recorded runs first.
        jobs, scheduler: where runs are made; see `run_comparison`.
        changes: parameters of the profile to change; its name then ends in `-changed`.

    Raises:
        InputError: unknown profile or parameter, no data, no GPU where one is needed, an unwritable folder, no
            kernel, or a notebook that failed.
    """
    from irtuning.companion.experiments import STUDY, Companion

    parameters, started = _parameters(profile, data, output, changes or {}), time.perf_counter()
    if GPU_GIB.get(profile) and (problems := missing(parameters)):
        raise InputError(f"profile {profile} cannot run here: {'; '.join(problems)}. --dry-run lists its runs")
    companion = Companion(**parameters, jobs=jobs, scheduler=scheduler)
    _check(companion, data)
    if fresh:
        shutil.rmtree(companion.places.runs, ignore_errors=True)
    places, whole = companion.places, not any(companion.places.runs.rglob(RECORD))
    if companion.profile.startswith("quick"):
        for panel in companion.panels:
            companion.panel(panel)
    else:
        companion.store()
    seconds = {"training": time.perf_counter() - started}
    logger.info("runs ready after %.0f s", seconds["training"])
    for name in NOTEBOOKS:
        seconds[name] = _run(name, places, parameters, follow=profile == "quick" and not (data or output or changes))
    write_text(places.reports / "summary.md", summary(places))
    if profile == STUDY:
        write_report(places)
    if whole:  # nothing was recorded before: what the whole job takes
        _note_time(places, seconds | {"all": time.perf_counter() - started})
    return {"figures": places.figures, "reports": places.reports, "runs": places.runs}


def dry_run(
    profile: str, *, data: str | Path | None = None, changes: dict | None = None, memory: bool = False
) -> dict:
    """What `reproduce` would run, and what it lacks on this machine; nothing is loaded or trained.

    With `memory` also the predicted peak of every kind of run on a GPU, which takes a second for each.
    """
    from irtuning.companion.experiments import Companion
    from irtuning.memory.predict import highest_peaks
    from irtuning.training.build import predict_run

    parameters = _parameters(profile, data, None, changes or {})
    runs = Companion(**parameters).planned()
    configs = [config for _, config in runs]
    return {
        "profile": parameters["profile"],
        "runs": len(runs),
        "by panel": dict(Counter(panel for panel, _ in runs)),
        "by corpus": dict(Counter(config.corpus for config in configs)),
        "by model": dict(Counter(config.model for config in configs)),
        "by method": dict(Counter(config.method for config in configs)),
        "steps": sorted({str(config.max_steps or "the model's own epochs") for config in configs}),
        "missing": missing(parameters),
        "run by us": RUN_BY_US[profile],
    } | _minutes(configs) | ({"predicted peak on a GPU, GiB": highest_peaks(map(predict_run, configs))} if memory else {})


def _minutes(configs: Sequence["RunConfig"]) -> dict:
    """Predicted from measured runs of the embedded model on a GPU; nothing for others, whose speed we do not know."""
    record, _ = measurement("runs_at_a_time")
    if any(config.model != record["model"] or config.device == "cpu" or not config.max_steps for config in configs):
        return {}
    runs = sum(config.max_steps for config in configs) / record["steps"]
    minutes = {f"{row['jobs']} at a time": round(runs / row["runs_per_minute"]) for row in record["rows"]}
    return {f"predicted minutes on one {record['meta']['device']}": minutes}


def summary(places: Places) -> str:
    """All tables of a profile one below the other, with what was run."""
    parts = [
        f"# Report: {places.profile}",
        "Importance and cut of IR-Tuning are the authors' code's own (`ir`: gradient score `reference`, variant "
        "`reference`, one split) unless a method's name says otherwise. Baselines with a budget (rst, lisa-adapters, "
        "last-k, middle-k) take the mean share of layers IR-Tuning used with the same fold and seed, except where a "
        "table is about the papers' own budgets; random-counts takes its count at each step; ist keeps its own 25 %. "
        "Scores are on validation. The quick profile shows that the pipeline works; it gives no verdicts.",
    ]
    for path in sorted(places.reports.glob("*.md")):
        if path.name != "summary.md":
            parts.append(f"## {path.stem}\n\n{path.read_text(encoding='utf-8')}")
    return "\n\n".join(parts) + "\n"


def write_report(places: Places) -> None:
    """The study's notebook without code and cells tagged `detail`: `summary.md`, whose figures are links, and `summary.html`."""
    import nbformat
    from nbconvert import MarkdownExporter

    book = nbformat.read(places.reports / f"{NOTEBOOKS[-1]}.ipynb", 4)
    end = next(i for i, cell in enumerate(book.cells) if cell.source.startswith("## Try this"))
    book.cells = [cell for cell in book.cells[:end] if "detail" not in cell.metadata.get("tags", [])]
    for cell in (cell for cell in book.cells if cell.cell_type == "code"):  # no progress bars
        cell.outputs = [o for o in cell.outputs if {"image/png", "text/markdown"} & set(o.get("data", {}))]
    book.cells = [cell for cell in book.cells if cell.get("outputs", cell.cell_type == "markdown")]
    bare = {"exclude_input": True, "exclude_input_prompt": True, "exclude_output_prompt": True}
    page = _html(book, **bare).replace("</head>", "<style>@media print { body { zoom: 0.55 } }</style></head>", 1)
    write_text(places.reports / "summary.html", page)
    links = os.path.relpath(places.figures, places.reports)
    for output in (output for cell in book.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})):
        name = output.metadata["image/png"]["alt"]
        output.data = {"text/markdown": f"![{name}]({links}/{name}.png)"}
    write_text(places.reports / "summary.md", MarkdownExporter(**bare).from_notebook_node(book)[0])


def _parameters(profile: str, data: str | Path | None, output: str | Path | None, changes: dict) -> dict:
    parameters = profile_parameters(profile)
    if wrong := sorted(set(changes) - set(parameters)):
        raise unknown("parameter", wrong[0], parameters)
    for name, value in changes.items():
        if None not in (value, parameters[name]) and type(value) is not type(parameters[name]):
            raise InputError(f"{name}={json.dumps(value)} is not of the kind of {json.dumps(parameters[name])}")
    if changes:
        parameters |= changes | {"profile": f"{profile}-changed"}
    if data is not None:
        parameters["data"] = str(Path(data).resolve())
    if output is not None:
        parameters["output"] = str(Path(output).resolve())
    return parameters


def _check(companion: "Companion", data: str | Path | None) -> None:
    """Raise InputError, before anything is trained, for what would fail later."""
    from jupyter_client.kernelspec import KernelSpecManager

    for name in NOTEBOOKS:
        notebook_path(name)
    if data is not None and companion.profile.startswith("quick"):
        from irtuning.corpora.sources import locate

        for corpus in REAL_CORPORA:
            locate(corpus, data)
    if "python3" not in KernelSpecManager().find_kernel_specs():
        raise InputError("no Jupyter kernel named python3; run `python -m ipykernel install --sys-prefix`")
    for folder in (companion.places.figures, companion.places.reports, companion.places.runs):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to {folder}: {error.strerror}; give --output another folder") from None
        if not os.access(folder, os.W_OK):
            raise InputError(f"cannot write to {folder}; give --output another folder")
    companion.corpora()


def _note_time(places: Places, seconds: dict[str, float]) -> None:
    """Record how long each part of the job took, and on what."""
    from irtuning.comparison.workers import cores
    from irtuning.training.record import provenance

    record = {"seconds": {name: round(took) for name, took in seconds.items()}, "cores": cores(), "meta": provenance()}
    write_text(places.reports / "run_time.json", json.dumps(record, indent=1) + "\n")


def _run(name: str, places: Places, parameters: dict, follow: bool) -> float:
    """Execute one notebook into the reports with those parameters it has; return the seconds it took.

    `follow`: with the notebook's own parameters, and the repository's copy is replaced by what was executed.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    source, target, started = notebook_path(name), places.reports / f"{name}.ipynb", time.perf_counter()
    logger.info("%s ...", name)
    own = papermill.inspect_notebook(str(source))
    given = {n: v for n, v in parameters.items() if n in own}
    if name == NOTEBOOKS[0] and parameters["data"] and parameters["profile"].startswith("quick"):
        given["corpora"] = [*given["corpora"], *REAL_CORPORA]
    try:
        book = papermill.execute_notebook(
            str(source),
            str(target),
            parameters={} if follow else given,
            progress_bar=False,
            cwd=str(source.parent),
            extra_arguments=["--IPKernelApp.log_level=40"],  # a warning about local sockets at every start
        )
    except papermill.PapermillExecutionError as error:
        raise InputError(
            f"notebook {name}, cell {error.exec_count}: {error.ename}: {error.evalue} (what ran is in {target})"
        ) from None
    except DeadKernelError:
        raise InputError(f"notebook {name}: its kernel died, perhaps for want of memory; run it again") from None
    _strip(book)
    write_text(target, _text(book))
    write_text(target.with_suffix(".html"), _html(book))
    if follow:
        write_text(source, _text(book))
    took = time.perf_counter() - started
    logger.info("%s done in %.0f s", name, took)
    return took


def _html(book, **options: bool) -> str:
    """Return a notebook as an HTML page."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(**options)
    exporter.log.setLevel(logging.ERROR)  # its template drops the images' alternative text, then complains
    page = copy.deepcopy(book)
    return exporter.from_notebook_node(page)[0]


def _strip(book) -> None:
    """Take papermill's marks out: paths and clocks would differ at every run."""
    book.metadata.pop("papermill", None)
    for cell in book.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)


def _text(book) -> str:
    import nbformat

    return nbformat.writes(book) + "\n"
