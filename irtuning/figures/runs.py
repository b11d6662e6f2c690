"""Figures of runs: scores and convergence."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from irtuning.figures.style import DOUBLE, band, canvas, method_colour, styled
from irtuning.tables import losses_table, runs_table, validation_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def score_comparison(records: Sequence[dict], floors: Sequence[dict], metric: str = "macro_f1") -> "Figure":
    """Every run's score as a dot, the mean of its method as a bar, the floors as lines."""
    table = runs_table(records)
    methods = list(dict.fromkeys(table.method))
    figure, axis = canvas(DOUBLE, 0.28 * len(methods) + 1.1)
    for row, method in enumerate(methods):
        values = table.loc[table.method == method, metric]
        axis.barh(row, values.mean(), color=method_colour(method), alpha=0.35, height=0.7)
        axis.plot(values, [row] * len(values), "o", color=method_colour(method), ms=4, mec="white", mew=0.5)
    for name, style in (("operation", ":"), ("edit-aware", "--")):
        scores = [floor[metric] for floor in floors if floor["name"] == name and metric in floor]
        if scores:
            axis.axvline(sum(scores) / len(scores), color="0.25", ls=style, lw=1, label=f"{name} floor")
    axis.set_yticks(range(len(methods)), methods)
    axis.invert_yaxis()
    axis.set(xlabel=f"validation {metric.replace('_', ' ').replace('f1', 'F1')}", xlim=(0, None))
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, 1.18), ncols=2)
    return figure


@styled
def convergence(records: Sequence[dict], against: str = "step", smooth: int = 10) -> "Figure":
    """Training loss (running mean) and validation macro F1 against the step or seconds; band: range over runs."""
    losses, curve = losses_table(records), validation_table(records)
    figure, (left, right) = canvas(DOUBLE, 2.8, columns=2)
    for method, rows in losses.groupby("method", sort=False):
        running = rows.groupby(["fold", "seed"]).loss.transform(lambda s: s.rolling(smooth, min_periods=1).mean())
        rows = rows.assign(loss=running)
        band(left, rows, against, "loss", method)
        points = curve[curve.method == method]
        if against == "seconds":
            points = points.merge(rows[["fold", "seed", "step", "seconds"]], on=["fold", "seed", "step"])
        band(right, points, against, "macro_f1", method)
    name = "step" if against == "step" else "training time (s)"
    left.set(xlabel=name, ylabel=f"training loss (mean of {smooth} steps)")
    right.set(xlabel=name, ylabel="validation macro F1", ylim=(0, None))
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(4, len(labels)))
    return figure


@styled
def run_curve(record: dict) -> "Figure":
    """One run: training loss and validation macro F1 against the step, and the layers that learned."""
    figure, (above, below) = canvas(DOUBLE, 3.4, rows=2, sharex=True)
    steps = record["train"]["steps"]
    numbers = [step["step"] for step in steps]
    colour = method_colour(record["run"]["config"]["method"])
    above.plot(numbers, [step["loss"] for step in steps], color=colour, lw=1)
    above.set_ylabel("training loss")
    right = above.twinx()
    points = record["train"]["validation"]
    right.plot([p["step"] for p in points], [p["macro_f1"] for p in points], "o-", color="0.3", ms=3, lw=1)
    right.set(ylabel="validation macro F1", ylim=(0, 1))
    below.scatter(
        [n for n, step in zip(numbers, steps, strict=True) for _ in step["layers"]],
        [layer for step in steps for layer in step["layers"]],
        marker="s",
        s=max(1, 300 / len(steps)),
        color=colour,
    )
    below.set(xlabel="step", ylabel="layers that learn", ylim=(-0.5, record["run"]["depth"] - 0.5))
    return figure
