"""Figures of the memory and time of large models: predicted parts, prediction against measurement, cost of a step."""

from textwrap import fill

import pandas
import seaborn
from matplotlib.figure import Figure

from irtuning.analysis.figures.style import DOUBLE, canvas, styled

PARTS = ("weights", "adapters", "optimizer_state", "gradients", "activations", "temporary")


@styled
def memory_parts(table: pandas.DataFrame, gpu_bytes: int | None = None) -> Figure:
    """Predicted peak of each method as stacked parts, in GiB; a line where a card of `gpu_bytes` ends.

    Args:
        table: of `memory.memory_table`.
    """
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


@styled
def predicted_and_measured(table: pandas.DataFrame) -> Figure:
    """Predicted against measured peak, a dot per setting; beside it the error. `table`: `measured.prediction_errors`."""
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
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=len(models) + 1)
    return figure


@styled
def step_engines(table: pandas.DataFrame) -> Figure:
    """Step time and peak memory by engine, a bar per set of layers. `table`: `measured.step_table`, one dropout."""
    engines, layers = list(table.engine.unique()), list(table.layers.unique())
    groups = table.groupby("engine", sort=False).ngroup()
    table = table.assign(place=groups + groups.reset_index(drop=True).index)  # an empty place between engines
    figure, axes = canvas(DOUBLE, 0.12 * (len(table) + len(engines)) + 1.2, columns=2, sharey=True)
    for axis, column, name in zip(axes, ("step_ms", "peak_gib"), ("step (ms)", "peak memory (GiB)"), strict=True):
        for which, colour in zip(layers, seaborn.color_palette("colorblind"), strict=False):
            part = table[table.layers == which]
            axis.barh(part.place, part[column], height=0.9, color=colour, label=which)
        for row in table.itertuples():
            value = getattr(row, column)
            axis.annotate(f"{value:.0f}", (value, row.place), xytext=(2, 0), textcoords="offset points", va="center", size=6)
        axis.set(xlabel=name)
    middles = table.groupby("engine", sort=False).place.mean()
    axes[0].set_yticks(middles, [fill(engine, 34) for engine in engines])
    axes[0].invert_yaxis()
    axes[0].margins(y=0.01)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=(len(layers) + 1) // 2)
    return figure


def _title(row: pandas.Series) -> str:
    kept = ", checkpointing" if row.checkpointing else ""
    return f"{row.model}, batch {row.batch}, {row.length} tokens{kept}"
