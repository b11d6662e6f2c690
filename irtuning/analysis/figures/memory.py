"""Figures of the memory and time of large models: predicted parts, predictions against measurements, cost of a step."""

import pandas
import seaborn
from matplotlib.figure import Figure

from irtuning.analysis.figures.style import DOUBLE, canvas, legend_above, styled, title_of

PARTS = ["weights", "adapters", "optimizer_state", "gradients", "activations", "temporary"]
LAYERS = ["all 32 layers", "14 scattered", "14, none below 16"]
ARROWS = [  # what changes, engine and layers before, after, and where the name stands: points from the middle, alignment
    ("compiled", ("plain", LAYERS[1]), ("uncast, compile", LAYERS[1]), (0, 5, "right")),
    ("float8", ("uncast, compile", LAYERS[1]), ("float8, compile", LAYERS[1]), (5, -6, "left")),
    ("not below 16", ("float8, compile", LAYERS[1]), ("float8, compile", LAYERS[2]), (-6, 0, "right")),
    ("checkpointing", ("float8, compile", LAYERS[1]), ("float8, compile, checkpointing", LAYERS[1]), (6, 0, "left")),
]


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


@styled
def predicted_and_measured(table: pandas.DataFrame) -> Figure:
    """Draw predicted against measured peaks and the errors, from `companion.benchmarks.prediction_errors`."""
    figure, (axis, side) = canvas(DOUBLE, 3.0, columns=2)
    for model, colour in zip(table.model.unique(), seaborn.color_palette("colorblind"), strict=False):
        for held_out, inside, label in ((False, colour, model), (True, "white", None)):
            part = table[(table.model == model) & (table.held_out == held_out)]
            style = {"color": colour, "ms": 5, "mfc": inside, "ls": "", "marker": "D" if held_out else "o"}
            axis.plot(part.measured, part.predicted, label=label, **style)
            side.plot(part.measured, 100 * part.error, **style)
    high = 1.05 * max(table.measured.max(), table.predicted.max())
    axis.plot([0, high], [0, high], color="0.6", lw=0.8, zorder=0)
    axis.plot([], [], "D", color="0.3", mfc="white", ls="", label="held out")
    axis.set(xlabel="measured peak (GiB)", ylabel="predicted peak (GiB)", xlim=(0, high), ylim=(0, high))
    side.axhline(0, color="0.6", lw=0.8)
    side.set(xlabel="measured peak (GiB)", ylabel="predicted over measured (%)", ylim=(-3, 3))
    return legend_above(figure, table.model.nunique() + 1)


@styled
def step_costs(table: pandas.DataFrame) -> Figure:
    """Draw time and memory of a step with all, scattered and upper layers, from `companion.benchmarks.step_table`."""
    figure, axes = canvas(DOUBLE, 1.2 + 0.3 * table.engine.nunique(), columns=2, sharey=True)
    for axis, column, name in zip(axes, ("step_ms", "peak_gib"), ("step (ms)", "peak memory (GiB)"), strict=True):
        numbers = table.pivot(index="layers", columns="engine", values=column).loc[LAYERS, table.engine.unique()]
        numbers.plot.barh(ax=axis, color=seaborn.color_palette("colorblind"), width=0.8, legend=False)
        for bars in axis.containers:
            axis.bar_label(bars, fmt="%.0f", padding=2, size=7)
        axis.set(xlabel=name, ylabel="")
    axes[0].invert_yaxis()
    return legend_above(figure) if table.engine.nunique() > 1 else figure


@styled
def step_map(table: pandas.DataFrame) -> Figure:
    """Draw memory over time of a step, a point for each engine and set of layers, and an arrow for each of `ARROWS`.

    `table` is that of `companion.benchmarks.step_table`, here with rows of the authors' code.
    """
    figure, axis = canvas(DOUBLE, 3.6)
    shown = {"hue": "layers", "style": "engine", "palette": "colorblind", "s": 50, "zorder": 3}
    seaborn.scatterplot(table, x="step_ms", y="peak_gib", ax=axis, **shown)
    spots = table.set_index(["engine", "layers"])[["step_ms", "peak_gib"]]
    arrow = {"arrowstyle": "->", "color": "0.4", "shrinkA": 4, "shrinkB": 4}
    for name, start, end, (*offset, side) in ARROWS:
        points = spots.loc[[start, end]]
        axis.annotate("", points.iloc[1], points.iloc[0], arrowprops=arrow)
        axis.annotate(name, points.mean(), offset, textcoords="offset points", ha=side, size=7)
    axis.set(xlabel="step (ms)", ylabel="peak memory (GiB)", xlim=(0, None), ylim=(0, None))
    seaborn.move_legend(axis, "center left", bbox_to_anchor=(1.0, 0.5), frameon=False, title=None)
    return figure
