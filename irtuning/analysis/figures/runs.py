"""Figures of runs: scores, differences between methods, convergence."""

from collections.abc import Sequence

import numpy as np
import pandas
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from irtuning.analysis.ceiling import ANOTHER
from irtuning.analysis.figures.style import corpus_panels, legend_above, method_colour, styled, title_of
from irtuning.analysis.statistics import method_scores
from irtuning.analysis.tables import KEYS, losses_table, runs_table, validation_table


@styled
def score_comparison(records: Sequence[dict], floors: Sequence[dict], split: str = "validation") -> Figure:
    """Draw each run's macro F1, each method's score with its two-way 95 % interval, and what bounds them.

    A line is the mean edit-aware floor. A band is the 95 % interval of one annotator against another, if it is known.
    Fewer than five runs get no interval.
    """
    table = runs_table(records, split)
    methods = list(table.method.unique())
    scores = method_scores(records, split).set_index(["corpus", "model", "method"])
    figure, panels = corpus_panels(table, 0.24 * len(methods) + 1.3, sharey=True)
    for part, (axis,) in panels:
        for row, method in enumerate(methods):
            values, style = part.macro_f1[part.method == method], {"color": method_colour(method)}
            axis.plot(values, [row + 0.22] * len(values), "o", ms=3, alpha=0.5, mew=0, **style)
            mean = scores.loc[(part.corpus.iloc[0].partition(", ")[0], part.model.iloc[0], method)]
            half = mean.macro_f1 - mean.low  # the intervals of scores are symmetric
            axis.errorbar(mean.macro_f1, row - 0.1, xerr=half, fmt="D", ms=4, capsize=2, lw=1, **style)
        here = [f for f in floors if (f["corpus"], f["split"]) == (part.corpus.iloc[0].partition(", ")[0], split)]
        if known := [f["macro_f1"] for f in here if f["name"] == "edit-aware"]:
            axis.axvline(sum(known) / len(known), color="0.25", ls="--", lw=1, label="edit-aware floor")
        if people := [[f["macro_f1_low"], f["macro_f1_high"]] for f in here if f["name"] == ANOTHER]:
            axis.axvspan(*np.mean(people, axis=0), color="0.5", alpha=0.2, lw=0, label=f"{ANOTHER}, 95 %")
    return _rows(figure, list(map(title_of, methods)), f"{split} macro F1")


@styled
def comparison_forest(table: pandas.DataFrame, split: str = "test") -> Figure:
    """Draw the differences in a `comparisons_table` with their 95 % intervals."""
    pairs = list(dict.fromkeys(zip(table.method, table.against, strict=True)))
    figure, panels = corpus_panels(table, 0.22 * len(pairs) + 1.2, sharex=True, sharey=True)
    for part, (axis,) in panels:
        axis.axvline(0, color="0.4", lw=1)
        for row in part.itertuples():
            ends = [[row.difference - row.low], [row.high - row.difference]]
            style = {"color": method_colour(row.against if row.method == "ir" else row.method), "ms": 4, "capsize": 2}
            axis.errorbar(row.difference, pairs.index((row.method, row.against)), xerr=ends, fmt="o", **style)
    names = [" − ".join(map(title_of, pair)) for pair in pairs]
    return _rows(figure, names, f"difference in {split} macro F1\n(right of 0: the first is better)")


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
                axis.plot(scores.mean(), color=colour, lw=1.2, label=title_of(method))
                axis.fill_between(scores.min().index, scores.min(), scores.max(), color=colour, alpha=0.15, lw=0)
            axis.set_xlabel("step")
        left.set(ylabel=f"training loss (mean of {smooth} steps)", yscale="log")
        left.yaxis.set(major_formatter="{x:g}", minor_locator=LogLocator(subs=(2, 5)), minor_formatter="{x:g}")
        right.set(ylabel="validation macro F1", ylim=(0, None))
    return legend_above(figure)


def _rows(figure: Figure, names: Sequence[str], name: str) -> Figure:
    """Label the rows of a figure from top to bottom, and the horizontal axis of all its panels."""
    for axis in figure.axes:
        axis.set(xlabel=name)
        axis.grid(axis="x", alpha=0.3)
    figure.axes[0].set_yticks(range(len(names)), names)
    figure.axes[0].set_ylim(len(names) - 0.5, -0.5)
    return legend_above(figure)
