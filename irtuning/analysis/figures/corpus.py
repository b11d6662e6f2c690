"""Figures of a corpus: counts of labels, sizes and kinds of edits, and confusions of a classifier."""

from collections.abc import Mapping, Sequence

import pandas
import seaborn
from matplotlib.figure import Figure

from irtuning.analysis.figures.style import DOUBLE, canvas, styled

BESIDE = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5)}  # the place of a legend to the right of the axes


@styled
def label_counts(counts: pandas.DataFrame, title: str) -> Figure:
    """Draw the number of revisions of each intention (row) in each split (column)."""
    figure, axis = canvas(DOUBLE, 0.3 * len(counts) + 1)
    counts.plot.barh(ax=axis, color=seaborn.color_palette("colorblind", 3), width=0.8)
    axis.legend(**BESIDE)
    axis.invert_yaxis()
    axis.set(xlabel="revisions", ylabel="", title=title)
    return figure


@styled
def edit_sizes(sizes: pandas.DataFrame, title: str) -> Figure:
    """Draw box plots (median, quartiles, 5 to 95 %) of each column of numbers by intention, from a row per revision."""
    columns, labels = list(sizes.columns[1:]), list(sizes.intention.cat.categories)
    figure, axes = canvas(DOUBLE, 0.24 * len(labels) + 1.1, columns=len(columns), sharey=True)
    for axis, column, colour in zip(axes, columns, seaborn.color_palette("colorblind"), strict=False):
        axis.boxplot(
            [sizes[column][sizes.intention == label] for label in labels], tick_labels=labels, orientation="horizontal",
            whis=(5, 95), showfliers=False, widths=0.6, patch_artist=True, boxprops={"facecolor": colour, "lw": 0.8},
            medianprops={"color": "black", "lw": 1.5},
        )  # fmt: skip
        axis.set(xlabel=column, xlim=(0, None))
        axis.grid(axis="x", alpha=0.3)
    axes[0].invert_yaxis()
    figure.suptitle(title, fontsize=9)
    return figure


@styled
def operation_shares(shares: pandas.DataFrame, title: str) -> Figure:
    """Draw the share of each operation (column) in the revisions of an intention (row) as stacked bars."""
    figure, axis = canvas(DOUBLE, 0.24 * len(shares) + 1.1)
    shares.plot.barh(ax=axis, stacked=True, color=seaborn.color_palette("colorblind", shares.shape[1]), width=0.75)
    axis.legend(**BESIDE)
    axis.invert_yaxis()
    axis.set(xlabel="share of the intention's revisions", ylabel="", xlim=(0, 1), title=title)
    return figure


@styled
def confusions(gold: Sequence[str], answers: Mapping[str, Sequence[str]], labels: Sequence[str]) -> Figure:
    """Draw a confusion matrix for each named list of answers, in percent of the revisions of each intention (row).

    Numbers that would be rounded to zero are left out.
    """
    from sklearn.metrics import confusion_matrix

    height = 0.24 * len(labels) + 0.06 * max(map(len, labels)) + 1.1
    figure, axes = canvas(DOUBLE, height, columns=len(answers), sharey=True, squeeze=False)
    for axis, (name, predicted) in zip(axes[0], answers.items(), strict=True):
        matrix = 100 * confusion_matrix(gold, predicted, labels=list(labels), normalize="true")
        numbers = [[f"{value:.0f}" if value >= 0.5 else "" for value in row] for row in matrix]
        seaborn.heatmap(
            matrix, ax=axis, annot=numbers, fmt="", cmap="Blues", vmin=0, vmax=100, annot_kws={"size": 6},
            cbar=axis is axes[0, -1], cbar_kws={"label": "% of the row"}, yticklabels=labels,
        )  # fmt: skip
        axis.set_xticks(axis.get_xticks(), labels, rotation=90)
        axis.tick_params(axis="y", rotation=0)
        axis.set(xlabel="predicted", title=name)
    axes[0, 0].set(ylabel="annotated")
    return figure
