"""What the notebooks call: load or run the records of a panel, save and show figures and tables with their origin."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from irtuning.corpora.base import Corpus
from irtuning.corpora.load import has_fixed_splits, load_corpus
from irtuning.models.mini import CHECKSUMS, embedded_model_path
from irtuning.analysis.figures.style import to_image
from irtuning.companion.paths import REPOSITORY, Places
from irtuning.companion.profiles import comparisons
from irtuning.training.record import write_bytes, write_text
from irtuning.companion.archive import read_store, write_store
from irtuning.analysis.tables import markdown, run_title, stamp

if TYPE_CHECKING:
    import pandas
    from IPython.display import Image, Markdown
    from matplotlib.figure import Figure

    from irtuning.training.config import RunConfig

TRAINING_ROOMS = ("method", "models", "training")  # what decides a run's result: a change in one starts a new cache of runs
STUDY = "study"
Origin = Sequence[dict] | Corpus | Mapping[str, str]  # records, a corpus, or hashes by name of what else was read


def training_fingerprint() -> str:
    """Eight hexadecimal digits that change with the source of `method`, `models` and `training` and with the embedded weights."""
    sums = (embedded_model_path() / CHECKSUMS).read_text().splitlines()
    digest = hashlib.sha256("".join(line for line in sums if not line.endswith((".md", ".tsv"))).encode())
    for room in TRAINING_ROOMS:
        for path in sorted((REPOSITORY / "irtuning" / room).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


@dataclass(frozen=True)
class Panel:
    """The records and floors behind some figures and tables, and whose they are."""

    companion: "Companion"
    name: str
    profile: str
    records: list[dict]
    floors: list[dict]

    @property
    def corpus(self) -> str:
        """The corpus of the records, with the model where the profile has several; `none` where there are no records."""
        if not self.records:
            return "none"
        config = self.records[0]["run"]["config"]
        return "-".join([config["corpus"], *[config["model"].replace("/", "-")] * (len(self.companion.models) > 1)])

    def figure(self, draw: Callable[..., "Figure"], name: str, *more: object, **options: object) -> "Image | Markdown":
        """Draw `draw(records, ...)`, save it and return it to be shown; a note where the panel was not run."""
        if not self.records:
            return self._absent(name)
        return self.companion.figure(draw(self.records, *more, **options), name, self.records, self.profile)

    def table(self, make: Callable[..., "pandas.DataFrame"], name: str, *more: object, **options: object):
        """Make `make(records, ...)`, save it and return it to be shown; a note where the panel was not run."""
        if not self.records:
            return self._absent(name)
        return self.companion.table(make(self.records, *more, **options), name, self.records, self.profile)

    def by_corpus(self) -> Iterator["Panel"]:
        """The panel's part of each corpus and model; itself where it was not run."""
        parts: dict[tuple, list[dict]] = {}
        for record in self.records:
            parts.setdefault((record["run"]["config"]["corpus"], record["run"]["config"]["model"]), []).append(record)
        for (name, _), own in parts.items():
            yield replace(self, records=own, floors=[floor for floor in self.floors if floor["corpus"] == name])
        if not parts:
            yield self

    def only(self, methods: Sequence[str]) -> "Panel":
        """The panel's records of these methods alone."""
        return replace(self, records=[r for r in self.records if r["run"]["config"]["method"] in methods])

    def _absent(self, name: str) -> "Markdown":
        from IPython.display import Markdown

        return Markdown(f"*`{name}`: not run yet. `irtuning reproduce --profile {self.profile} --data DIR` runs it.*")


