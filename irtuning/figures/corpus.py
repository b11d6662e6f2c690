"""Figures of a corpus."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from irtuning.figures.style import DOUBLE, canvas, styled

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


@styled
def label_counts(counts: "pandas.DataFrame", title: str) -> "Figure":
    """Number of revisions per intention in each split; rows are intentions, columns splits."""
    import seaborn

    figure, axis = canvas(DOUBLE, 0.3 * len(counts) + 1)
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
    figure, axis = canvas(side + 0.8, side)
    seaborn.heatmap(
        matrix, ax=axis, annot=True, fmt=".2f", cmap="Blues", vmin=0, vmax=1, square=True,
        xticklabels=labels, yticklabels=labels, annot_kws={"size": 7}, cbar_kws={"label": "share of the row"},
    )  # fmt: skip
    axis.set(xlabel="predicted", ylabel="annotated", title=title)
    return figure
