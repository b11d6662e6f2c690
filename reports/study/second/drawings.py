"""The figures of the report. Each comes with its title, which says what is to be seen."""

import pandas
import seaborn
from matplotlib.figure import Figure

from irtuning.analysis.figures.style import (
    DOUBLE, canvas, entitle, heat_map, legend_above, method_colour, styled, title_of,
)  # fmt: skip
from irtuning.analysis.statistics import EQUIVALENT
from irtuning.analysis.tables import chosen

MARKS = {"iterater": "o", "arxivedits": "s", "argrewrite": "^"}  # of corpora; the mean is a diamond


@styled
def claims(table: pandas.DataFrame, verdicts: dict[str, str]) -> tuple[Figure, str]:
    """Draw IR-Tuning's differences with 95 % intervals: a row for each method, a mark for each corpus or their mean.

    `verdicts` gives what stands at the right end of a method's row.
    """
    others, places = list(dict.fromkeys(table.against)), list(dict.fromkeys(table.corpus))
    figure, axis = canvas(DOUBLE, 0.42 * len(others) + 1.2)
    axis.axvspan(-EQUIVALENT, EQUIVALENT, color="0.92", lw=0)
    axis.axvline(0, color="0.4", lw=1)
    for number, place in enumerate(places):
        part = table[table.corpus == place]
        rows = [others.index(name) + 0.17 * (number - (len(places) - 1) / 2) for name in part.against]
        colour = seaborn.color_palette("colorblind")[list(MARKS).index(place)] if place in MARKS else "black"
        ends = [part.difference - part.low, part.high - part.difference]
        axis.errorbar(part.difference, rows, xerr=ends, fmt=MARKS.get(place, "D"), color=colour, capsize=2, ms=4,
                      label=title_of(place))  # fmt: skip
    axis.set_yticks(range(len(others)), [f"IR-Tuning − {title_of(name)}" for name in others])
    beside = axis.secondary_yaxis("right")
    beside.set_yticks(range(len(others)), [verdicts.get(name, "") for name in others])
    beside.tick_params(length=0)
    beside.spines["right"].set_visible(False)
    axis.set(ylim=(len(others) - 0.5, -0.5), xlabel="difference in test macro F1 (grey: within ±0.01)")
    sure = table[(table.low > 0) | (table.high < 0)].groupby("against", sort=False).size()
    named = " and ".join(f"{title_of(name)} ({count})" for name, count in sure.items())
    return entitled(figure, f"{sure.sum()} of {len(table)} intervals exclude zero" + f": those to {named}" * bool(named))


@styled
def floor(table: pandas.DataFrame) -> tuple[Figure, str]:
    """Draw floors, Full PEFT and what an annotator reaches on part D, a row for each corpus.

    The columns are corpus, operation, floor, full (macro F1), difference and bar (of Full PEFT and the floor), and
    people, low, high (an annotator's score with its interval, NaN where none is known).
    """
    figure, axis = canvas(DOUBLE, 0.42 * len(table) + 0.9)
    rows, colours = range(len(table)), seaborn.color_palette("colorblind")
    axis.hlines(rows, table.floor, table.floor + table.bar, color="0.85", lw=9, zorder=0, label="two standard errors")
    axis.plot(table.operation, rows, "|", color="0.5", ms=9, label="operation floor")
    axis.plot(table.floor, rows, "D", color="0.25", ms=4, mfc="white", label="edit-aware floor")
    axis.plot(table.full, [row - 0.2 for row in rows], "o", color=method_colour("full"), ms=5, label="Full PEFT")
    known = table[table.people.notna()]
    ends = [known.people - known.low, known.high - known.people]
    axis.errorbar(known.people, [i + 0.2 for i in rows if table.people.notna().iloc[i]], xerr=ends, fmt="s", ms=4,
                  capsize=2, lw=1, color=colours[1], label="annotator against another")  # fmt: skip
    axis.set_yticks(rows, map(title_of, table.corpus))
    axis.set(ylim=(len(table) - 0.5, -0.5), xlabel="macro F1 on part D")
    above = (table.difference > table.bar).sum()
    return entitled(figure, f"On {above} of {len(table)} corpora Full PEFT is beyond the grey bar, as the gate asks")


@styled
def detectable(table: pandas.DataFrame, wanted: float | None, made: int) -> tuple[Figure, str]:
    """Draw the difference that would be seen (columns: corpora or their mean) over the number of seeds (rows)."""
    figure, axis = canvas(DOUBLE, 2.5)
    for name, colour in zip(table, seaborn.color_palette("colorblind"), strict=False):
        axis.plot(table.index, table[name], "o-", ms=4, lw=1, color=colour, label=title_of(name))
    if wanted:  # of a mean over primary corpora, so without one there is no such line
        axis.axhline(wanted, color="0.4", ls="--", lw=1, label=f"{wanted:g}, what the plan wants")
    axis.axvline(made, color="0.85", lw=6, zorder=0)
    axis.set(xlabel="seeds in each fold (grey: this study)", ylabel="detectable difference")
    axis.set(ylim=(0, None), xticks=table.index)
    low, high = table.loc[made].min(), table.loc[made].max()
    title = f"With {made} seeds in each fold, a difference of {low:.3f} to {high:.3f} is seen in four of five studies"
    return entitled(figure, title)


@styled
def raster(runs: list[dict]) -> tuple[Figure, str]:
    """Draw which layers learned at each step, a panel for each run."""
    figure, axes = canvas(DOUBLE, 1.2 * len(runs) + 0.5, rows=len(runs), squeeze=False)
    shares = []
    for axis, record in zip(axes[:, 0], runs, strict=True):
        config, steps = record["run"]["config"], record["train"]["steps"]
        learned = pandas.DataFrame({s["step"]: [i in chosen(s) for i in range(record["run"]["depth"])] for s in steps})
        heat_map(axis, learned.astype(float), "", cmap=["0.93", method_colour("ir")], vmin=0, vmax=1, cbar=False,
                 xticklabels=False, yticklabels=max(1, len(learned) // 6))  # fmt: skip
        axis.axvline(len(steps) // 4, color="black", lw=0.8, ls=":")
        sets = pandas.Series([tuple(chosen(s)) for s in steps[len(steps) // 4 :]])
        shares.append(sets.value_counts(normalize=True).iloc[0])
        run = f"{title_of(config['corpus'])}, fold {config['fold']}, seed {config['seed']}"
        axis.set(title=f"{run}: one set has {shares[-1]:.0%} of the steps after the dotted line", ylabel="layer",
                 ylim=(0, len(learned)))  # fmt: skip
        axis.set_xticks(marks := range(0, len(steps), 100), marks)
    axis.set_xlabel("step (coloured: the layer learns; dotted: a quarter of the steps are over)")
    ends = f"{min(shares):.0%} to {max(shares):.0%}"
    return entitled(figure, f"The first run on each corpus: its commonest set of layers has {ends} of the late steps")


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
    least, fast = title_of(table.peak.idxmin()), title_of(table.ms.idxmin())
    apart = table.macro_f1.max() - table.macro_f1.min()
    return entitled(figure, f"Least memory: {least}. Shortest step: {fast}. Scores lie within {apart:.3f}")


def entitled(figure: Figure, title: str) -> tuple[Figure, str]:
    entitle(legend_above(figure), title)
    return figure, title
