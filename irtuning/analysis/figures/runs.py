"""Figures of runs: scores, paired differences, convergence, size of the training split, cost of a step."""

from collections.abc import Sequence

import pandas
import seaborn
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from irtuning.analysis.convergence import class_scores, data_curve, half_width, paired_differences, step_cost
from irtuning.analysis.figures.corpus import confusions
from irtuning.analysis.figures.style import DOUBLE, band, canvas, method_colour, styled
from irtuning.analysis.tables import losses_table, runs_table, validation_table

METRIC_NAMES = {"macro_f1": "macro F1", "auprc": "AUPRC", "accuracy": "accuracy"}


@styled
def score_comparison(
    records: Sequence[dict], floors: Sequence[dict], metric: str = "macro_f1", split: str = "validation"
) -> Figure:
    """Every run's score as a dot, its method's mean with a 95 % t interval over runs, the edit-aware floor as a line; by corpus."""
    table = _by_place(runs_table(records, split))
    corpora, methods = list(table.corpus.unique()), list(table.method.unique())
    figure, axes = canvas(DOUBLE, 0.24 * len(methods) + 1.3, columns=len(corpora), sharey=True, squeeze=False)
    for axis, corpus in zip(axes[0], corpora, strict=True):
        part = table[table.corpus == corpus]
        for row, method in enumerate(methods):
            values, colour = part.loc[part.method == method, metric], method_colour(method)
            axis.plot(values, [row + 0.22] * len(values), "o", color=colour, ms=3, alpha=0.5, mew=0)
            axis.errorbar(
                values.mean(), row - 0.1, xerr=half_width(values), fmt="D", color=colour, ms=4, capsize=2, lw=1
            )
        found = [f[metric] for f in floors if (f["name"], f["corpus"], f["split"]) == ("edit-aware", corpus.partition(", ")[0], split) and metric in f]
        if found:
            axis.axvline(sum(found) / len(found), color="0.25", ls="--", lw=1, label="edit-aware floor")
        axis.set(title=corpus if len(corpora) > 1 else "", xlabel=f"{split} {METRIC_NAMES[metric]}")
        axis.grid(axis="x", alpha=0.3)
    axes[0, 0].set_yticks(range(len(methods)), methods)
    axes[0, 0].invert_yaxis()
    _legend(figure, axes[0, 0])
    return figure


def difference_forest(records: Sequence[dict], method: str = "ir", metric: str = "macro_f1") -> Figure:
    """`method` minus each other method: mean paired difference on validation with its 95 % interval; by corpus."""
    table = paired_differences(records, method, metric).assign(method=method)
    return comparison_forest(table, name=f"validation {METRIC_NAMES[metric]}")


@styled
def comparison_forest(table: pandas.DataFrame, margin: float | None = None, name: str = "test macro F1") -> Figure:
    """Differences with their 95 % intervals from a table of comparisons, by corpus; a dashed line at the margin."""
    table = _by_place(table)
    corpora = list(table.corpus.unique())
    pairs = list(dict.fromkeys(zip(table.method, table.against, strict=True)))
    figure, axes = canvas(DOUBLE, 0.22 * len(pairs) + 1.2, columns=len(corpora), sharex=True, sharey=True, squeeze=False)
    for axis, corpus in zip(axes[0], corpora, strict=True):
        axis.axvline(0, color="0.4", lw=1)
        if margin is not None:
            axis.axvline(margin, color="0.4", lw=1, ls="--", label="margin")
        for row in table[table.corpus == corpus].itertuples():
            place, away = pairs.index((row.method, row.against)), [[row.difference - row.low], [row.high - row.difference]]
            other = row.against if row.method == "ir" else row.method
            axis.errorbar(row.difference, place, xerr=away, fmt="o", color=method_colour(other), ms=4, capsize=2)
        axis.set(title=corpus if len(corpora) > 1 else "", xlabel=f"difference in {name}")
        axis.grid(axis="x", alpha=0.3)
    axes[0, 0].set_yticks(range(len(pairs)), [f"{method} - {against}" for method, against in pairs])
    axes[0, 0].invert_yaxis()
    _legend(figure, axes[0, 0])
    return figure


@styled
def class_heatmap(records: Sequence[dict], split: str = "validation") -> Figure:
    """F1 of every class under every method, mean over the runs of one corpus."""
    table = class_scores(records, split)
    figure, axis = canvas(DOUBLE, 0.26 * len(table) + 1.4)
    seaborn.heatmap(
        table, ax=axis, annot=True, fmt=".2f", cmap="Blues", vmin=0, vmax=1, annot_kws={"size": 7},
        cbar_kws={"label": f"F1 on {split}"},
    )  # fmt: skip
    axis.set(xlabel="", ylabel="")
    axis.tick_params(axis="y", rotation=0)
    axis.set_xticks(axis.get_xticks(), [t.get_text() for t in axis.get_xticklabels()], rotation=20, ha="right")
    return figure


