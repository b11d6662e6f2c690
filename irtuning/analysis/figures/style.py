"""What all figures share: the style, colours, empty axes and conversion to an image."""

import colorsys
import io
import zlib

import matplotlib.colors
import pandas
import seaborn
from matplotlib.figure import Figure

from irtuning.method.registry import facts

DOUBLE = 7.2  # width of a page of two columns, inches
TITLES = {  # of methods and corpora in figures; others keep their names
    "full": "Full PEFT", "full-ft": "full fine-tuning", "ir": "IR-Tuning", "ir-weight": "IR-Tuning by weights",
    "ir-cosine": "IR-Tuning by cosines", "ir-upper": "IR-Tuning, upper layers", "rst": "RST", "ist": "IST",
    "lisa": "LISA", "lisa-adapters": "LISA's schedule", "last-k": "last layers", "last-k:share=0.5": "last half",
    "last-k:share=0.33": "last third", "middle-k": "middle layers", "random-counts": "random layers",
    "random-static": "random layers, one draw", "fixed": "given layers", "transplant": "another run's layers",
    "probe": "probed layers", "sampled": "sampled layers",
    "argrewrite": "ArgRewrite", "arxivedits": "arXivEdits", "iterater": "ITERATER", "tetra": "TETRA"}  # fmt: skip
STYLE = {
    "font.size": 8, "axes.titlesize": 9, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
    "figure.dpi": 150, "savefig.dpi": 200, "svg.hashsalt": "irtuning"}  # fmt: skip
styled = matplotlib.rc_context(STYLE)  # decorator: the function draws in this style, whatever the caller's style is


def method_colour(method: str) -> tuple:
    """Return the colour for a method's text or a run's title: its own, or one from its name."""
    name = method.split(",")[0].split(":")[0]
    hue = zlib.crc32(name.encode()) % 360 / 360
    return matplotlib.colors.to_rgb(facts(name)["colour"] or colorsys.hls_to_rgb(hue, 0.4, 0.35))


def title_of(text: str) -> str:
    """Return the full name of a corpus, or of a method's text or run's title: `ir:splits=2` is IR-Tuning, splits=2."""
    name, *rest = [text] if text in TITLES else text.replace(":", ", ").split(", ")
    return ", ".join([TITLES.get(name, name), *rest])


@styled
def to_image(figure: Figure, kind: str = "png") -> bytes:
    """Return a figure as the bytes of a `png` or `svg` file without a date, so that equal figures are equal files."""
    figure.savefig(buffer := io.BytesIO(), format=kind, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


def canvas(width: float, height: float, rows: int = 1, columns: int = 1, **options):
    """Return a new figure and its axes, without pyplot's global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def corpus_panels(table: pandas.DataFrame, height: float, per_corpus: int = 1, **options):
    """Return a new figure, and for each corpus (and model, if there are several) its part of the table and its axes."""
    keys = ["corpus", "model"] if "model" in table and table.model.nunique() > 1 else ["corpus"]
    groups = [part.assign(corpus=", ".join(names)) for names, part in table.groupby(keys, sort=False)]
    rows, columns = (1, len(groups)) if per_corpus == 1 else (len(groups), per_corpus)
    figure, axes = canvas(DOUBLE, height, rows, columns, squeeze=False, **options)
    axes = axes.reshape(len(groups), per_corpus)
    for part, axis in zip(groups, axes[:, 0], strict=True):
        axis.set_title(title_of(part.corpus.iloc[0]) if len(groups) > 1 else "")
    return figure, list(zip(groups, axes, strict=True))


def heat_map(axis, table: pandas.DataFrame, name: str, xlabel="", **options) -> None:
    """Draw a table as a heat map, with `name` beside the colour bar."""
    options = {"cmap": "Blues", "xticklabels": max(1, table.shape[1] // 20)} | options
    seaborn.heatmap(table, ax=axis, cbar_kws={"label": name, "pad": 0.01}, **options)
    axis.tick_params(axis="y", rotation=0)
    axis.set(xlabel=xlabel, ylabel="")


def legend_above(figure: Figure, columns: int = 4) -> Figure:
    """Put the legend of the first axes above the whole figure, if they have one, and return the figure."""
    if names := figure.axes[0].get_legend_handles_labels()[0]:
        figure.legend(handles=names, loc="outside upper left", alignment="left", ncols=columns)
    return figure


def entitle(figure: Figure, title: str) -> None:
    """Put a line above everything in a figure, also above its legend."""
    if figure.legends:
        figure.legends[0].set_title(title, {"size": 9, "weight": "bold"})
    else:
        figure.suptitle(title, fontsize=9, x=0.01, ha="left", weight="bold")
