"""Write the model card of `irtuning-mini` from records: tables, figures, loss on the sample, attributions, README.md.

    python reports/mini/model_card.py --data DIR --documents documents.tsv.xz

The script reads irtuning/mini/training.json, reports/mini/{runs,step_speed}.json and
reports/benchmarks/pretraining_choices.json. It writes to reports/mini/ and figures/mini/, and it writes README.md,
ATTRIBUTION.tsv and SHA256SUMS in irtuning/mini/.
"""

import hashlib
import json
import lzma
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from pretrain_model import bits_per_byte
from pretrain_text import read_documents
from pretraining_pays import CHOICE_STEPS, ROWS, STEPS, load_parts
from scipy import stats
from side_by_side import BATCH, RANK  # in reports/benchmarks, which pretraining_pays puts on the path

from irtuning.comparison.runs import corpus_floors
from irtuning.analysis.figures.style import STYLE, to_image
from irtuning.models.loading import load_tokenizer, resolve
from irtuning.companion.experiments import read_manifest
from irtuning.companion.paths import REPOSITORY
from irtuning.training.record import provenance, write_bytes, write_text
from irtuning.analysis.tables import markdown

MINI, REPORTS, FIGURES = (REPOSITORY / folder for folder in ("irtuning/mini", "reports/mini", "figures/mini"))
CORPORA = {"argrewrite": "ArgRewrite", "arxivedits": "arXivEdits", "synthetic": "synthetic"}
FLOORS = ("operation", "edit-aware")
STAMP = "mini · ArgRewrite (real), arXivEdits (real), SYNTHETIC corpus · validation"


def read(path: Path):
    """Return the content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def scores(data: Path) -> pd.DataFrame:
    """Return a table with one row per floor and run: row, corpus, fold, seed, macro_f1."""
    rows = []
    for part in load_parts(data):
        for floor in corpus_floors(part):
            name = f"{floor['name']} floor"
            rows.append({"row": name, "corpus": part.name, "fold": part.fold, "seed": 0, "macro_f1": floor["macro_f1"]})
    runs = [r for r in read(REPORTS / "runs.json")["records"] if r["phase"] == "final"]
    return pd.concat([pd.DataFrame(rows), pd.DataFrame(runs)], ignore_index=True)


def difference(table: pd.DataFrame, one: str, other: str, corpus: str) -> str:
    """Return the mean paired difference of two rows with its 95 % t interval over folds, or over seeds of one fold."""
    unit = "fold" if table[table.corpus == corpus].fold.nunique() > 1 else "seed"
    means = [table[(table.row == row) & (table.corpus == corpus)].groupby(unit).macro_f1.mean() for row in (one, other)]
    if "floor" in other and unit == "seed":
        means[1] = means[0] * 0 + means[1].iloc[0]  # a floor has no seed
    apart = (means[0] - means[1]).dropna()
    half = stats.sem(apart) * stats.t.ppf(0.975, len(apart) - 1)
    return f"{apart.mean():+.3f} [{apart.mean() - half:+.3f}, {apart.mean() + half:+.3f}]"


def pays_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return the mean and spread per row and corpus, with the chosen learning rate and class weights."""
    rows = []
    for name in table.row.unique():
        found = table[table.row == name]
        row = {"row": name}
        for corpus, title in CORPORA.items():
            values = found[found.corpus == corpus].macro_f1
            row[title] = f"{values.mean():.3f}" + (f" ± {values.std():.3f}" if len(values) > 1 else "")
        if "floor" not in name:
            row |= {"learning rate": f"{found.learning_rate.iloc[0]:g}", "class weights": found.class_weights.iloc[0]}
        rows.append(row)
    return pd.DataFrame(rows).fillna("").set_index("row")


def devices_of(named: Iterable[tuple[str, dict]]) -> str:
    """Return a text that says which runs ran on which device."""
    places: dict[str, list[str]] = {}
    for name, meta in named:
        places.setdefault(meta["device"], []).append(name)
    return "Ran " + "; ".join(f"on one {device}: {', '.join(names)}" for device, names in places.items())


def save(name: str, stamp: str, origin: dict, table: pd.DataFrame | None = None, figure=None) -> None:
    """Save a table or a figure, and enter its origin into the manifest of its folder."""
    folder = FIGURES if figure else REPORTS
    if figure:
        figure.supxlabel(stamp, fontsize=6, color="0.45", x=0.01, ha="left")
        for kind in ("png", "svg"):
            write_bytes(folder / f"{name}.{kind}", to_image(figure, kind))
    else:
        write_text(folder / f"{name}.csv", table.to_csv())
        write_text(folder / f"{name}.md", f"{markdown(table)}\n{stamp}\n")
    entry = {f"{name}.{'png' if figure else 'csv'}": {"stamp": stamp, "origin": origin}}
    write_text(folder / "manifest.json", json.dumps(read_manifest(folder) | entry, indent=1) + "\n")


