"""What all figures share: style, colours, canvas, bytes. Data in, matplotlib figure out. No model, no torch."""

import colorsys
import functools
import io
import zlib
from collections.abc import Callable

import matplotlib
import matplotlib.colors
import pandas
import seaborn
from matplotlib.figure import Figure

from irtuning.method.registry import facts

LINES = ("-", "--", ":", "-.")  # methods of one family, in turn
DOUBLE = 7.2  # width of a page of two columns, inches
STYLE = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "figure.dpi": 150,
    "savefig.dpi": 200,
    "svg.hashsalt": "irtuning",
}


def styled(draw: Callable) -> Callable:
    """Draw under our style, whatever the caller's."""

    @functools.wraps(draw)
    def drawn(*args, **kwargs):
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return drawn


def method_colour(method: str) -> tuple:
    """The colour of a method, the same in every figure."""
    name = method.split(",")[0].split(":")[0]
    stated = facts(name)["colour"]
    return matplotlib.colors.to_rgb(stated or colorsys.hls_to_rgb(zlib.crc32(name.encode()) % 360 / 360, 0.4, 0.35))


@styled
def to_image(figure: Figure, kind: str = "png") -> bytes:
    """The figure as `png` or `svg` bytes, without a date."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


def band(axis, rows: "pandas.DataFrame", x: str, y: str, method: str) -> None:
    """Mean over runs at each step as a line, lowest to highest as a band."""
    grouped = rows.groupby("step")
    place, colour = grouped[x].mean() if x != "step" else list(grouped.groups), method_colour(method)
    style = LINES[sum(line.get_color() == colour for line in axis.lines) % len(LINES)]
    axis.plot(place, grouped[y].mean(), color=colour, lw=1.2, ls=style, label=method)
    axis.fill_between(place, grouped[y].min(), grouped[y].max(), color=colour, alpha=0.15, lw=0)


def canvas(width: float, height: float, rows: int = 1, columns: int = 1, **options):
    """A figure of our style and its axes, without pyplot's global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)
