"""Figures from records: data in, matplotlib figure out. No model, no torch."""

import functools
import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from irtuning.tables import layer_frequency, losses_table, runs_table, validation_table

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

# one colour per family of methods throughout, from seaborn's colour-blind-safe palette
FAMILIES = ("full", "ir", "ist", "rst", "lisa-adapters", "last-k", "random-counts", "middle-k", "lisa", "full-ft")
SINGLE, DOUBLE = 3.5, 7.2  # column widths, inches
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
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return drawn


def method_colour(method: str) -> tuple:
    """The colour of a method, the same in every figure."""
    import seaborn

    name = method.split(":")[0]
    family = name if name in FAMILIES else "ir" if name.startswith("ir") else "full"
    return seaborn.color_palette("colorblind", len(FAMILIES))[FAMILIES.index(family)]


@styled
def run_curve(record: dict) -> "Figure":
    """One run: training loss and validation macro F1 against the step, and the layers that learned."""
    figure, (above, below) = _figure(DOUBLE, 3.4, rows=2, sharex=True)
    steps = record["train"]["steps"]
    numbers = [step["step"] for step in steps]
    colour = method_colour(record["run"]["config"]["method"])
    above.plot(numbers, [step["loss"] for step in steps], color=colour, lw=1)
    above.set_ylabel("training loss")
    right = above.twinx()
    points = record["train"]["validation"]
    right.plot([p["step"] for p in points], [p["macro_f1"] for p in points], "o-", color="0.3", ms=3, lw=1)
    right.set(ylabel="validation macro F1", ylim=(0, 1))
    below.scatter(
        [n for n, step in zip(numbers, steps, strict=True) for _ in step["layers"]],
        [layer for step in steps for layer in step["layers"]],
        marker="s",
        s=max(1, 300 / len(steps)),
        color=colour,
    )
    below.set(xlabel="step", ylabel="layers that learn", ylim=(-0.5, record["run"]["depth"] - 0.5))
    return figure


@styled
def score_comparison(records: Sequence[dict], floors: Sequence[dict], metric: str = "macro_f1") -> "Figure":
    """Every run's score as a dot, the mean of its method as a bar, the floors as lines."""
    table = runs_table(records)
    methods = list(dict.fromkeys(table.method))
    figure, axis = _figure(DOUBLE, 0.28 * len(methods) + 1.1)
    for row, method in enumerate(methods):
        values = table.loc[table.method == method, metric]
        axis.barh(row, values.mean(), color=method_colour(method), alpha=0.35, height=0.7)
        axis.plot(values, [row] * len(values), "o", color=method_colour(method), ms=4, mec="white", mew=0.5)
    for name, style in (("operation", ":"), ("edit-aware", "--")):
        scores = [floor[metric] for floor in floors if floor["name"] == name and metric in floor]
        if scores:
            axis.axvline(sum(scores) / len(scores), color="0.25", ls=style, lw=1, label=f"{name} floor")
    axis.set_yticks(range(len(methods)), methods)
    axis.invert_yaxis()
    axis.set(xlabel=f"validation {metric.replace('_', ' ').replace('f1', 'F1')}", xlim=(0, None))
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, 1.18), ncols=2)
    return figure


@styled
def convergence(records: Sequence[dict], against: str = "step", smooth: int = 10) -> "Figure":
    """Training loss (running mean) and validation macro F1 against the step or seconds; band: range over runs."""
    losses, curve = losses_table(records), validation_table(records)
    figure, (left, right) = _figure(DOUBLE, 2.8, columns=2)
    for method, rows in losses.groupby("method", sort=False):
        running = rows.groupby(["fold", "seed"]).loss.transform(lambda s: s.rolling(smooth, min_periods=1).mean())
        rows = rows.assign(loss=running)
        _band(left, rows, against, "loss", method)
        points = curve[curve.method == method]
        if against == "seconds":
            points = points.merge(rows[["fold", "seed", "step", "seconds"]], on=["fold", "seed", "step"])
        _band(right, points, against, "macro_f1", method)
    name = "step" if against == "step" else "training time (s)"
    left.set(xlabel=name, ylabel=f"training loss (mean of {smooth} steps)")
    right.set(xlabel=name, ylabel="validation macro F1", ylim=(0, None))
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(4, len(labels)))
    return figure


