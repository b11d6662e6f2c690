"""Tables and figures of the committed measurements of large models on one GPU, the records beside this file.

Notebooks 3, 5 and 6 and the study's reports read them.
"""

import hashlib
import json
from collections.abc import Mapping

import pandas
import seaborn
from matplotlib.figure import Figure

from irtuning.analysis.figures.style import DOUBLE, canvas, legend_above, styled
from irtuning.companion.paths import REPOSITORY

LAYERS = {"all": "all 32 layers", "trajectory": "200 chosen sets", "scattered": "14 scattered",
          "upper": "14, none below 16", "last16": "the last 16", "last14": "the last 14"}  # fmt: skip
ENGINES = {("", False): "plain", ("uncast", False): "uncast", ("uncast,compile", False): "uncast, compile",
           ("uncast", True): "uncast, checkpointing", ("float8,uncast,compile", False): "float8, compile",
           ("float8,uncast,compile,recompute", False): "float8, compile, recompute",
           ("float8,uncast,compile", True): "float8, compile, checkpointing"}  # fmt: skip
GIVEN = ("core", "last-k", "trajectory", "eager", "checkpointing", "float8")  # cases with given layers
SETS = ["all 32 layers", "14 scattered", "14, none below 16"]
ARROWS = [  # what changes, engine and layers before, after, and where the name stands: points from the middle, alignment
    ("compiled", ("plain", SETS[1]), ("uncast, compile", SETS[1]), (0, 5, "right")),
    ("float8, recompute", ("uncast, compile", SETS[1]), ("float8, compile, recompute", SETS[1]), (5, -9, "left")),
    ("not below 16", ("float8, compile, recompute", SETS[1]), ("float8, compile, recompute", SETS[2]), (-10, -19, "right")),
    ("checkpointing", ("float8, compile, recompute", SETS[1]), ("float8, compile, checkpointing", SETS[1]), (0, -14, "right")),
]


def measurement(name: str, folder: str = "benchmarks") -> tuple[dict, dict[str, str]]:
    """Return a record of a folder of `reports`, and the hash of its file by file name. OSError if it is missing."""
    content = (REPOSITORY / "reports" / folder / f"{name}.json").read_bytes()
    return json.loads(content), {f"{name}.json": hashlib.sha256(content).hexdigest()}


def measured_on(record: Mapping) -> str:
    """Return the hardware and versions of a measurement, for the line below a figure."""
    meta = record["meta"]
    versions = ", ".join(f"{name} {meta['versions'][name]}" for name in ("torch", "transformers", "peft"))
    return f"random weights · measured on one {meta['device']}, {versions}"


def prediction_errors(record: Mapping) -> pandas.DataFrame:
    """Return predicted and measured peak memory in GiB, and the error as a share: one row per setting."""
    rows = [row for row in record["rows"] if row["measured_bytes"]]
    peaks = {"predicted": [r["predicted"]["peak_bytes"] for r in rows], "measured": [r["measured_bytes"] for r in rows]}
    errors = {name: [row[name] for row in rows] for name in ("error", "held_out")}
    return pandas.DataFrame([row["setting"] for row in rows]).assign(**pandas.DataFrame(peaks) / 2**30, **errors)


def step_table(record: Mapping) -> pandas.DataFrame:
    """Return the median time and the peak memory of a step of 16 x 256 tokens, with a row for each set and engine."""
    rows = [row | {"engine": ENGINES.get((row["speed"], row["checkpointing"])), "layers": LAYERS.get(row["layers"])}
            for row in record["rows"] if not row.get("error") and row["group"] in GIVEN and row["dropout"]
            and row["callback"] and not row.get("inductor")
            and row.get("backward") != "skip"]  # fmt: skip
    table = pandas.DataFrame(rows).dropna(subset=["engine", "layers"]).drop_duplicates(["engine", "layers"])
    table = table.sort_values(["engine", "layers"], key=lambda c: c.map([*ENGINES.values(), *LAYERS.values()].index))
    return table[["engine", "layers", "step_ms", "peak_gib"]].reset_index(drop=True)


def saving(table: pandas.DataFrame, layers: str, engine: str = "plain") -> tuple[float, float]:
    """Return the shares of time and memory that a set of layers saves, compared with a step of all layers."""
    part = table[table.engine == engine].set_index("layers")[["step_ms", "peak_gib"]]
    return tuple(1 - part.loc[layers] / part.loc[LAYERS["all"]])


@styled
def predicted_and_measured(table: pandas.DataFrame) -> Figure:
    """Draw predicted against measured peaks and the errors, from `prediction_errors`."""
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
    """Draw time and memory of a step with all, scattered and upper layers, from `step_table`."""
    figure, axes = canvas(DOUBLE, 1.2 + 0.3 * table.engine.nunique(), columns=2, sharey=True)
    for axis, column, name in zip(axes, ("step_ms", "peak_gib"), ("step (ms)", "peak memory (GiB)"), strict=True):
        numbers = table.pivot(index="layers", columns="engine", values=column).loc[SETS, table.engine.unique()]
        numbers.plot.barh(ax=axis, color=seaborn.color_palette("colorblind"), width=0.8, legend=False)
        for bars in axis.containers:
            axis.bar_label(bars, fmt="%.0f", padding=2, size=7)
        axis.set(xlabel=name, ylabel="")
    axes[0].invert_yaxis()
    return legend_above(figure) if table.engine.nunique() > 1 else figure


@styled
def step_map(table: pandas.DataFrame) -> Figure:
    """Draw memory over time of a step, a point for each engine and set of layers, and an arrow for each of `ARROWS`.

    `table` is that of `step_table`, here with rows of the authors' code.
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
