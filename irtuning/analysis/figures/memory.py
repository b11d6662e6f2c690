"""Figures of the memory and time of large models: predicted parts, predictions against measurements, cost of a step."""

import pandas
import seaborn
from matplotlib.figure import Figure

from irtuning.analysis.figures.style import DOUBLE, canvas, styled

PARTS = ("weights", "adapters", "optimizer_state", "gradients", "activations", "temporary")
LAYERS = ("all 32 layers", "14 scattered", "14, none below 16")
ENGINES = ("plain", "uncast, compile")
ABOVE = "outside upper center"


@styled
def memory_parts(table: pandas.DataFrame) -> Figure:
    """Draw the parts of each method's predicted peak memory as stacked bars, from `memory.predict.memory_table`."""
    table = table.iloc[::-1]  # so that the first method is the topmost bar
    figure, axis = canvas(DOUBLE, 0.24 * len(table) + 1.1)
    left = 0 * table.peak_bytes / 2**30
    for part, colour in zip(PARTS, seaborn.color_palette("colorblind", len(PARTS)), strict=True):
        name, size = part.replace("_", " "), table[part] / 2**30
        bars = axis.barh(table.method, size, left=left, color=colour, height=0.75, label=name)
        left = left + size
    axis.bar_label(bars, [f"{total:.1f}" for total in left], padding=2, size=6)
    row = table.iloc[0]
    title = f"{row.model}, batch {row.batch}, {row.length} tokens{', checkpointing' if row.checkpointing else ''}"
    axis.set(xlabel="predicted peak memory (GiB)", title=title)
    figure.legend(loc=ABOVE, ncols=len(PARTS) + 1)
    return figure


@styled
def predicted_and_measured(table: pandas.DataFrame) -> Figure:
    """Draw predicted against measured peaks and the errors, from `companion.benchmarks.prediction_errors`."""
    models = list(table.model.unique())
    figure, (axis, side) = canvas(DOUBLE, 3.0, columns=2)
    for model, colour in zip(models, seaborn.color_palette("colorblind"), strict=False):
        for held_out, marker in ((False, "o"), (True, "D")):
            part = table[(table.model == model) & (table.held_out == held_out)]
            style = {"color": colour, "ms": 5, "mfc": "white" if held_out else colour, "ls": "", "marker": marker}
            axis.plot(part.measured, part.predicted, label=model if not held_out else None, **style)
            side.plot(part.measured, 100 * part.error, **style)
    high = 1.05 * max(table.measured.max(), table.predicted.max())
    axis.plot([0, high], [0, high], color="0.6", lw=0.8, zorder=0)
    axis.plot([], [], "D", color="0.3", mfc="white", ls="", label="held out")
    axis.set(xlabel="measured peak (GiB)", ylabel="predicted peak (GiB)", xlim=(0, high), ylim=(0, high))
    side.axhline(0, color="0.6", lw=0.8)
    side.set(xlabel="measured peak (GiB)", ylabel="predicted over measured (%)", ylim=(-3, 3))
    figure.legend(*axis.get_legend_handles_labels(), loc=ABOVE, ncols=len(models) + 1)
    return figure


@styled
def step_engines(table: pandas.DataFrame) -> Figure:
    """Draw time and memory of a step with all, scattered and upper layers, from `companion.benchmarks.step_table`."""
    table = table[(table.dropout > 0) & table.engine.isin(ENGINES)]
    figure, axes = canvas(DOUBLE, 2.2, columns=2, sharey=True)
    for axis, column, name in zip(axes, ("step_ms", "peak_gib"), ("step (ms)", "peak memory (GiB)"), strict=True):
        numbers = table.pivot(index="layers", columns="engine", values=column).loc[list(LAYERS), list(ENGINES)]
        numbers.plot.barh(ax=axis, color=seaborn.color_palette("colorblind", len(ENGINES)), width=0.8, legend=False)
        for bars in axis.containers:
            axis.bar_label(bars, fmt="%.0f", padding=2, size=6)
        axis.set(xlabel=name, ylabel="")
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc=ABOVE, ncols=len(ENGINES))
    return figure
