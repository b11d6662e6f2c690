"""Figures of layers: their scores, and when they learned."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from irtuning.figures.style import DOUBLE, canvas, method_colour, styled
from irtuning.tables import layer_frequency

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def layer_importance(record: dict) -> "Figure":
    """The scores of every layer over the steps of one run, and when it learned."""
    import numpy
    import pandas
    import seaborn

    steps, depth = record["train"]["steps"], record["run"]["depth"]
    scores = numpy.array([[numpy.nan if s is None else s for s in step["scores"]] for step in steps]).T
    learned = numpy.array([[layer in step["layers"] for step in steps] for layer in range(depth)], dtype=float)
    figure, (above, below) = canvas(DOUBLE, 4.2, rows=2, sharex=True)
    numbers = [step["step"] for step in steps]
    scores, learned = (pandas.DataFrame(values, columns=numbers) for values in (scores, learned))
    ticks = {"xticklabels": max(1, len(steps) // 6), "yticklabels": max(1, depth // 6)}
    seaborn.heatmap(scores, ax=above, cmap="viridis", cbar_kws={"label": "score"}, **ticks)
    seaborn.heatmap(learned, ax=below, cmap=["0.93", method_colour("ir")], cbar=False, **ticks)
    above.set(ylabel="layer", title="importance score when the step began (white: not measured yet)")
    below.set(ylabel="layer", xlabel="step", title="layers that learned")
    for axis in (above, below):
        axis.invert_yaxis()
        axis.tick_params(rotation=0)
    return figure


@styled
def layer_shares(records: Sequence[dict]) -> "Figure":
    """Share of steps in which each layer learned, one line per method."""
    table = layer_frequency(records)
    figure, axis = canvas(DOUBLE, 2.6)
    for method, row in table.iterrows():
        axis.plot(row.index, row.values, "o-", color=method_colour(method), ms=3, lw=1, label=method)
    axis.set(xlabel="layer (0: next to the embeddings)", ylabel="share of steps it learned", ylim=(-0.03, 1.03))
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure
