"""Figures of layers: their scores, the cut, how often they learned, how far measures and runs agree."""

from collections.abc import Sequence

import numpy as np
import pandas
from matplotlib.figure import Figure

from irtuning.analysis.figures.style import DOUBLE, canvas, heat_map, legend_above, method_colour, styled
from irtuning.analysis.layers import has_scores, rank_agreement, score_matrix
from irtuning.analysis.tables import layer_frequency
from irtuning.errors import InputError
from irtuning.method.selector import MIDDLE, cut_variances, split_scores

LAYER = "layer (0: next to the embeddings)"


@styled
def layer_importance(record: dict) -> Figure:
    """Draw which layers learned at each step of a run, below their scores if the run's method keeps any."""
    steps, depth, scored = record["train"]["steps"], record["run"]["depth"], has_scores(record)
    learned = pandas.DataFrame({s["step"]: [i in s["layers"] for i in range(depth)] for s in steps}, dtype=float)
    rows, height = 1 + scored, max(1.7, 0.055 * depth + 1)
    figure, axes = canvas(DOUBLE, height * rows + 0.2, rows, sharex=True, squeeze=False)
    maps = [("layers that learned", learned, "", {"cmap": ["0.93", method_colour("ir")], "vmin": 0, "vmax": 1})]
    if scored:
        title, scores = "importance score when the step began (white: not measured yet)", score_matrix(record)
        maps.insert(0, (title, scores.reindex(range(depth)), "score", {"cmap": "viridis", "robust": True}))
    ticks = {"xticklabels": max(1, len(steps) // 8), "yticklabels": max(1, depth // 6)}
    for axis, (title, table, name, options) in zip(axes[:, 0], maps, strict=True):
        heat_map(axis, table, "", name, annot=False, **ticks, **options)
        axis.set(ylabel="layer", title=title, ylim=(0, depth))
        axis.tick_params(rotation=0)
    axis.collections[0].colorbar.set_ticks([0.25, 0.75], labels=["frozen", "learns"])
    axis.set_xlabel("step")
    return figure


@styled
def layer_shares(records: Sequence[dict]) -> Figure:
    """Draw the share of steps in which each layer learned (mean over runs), and each run's largest gap to that mean."""
    table, single = layer_frequency(records), pandas.concat([layer_frequency([record]) for record in records])
    gaps = single.sub(table.loc[single.index].to_numpy()).abs().max(axis=1)
    figure, (axis, side) = canvas(DOUBLE, 0.24 * len(table) + 1.1, columns=2, sharey=True, width_ratios=[5, 1])
    heat_map(axis, table, ".2f", "share of steps", LAYER, vmin=0, vmax=1)
    for row, (method, apart) in enumerate(gaps.groupby(level=0, sort=False)):
        if len(apart) > 1:
            side.plot(apart, [row + 0.5] * len(apart), "o", color=method_colour(method), ms=3.5, mew=0)
    side.set(xlabel="largest gap\nrun to mean", xlim=(-0.05, max(0.5, side.get_xlim()[1])))
    side.grid(axis="x", alpha=0.3)
    return figure


@styled
def cut_figure(scores: Sequence[float], variant: str = "reference") -> Figure:
    """Draw the cut of a list of scores: the sorted scores above, and V of every possible cut below.

    InputError is raised for fewer than two scores, and for scores that are not known.
    """
    if len(scores) < 2 or any(score is None or score != score for score in scores):
        raise InputError("a figure of the cut needs two or more scores, all of them known")
    order = np.argsort(scores, kind="stable")  # equal scores in the order of layers, as in the selector
    depth, ascending = len(scores), np.asarray(scores, dtype=float)[order]
    kept, variances = np.isin(order, split_scores(scores, variant=variant)), cut_variances(ascending)
    best = depth - len(split_scores(scores, variant="exact")) - 1
    figure, (above, below) = canvas(DOUBLE, 3.6, rows=2, sharex=True, height_ratios=[1.5, 1])
    for name, colour, which in ((f"learns ({variant})", method_colour("ir"), kept), ("frozen", "0.75", ~kept)):
        above.bar(np.flatnonzero(which), ascending[which], color=colour, width=0.75, label=name)
    if kept.sum() > depth - 1 - best:
        extra = {"color": method_colour("ir"), "hatch": "///", "ec": "white", "width": 0.75}
        above.bar(kept.argmax(), ascending[kept.argmax()], label="learns: one extra layer", **extra)
    below.plot(np.arange(depth - 1) + 0.5, variances, "o-", color="0.2", ms=3, lw=1)  # V[i] is between bars i and i + 1
    if variances[lowest := int(variances.argmin())] < variances[best]:
        ring = {"ls": "", "marker": "o", "ms": 7, "mfc": "none", "color": method_colour("rst")}
        above.plot([], [], label="smallest V of all, outside it", **ring)  # for the legend
        below.plot(lowest + 0.5, variances[lowest], clip_on=False, **ring)
    window = int(MIDDLE[0] * depth), int(MIDDLE[1] * depth) + 1
    for axis in (above, below):
        axis.axvspan(*window, color="0.93", lw=0, zorder=0, label="window of the cut")
        axis.axvline(best + 0.5, color="0.2", ls="--", lw=1, label="smallest V in the window")
    above.set(ylabel="score", xlim=(-0.6, depth - 0.4))
    below.set_xticks(range(depth), order, fontsize=8 if depth <= 24 else 6)
    below.set(xlabel="layer, by score", ylabel="V = Var(low)\n+ Var(high)", ylim=(0, None))
    return legend_above(figure)


@styled
def agreement_map(records: Sequence[dict]) -> Figure:
    """Draw the Spearman correlation of the layers' mean scores between methods. See `rank_agreement`."""
    table = rank_agreement(records)
    figure, axis = canvas(min(DOUBLE, 0.4 * len(table) + 3.2), 0.24 * len(table) + 1.8)
    heat_map(axis, table, ".2f", "Spearman correlation", cmap="RdBu_r", vmin=-1, vmax=1)
    axis.set_xticks([i + 0.5 for i in range(len(table))], table.columns, rotation=35, ha="right")
    return figure


@styled
def component_map(norms: pandas.DataFrame) -> Figure:
    """Draw the gradient norm of each adapted module (row of the figure) of each layer (column)."""
    figure, axis = canvas(DOUBLE, 0.26 * norms.shape[1] + 1.1)
    heat_map(axis, norms.T, ".2g", "gradient L2 norm", LAYER, vmin=0)
    return figure
