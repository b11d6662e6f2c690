"""The main job: run the notebooks in order through papermill, and gather what they wrote."""

import logging
import os
import shutil
import time
from pathlib import Path

from irtuning.errors import InputError, unknown
from irtuning.paths import NOTEBOOKS, Places, notebook_path
from irtuning.records import write_text

logger = logging.getLogger(__name__)

# a profile's parameters beside the notebooks' own quick defaults
PROFILES: dict[str, dict] = {"quick": {}}


def reproduce(
    profile: str = "quick", *, data: str | Path | None = None, output: str | Path | None = None, fresh: bool = False
) -> dict[str, Path]:
    """Run every notebook of a profile; return where things were written.

    Leaves executed notebooks, their HTML, tables (CSV, Markdown) and `summary.md` in `reports/`, figures (PNG, SVG)
    in `figures/`, each with a sidecar that names the records it came from. Interrupted or repeated it goes on from
    the recorded runs. With `data` the notebooks use ArgRewrite, and the profile's name says so.

    Args:
        profile: a name of `PROFILES`.
        data: folder of the real corpora.
        output: folder for everything, instead of the repository's own.
        fresh: forget the recorded runs first.

    Raises:
        InputError: unknown profile, no data, an unwritable folder, no kernel, or a notebook that failed.
    """
    if profile not in PROFILES:
        raise unknown("profile", profile, PROFILES)
    parameters = dict(PROFILES[profile])
    if data is not None:
        parameters |= {"profile": f"{profile}-argrewrite", "corpus": "argrewrite", "data": str(Path(data).resolve())}
    if output is not None:
        parameters["output"] = str(Path(output).resolve())
    places = Places(parameters.get("profile", profile), Path(output).resolve() if output else None)
    _check(places, data)
    if fresh:
        shutil.rmtree(places.runs, ignore_errors=True)
    for name in NOTEBOOKS:
        _run(name, places, parameters)
    write_text(places.reports / "summary.md", summary(places))
    return {"figures": places.figures, "reports": places.reports, "runs": places.runs}


def summary(places: Places) -> str:
    """All tables of a profile one below the other, with what was run."""
    parts = [
        f"# Report: {places.profile}",
        "Importance and cut of IR-Tuning are the authors' code's own (`ir`: gradient score `reference`, variant "
        "`reference`, one split) unless a method's name says otherwise. Baselines with a budget (rst, lisa-adapters, "
        "last-k, middle-k) take the mean share of layers IR-Tuning used with the same fold and seed; random-counts "
        "takes its count at each step; ist keeps its own 25 %. Scores are on validation. The quick profile shows "
        "that the pipeline works; it gives no verdicts.",
    ]
    for path in sorted(places.reports.glob("*.md")):
        if path.name != "summary.md":
            parts.append(f"## {path.stem}\n\n{path.read_text(encoding='utf-8')}")
    return "\n\n".join(parts) + "\n"


def _check(places: Places, data: str | Path | None) -> None:
    from jupyter_client.kernelspec import KernelSpecManager

    for name in NOTEBOOKS:
        notebook_path(name)
    if data is not None:
        from irtuning.corpora.sources import locate

        locate("argrewrite", data)
    if "python3" not in KernelSpecManager().find_kernel_specs():
        raise InputError("no Jupyter kernel named python3; run `python -m ipykernel install --sys-prefix`")
    for folder in (places.figures, places.reports, places.runs):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to {folder}: {error.strerror}; give --output another folder") from None
        if not os.access(folder, os.W_OK):
            raise InputError(f"cannot write to {folder}; give --output another folder")


def _run(name: str, places: Places, parameters: dict) -> None:
    """Execute one notebook into the reports; the repository's own copy follows when nothing was changed for it."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from nbconvert import HTMLExporter

    source, target, started = notebook_path(name), places.reports / f"{name}.ipynb", time.perf_counter()
    logger.info("%s ...", name)
    try:
        book = papermill.execute_notebook(
            str(source),
            str(target),
            parameters=parameters,
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
    exporter = HTMLExporter()
    exporter.log.setLevel(logging.ERROR)  # its template drops the images' alternative text, then complains
    write_text(target.with_suffix(".html"), exporter.from_notebook_node(book)[0])
    if not parameters:
        write_text(source, _text(book))
    logger.info("%s done in %.0f s", name, time.perf_counter() - started)


def _strip(book) -> None:
    """Take papermill's marks out: paths and clocks would differ at every run."""
    book.metadata.pop("papermill", None)
    for cell in book.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)


def _text(book) -> str:
    import nbformat

    return nbformat.writes(book) + "\n"