@styled
def layer_importance(record: dict) -> "Figure":
    """The scores of every layer over the steps of one run, and when it learned."""
    import numpy
    import pandas
    import seaborn

    steps, depth = record["train"]["steps"], record["run"]["depth"]
    scores = numpy.array([[numpy.nan if s is None else s for s in step["scores"]] for step in steps]).T
    learned = numpy.array([[layer in step["layers"] for step in steps] for layer in range(depth)], dtype=float)
    figure, (above, below) = _figure(DOUBLE, 4.2, rows=2, sharex=True)
    numbers = [step["step"] for step in steps]
    scores, learned = (pandas.DataFrame(values, columns=numbers) for values in (scores, learned))
    ticks = {"xticklabels": max(1, len(steps) // 6), "yticklabels": max(1, depth // 6)}
    seaborn.heatmap(scores, ax=above, cmap="viridis", cbar_kws={"label": "score"}, **ticks)
    seaborn.heatmap(learned, ax=below, cmap=["0.93", method_colour("ir")], cbar=False, **ticks)
    above.set(ylabel="layer", title="importance score when the step began (white: not measured yet)")
    below.set(ylabel="layer", xlabel="step", title="layers that learned")
    for axis in (above, below):
        axis.invert_yaxis()
        axis.tick_params(rotation=0)
    return figure


@styled
def layer_shares(records: Sequence[dict]) -> "Figure":
    """Share of steps in which each layer learned, one line per method."""
    table = layer_frequency(records)
    figure, axis = _figure(DOUBLE, 2.6)
    for method, row in table.iterrows():
        axis.plot(row.index, row.values, "o-", color=method_colour(method), ms=3, lw=1, label=method)
    axis.set(xlabel="layer (0: next to the embeddings)", ylabel="share of steps it learned", ylim=(-0.03, 1.03))
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


@styled
def label_counts(counts: "pandas.DataFrame", title: str) -> "Figure":
    """Number of revisions per intention in each split; rows are intentions, columns splits."""
    import seaborn

    figure, axis = _figure(DOUBLE, 0.3 * len(counts) + 1)
    counts.plot.barh(ax=axis, color=seaborn.color_palette("colorblind", 3), width=0.8)
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    axis.invert_yaxis()
    axis.set(xlabel="revisions", ylabel="", title=title)
    return figure


@styled
def confusion(gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str], title: str) -> "Figure":
    """Share of each intention's revisions (row) that got each answer (column)."""
    import seaborn
    from sklearn.metrics import confusion_matrix

    matrix = confusion_matrix(gold, predicted, labels=list(labels), normalize="true")
    side = 0.42 * len(labels) + 1.6
    figure, axis = _figure(side + 0.8, side)
    seaborn.heatmap(
        matrix, ax=axis, annot=True, fmt=".2f", cmap="Blues", vmin=0, vmax=1, square=True,
        xticklabels=labels, yticklabels=labels, annot_kws={"size": 7}, cbar_kws={"label": "share of the row"},
    )  # fmt: skip
    axis.set(xlabel="predicted", ylabel="annotated", title=title)
    return figure


@styled
def to_image(figure: "Figure", kind: str = "png") -> bytes:
    """The figure as `png` or `svg` bytes, without a date."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


def _band(axis, rows: "pandas.DataFrame", x: str, y: str, method: str) -> None:
    """Mean over runs at each step as a line, lowest to highest as a band."""
    grouped = rows.groupby("step")
    place, colour = grouped[x].mean() if x != "step" else list(grouped.groups), method_colour(method)
    axis.plot(place, grouped[y].mean(), color=colour, lw=1.2, label=method)
    axis.fill_between(place, grouped[y].min(), grouped[y].max(), color=colour, alpha=0.15, lw=0)


def _figure(width: float, height: float, rows: int = 1, columns: int = 1, **options):
    """A figure of our style and its axes, without pyplot's global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)
