"""Figures of layers: their scores, the cut, and how often they learned."""

from collections.abc import Sequence

import numpy as np
import pandas
from matplotlib.figure import Figure

from irtuning.analysis.figures.style import DOUBLE, canvas, corpus_panels, heat_map, legend_above, method_colour, styled
from irtuning.analysis.layers import has_scores, late_shares, score_matrix
from irtuning.analysis.tables import KEYS, candidates, chosen, run_keys
from irtuning.errors import InputError
from irtuning.method.selector import MIDDLE, cut_variances, split_scores


@styled
def layer_importance(record: dict) -> Figure:
    """Draw which layers, or blocks, learned at each step of a run, below their scores if the method keeps any."""
    steps, run, scored = record["train"]["steps"], record["run"], has_scores(record)
    units = candidates(run) if run.get("candidate_blocks") else range(run["depth"])
    learned = pandas.DataFrame({s["step"]: [i in chosen(s) for i in units] for s in steps}, units, dtype=float)
    depth, rows, height = len(units), 1 + scored, max(1.7, 0.055 * len(units) + 1)
    figure, axes = canvas(DOUBLE, height * rows + 0.2, rows, sharex=True, squeeze=False)
    maps = [("layers that learned", learned, "", {"cmap": ["0.93", method_colour("ir")], "vmin": 0, "vmax": 1})]
    if scored:
        title, scores = "importance score when the step began (white: not measured yet)", score_matrix(record)
        maps.insert(0, (title, scores.reindex(units), "score", {"cmap": "viridis", "robust": True}))
    ticks = {"xticklabels": max(1, len(steps) // 8), "yticklabels": max(1, depth // 6)}
    for axis, (title, table, name, options) in zip(axes[:, 0], maps, strict=True):
        heat_map(axis, table, name, **ticks, **options)
        axis.set(ylabel="block" if run.get("candidate_blocks") else "layer", title=title, ylim=(0, depth))
        axis.tick_params(rotation=0)
    axis.collections[0].colorbar.set_ticks([0.25, 0.75], labels=["frozen", "learns"])
    axis.set_xlabel("step")
    return figure


@styled
def late_choice(records: Sequence[dict]) -> Figure:
    """Draw at which share of the steps after the first quarter each layer (column) learned, a row for each run."""
    table = pandas.DataFrame([run_keys(record["run"]["config"]) | late_shares(record).to_dict() for record in records])
    figure, panels = corpus_panels(table, 0.15 * table.groupby(["corpus", "model"]).size().max() + 1.5)
    for part, (axis,) in panels:
        shares = part.drop(columns=list(KEYS)).dropna(axis="columns")
        heat_map(axis, shares, "share of late steps", "layer", yticklabels=False, vmin=0, vmax=1)
        axis.set(ylabel=f"{len(part)} runs")
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
    below.set_xticks(range(depth), order, fontsize=8 if depth <= 24 else 7)
    below.set(xlabel="layer, by score", ylabel="V = Var(low)\n+ Var(high)", ylim=(0, None))
    return legend_above(figure)