@styled
def convergence(records: Sequence[dict], against: str = "step", smooth: int = 10) -> Figure:
    """Training loss (running mean) and validation macro F1 against step or seconds; band: range over runs.

    A row of panels for each corpus.
    """
    losses, curve = _by_place(losses_table(records)), _by_place(validation_table(records))
    corpora = list(losses.corpus.unique())
    figure, axes = canvas(DOUBLE, 2.2 * len(corpora) + 0.6, rows=len(corpora), columns=2, squeeze=False)
    place = ["fold", "seed"]
    for (left, right), corpus in zip(axes, corpora, strict=True):
        for method, rows in losses[losses.corpus == corpus].groupby("method", sort=False):
            running = rows.groupby(place).loss.transform(lambda s: s.rolling(smooth, min_periods=1).mean())
            rows = rows.assign(loss=running)
            band(left, rows, against, "loss", method)
            points = curve[(curve.method == method) & (curve.corpus == corpus)]
            if against == "seconds":
                points = points.merge(rows[[*place, "step", "seconds"]], on=[*place, "step"])
            band(right, points, against, "macro_f1", method)
        name = "step" if against == "step" else "training time (s)"
        title = corpus if len(corpora) > 1 else ""
        left.set(xlabel=name, ylabel=f"training loss (mean of {smooth} steps)", yscale="log", title=title)
        left.yaxis.set_major_formatter("{x:g}")
        left.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        left.yaxis.set_minor_formatter("{x:g}")
        right.set(xlabel=name, ylabel="validation macro F1", ylim=(0, None))
    _legend(figure, axes[0, 0])
    return figure


@styled
def score_by_size(records: Sequence[dict], split: str = "validation") -> Figure:
    """Macro F1 against the number of training examples; band: 95 % t interval over runs."""
    table = _by_place(data_curve(records, split))
    corpora = list(table.corpus.unique())
    figure, axes = canvas(DOUBLE, 2.6, columns=len(corpora), squeeze=False)
    for axis, corpus in zip(axes[0], corpora, strict=True):
        for method, rows in table[table.corpus == corpus].groupby("method", sort=False):
            grouped, colour = rows.groupby("train_examples").macro_f1, method_colour(method)
            mean, half = grouped.mean(), grouped.apply(half_width).fillna(0)
            axis.plot(mean.index, mean, "o-", color=colour, ms=3, lw=1.2, label=method)
            axis.fill_between(mean.index, mean - half, mean + half, color=colour, alpha=0.15, lw=0)
        axis.set(xscale="log", xlabel="training examples", ylabel=f"{split} macro F1", ylim=(0, None))
        sizes = sorted(table.train_examples[table.corpus == corpus].unique())
        axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axis.minorticks_off()
        axis.set_title(corpus if len(corpora) > 1 else "")
    _legend(figure, axes[0, 0])
    return figure


@styled
def step_memory(records: Sequence[dict]) -> Figure:
    """Bytes of gradients and of Adam's moments per method, and how many layers backprop runs through."""
    table = step_cost(records)
    figure, (left, right) = canvas(DOUBLE, 0.24 * len(table) + 1.2, columns=2, sharey=True)
    rows, colours = range(len(table)), [method_colour(name) for name in table.index]
    left.barh(rows, table.gradient_bytes / 1e6, color=colours, label="gradients")
    left.barh(
        rows, table.optimizer_bytes / 1e6, left=table.gradient_bytes / 1e6, color=colours, alpha=0.4,
        label="Adam's moments",
    )  # fmt: skip
    left.set_yticks(rows, table.index)
    left.invert_yaxis()
    left.set(xlabel="MB: gradients (dark), Adam's moments (light)")
    right.barh(rows, table.differentiated_layers, color=colours)
    right.set(xlabel="layers backprop runs through (mean over steps)")
    return figure


@styled
def depth_and_time(records: Sequence[dict]) -> Figure:
    """Time of a step against the number of layers backprop ran through: a dot per method and number, sized by share."""
    rows = []
    for record in records:
        method, depth = runs_table([record]).method[0], record["run"]["depth"]
        for step, took in zip(record["train"]["steps"], record["meta"]["step_seconds"], strict=True):
            rows.append({"method": method, "layers": depth - min(step["layers"]), "milliseconds": 1000 * took})
    table = pandas.DataFrame(rows)
    figure, axis = canvas(DOUBLE, 2.6)
    for method, part in table.groupby("method", sort=False):
        median = part.groupby("layers").milliseconds.median()
        size = part.groupby("layers").size() / len(part)
        axis.scatter(median.index, median, s=8 + 80 * size, color=method_colour(method), alpha=0.7, lw=0, label=method)
    axis.set(xlabel="layers backprop runs through", ylabel="median step (ms)", ylim=(0, None))
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), title="dot size: share of steps")
    return figure


@styled
def confusion_pair(records: Sequence[dict], split: str = "validation") -> Figure:
    """Confusion matrices of runs on one corpus side by side; see `confusions`."""
    gold = [row["intention"] for row in records[0]["predictions"][split]]
    methods = runs_table(records, split).method
    answers = {
        method: [row["predicted"] for row in record["predictions"][split]]
        for method, record in zip(methods, records, strict=True)
    }
    return confusions(gold, answers, records[0]["run"]["labels"])


@styled
def run_curve(record: dict) -> Figure:
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


def _by_place(table: pandas.DataFrame) -> pandas.DataFrame:
    """The table with the model beside the corpus where there are several: a panel for each."""
    several = "model" in table and table.model.nunique() > 1
    return table.assign(corpus=table.corpus + ", " + table.model) if several else table


def _legend(figure: Figure, axis) -> None:
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper center", ncols=min(4, len(labels)))
