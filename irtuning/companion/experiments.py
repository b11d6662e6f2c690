"""Experiments of a profile: their records, and the figures and tables that the notebooks make of them."""

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from irtuning.analysis.figures.style import to_image
from irtuning.analysis.tables import markdown, run_title, stamp
from irtuning.companion.archive import has_archive, read_archive, write_archive
from irtuning.companion.paths import REPOSITORY, Folders
from irtuning.companion.profiles import comparisons, profile_parameters
from irtuning.corpora.base import Corpus
from irtuning.corpora.load import has_fixed_splits, load_corpus
from irtuning.training.record import write_bytes, write_text

if TYPE_CHECKING:
    from IPython.display import Image, Markdown
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from irtuning.training.config import RunConfig

STUDY = "study"
MANIFEST = "manifest.json"
REAL_CORPORA = ["argrewrite", "arxivedits"]  # notebook 1 of the quick profile shows them too, where there is data
# files that decide the result of a run
DECISIVE = ["method/*.py", "models/*.py", "training/*.py", "mini/*.safetensors", "mini/tokenizer.json"]
Origin = Sequence[dict] | Corpus | Mapping[str, str]  # records, a corpus, or hashes of other sources by name


def training_fingerprint() -> str:
    """Return eight hexadecimal digits that change with the code of a run and with the embedded weights."""
    digest = hashlib.sha256()
    for pattern in DECISIVE:
        for path in sorted((REPOSITORY / "irtuning").glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


@dataclass(frozen=True)
class Experiment:
    """Records and floors of one experiment, which figures and tables are made of."""

    companion: "Companion"
    name: str
    profile: str
    records: list[dict]
    floors: list[dict]

    @property
    def corpus(self) -> str:
        """Name of the corpus, with the model if the profile has several, or `none` without records."""
        names = [r["run"]["config"]["corpus"] for r in self.records[:1]] or ["none"]
        if self.records and len(self.companion.models) > 1:
            names.append(self.records[0]["run"]["config"]["model"].replace("/", "-"))
        return "-".join(names)

    def figure(self, draw: Callable[..., "Figure"], name: str, *more: object, **options: object) -> "Image | Markdown":
        """Draw `draw(records, ...)`, save it and return it, or return a note if there are no records."""
        return self._save(self.companion.figure, draw, name, more, options)

    def table(self, make: Callable[..., "DataFrame"], name: str, *more: object, **options: object):
        """Make the table `make(records, ...)`, save it and return it, or return a note if there are no records."""
        return self._save(self.companion.table, make, name, more, options)

    def by_corpus(self) -> Iterator["Experiment"]:
        """Yield the part of each corpus and model, or the experiment itself without records."""
        configs = [record["run"]["config"] for record in self.records]
        for corpus, model in dict.fromkeys((c["corpus"], c["model"]) for c in configs) or [(None, None)]:
            pairs = zip(self.records, configs, strict=True)
            records = [record for record, c in pairs if (c["corpus"], c["model"]) == (corpus, model)]
            yield replace(self, records=records, floors=[floor for floor in self.floors if floor["corpus"] == corpus])

    def only(self, methods: Sequence[str]) -> "Experiment":
        """Return the experiment with the records of these methods alone."""
        return replace(self, records=[r for r in self.records if r["run"]["config"]["method"] in methods])

    def _save(self, save: Callable, make: Callable, name: str, more: Sequence, options: dict):
        from IPython.display import Markdown

        if self.records:
            return save(make(self.records, *more, **options), name, self.records, self.profile)
        return Markdown(f"*`{name}`: not run yet. `irtuning reproduce --profile {self.profile} --data DIR` runs it.*")


@dataclass
class Companion:
    """Corpora, experiments, figures and tables of one profile.

    Args:
        profile: Name of the profile. It names the folders and stands in every stamp.
        corpora, data: Names of the corpora, and the folder of their files.
        output: Folder for everything that is written; the repository's own folders if None.
        models, methods, folds, seeds, max_steps: What an experiment runs; see `profiles.PROFILES`.
        experiments: Names of the experiments. `sizes@argrewrite` limits one to a corpus.
        settings: Fields of `RunConfig` for every run.
        workers, scheduler: Where the runs are made; see `run_comparison`.
    """

    profile: str
    corpora: Sequence[str]
    data: str | None = None
    output: str | None = None
    models: Sequence[str] = ("mini",)
    methods: Sequence[str] = ()
    experiments: Sequence[str] = ()
    folds: Sequence[int] = (0,)
    seeds: int = 2
    max_steps: int | None = None
    settings: dict = field(default_factory=dict)
    workers: int | None = None
    scheduler: str | None = None

    def __post_init__(self):
        import pandas

        pandas.set_option("display.max_colwidth", None)  # a notebook shows long cells in full
        self.corpus_of = {name: corpus for name, _, corpus in (text.partition("@") for text in self.experiments)}
        self.folders = Folders(self.profile, self.output)
        self._loaded: dict[tuple[str, int], Corpus] = {}

    @classmethod
    def open(cls, profile: str, data=None, output=None, changes: Mapping | None = None, **where) -> "Companion":
        """Return the companion of a named profile; see `profiles.profile_parameters` and, for `where`, `workers`."""
        return cls(**profile_parameters(profile, data, output, changes), **where)

    def load_corpora(self, public: bool = False) -> list[Corpus]:
        """Return the first fold of each corpus; with `public`, the quick profile adds the public ones from `data`."""
        more = REAL_CORPORA if public and self.data and self.profile.startswith("quick") else []
        return [self._corpus(name, 0) for name in dict.fromkeys([*self.corpora, *more])]

    def experiment(self, name: str, of: str | None = None) -> Experiment:
        """Return an experiment: read from the profile's archive, else run, else read from the recorded study.

        With `of="study"` the recorded study is read also where the profile has an experiment of that name.
        """
        if (name in self.corpus_of and of != STUDY) or self.profile.startswith(STUDY):
            if has_archive(self.folders.reports):
                return Experiment(self, name, self.profile, *read_archive(self.folders.reports, name))
            if name in self.corpus_of and self.profile != STUDY:
                return self.run(name)
        return Experiment(self, name, STUDY, *read_archive(Folders(STUDY).reports, name))

    def run(self, name: str) -> Experiment:
        """Run what is not recorded yet of an experiment and return it."""
        from irtuning.comparison.runs import run_comparison

        records, floors, where = [], [], {"workers": self.workers, "scheduler": self.scheduler}
        for options in self._comparisons(name):
            corpora = {fold: self._corpus(options["corpus"], fold) for fold in options["folds"]}
            checksum = corpora[options["folds"][0]].checksum
            folder = self.folders.runs / f"{options['corpus']}-{checksum[:8]}-{training_fingerprint()}"
            more_records, more_floors = run_comparison(**options, corpora=corpora, output=folder, **where)
            records += more_records
            floors += [floor for floor in more_floors if floor not in floors]
        return Experiment(self, name, self.profile, records, floors)

    def store(self) -> None:
        """Run what is not recorded yet of every experiment and write the profile's archive."""
        experiments = map(self.run, self.corpus_of)
        write_archive(self.folders.reports, {e.name: {"records": e.records, "floors": e.floors} for e in experiments})

    def planned(self) -> list[tuple[str, "RunConfig"]]:
        """Return every run of the profile once, with the first experiment that needs it."""
        from irtuning.comparison.runs import planned_runs, takes_budget

        experiments = {}
        for name in self.corpus_of:
            for options in self._comparisons(name):
                budget = options.get("budget", "equal")
                for config in planned_runs(**options):  # only some methods depend on the kind of budget
                    experiments.setdefault((config, budget if takes_budget(config) else ""), name)
        return [(name, config) for (config, _), name in experiments.items()]

    def figure(self, figure: "Figure", name: str, origin: Origin, profile: str | None = None, note: str = ""):
        """Save a figure as PNG and SVG with its stamp, enter it in the manifest, and return it as an image.

        Args:
            figure, name: The figure, and its file name without ending.
            origin: The data behind the figure.
            profile, note: The profile of the data, if it is another one, and what else was used, for the stamp.
        """
        from IPython.display import Image

        path = self.folders.figures / f"{name}.png"
        line = self._enter(path, origin, profile or self.profile, note)
        figure.supxlabel(line, fontsize=6, color="0.45", x=0.01, ha="left", wrap=True)
        png = _with_palette(to_image(figure, "png"))
        write_bytes(path, png)
        write_bytes(path.with_suffix(".svg"), to_image(figure, "svg"))
        return Image(png, width=round(figure.get_figwidth() * 100), alt=name)

    def table(self, table: "DataFrame", name: str, origin: Origin, profile: str | None = None, note: str = ""):
        """Save a table as CSV and Markdown with its stamp, enter it in the manifest, and return it rounded."""
        path = self.folders.reports / f"{name}.csv"
        line = self._enter(path, origin, profile or self.profile, note)
        write_text(path, table.to_csv(index=any(table.index.names)))
        write_text(path.with_suffix(".md"), f"{markdown(table.round(3))}\n{line}\n")
        return table.round(3)

    def _enter(self, path: Path, origin: Origin, profile: str, note: str) -> str:
        """Write the stamp of a file and the hashes of its data into the manifest beside it, and return the stamp."""
        if isinstance(origin, Mapping):
            line, hashes = f"{profile} · no corpus · {note}", dict(origin)
        elif isinstance(origin, Corpus):
            kind = "SYNTHETIC corpus" if origin.synthetic else f"{origin.name} (real)"
            line = f"{profile} · {kind} · fold {origin.fold} · {note or 'no model, no seed, no steps'}"
            hashes = {"corpus": origin.checksum}
        else:
            line, hashes = stamp(origin, profile), {run_label(record): result_hash(record) for record in origin}
        entries = read_manifest(path.parent) | {path.name: {"stamp": line, "origin": hashes}}
        write_text(path.parent / MANIFEST, json.dumps(dict(sorted(entries.items())), indent=1) + "\n")
        return line

    def _comparisons(self, experiment: str) -> Iterator[dict]:
        """Yield the arguments of `run_comparison` for every model, corpus and comparison of an experiment.

        A corpus with published splits has one fold and gets folds x seeds runs of it, as many as the others.
        """
        settings = self.settings | ({} if self.max_steps is None else {"max_steps": self.max_steps})
        for model in self.models:
            for corpus in [name for name in self.corpora if self.corpus_of[experiment] in ("", name)]:
                fixed = has_fixed_splits(corpus)
                folds, seeds = ([0], self.seeds * len(self.folds)) if fixed else (self.folds, self.seeds)
                for options in comparisons(experiment, self.methods):
                    yield settings | {"corpus": corpus, "model": model, "folds": folds, "seeds": seeds} | options

    def _corpus(self, name: str, fold: int) -> Corpus:
        if (name, fold) not in self._loaded:
            self._loaded[name, fold] = load_corpus(name, self.data, fold, labels=self.settings.get("label_set"))
        return self._loaded[name, fold]


def read_manifest(folder: Path) -> dict[str, dict]:
    """Return stamp and origin of every figure or table in a folder by file name; empty without a manifest."""
    path = folder / MANIFEST
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _with_palette(png: bytes) -> bytes:
    """Return a PNG with at most 256 colours, which makes it three times smaller."""
    from PIL import Image

    stream = io.BytesIO()
    image = Image.open(io.BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def run_label(record: dict) -> str:
    """Return the name of a run in a manifest."""
    config = record["run"]["config"]
    share = "" if config["share"] is None else f" share {config['share']:g}"
    return f"{config['corpus']} {config['model']} {run_title(config)}{share} fold {config['fold']} seed {config['seed']}"


def result_hash(record: dict) -> str:
    """Return the SHA-256 of a record without clock and machine, so that an equal run elsewhere has an equal hash."""
    result = {name: block for name, block in record.items() if name != "meta"}
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()
