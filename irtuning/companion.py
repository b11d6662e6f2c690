"""What the notebooks call: load or run the records of a profile, save and show figures and tables with their origin."""

import hashlib
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import TqdmWarning

from irtuning.corpora import Corpus, load_corpus
from irtuning.embedded import CHECKSUMS, embedded_model_path
from irtuning.figures import to_image
from irtuning.paths import REPOSITORY, Places
from irtuning.records import write_bytes, write_text
from irtuning.tables import markdown, stamp

if TYPE_CHECKING:
    import pandas
    from IPython.display import Image
    from matplotlib.figure import Figure

# the modules that decide a run's result: a change in one of them starts a new cache of runs
TRAINING_MODULES = (
    "adapters", "callback", "config", "importance", "layers", "metrics", "models", "prompts", "run", "selector",
    "strategies", "trainer", "curve",
)  # fmt: skip


def training_fingerprint() -> str:
    """Eight hexadecimal digits that change with the source of any training module and with the embedded weights."""
    sums = (embedded_model_path() / CHECKSUMS).read_text().splitlines()
    digest = hashlib.sha256("".join(line for line in sums if not line.endswith((".md", ".tsv"))).encode())
    for name in TRAINING_MODULES:
        digest.update((REPOSITORY / "irtuning" / f"{name}.py").read_bytes())
    return digest.hexdigest()[:8]


class Companion:
    """One profile's corpus, runs, figures and tables.

    Args:
        profile: names the folders and stands in every stamp.
        corpus, data: the corpus and the folder of its files.
        output: where everything goes; the repository's own folders when None.
    """

    def __init__(self, profile: str, corpus: str, data: str | None = None, output: str | None = None):
        # libraries that import tqdm.auto in a notebook complain that ipywidgets is absent; no bar is shown here
        warnings.filterwarnings("ignore", message="IProgress not found", category=TqdmWarning)
        self.profile, self.corpus_name, self.data = profile, corpus, data
        self.places = Places(profile, Path(output) if output else None)

    def corpus(self, fold: int = 0) -> Corpus:
        """The profile's corpus."""
        return load_corpus(self.corpus_name, self.data, fold)

    def compare(self, methods: Sequence[str], seeds: int, **settings: object) -> tuple[list[dict], list[dict]]:
        """Records and floors of a comparison; what is recorded already is read."""
        from irtuning.comparison import run_comparison

        folder = self.places.runs / f"{self.corpus_name}-{self.corpus().checksum[:8]}-{training_fingerprint()}"
        options = {"output": folder, "data_dir": self.data, "progress": False, "corpus": self.corpus_name}
        return run_comparison(methods, seeds=seeds, **options, **settings)

    def figure(self, figure: "Figure", name: str, origin: Sequence[dict] | Corpus) -> "Image":
        """Save a figure as PNG and SVG with a sidecar that names its origin; return it to be shown."""
        from IPython.display import Image

        line = self.stamp(origin)
        figure.supxlabel(line, fontsize=6, color="0.45", x=0.01, ha="left")
        path = self.places.figures / name
        png = to_image(figure, "png")
        write_bytes(path.with_suffix(".png"), png)
        write_bytes(path.with_suffix(".svg"), to_image(figure, "svg"))
        self._sidecar(path, line, origin)
        return Image(png, width=round(figure.get_figwidth() * 100), alt=name)

    def table(self, table: "pandas.DataFrame", name: str, origin: Sequence[dict] | Corpus) -> "pandas.DataFrame":
        """Save a table as CSV and Markdown with a sidecar that names its origin; return it rounded."""
        line = self.stamp(origin)
        path = self.places.reports / name
        write_text(path.with_suffix(".csv"), table.to_csv())
        write_text(path.with_suffix(".md"), f"{markdown(table.round(3))}\n{line}\n")
        self._sidecar(path, line, origin)
        return table.round(3)

    def stamp(self, origin: Sequence[dict] | Corpus) -> str:
        """The line that says where numbers come from."""
        if isinstance(origin, Corpus):
            kind = "SYNTHETIC corpus" if origin.synthetic else f"{origin.name} (real)"
            return f"{self.profile} · {kind} · fold {origin.fold} · no model, no seed, no steps"
        return stamp(origin, self.profile)

    def _sidecar(self, path: Path, line: str, origin: Sequence[dict] | Corpus) -> None:
        if isinstance(origin, Corpus):
            hashes = {"corpus": origin.checksum}
        else:
            hashes = {_run_label(record): _result_hash(record) for record in origin}
        write_text(path.with_suffix(".origin.json"), json.dumps({"stamp": line, "origin": hashes}, indent=1) + "\n")


def _run_label(record: dict) -> str:
    config = record["run"]["config"]
    return f"{config['method']} fold {config['fold']} seed {config['seed']}"


def _result_hash(record: dict) -> str:
    """SHA-256 of all but the clock and the machine, so that the same run elsewhere has the same."""
    kept = {name: block for name, block in record.items() if name != "meta"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
