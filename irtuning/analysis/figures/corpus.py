"""Figure of a corpus: how often each intention occurs, what its revisions do and how large they are."""

import pandas
import seaborn
from matplotlib.figure import Figure

from irtuning.analysis.figures.style import DOUBLE, canvas, styled


@styled
def intentions(counts: pandas.DataFrame, operations: pandas.DataFrame, sizes: pandas.DataFrame) -> Figure:
    """Draw for each intention (row) its revisions by split, the share of each operation, and its words edited.

    The tables are those of `corpora.explore`: `label_table`, `operation_table` and `size_table`. A box covers the
    middle half of the revisions, its line is the median, and the whiskers reach from 5 to 95 %.
    """
    rows, colours = range(len(counts)), seaborn.color_palette("colorblind")
    figure, axes = canvas(DOUBLE, 0.3 * len(counts) + 1.3, columns=3, sharey=True)
    for axis, table, name in zip(axes, (counts, operations), ("revisions", "share of its revisions"), strict=False):
        bars = table.reset_index(drop=True).plot.barh(ax=axis, stacked=True, color=colours, width=0.75, xlabel=name)
        bars.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, columnspacing=0.8, handlelength=1)
    words = [part.to_numpy() for _, part in sizes.groupby("intention", observed=False)["words edited"]]
    options = {"whis": (5, 95), "showfliers": False, "widths": 0.6, "patch_artist": True, "manage_ticks": False}
    axes[2].boxplot(words, positions=rows, orientation="horizontal", boxprops={"facecolor": colours[4], "lw": 0.8},
                    medianprops={"color": "black", "lw": 1.5}, **options)  # fmt: skip
    axes[0].set_yticks(rows, counts.index)
    axes[0].set(ylabel="", ylim=(len(counts) - 0.5, -0.5))
    axes[1].set(xlim=(0, 1))
    axes[2].set(xlabel="words inserted or deleted", xlim=(0, None))
    return figure
