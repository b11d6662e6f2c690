"""One command for a profile: make its runs, execute its notebooks, write its figures, tables and summary."""

import json
import logging
import os
import shutil
import sys
import time
from collections import Counter
from html import escape
from multiprocessing.pool import ThreadPool
from pathlib import Path

import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from nbclient.exceptions import DeadKernelError
from nbconvert import HTMLExporter, MarkdownExporter
from nbconvert.preprocessors import TagRemovePreprocessor

from irtuning.companion.experiments import REAL_CORPORA, STUDY, Companion
from irtuning.companion.paths import IN_CHECKOUT, NOTEBOOKS, Folders, notebook_path
from irtuning.companion.profiles import GPU_GIB, RUN_BY_US, missing, profile_parameters
from irtuning.comparison.workers import cores
from irtuning.corpora.sources import locate
from irtuning.errors import InputError
from irtuning.memory.predict import memory_table
from irtuning.training.record import RECORD, provenance, write_text

logger = logging.getLogger(__name__)
WITHOUT_CODE = {"exclude_input": True, "exclude_input_prompt": True, "exclude_output_prompt": True}
KEPT = ("tags", "kernelspec", "language_info")  # of the metadata; the rest has times and paths
# what the kernel does first if its notebook is committed, so that no text of a corpus is shown there
WITHOUT_DATA = "--IPKernelApp.exec_lines=__import__('os').environ.update(IRTUNING_DATA='')"
NO_ALT = 'alt="No description has been provided for this image"'  # what nbconvert writes, whatever an output says
NARROW = """td { overflow-wrap: break-word } pre { overflow-x: auto }
@media (max-width: 600px) { table { display: block; overflow-x: auto } pre { white-space: pre !important } }"""
INTRODUCTION = """\
Notebook 2 explains the methods and their budgets. Scores are on the validation split unless a table says otherwise.
The quick profile shows that everything works. It gives no verdicts."""


def reproduce(
    profile: str = "quick", *, data: str | Path | None = None, output: str | Path | None = None, fresh: bool = False,
    workers: int | None = None, scheduler: str | None = None, changes: dict | None = None,
    update_notebooks: bool = False) -> dict[str, Path]:  # fmt: skip
    """Make the missing runs of a profile, execute the notebooks, and return the folders. InputError if it cannot work.

    Args:
        profile, data, output, changes: As for `profile_parameters`. With `data`, notebook 1 also shows real corpora.
        fresh: Whether to delete the recorded runs first.
        workers, scheduler: Where the runs are made; see `run_comparison`. `workers` notebooks are executed at a time.
        update_notebooks: Whether the executed notebooks replace those in `notebooks/` (plain quick profile only).
    """
    if update_notebooks and (profile != "quick" or data or output or changes):
        raise InputError("update_notebooks needs the quick profile without data, output or changes")
    settings = profile_parameters(profile, data, output or (None if IN_CHECKOUT else "."), changes)
    if GPU_GIB.get(profile) and (problems := missing(settings)):
        raise InputError(f"profile {profile} cannot run here: {'; '.join(problems)}. Use --dry-run to list its runs")
    companion = Companion(**settings, workers=workers, scheduler=scheduler)
    check(companion)
    folders, started = companion.folders, time.perf_counter()
    if fresh:
        shutil.rmtree(folders.runs, ignore_errors=True)
    nothing_recorded = not any(folders.runs.rglob(RECORD))
    parameters = {"profile": profile, "folders": {n: settings[n] for n in ("data", "output")}, "changes": changes or {}}
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of each kernel, since several kernels share the cores
    with ThreadPool(workers or cores()) as pool:  # after an error or Ctrl-C, threads and kernels end with this process
        def made(name: str) -> tuple[str, float]:
            return name, execute(name, folders.reports, parameters, update_notebooks)
        first = pool.apply_async(made, NOTEBOOKS[:1])  # it shows no runs, and preparing the first runs takes one core
        companion.store()
        logger.info("runs ready after %.0f s", trained := time.perf_counter() - started)
        others = pool.imap_unordered(made, [NOTEBOOKS[i] for i in (5, 4, 1, 2, 3)])  # the longest first
        seconds = {"training": trained} | dict(sorted([first.get(), *others]))
    write_text(folders.reports / "summary.md", summary(folders))
    if profile == STUDY:
        write_report(folders.reports / "05_the_study.ipynb", folders.figures)
    if nothing_recorded:
        rounded = {name: round(took) for name, took in (seconds | {"all": time.perf_counter() - started}).items()}
        folder = notebook_path(NOTEBOOKS[0]).parent if update_notebooks else folders.reports
        times = {"seconds": rounded, "cores": cores(), "meta": provenance()}
        write_text(folder / "run_time.json", json.dumps(times, indent=1) + "\n")
    return {"figures": folders.figures, "reports": folders.reports, "runs": folders.runs}


