"""Figures of runs: scores, differences between methods, convergence, size of the training split."""

from collections.abc import Sequence

import numpy as np
import pandas
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from irtuning.analysis.ceiling import ANOTHER
from irtuning.analysis.convergence import class_scores, data_curve
from irtuning.analysis.figures.style import (
    DOUBLE, LINES, canvas, corpus_panels, heat_map, legend_above, method_colour, run_colour, styled,
)  # fmt: skip
from irtuning.analysis.statistics import half_width
from irtuning.analysis.tables import KEYS, losses_table, runs_table, validation_table


@styled
def score_comparison(records: Sequence[dict], floors: Sequence[dict], split: str = "validation") -> Figure:
    """Draw each run's macro F1, each method's mean with its 95 % t interval over runs, and what bounds them.

    A line is the mean edit-aware floor. A band is the 95 % interval of one annotator against another, if it is known.
    """
    table = runs_table(records, split)
    methods = list(table.method.unique())
    figure, panels = corpus_panels(table, 0.24 * len(methods) + 1.3, sharey=True)
    for part, (axis,) in panels:
        for row, method in enumerate(methods):
            values, style = part.macro_f1[part.method == method], {"color": method_colour(method)}
            axis.plot(values, [row + 0.22] * len(values), "o", ms=3, alpha=0.5, mew=0, **style)
            axis.errorbar(values.mean(), row - 0.1, xerr=half_width(values), fmt="D", ms=4, capsize=2, lw=1, **style)
        here = [f for f in floors if (f["corpus"], f["split"]) == (part.corpus.iloc[0].partition(", ")[0], split)]
        if known := [f["macro_f1"] for f in here if f["name"] == "edit-aware"]:
            axis.axvline(sum(known) / len(known), color="0.25", ls="--", lw=1, label="edit-aware floor")
        if people := [[f["macro_f1_low"], f["macro_f1_high"]] for f in here if f["name"] == ANOTHER]:
            axis.axvspan(*np.mean(people, axis=0), color="0.5", alpha=0.2, lw=0, label=f"{ANOTHER}, 95 %")
    return _rows(figure, methods, f"{split} macro F1")


@styled
def comparison_forest(table: pandas.DataFrame, margin: float | None = None, split: str = "test") -> Figure:
    """Draw the differences in a `comparisons_table` with their 95 % intervals, and a dashed line at `margin`."""
    pairs = list(dict.fromkeys(zip(table.method, table.against, strict=True)))
    figure, panels = corpus_panels(table, 0.22 * len(pairs) + 1.2, sharex=True, sharey=True)
    for part, (axis,) in panels:
        axis.axvline(0, color="0.4", lw=1)
        if margin is not None:
            axis.axvline(margin, color="0.4", lw=1, ls="--", label="margin")
        for row in part.itertuples():
            ends = [[row.difference - row.low], [row.high - row.difference]]
            style = {"color": method_colour(row.against if row.method == "ir" else row.method), "ms": 4, "capsize": 2}
            axis.errorbar(row.difference, pairs.index((row.method, row.against)), xerr=ends, fmt="o", **style)
    return _rows(figure, [f"{method} - {against}" for method, against in pairs], f"difference in {split} macro F1")


@styled
def class_heatmap(records: Sequence[dict], split: str = "validation") -> Figure:
    """Draw the F1 of every class under every method, mean over the runs of one corpus."""
    table = class_scores(records, split)
    figure, axis = canvas(DOUBLE, 0.26 * len(table) + 1.4)
    heat_map(axis, table, ".2f", f"F1 on {split}", annot_kws={"size": 7}, vmin=0, vmax=1)
    axis.set_xticks(axis.get_xticks(), list(table.columns), rotation=20, ha="right")
    return figure


@styled
def convergence(records: Sequence[dict], smooth: int = 10) -> Figure:
    """Draw training loss (running mean) and validation macro F1 against the step: mean and range of runs."""
    table = losses_table(records).merge(validation_table(records), "left", [*KEYS, "step"], suffixes=("", "_held_out"))
    table["loss"] = table.groupby(list(KEYS)).loss.transform(lambda s: s.rolling(smooth, min_periods=1).mean())
    figure, panels = corpus_panels(table, 2.2 * table.groupby(["corpus", "model"]).ngroups + 0.6, per_corpus=2)
    for part, (left, right) in panels:
        for axis, column in ((left, "loss"), (right, "macro_f1")):
            for method, rows in part.dropna(subset=column).groupby("method", sort=False):
                scores, colour = rows.groupby("step")[column], method_colour(method)
                style = LINES[sum(line.get_color() == colour for line in axis.lines) % len(LINES)]
                axis.plot(scores.mean(), color=colour, lw=1.2, ls=style, label=method)
                axis.fill_between(scores.min().index, scores.min(), scores.max(), color=colour, alpha=0.15, lw=0)
            axis.set_xlabel("step")
        left.set(ylabel=f"training loss (mean of {smooth} steps)", yscale="log")
        left.yaxis.set(major_formatter="{x:g}", minor_locator=LogLocator(subs=(2, 5)), minor_formatter="{x:g}")
        right.set(ylabel="validation macro F1", ylim=(0, None))
    return legend_above(figure)


@styled
def score_by_size(records: Sequence[dict], split: str = "validation") -> Figure:
    """Draw the mean macro F1 against the number of training examples, with the 95 % t interval over runs as a band."""
    figure, panels = corpus_panels(data_curve(records, split), 2.6)
    for part, (axis,) in panels:
        for method, rows in part.groupby("method", sort=False):
            grouped, colour = rows.groupby("train_examples").macro_f1, method_colour(method)
            mean, half = grouped.mean(), grouped.apply(half_width).fillna(0)
            axis.plot(mean.index, mean, "o-", color=colour, ms=3, lw=1.2, label=method)
            axis.fill_between(mean.index, mean - half, mean + half, color=colour, alpha=0.15, lw=0)
        axis.set(xscale="log", xlabel="training examples", ylabel=f"{split} macro F1", ylim=(0, None))
        axis.set_xticks(sizes := sorted(part.train_examples.unique()), [f"{size:,}" for size in sizes])
        axis.minorticks_off()
    return legend_above(figure)


@styled
def run_curve(record: dict) -> Figure:
    """Draw one run: its training loss and validation macro F1 against the step, and the layers that learned."""
    steps, colour = pandas.DataFrame(record["train"]["steps"]), run_colour(record)
    figure, (above, below) = canvas(DOUBLE, 3.4, rows=2, sharex=True)
    above.plot(steps.step, steps.loss, color=colour, lw=1)
    above.set_ylabel("training loss")
    right, points, dots = above.twinx(), validation_table([record]), steps.explode("layers")
    right.plot(points.step, points.macro_f1, "o-", color="0.3", ms=3, lw=1)
    right.set(ylabel="validation macro F1", ylim=(0, 1))
    below.scatter(dots.step, dots.layers.astype(int), marker="s", s=max(1, 300 / len(steps)), color=colour)
    below.set(xlabel="step", ylabel="layers that learn", ylim=(-0.5, record["run"]["depth"] - 0.5))
    return figure


def _rows(figure: Figure, names: Sequence[str], name: str) -> Figure:
    """Label the rows of a figure from top to bottom, and the horizontal axis of all its panels."""
    for axis in figure.axes:
        axis.set(xlabel=name)
        axis.grid(axis="x", alpha=0.3)
    figure.axes[0].set_yticks(range(len(names)), names)
    figure.axes[0].invert_yaxis()
    return legend_above(figure)
