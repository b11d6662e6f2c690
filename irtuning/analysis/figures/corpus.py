"""Figures of a corpus: counts of labels, sizes and kinds of edits, and confusions of a classifier."""

from collections.abc import Mapping, Sequence

import pandas
import seaborn
from matplotlib.figure import Figure

from irtuning.analysis.figures.style import DOUBLE, canvas, heat_map, styled


@styled
def label_counts(counts: pandas.DataFrame, title: str) -> Figure:
    """Draw the number of revisions of each intention (row) in each split (column)."""
    return _bars(counts, 0.3, "revisions", title=title)


@styled
def edit_sizes(sizes: pandas.DataFrame, title: str) -> Figure:
    """Draw a box plot (median, quartiles, 5 to 95 %) per intention for each column of numbers of a `size_table`."""
    labels, options = list(sizes.intention.cat.categories), {"whis": (5, 95), "showfliers": False, "widths": 0.6}
    figure, axes = canvas(DOUBLE, 0.24 * len(labels) + 1.1, columns=sizes.shape[1] - 1, sharey=True)
    for axis, column, colour in zip(axes, sizes.columns[1:], seaborn.color_palette("colorblind"), strict=False):
        numbers = [sizes[column][sizes.intention == label] for label in labels]
        lines = {"boxprops": {"facecolor": colour, "lw": 0.8}, "medianprops": {"color": "black", "lw": 1.5}}
        axis.boxplot(numbers, orientation="horizontal", tick_labels=labels, patch_artist=True, **lines, **options)
        axis.set(xlabel=column, xlim=(0, None), ylim=(len(labels) + 0.5, 0.5))
        axis.grid(axis="x", alpha=0.3)
    figure.suptitle(title, fontsize=9)
    return figure


@styled
def operation_shares(shares: pandas.DataFrame, title: str) -> Figure:
    """Draw the share of each operation (column) in the revisions of an intention (row) as stacked bars."""
    return _bars(shares, 0.24, "share of the intention's revisions", title=title, stacked=True, xlim=(0, 1))


@styled
def confusions(gold: Sequence[str], answers: Mapping[str, Sequence[str]], labels: Sequence[str]) -> Figure:
    """Draw a confusion matrix for each named list of answers, in percent of the revisions of each intention (row)."""
    height = 0.24 * len(labels) + 0.06 * max(map(len, labels)) + 1.1
    figure, axes = canvas(DOUBLE, height, columns=len(answers), sharey=True, squeeze=False)
    for axis, (name, predicted) in zip(axes[0], answers.items(), strict=True):
        shares = pandas.crosstab(pandas.Series(gold), pandas.Series(predicted), normalize="index")
        table = 100 * shares.reindex(index=labels, columns=labels, fill_value=0)
        numbers = table.map("{:.0f}".format).replace("0", "")
        options = {"annot": numbers, "cbar": axis is axes[0, -1], "xticklabels": True, "vmin": 0, "vmax": 100}
        heat_map(axis, table, "", "% of the row", **options)
        axis.tick_params(axis="x", rotation=90)
        axis.set(xlabel="predicted", title=name)
    axes[0, 0].set(ylabel="annotated")
    return figure


def _bars(table: pandas.DataFrame, height: float, name: str, stacked: bool = False, **options: object) -> Figure:
    """Draw the rows of a table from top to bottom as groups of bars, or as one stacked bar each."""
    figure, axis = canvas(DOUBLE, height * len(table) + 1)
    table.plot.barh(ax=axis, stacked=stacked, color=seaborn.color_palette("colorblind", table.shape[1]), width=0.8)
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    axis.invert_yaxis()
    axis.set(xlabel=name, ylabel="", **options)
    return figure