def dry_run(profile: str, *, data: str | Path | None = None, changes: dict | None = None) -> dict:
    """Return what `reproduce` would run, and what this machine lacks."""
    parameters = profile_parameters(profile, data, None, changes)
    runs = Companion(**parameters).planned()
    configs, experiments = [config for _, config in runs], Counter(name for name, _ in runs)
    shown = {"profile": parameters["profile"], "runs": len(runs), "by experiment": dict(experiments)}
    shown |= {f"by {n}": dict(Counter(getattr(c, n) for c in configs)) for n in ("corpus", "model", "method")}
    shown["steps"] = sorted({str(config.max_steps or "the model's own epochs") for config in configs})
    return shown | {"missing": missing(parameters), "run by us": RUN_BY_US[profile]}


def check(companion: Companion) -> None:
    """Raise InputError before the training if notebooks, data or the Jupyter kernel are missing."""
    for name in NOTEBOOKS:
        notebook_path(name)
    for corpus in REAL_CORPORA if companion.data and companion.profile.startswith("quick") else []:
        locate(corpus, companion.data)
    cure = "run `python -m ipykernel install --sys-prefix`"
    try:
        program = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        raise InputError(f"no Jupyter kernel named python3; {cure}") from None
    # Jupyter replaces a bare `python` by this one
    if os.path.isabs(program) and Path(program).parent != Path(sys.executable).parent:
        raise InputError(f"the Jupyter kernel named python3 is another environment's, {program}; {cure}")
    memory_table("llama-3.1-8b")  # notebook 3 predicts it for every method, also for a new one


def execute(name: str, folder: Path, parameters: dict, update: bool = False) -> float:
    """Execute a notebook, save it with an HTML page, and return the seconds. If it fails, InputError names the cell."""
    source, target, started = notebook_path(name), folder / f"{name}.ipynb", time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    quiet = {"progress_bar": False, "extra_arguments": ["--IPKernelApp.log_level=40", *[WITHOUT_DATA] * update]}
    try:
        book = papermill.execute_notebook(str(source), str(target), {} if update else parameters, **quiet)
    except papermill.PapermillExecutionError as error:
        cause = f"{error.ename}: {error.evalue} (the executed part is in {target})"
        raise InputError(f"notebook {name}, cell {error.exec_count}: {cause}") from None
    except DeadKernelError:
        raise InputError(f"notebook {name}: its kernel died, perhaps out of memory; run it again") from None
    for part in (book, *book.cells):
        part.metadata = {name: part.metadata[name] for name in KEPT if part.metadata.get(name)}
    for path in [target, source] if update else [target]:
        write_text(path, nbformat.writes(book) + "\n")
    write_text(target.with_suffix(".html"), html_page(book))
    logger.info("%s done in %.0f s", name, seconds := time.perf_counter() - started)
    return seconds


def pictures(book) -> list:
    """Return the outputs of a notebook that are pictures, with what `Companion.figure` gave them in their metadata."""
    return [o for cell in book.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]


def html_page(book, **options: bool) -> str:
    """Return a notebook as an HTML page, whose wide tables break words, or scroll on a phone."""
    exporter = HTMLExporter(**options)
    exporter.log.setLevel(logging.ERROR)  # its template drops the images' alternative text and then warns of that
    page = exporter.from_notebook_node(book)[0]
    for shown in pictures(book):
        page = page.replace(NO_ALT, f'alt="{escape(shown.metadata.get("image/png", {}).get("alt", ""))}"', 1)
    return page.replace("</head>", f"<style>{NARROW}</style></head>", 1)


def summary(folders: Folders) -> str:
    """Return all tables of a profile as one Markdown text."""
    tables = [path for path in sorted(folders.reports.glob("*.md")) if path.name != "summary.md"]
    parts = [f"## {path.stem}\n\n{path.read_text(encoding='utf-8')}" for path in tables]
    return "\n\n".join([f"# Report: {folders.profile}", INTRODUCTION, *parts]) + "\n"


def write_report(notebook: Path, figures: Path) -> None:
    """Write `summary.html` and `summary.md`: a notebook without code and without cells tagged `detail` or `try`."""
    book, folder = nbformat.read(notebook, 4), notebook.parent
    book, _ = TagRemovePreprocessor(enabled=True, remove_cell_tags={"detail", "try"}).preprocess(book, {})
    head = "<style>@media print { body { zoom: 0.53 } div { break-inside: auto !important } }</style></head>"
    write_text(folder / "summary.html", html_page(book, **WITHOUT_CODE).replace("</head>", head, 1))
    links = os.path.relpath(figures, folder)
    for shown in pictures(book):
        shown.data = {"text/markdown": "![{alt}]({0}/{figure}.png)".format(links, **shown.metadata["image/png"])}
    write_text(folder / "summary.md", MarkdownExporter(**WITHOUT_CODE).from_notebook_node(book)[0])