def draw_pays(table: pd.DataFrame):
    """Draw every run as a dot and the mean of its row as a bar, in a panel per corpus."""
    import matplotlib
    import seaborn
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        order = list(table.row.unique())
        figure = Figure(figsize=(7.2, 0.3 * len(order) + 1.0), layout="constrained")
        for axis, (corpus, title) in zip(figure.subplots(1, 3, sharey=True), CORPORA.items(), strict=True):
            part = table[table.corpus == corpus]
            means = part.groupby("row").macro_f1.mean().reindex(order)
            colours = ["0.75" if "floor" in r else "#DE8F05" if "random" in r else "#0173B2" for r in order]
            axis.barh(order, means, color=colours, alpha=0.55)
            seaborn.stripplot(part, x="macro_f1", y="row", order=order, ax=axis, color="0.15", size=2.5, jitter=0.15)
            for y, mean in enumerate(means):
                axis.text(1.0, y, f"{mean:.2f}", va="center", ha="right", fontsize=7)
            axis.set(title=title, xlabel="validation macro F1", ylabel="", xlim=(0, 1))
        return figure


def draw_curve(training: dict):
    """Draw the held-out loss against time."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        points = [p for p in training["curve"] if "bits_per_byte" in p]
        figure = Figure(figsize=(3.5, 2.4), layout="constrained")
        axis = figure.subplots()
        axis.plot(
            [p["seconds"] for p in points], [p["bits_per_byte"] for p in points], "o-", ms=3, lw=1, color="#0173B2"
        )
        axis.set(xlabel="seconds of training", ylabel="held-out bits per byte")
        axis.grid(alpha=0.3)
        return figure


def choices_table(blocks: list[dict], training: dict) -> pd.DataFrame:
    """Return a row per variant: seconds, tokens, held-out loss, mean macro F1 at 1e-3 of the better class weighting."""
    rows = []
    for block in blocks:
        block = {"recipe": training["recipe"], "bits_per_byte": training["bits_per_byte"]} | block  # of `mini` itself
        row = {
            "variant": block["variant"],
            "seconds": f"{block.get('seconds', training['curve'][-1]['seconds']):.0f}",
            "tokens": f"{block['recipe']['steps'] * block['recipe']['batch_tokens'] / 1e6:.0f} M",
            "bits per byte": f"{block['bits_per_byte']:.3f}",
        }
        found = pd.DataFrame(block["fine_tuning"])
        found = found[found.learning_rate == 1e-3]
        for corpus, title in CORPORA.items():
            row[title] = f"{found[found.corpus == corpus].groupby('class_weights').macro_f1.mean().max():.3f}"
        rows.append(row)
    return pd.DataFrame(rows).set_index("variant")


def attributions(documents: Path) -> str:
    """Return one line per article, abstract or book: source, document, licence, title, attribution."""
    with lzma.open(documents, "rt", encoding="utf-8") as stream:
        table = pd.read_csv(stream, sep="\t", quoting=3, keep_default_na=False)
    whole = table.source.isin(["europepmc", "acl-anthology"])
    books = table[~whole].assign(doc="", title="").drop_duplicates(["source", "attribution"])
    columns = ["source", "doc", "licence", "title", "attribution"]
    return pd.concat([books, table[whole]])[columns].sort_values(columns).to_csv(sep="\t", index=False, quoting=3)


def write_checksums() -> None:
    """Write the checksums of all other files in the model's folder."""
    paths = sorted(p for p in MINI.iterdir() if p.name != "SHA256SUMS")
    write_text(MINI / "SHA256SUMS", "".join(f"{digest(p)}  {p.name}\n" for p in paths))


