"""Figures of layers: their scores, the cut, how often they learned, how far measures and runs agree."""

from collections.abc import Sequence

import pandas
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from irtuning.errors import InputError
from irtuning.analysis.figures.style import DOUBLE, canvas, method_colour, styled
from irtuning.analysis.layers import has_scores, rank_agreement, score_matrix, score_spread
from irtuning.method.selector import MIDDLE, cut_variances, split_scores
from irtuning.analysis.tables import layer_frequency

FROZEN = "0.75"
NUMBERS_UP_TO = 16  # cells in a row of a heat map that still have room for a number


@styled
def layer_importance(record: dict) -> Figure:
    """The scores of every layer over the steps of one run, where its method keeps any, and when each learned."""
    steps, depth = record["train"]["steps"], record["run"]["depth"]
    learned = pandas.DataFrame({s["step"]: [i in s["layers"] for i in range(depth)] for s in steps}, dtype=float)
    scored = has_scores(record)
    height = max(1.7, 0.055 * depth + 1)
    figure, axes = canvas(DOUBLE, height * (1 + scored) + 0.2, rows=1 + scored, sharex=True, squeeze=False)
    if scored:
        axis, title = axes[0, 0], "importance score when the step began (white: not measured yet)"
        scores = score_matrix(record).reindex(range(depth))
        _steps_map(axis, scores, title, cmap="viridis", robust=True, cbar_kws={"label": "score", "pad": 0.01})
    below = axes[-1, 0]
    share = {"cmap": ["0.93", method_colour("ir")], "vmin": 0, "vmax": 1, "cbar_kws": {"ticks": [0.25, 0.75], "pad": 0.01}}
    _steps_map(below, learned, "layers that learned", **share)
    below.collections[0].colorbar.set_ticklabels(["frozen", "learns"])
    below.set_xlabel("step")
    return figure


@styled
def layer_shares(records: Sequence[dict]) -> Figure:
    """Share of steps in which each layer learned: methods x layers, means over runs.

    Beside it, for each of several runs, its largest distance from the mean over the layers.
    """
    table = layer_frequency(records)
    single = [layer_frequency([record]) for record in records]
    figure, (axis, side) = canvas(DOUBLE, 0.24 * len(table) + 1.1, columns=2, sharey=True, width_ratios=[5, 1])
    _numbers_map(axis, table, fmt=".2f", cmap="Blues", vmin=0, vmax=1, cbar_kws={"label": "share of steps", "pad": 0.01})
    axis.set(xlabel="layer (0: next to the embeddings)", ylabel="")
    for row, method in enumerate(table.index):
        runs = [one.loc[method] for one in single if method in one.index]
        apart = [float((one - table.loc[method]).abs().max()) for one in runs if len(runs) > 1]
        side.plot(apart, [row + 0.5] * len(apart), "o", color=method_colour(method), ms=3.5, mew=0)
    side.set(xlabel="largest gap\nrun to mean", xlim=(-0.05, max(0.5, side.get_xlim()[1])))
    side.grid(axis="x", alpha=0.3)
    return figure


