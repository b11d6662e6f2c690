"""Experiments of a profile: their records, and the figures and tables that notebooks make from them."""

import functools
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas
import PIL.Image
from filelock import FileLock
from IPython.display import Image, Markdown
from matplotlib.figure import Figure

from irtuning.analysis.figures.style import entitle, to_image
from irtuning.analysis.tables import markdown, readable, run_title, stamp
from irtuning.companion.archive import INDEX, read_archive, write_archive
from irtuning.companion.paths import Folders, training_fingerprint
from irtuning.companion.profiles import comparisons, profile_parameters
from irtuning.corpora.base import Corpus, sharing
from irtuning.corpora.load import has_fixed_splits, load_corpus
from irtuning.corpora.sources import find
from irtuning.training.record import write_bytes, write_text

STUDY = "study"
REAL_CORPORA = ["iterater", "argrewrite"]  # notebook 1 of the quick profile shows them if it has their data
Origin = Sequence[dict] | Corpus | Mapping[str, str]  # records, a corpus, or hashes of other files by name


@dataclass(frozen=True)
class Experiment:
    """Records and floors of one experiment, from which figures and tables are made."""
    companion: "Companion"
    profile: str
    records: list[dict]
    floors: list[dict]

    def figure(self, draw: Callable[..., Figure], name: str, *more: object, title="", **options: object):
        """Draw `draw(records, ...)`, save it and return it, or return a note if there are no records."""
        return self._save(functools.partial(self.companion.figure, title=title), draw, name, *more, **options)

    def table(self, make: Callable[..., pandas.DataFrame], name: str, *more: object, **options: object):
        """Make the table `make(records, ...)`, save it and return it, or return a note if there are no records."""
        return self._save(self.companion.table, make, name, *more, **options)

    def _save(self, save: Callable, make: Callable, name: str, *more: object, **options: object):
        if self.records:
            return save(make(self.records, *more, **options), name, self.records, self.profile)
        return Markdown(f"*`{name}`: not run yet. `irtuning reproduce --profile {self.profile} --data DIR` runs it.*")