def sample_loss() -> dict:
    """Return the loss on the sample text, which is our own and which the tests read too."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(MINI, dtype="float32")
    text = read_documents([REPOSITORY / "tests" / "sample.txt"])
    return {"bits_per_byte": bits_per_byte(model, load_tokenizer(resolve("mini")), text), "meta": provenance()}


def speed_table() -> pd.DataFrame:
    """Return the milliseconds of a training step by width and layers (rows), precision and instructions (columns)."""
    speed = pd.DataFrame(read(REPORTS / "step_speed.json")["rows"])
    speed = speed.pivot_table(index=["width", "layers"], columns=["precision", "instructions"], values="milliseconds")
    names = {"avx2": "AVX2 only", "all": "all instructions"}
    speed.columns = [f"{precision}, {names[kind]}" for precision, kind in speed]
    return speed.round(0).astype(int)


def differences(table: pd.DataFrame) -> str:
    """Return one line per corpus for each difference that the card states."""
    versus = [(f"{kind} on mini", other) for kind in ("LoRA", "full fine-tuning")
              for other in ("edit-aware floor", f"{kind} on random weights")]  # fmt: skip
    return "\n".join(
        f"- {row} against {other}, {title}: {difference(table, row, other, corpus)}"
        for row, other in versus for corpus, title in CORPORA.items()
    )  # fmt: skip


def training_values(training: dict) -> dict[str, str]:
    """Return what the card says about the pre-training, by the names in its template."""
    points = [p for p in training["curve"] if "bits_per_byte" in p]
    return {
        "parameters": f"{training['parameters']:,}",
        "megabytes": f"{(MINI / 'model.safetensors').stat().st_size / 1e6:.1f}",
        "bits_per_byte": f"{training['bits_per_byte']:.4f}",
        "documents": f"{training['documents']:,}",
        "plain_tokens": f"{training['tokens']['plain']:,}",
        "pair_tokens": f"{training['tokens']['pairs']:,}",
        "seen_tokens": f"{points[-1]['tokens']:,}",
        "seconds": f"{points[-1]['seconds']:.0f}",
        "device": training["meta"]["device"],
        "torch": training["meta"]["versions"]["torch"],
        "transformers": training["meta"]["versions"]["transformers"],
        "recipe": "\n".join(f"| {name} | {value} |" for name, value in training["recipe"].items()),
        "curve": "\n".join(f"| {p['step']:,} | {p['tokens']:,} | {p['seconds']:.0f} | {p['loss']:.3f} "
                           f"| {p['bits_per_byte']:.3f} |" for p in points),
    }  # fmt: skip


def main(
    data: Annotated[Path, typer.Option(help="Folder of the published corpora.")],
    documents: Annotated[Path, typer.Option(help="documents.tsv.xz of the pre-training text.")],
) -> None:
    """Write the tables, figures and files that the card refers to, and then the card."""
    training, runs = read(MINI / "training.json"), read(REPORTS / "runs.json")
    write_text(MINI / "ATTRIBUTION.tsv", attributions(documents))
    write_text(REPORTS / "sample.json", json.dumps(sample_loss(), indent=1) + "\n")
    table = scores(data)
    devices = ", ".join(sorted({meta["device"] for meta in runs["meta"].values()}))
    stamp = f"{STAMP} · seeds 1, 2, 3 · {STEPS} steps · {devices}"
    origin, curve_origin = ({path.name: digest(path)} for path in (REPORTS / "runs.json", MINI / "training.json"))
    pays = pays_table(table)
    save("pays", stamp, origin, table=pays)
    save("pays", stamp, origin, figure=draw_pays(table))
    line = f"mini · held-out plain text (real) · {training['meta']['device']}"
    save("curve", line, curve_origin, figure=draw_curve(training))
    choices = read(REPOSITORY / "reports/benchmarks/pretraining_choices.json")
    long = [(f"{b['variant']} of {b['seconds']:.0f} s", b["meta"]) for b in choices if "seconds" in b]
    missing = [row for row in ROWS if row not in set(table.row)]
    text = (Path(__file__).parent / "model_card.md").read_text(encoding="utf-8")
    values = training_values(training) | {
        "sample_bits": f"{read(REPORTS / 'sample.json')['bits_per_byte']:.4f}",
        "row_devices": devices_of(runs["meta"].items()),
        "choice_devices": devices_of([*long, ("mini", training["meta"])]),
        "choices": markdown(choices_table(choices, training)).strip(),
        "pays": markdown(pays).strip(),
        "differences": differences(table),
        "missing": f"Not run yet: {', '.join(missing)}." if missing else "",
        "speed": markdown(speed_table()).strip(),
        "speed_device": read(REPORTS / "step_speed.json")["meta"]["device"],
        "steps": str(STEPS), "choice_steps": str(CHOICE_STEPS), "batch": str(BATCH), "rank": str(RANK),
    }  # fmt: skip
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    write_text(MINI / "README.md", text)
    write_checksums()
    typer.echo(pays.to_string() + "\n" + values["differences"])


if __name__ == "__main__":
    typer.run(main)
