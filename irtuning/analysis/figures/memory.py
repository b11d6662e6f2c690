"""Figure of the predicted memory of large models, by part."""

import pandas
import seaborn
from matplotlib.figure import Figure

from irtuning.analysis.figures.style import DOUBLE, canvas, legend_above, styled, title_of

PARTS = ["weights", "adapters", "optimizer_state", "gradients", "activations", "temporary"]


@styled
def memory_parts(table: pandas.DataFrame) -> Figure:
    """Draw the parts of each method's predicted peak memory as stacked bars, from `memory.predict.memory_table`."""
    table = table.iloc[::-1]  # so that the first method is the topmost bar
    figure, axis = canvas(DOUBLE, 0.24 * len(table) + 1.1)
    sizes, row = table[PARTS] / 2**30, table.iloc[0]
    ends = sizes.cumsum(axis=1)
    for part, colour in zip(PARTS, seaborn.color_palette("colorblind"), strict=False):
        style = {"color": colour, "height": 0.75, "label": part.replace("_", " ")}
        bars = axis.barh(table.method.map(title_of), sizes[part], left=ends[part] - sizes[part], **style)
    axis.bar_label(bars, [f"{total:.1f}" for total in ends[part]], padding=2, size=7)
    title = f"{row.model}, batch {row.batch}, {row.length} tokens{', checkpointing' if row.checkpointing else ''}"
    axis.set(xlabel="predicted peak memory (GiB)", title=title)
    return legend_above(figure, len(PARTS))
