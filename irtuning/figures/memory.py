"""Figure of predicted memory: its parts, method by method."""

from typing import TYPE_CHECKING

from irtuning.figures.style import DOUBLE, canvas, styled

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

PARTS = ("weights", "adapters", "optimizer_state", "gradients", "activations", "temporary")


@styled
def memory_parts(table: "pandas.DataFrame", gpu_bytes: int | None = None) -> "Figure":
    """Predicted peak of each method as stacked parts, in GiB; a line where a card of `gpu_bytes` ends.

    Args:
        table: of `memory.memory_table`.
    """
    import seaborn

    table = table.iloc[::-1]  # the first on top
    figure, axis = canvas(DOUBLE, 0.24 * len(table) + 1.1)
    left = 0 * table.peak_bytes / 2**30
    for part, colour in zip(PARTS, seaborn.color_palette("colorblind", len(PARTS)), strict=True):
        axis.barh(table.method, table[part] / 2**30, left=left, color=colour, label=part.replace("_", " "), height=0.75)
        left = left + table[part] / 2**30
    for place, total in enumerate(left):
        axis.annotate(f"{total:.1f}", (total, place), xytext=(2, 0), textcoords="offset points", va="center", size=6)
    if gpu_bytes:
        axis.axvline(gpu_bytes / 2**30, color="0.3", ls="--", lw=1, label="the card")
    axis.set(xlabel="predicted peak memory (GiB)", title=_title(table.iloc[0]))
    figure.legend(loc="outside upper center", ncols=len(PARTS) + 1)
    return figure


def _title(row: "pandas.Series") -> str:
    kept = ", checkpointing" if row.checkpointing else ""
    return f"{row.model}, batch {row.batch}, {row.length} tokens{kept}"
