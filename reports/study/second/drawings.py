"""The figures of the report. Each comes with its title, which says what is to be seen."""

import numpy as np
import pandas
import seaborn
from matplotlib.figure import Figure

from irtuning.analysis.figures.style import DOUBLE, canvas, entitle, heat_map, legend_above, method_colour, styled, title_of
from irtuning.analysis.statistics import EQUIVALENT
from irtuning.analysis.tables import chosen

MARKS = {"iterater": "o", "arxivedits": "s", "argrewrite": "^"}  # of corpora; the mean is a diamond


@styled
def claims(table: pandas.DataFrame) -> tuple[Figure, str]:
    """Draw differences to IR-Tuning with 95 % intervals: a row for each method, a mark for each corpus."""
    others, places = list(dict.fromkeys(table.against)), list(dict.fromkeys(table.corpus))
    figure, axis = canvas(DOUBLE, 0.42 * len(others) + 1.2)
    axis.axvspan(-EQUIVALENT, EQUIVALENT, color="0.92", lw=0)
    axis.axvline(0, color="0.4", lw=1)
    for number, place in enumerate(places):
        part = table[table.corpus == place]
        rows = [others.index(name) + 0.17 * (number - (len(places) - 1) / 2) for name in part.against]
        style = {"color": "black", "ms": 6} if place not in MARKS else {"color": seaborn.color_palette("colorblind")[number]}
        axis.errorbar(part.difference, rows, xerr=[part.difference - part.low, part.high - part.difference], capsize=2,
                      fmt=MARKS.get(place, "D"), label=title_of(place), **({"ms": 4} | style))  # fmt: skip
    axis.set_yticks(range(len(others)), [f"IR-Tuning − {title_of(name)}" for name in others])
    axis.set(ylim=(len(others) - 0.5, -0.5), xlabel="difference in test macro F1 (grey: within ±0.01)")
    sure = ((table.low > 0) | (table.high < 0)).sum()
    title = f"{sure} of {len(table)} differences have an interval without zero, from {table.difference.min():+.3f} to {table.difference.max():+.3f}"
    return entitled(figure, title)


@styled
def detectable(table: pandas.DataFrame, wanted: float, made: int) -> tuple[Figure, str]:
    """Draw the difference that would be seen (columns: corpora or their mean) over the number of seeds (rows)."""
    figure, axis = canvas(DOUBLE, 2.4)
    for name, colour in zip(table, seaborn.color_palette("colorblind"), strict=False):
        axis.plot(table.index, table[name], "o-", ms=4, lw=1, color=colour, label=title_of(name))
    axis.axhline(wanted, color="0.4", ls="--", lw=1, label=f"{wanted:g}, what the plan wants")
    axis.axvline(made, color="0.85", lw=6, zorder=0)
    axis.set(xlabel="seeds in each fold (grey: as made)", ylabel="detectable macro F1", ylim=(0, None), xticks=table.index)
    seen = ", ".join(f"{value:.3f} ({title_of(name)})" for name, value in table.loc[made].items())
    return entitled(figure, f"With {made} seeds in each fold a difference is seen from {seen}")


@styled
def raster(runs: list[dict]) -> tuple[Figure, str]:
    """Draw which layers learned at each step, a panel for each run, first one corpus's and then the next one's."""
    figure, axes = canvas(DOUBLE, 1.5 * len(runs) + 0.5, rows=len(runs), squeeze=False)
    late = []
    for axis, record in zip(axes[:, 0], runs, strict=True):
        config, steps = record["run"]["config"], record["train"]["steps"]
        learned = pandas.DataFrame({s["step"]: [i in chosen(s) for i in range(record["run"]["depth"])] for s in steps})
        heat_map(axis, learned.astype(float), "", cmap=["0.93", method_colour("ir")], vmin=0, vmax=1, cbar=False,
                 xticklabels=max(1, len(steps) // 8), yticklabels=max(1, len(learned) // 6))  # fmt: skip
        axis.axvline(len(steps) // 4, color="black", lw=0.8, ls=":")
        axis.set(title=f"{title_of(config['corpus'])}, fold {config['fold']}, seed {config['seed']}", ylabel="layer", ylim=(0, len(learned)))
        sets = pandas.Series([tuple(chosen(s)) for s in steps[len(steps) // 4 :]])
        late.append(f"{sets.value_counts(normalize=True).iloc[0]:.0%} on {title_of(config['corpus'])}")
    axis.set_xlabel("step (dotted: a quarter of them)")
    return entitled(figure, f"Layers that learn (coloured). One set has of the late steps {', '.join(late)}")


@styled
def costs(table: pandas.DataFrame) -> tuple[Figure, str]:
    """Draw the score of each method (row) with its interval against its peak memory, and against its step's time."""
    figure, axes = canvas(DOUBLE, 2.9, columns=2, sharey=True)
    for axis, column, name in zip(axes, ("peak", "ms"), ("peak GPU memory (MiB)", "time of a step (ms)"), strict=True):
        for row in table.itertuples():
            ends = [[row.macro_f1 - row.low], [row.high - row.macro_f1]]
            axis.errorbar(getattr(row, column), row.macro_f1, yerr=ends, fmt="D", ms=5, capsize=2, lw=1,
                          color=method_colour(row.Index), label=title_of(row.Index))  # fmt: skip
        axis.set(xlabel=name)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("test macro F1")
    least, top = title_of(table.peak.idxmin()), title_of(table.macro_f1.idxmax())
    return entitled(figure, f"Least memory: {least}. Highest score: {top}. Scores differ by {np.ptp(table.macro_f1):.3f}")


def entitled(figure: Figure, title: str) -> tuple[Figure, str]:
    entitle(legend_above(figure), title)
    return figure, title