@dataclass
class Companion:
    """Corpora, experiments, figures and tables of one profile. See `profiles.PROFILES` for its parameters."""
    profile: str  # it names the folders and appears in every stamp
    corpora: Sequence[str]
    data: str | None = None  # folder of the corpora's files
    output: str | None = None  # folder for everything that is written; None for the repository's own folders
    models: Sequence[str] = ("mini",)
    methods: Sequence[str] = ()
    experiments: Sequence[str] = ()  # their names; `sizes@argrewrite` limits one to a corpus
    folds: Sequence[int] = (0,)
    seeds: int = 2
    max_steps: int | None = None
    settings: dict = field(default_factory=dict)  # fields of `RunConfig` for every run
    workers: int | None = None  # runs at a time; see `run_comparison`, also for the scheduler
    scheduler: str | None = None

    def __post_init__(self):
        pandas.set_option("display.max_colwidth", None)  # a notebook shows long cells in full
        self.corpus_of = {name: corpus for name, _, corpus in (text.partition("@") for text in self.experiments)}
        self.folders = Folders(self.profile, self.output)
        chosen = {"labels": self.settings.get("label_set"), "split": self.settings.get("split")}
        self._hashes: dict[int, tuple[dict, str]] = {}  # by id, with the record, so that no other gets its id
        self._corpus = functools.cache(lambda name, fold: load_corpus(name, self.data, fold, **chosen))

    @classmethod
    def open(cls, profile: str, data=None, output=None, changes: Mapping | None = None, **where) -> "Companion":
        """Return the companion of a named profile. See `profiles.profile_parameters`. `where`: workers, scheduler."""
        return cls(**profile_parameters(profile, data, output, changes), **where)

    def load_corpora(self, public: bool = False) -> list[Corpus]:
        """Return the first fold of each corpus. With `public`, the quick profile adds real ones in `data`."""
        more = [name for name in REAL_CORPORA if public and self.profile.startswith("quick") and find(name, self.data)]
        return [self._corpus(name, 0) for name in dict.fromkeys([*self.corpora, *more])]

    def experiment(self, name: str, of: str | None = None) -> Experiment:
        """Return an experiment: from the archive, or by running it. If the profile lacks it, it is the study's."""
        if (name in self.corpus_of and of != STUDY) or self.profile.startswith(STUDY):
            if (self.folders.reports / INDEX).exists():
                return Experiment(self, self.profile, *read_archive(self.folders.reports, name))
            if name in self.corpus_of and self.profile != STUDY:
                return self.run(name)
        return Experiment(self, STUDY, *read_archive(Folders(STUDY).reports, name))

    def run(self, name: str) -> Experiment:
        """Run the missing runs of an experiment and return it."""
        from irtuning.comparison.runs import run_comparison
        records, floors, code = [], [], training_fingerprint()
        for options in self._comparisons(name):
            corpora = {fold: self._corpus(options["corpus"], fold) for fold in options["folds"]}
            folder = f"{options['corpus']}-{corpora[options['folds'][0]].checksum[:8]}-{code}"
            options |= {"output": self.folders.runs / folder, "workers": self.workers, "scheduler": self.scheduler}
            made = run_comparison(**options, corpora=corpora)
            records += made[0]
            floors += [floor for floor in made[1] if floor not in floors]
        return Experiment(self, self.profile, records, floors)

    def store(self) -> None:
        """Run the missing runs of every experiment. Every profile but quick also gets an archive of its records."""
        experiments = {name: self.run(name) for name in self.corpus_of}
        if not self.profile.startswith("quick"):
            write_archive(self.folders.reports, {name: (e.records, e.floors) for name, e in experiments.items()})

    def planned(self) -> list[tuple]:
        """Return every run of the profile once, as (first experiment that needs it, configuration)."""
        from irtuning.comparison.runs import planned_runs, takes_budget
        first = {}
        for name, options in ((name, options) for name in self.corpus_of for options in self._comparisons(name)):
            for config in planned_runs(**options):  # only some methods depend on the kind of budget
                first.setdefault((config, takes_budget(config) and options.get("budget", "equal")), name)
        return [(name, config) for (config, _), name in first.items()]

    def figure(self, figure: Figure, name: str, origin: Origin, profile: str | None = None, note="", title="") -> Image:
        """Save a figure as PNG and SVG, with a stamp made of `origin` (its data) and `note`. Return it as an image.

        `title` is what a reader should see in it, in one line.
        """
        path, stream = self.folders.figures / f"{name}.png", io.BytesIO()
        line = self._enter(path, origin, profile or self.profile, note)
        entitle(figure, title)
        figure.supxlabel(line, fontsize=7, color="0.45", x=0.01, ha="left", wrap=True)
        picture = PIL.Image.open(io.BytesIO(to_image(figure, "png"))).convert("RGB")
        picture.quantize(256, dither=PIL.Image.Dither.NONE).save(stream, "PNG", optimize=True)  # a third as large
        write_bytes(path, stream.getvalue())
        write_bytes(path.with_suffix(".svg"), to_image(figure, "svg"))
        return Image(stream.getvalue(), width=round(figure.get_figwidth() * 100), alt=title, metadata={"figure": name})

    def table(self, table: pandas.DataFrame, name: str, origin: Origin, profile: str | None = None, note: str = ""):
        """Save a table as CSV and Markdown with its stamp, enter it in the manifest, and return it for readers."""
        path = self.folders.reports / f"{name}.csv"
        line = self._enter(path, origin, profile or self.profile, note)
        write_text(path, table.to_csv(index=any(table.index.names)))
        write_text(path.with_suffix(".md"), f"{markdown(readable(table))}\n{line}\n")
        return readable(table)

    def _enter(self, path: Path, origin: Origin, profile: str, note: str) -> str:
        """Write the stamp of a file and the hashes of its data into its folder's manifest, and return the stamp."""
        if isinstance(origin, Mapping):
            line, hashes = f"{profile} · {'no corpus · ' * ('(real)' not in note)}{note}", dict(origin)
        elif isinstance(origin, Corpus):
            kind = "SYNTHETIC corpus" if origin.synthetic else f"{origin.name} (real{sharing(origin.shared_groups)})"
            note, hashes = note or "no model, no seed, no steps", {"corpus": origin.checksum}
            line = f"{profile} · {kind} · fold {origin.fold} · {note}"
        else:
            self._hashes |= {id(r): (r, result_hash(r)) for r in origin if id(r) not in self._hashes}
            line, hashes = stamp(origin, profile), {run_label(r): self._hashes[id(r)][1] for r in origin}
        with FileLock(self.folders.runs / ".manifest.lock"):  # other notebooks may be executed at the same time
            entries = read_manifest(path.parent) | {path.name: {"stamp": line, "origin": hashes}}
            write_text(path.parent / "manifest.json", json.dumps(dict(sorted(entries.items())), indent=1) + "\n")
        return line

    def _comparisons(self, experiment: str) -> Iterator[dict]:
        """Yield the arguments of `run_comparison` for every model, corpus and comparison of an experiment."""
        settings = self.settings | ({} if self.max_steps is None else {"max_steps": self.max_steps})
        corpora = [name for name in self.corpora if self.corpus_of[experiment] in ("", name)]
        for model, corpus in ((model, corpus) for model in self.models for corpus in corpora):
            # the only split of a corpus gets as many runs as the folds of others
            one_fold = has_fixed_splits(corpus, settings.get("split"))
            folds, seeds = ([0], self.seeds * len(self.folds)) if one_fold else (self.folds, self.seeds)
            for options in comparisons(experiment, self.methods):
                yield settings | {"corpus": corpus, "model": model, "folds": folds, "seeds": seeds} | options


def read_manifest(folder: Path) -> dict[str, dict]:
    """Return the stamp and origin of every figure or table in a folder, by file name. Empty without a manifest."""
    path = folder / "manifest.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def run_label(record: dict) -> str:
    """Return the name of a run in a manifest."""
    run = record["run"]["config"]
    share = "" if run["share"] is None else f" share {run['share']:g}"
    return f"{run['corpus']} {run['model']} {run_title(run)}{share} fold {run['fold']} seed {run['seed']}"


def result_hash(record: dict) -> str:
    """Return the SHA-256 of a record without times and machine, so that an equal run elsewhere has an equal hash."""
    result = {name: block for name, block in record.items() if name != "meta"}
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()