class Companion:
    """One profile's corpora, runs, figures and tables.

    Args:
        profile: names the folders and stands in every stamp.
        corpora, data: the corpora by name and the folder of their files.
        output: where everything goes; the repository's own folders when None.
        models, methods, panels, folds, seeds, max_steps: what is run; see `profiles.PROFILES`. A panel may name the
            one corpus it is for: `sizes@argrewrite`.
        settings: fields of `RunConfig`, the same for every run.
        jobs, scheduler: where runs are made; see `run_comparison`.
    """

    def __init__(
        self,
        profile: str,
        corpora: Sequence[str],
        data: str | None = None,
        output: str | None = None,
        *,
        models: Sequence[str] = ("mini",),
        methods: Sequence[str] = (),
        panels: Sequence[str] = (),
        folds: Sequence[int] = (0,),
        seeds: int = 2,
        max_steps: int | None = None,
        settings: dict | None = None,
        jobs: int | None = None,
        scheduler: str | None = None,
    ):
        import pandas

        pandas.set_option("display.max_colwidth", None)  # a table in a notebook shows its cells whole
        self.profile, self.names, self.data = profile, list(corpora), data
        self.models, self.methods = list(models), list(methods)
        self.panels = {name: only for name, _, only in (panel.partition("@") for panel in panels)}
        self.folds, self.seeds = list(folds), seeds
        self.place = {"jobs": jobs, "scheduler": scheduler}
        self.settings = (settings or {}) | ({} if max_steps is None else {"max_steps": max_steps})
        self.places = Places(profile, Path(output) if output else None)
        self._loaded: dict[tuple[str, int], Corpus] = {}

    def corpora(self) -> list[Corpus]:
        """The profile's corpora, the first fold of each."""
        return [self._corpus(name, 0) for name in self.names]

    def panel(self, name: str, of: str | None = None) -> Panel:
        """A panel's runs: the profile's own where it has that panel, run as needed; else the recorded study's.

        `of="study"` is the recorded study's all the same, in every profile but the study itself.
        """
        if name in self.panels and (of != STUDY or self.profile.startswith(STUDY)):
            records, floors = [], []
            for options in self._comparisons(name):
                found = self._run(options)
                records += found[0]
                floors += [floor for floor in found[1] if floor not in floors]
            return Panel(self, name, self.profile, records, floors)
        places = self.places if self.profile == STUDY else Places(STUDY)
        return Panel(self, name, STUDY, *read_store(places.reports, name))

    def store(self) -> None:
        """Run what is missing of every panel and pack their records for the repository."""
        found = {name: self.panel(name) for name in self.panels}
        write_store(self.places.reports, {n: {"records": p.records, "floors": p.floors} for n, p in found.items()})

    def planned(self) -> list[tuple[str, "RunConfig"]]:
        """Every run of the profile with the first panel that wants it; each once."""
        from irtuning.comparison.runs import planned_runs, takes_budget

        found = {}
        for panel in self.panels:
            for options in self._comparisons(panel):
                budget = options.get("budget", "equal")
                for config in planned_runs(**options):
                    found.setdefault((config, budget if takes_budget(config) else ""), panel)  # others do not depend on it
        return [(panel, config) for (config, _), panel in found.items()]

    def figure(
        self, figure: "Figure", name: str, origin: Origin, profile: str | None = None, note: str = ""
    ) -> "Image":
        """Save a figure as PNG and SVG with a sidecar that names its origin; return it to be shown.

        `note` says what else a figure was made with, such as the model that read one batch of a corpus.
        """
        from IPython.display import Image

        line = self.stamp(origin, profile, note)
        figure.supxlabel(line, fontsize=6, color="0.45", x=0.01, ha="left", wrap=True)
        path = self.places.figures / name
        png = to_image(figure, "png")
        write_bytes(path.with_suffix(".png"), png)
        write_bytes(path.with_suffix(".svg"), to_image(figure, "svg"))
        self._sidecar(path, line, origin)
        return Image(png, width=round(figure.get_figwidth() * 100), alt=name)

    def table(
        self,
        table: "pandas.DataFrame",
        name: str,
        origin: Origin,
        profile: str | None = None,
        note: str = "",
    ) -> "pandas.DataFrame":
        """Save a table as CSV and Markdown with a sidecar that names its origin; return it rounded."""
        line = self.stamp(origin, profile, note)
        path = self.places.reports / name
        write_text(path.with_suffix(".csv"), table.to_csv(index=any(table.index.names)))
        write_text(path.with_suffix(".md"), f"{markdown(table.round(3))}\n{line}\n")
        self._sidecar(path, line, origin)
        return table.round(3)

    def stamp(self, origin: Origin, profile: str | None = None, note: str = "") -> str:
        """The line that says where numbers come from."""
        if isinstance(origin, Mapping):
            return f"{profile or self.profile} · no corpus · {note}"
        if isinstance(origin, Corpus):
            kind = "SYNTHETIC corpus" if origin.synthetic else f"{origin.name} (real)"
            return f"{self.profile} · {kind} · fold {origin.fold} · {note or 'no model, no seed, no steps'}"
        return stamp(origin, profile or self.profile)

    def _comparisons(self, panel: str) -> Iterator[dict]:
        """Arguments of `run_comparison` for every model, corpus and comparison of a panel.

        A corpus with splits of its own gets as many seeds as the others get folds x seeds.
        """
        for model in self.models:
            for corpus in [name for name in self.names if self.panels[panel] in ("", name)]:
                fixed = has_fixed_splits(corpus)
                place = {
                    "corpus": corpus,
                    "model": model,
                    "folds": [0] if fixed else self.folds,
                    "seeds": self.seeds * len(self.folds) if fixed else self.seeds,
                }
                for options in comparisons(panel, self.methods):
                    yield self.settings | place | options

    def _run(self, options: dict) -> tuple[list[dict], list[dict]]:
        from irtuning.comparison.runs import run_comparison

        name, folds = options["corpus"], options["folds"]
        corpora = {fold: self._corpus(name, fold) for fold in folds}
        folder = self.places.runs / f"{name}-{corpora[folds[0]].checksum[:8]}-{training_fingerprint()}"
        return run_comparison(**options, corpora=corpora, output=folder, **self.place)

    def _corpus(self, name: str, fold: int) -> Corpus:
        if (name, fold) not in self._loaded:
            self._loaded[name, fold] = load_corpus(name, self.data, fold, labels=self.settings.get("label_set"))
        return self._loaded[name, fold]

    def _sidecar(self, path: Path, line: str, origin: Origin) -> None:
        if isinstance(origin, Mapping):
            hashes = dict(origin)
        elif isinstance(origin, Corpus):
            hashes = {"corpus": origin.checksum}
        else:
            hashes = {run_label(record): result_hash(record) for record in origin}
        write_text(path.with_suffix(".origin.json"), json.dumps({"stamp": line, "origin": hashes}, indent=1) + "\n")


def run_label(record: dict) -> str:
    """A run's name in a sidecar."""
    config = record["run"]["config"]
    share = "" if config["share"] is None else f" share {config['share']:g}"
    return f"{config['corpus']} {config['model']} {run_title(config)}{share} fold {config['fold']} seed {config['seed']}"


def result_hash(record: dict) -> str:
    """SHA-256 of all but the clock and the machine, so that the same run elsewhere has the same."""
    kept = {name: block for name, block in record.items() if name != "meta"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