@styled
def score_bands(record: dict) -> Figure:
    """The distribution of the layers' scores over the steps of one run with the cut, and how many layers learn."""
    table = score_spread(record)
    colour = method_colour(record["run"]["config"]["method"])
    figure, (above, below) = canvas(DOUBLE, 3.6, rows=2, sharex=True, height_ratios=[2.4, 1])
    above.fill_between(table.index, table["min"], table["max"], color="0.88", lw=0, label="lowest to highest")
    above.fill_between(table.index, table.q25, table.q75, color="0.72", lw=0, label="middle half")
    above.plot(table.index, table["median"], color="0.35", lw=1, label="median")
    above.plot(table.index, table.cut, color=colour, lw=1.2, label="cut: last score that learns")
    above.set(ylabel="score of a layer")
    figure.legend(*above.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    below.step(table.index, table.learn, where="mid", color=colour, lw=1)
    below.set(xlabel="step", ylabel="layers\nthat learn", ylim=(0, len(record["run"]["candidate_layers"]) + 0.5))
    return figure


@styled
def cut_figure(scores: Sequence[float], variant: str = "reference") -> Figure:
    """The cut of one list of scores: sorted bars, V on its own axis, the window shaded, the smallest V as a line.

    V[i] stands between the bars i and i + 1 it parts. `reference` keeps one layer more than the bars right of the line.

    Raises:
        InputError: a score that is not known, or fewer than two.
    """
    if len(scores) < 2 or any(score is None or score != score for score in scores):
        raise InputError("the cut is drawn of two or more scores, all of them known")
    kept, depth = split_scores(scores, variant=variant), len(scores)
    order = sorted(range(depth), key=lambda layer: scores[layer])  # stable, so ties go by layer as in the selector
    ascending = [scores[layer] for layer in order]
    best = depth - len(split_scores(scores, variant="exact")) - 1
    figure, axis = canvas(DOUBLE, 2.9)
    axis.axvspan(int(MIDDLE[0] * depth), int(MIDDLE[1] * depth) + 1, color="0.93", lw=0, label="window of the cut")
    for name, colour, wanted in ((f"learns ({variant})", method_colour("ir"), True), ("frozen", FROZEN, False)):
        bars = [place for place, layer in enumerate(order) if (layer in kept) == wanted]
        axis.bar(bars, [ascending[place] for place in bars], color=colour, width=0.75, label=name)
    axis.axvline(best + 0.5, color="0.2", ls="--", lw=1, label="smallest V in the window")
    axis.set_xticks(range(depth), order, fontsize=8 if depth <= 24 else 6)
    axis.set(xlabel="layer, by score", ylabel="score", xlim=(-0.6, depth - 0.4))
    right = axis.twinx()
    places = [i + 0.5 for i in range(depth - 1)]
    right.plot(places, cut_variances(_array(ascending)), "o-", color=method_colour("ist"), ms=3, lw=1, label="V (right)")
    right.set(ylabel="V = Var(low) + Var(high)", ylim=(0, None))
    right.spines["right"].set_visible(True)
    handles = [sum(pair, []) for pair in zip(axis.get_legend_handles_labels(), right.get_legend_handles_labels(), strict=True)]
    figure.legend(*handles, loc="outside upper center", ncols=5)
    return figure


@styled
def agreement_map(records: Sequence[dict], by: Sequence[str] = ("method", "seed")) -> Figure:
    """Spearman correlation of the layers' mean scores between runs; see `layer_tables.rank_agreement`."""
    table = rank_agreement(records, by)
    figure, axis = canvas(min(DOUBLE, 0.4 * len(table) + 3.2), 0.24 * len(table) + 1.8)
    colours = {"cmap": "RdBu_r", "vmin": -1, "vmax": 1, "cbar_kws": {"label": "Spearman correlation", "pad": 0.02}}
    _numbers_map(axis, table, fmt=".2f", **colours)
    axis.set(xlabel="", ylabel="")
    axis.set_xticks([i + 0.5 for i in range(len(table))], table.columns, rotation=35, ha="right")
    return figure


@styled
def component_map(norms: pandas.DataFrame, title: str = "") -> Figure:
    """Gradient norm of each adapted module of each layer: modules x layers; see `anatomy.component_norms`."""
    figure, axis = canvas(DOUBLE, 0.26 * norms.shape[1] + 1.1)
    colours = {"cmap": "Blues", "vmin": 0, "cbar_kws": {"label": "gradient L2 norm", "pad": 0.01}}
    _numbers_map(axis, norms.T, fmt=".2g", **colours)
    axis.set(xlabel="layer (0: next to the embeddings)", ylabel="", title=title)
    return figure


def _steps_map(axis: Axes, table: pandas.DataFrame, title: str, **options: object) -> None:
    """Layers x steps, layer 0 lowest."""
    ticks = {"xticklabels": max(1, table.shape[1] // 8), "yticklabels": max(1, len(table) // 6)}
    seaborn.heatmap(table, ax=axis, **ticks, **options)
    axis.set(xlabel="", ylabel="layer", title=title)
    axis.invert_yaxis()
    axis.tick_params(rotation=0)


def _numbers_map(axis: Axes, table: pandas.DataFrame, fmt: str, **options: object) -> None:
    """A heat map with its numbers written in where they have room."""
    numbers = {"annot": table.shape[1] <= NUMBERS_UP_TO, "fmt": fmt, "annot_kws": {"size": 6}}
    seaborn.heatmap(table, ax=axis, xticklabels=max(1, table.shape[1] // 20), yticklabels=True, **numbers, **options)
    axis.tick_params(rotation=0)


def _array(values: Sequence[float]):
    import numpy

    return numpy.array(values, dtype=float)
