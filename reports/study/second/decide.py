"""Decide what the plan leaves to runs: class weights, primary corpora, learning rates and the number of seeds.

`second.py decide` reads validation parts only. It writes `gate.md`, `rates.md` and `settings.json`, and
fills the open lines of the plan. `second.py seeds` reads the first two seeds of the headline, shows no difference
between methods, and writes `seeds.json`, once.
"""

import json
import re
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas
import second
from second import BOTH, CLASS, GATE_RATE, RATED, failed, first_grid, missing, recorded, settings

from irtuning.analysis.statistics import compare_methods, contributions, paired_runs, two_way_error
from irtuning.analysis.tables import groups_by, markdown, runs_table
from irtuning.companion.scoreboard import confirmatory
from irtuning.errors import InputError
from irtuning.training.record import write_text

FLOOR = "edit-aware"
COMPARED = ["ir", "random-static", "last-k", "ist", "full"]  # methods of the primary comparisons
TEST_ITEMS = {"iterater": 3164, "arxivedits": 1356}  # of folds 0 to 3, without those that the first edition scored
SEEDS, DETECTABLE = range(2, 7), 2.80  # numbers of seeds to choose from; in standard errors: 5 %, power 80 %
WANTED = 0.01 / DETECTABLE  # standard error of a mean over the primary corpora


def decide(runs: Path, out: Path) -> dict:
    """Write the tables, the figure, the settings and the plan's open lines as far as runs are whole.

    What is missing is printed. Returns the settings. InputError is raised if the plan is closed, or the gate is whole
    on no corpus.
    """
    plan = second.PLAN.read_text(encoding="utf-8")
    if second.OPEN not in plan:
        raise InputError("the plan is closed, so nothing in it is decided anew")
    chosen, floors = settings(), json.loads((runs / "floors.json").read_text(encoding="utf-8"))
    table, lines = gate(whole("gate", second.USUAL["gate"], chosen, runs), floors), {}
    write_text(out / "gate.md", f"# The gate\n\n{markdown(table.round(4))}")
    if not set(BOTH) <= set(table.corpus):
        print(f"class weights stay open until the gate is whole on {' and '.join(BOTH)}")
        return chosen
    means = table[table.corpus.isin(BOTH)].groupby("class_weights").macro_f1.mean()
    chosen["class_weights"] = weights = "balanced" if means.get("balanced", 0) > means["none"] else "none"
    table = table[table.class_weights == weights]
    chosen["primary"] = [c for c in BOTH if c in set(table.corpus[table.passes])]  # ArgRewrite is a replication only
    lines["weights"] = f"{weights}. Full PEFT's mean macro F1: {', '.join(f'{w} {m:.4f}' for w, m in means.items())}."
    lines["gate"] = " ".join(f"{r.corpus}: {r.difference:+.4f}, standard error {r.error:.4f}, "
                             f"{'passes' if r.passes else 'fails'}." for r in table.itertuples()) + (
        f" Primary: {', '.join(chosen['primary']) or 'none'} (`second/gate.md`).")  # fmt: skip
    chosen["rates"] = {}
    if tried := whole("rates", BOTH, chosen, runs):
        curve = rate_table(tried, failed("rates", runs))
        best, grid = rates_of(curve, floors)
        longer = {c: {n: g for n, g in of.items() if g != chosen["grid"].get(c, {}).get(n, [*first_grid(n)])}
                  for c, of in grid.items()}  # fmt: skip
        chosen |= {"grid": chosen["grid"] | grid, "rates": {c: r for c, r in best.items() if not longer[c]}}
        for corpus, name, points in ((c, n, g) for c, of in longer.items() for n, g in of.items()):
            print(f"{corpus}: the grid of {name} is extended to {points}; make the stage rates again, then decide")
        spread = expected(tried, best)
        tables = [markdown(curve.round({"mean": 4, "std": 4, "min": 4})), "Expected standard error of a primary "
                  "comparison, by number of seeds a fold:\n", markdown(spread.round(4))]  # fmt: skip
        write_text(out / "rates.md", "\n".join(["# Learning rates, on part D\n", *tables]))
    if set(chosen["rates"]) == set(BOTH):
        said = {c: ", ".join(f"{name} {rate:g}" for name, rate in of.items()) for c, of in chosen["rates"].items()}
        lines["rates"] = " ".join(f"{corpus}: {text}." for corpus, text in said.items()) + " (`second/rates.md`)"
        low, high = ([row[f"{n} seeds"] for n in SEEDS] for row in spread[spread.corpus == "mean"].to_dict("records"))
        lines["error"] = (f"{low[2]:.4f} to {high[2]:.4f} with four seeds a fold, so that a difference of "
                          f"{DETECTABLE * low[2]:.3f} to {DETECTABLE * high[2]:.3f} would be seen.")  # fmt: skip
    del chosen["seeds"]  # theirs is a file of its own, outside of the plan's hash
    write_text(out / "settings.json", json.dumps(chosen, indent=1) + "\n")
    for name, line in lines.items():
        plan = re.sub(rf"^\*(Open|Decided), {name}:\*.*$", f"*Decided, {name}:* {line}", plan, flags=re.MULTILINE)
        print(f"{name}: {line}")
    write_text(second.PLAN, plan)
    return chosen


def whole(stage: str, corpora: list[str], chosen: dict, runs: Path) -> list[dict]:
    """The planned records of a stage on the corpora that lack none, and a line about each other corpus."""
    corpora = list(corpora)
    for corpus in [*corpora]:
        if lacking := missing(stage, corpus, chosen, runs):
            of = len(second.planned(stage, corpus, chosen))
            print(f"{stage} on {corpus} lacks {len(lacking)} of {of} runs, so nothing is decided there")
            corpora.remove(corpus)
    weights = ("none", "balanced") if stage == "gate" else (chosen["class_weights"],)
    every = ((record, record["run"]["config"]) for record in recorded(runs, stage))
    return [r for r, config in every if config["corpus"] in corpora and config["class_weights"] in weights]


def gate(records: list[dict], floors: list[dict]) -> pandas.DataFrame:
    """Full PEFT minus the edit-aware floor on part D, for each corpus and class weights, with its two-way error."""
    rows = []
    for (corpus, weights), part in groups_by(records, ["corpus", "class_weights"]).items():
        (floor,) = [f for f in floors if on_d(f, corpus) and f["name"] == FLOOR]
        found = compare_methods(part + [beside(floor, r) for r in part], "full", FLOOR, split="validation")
        f1 = runs_table(part).macro_f1
        rows.append({"corpus": corpus, "class_weights": weights, "rate": GATE_RATE, "runs": len(part),
                     "macro_f1": f1.mean(), "sd": f1.std(), "floor": floor["macro_f1"], "difference": found.difference,
                     "error": found.error, "passes": bool(found.difference > 2 * found.error)})  # fmt: skip
    if not rows:
        raise InputError("the gate is whole on no corpus; make its runs first")
    return pandas.DataFrame(rows)


def on_d(floor: dict, corpus: str) -> bool:
    """Whether a floor is one of a corpus's part D."""
    return (floor["corpus"], floor["fold"], floor["split"]) == (corpus, 0, "validation")


def beside(floor: dict, record: dict) -> dict:
    """A record with a floor's predictions in place of a run's, paired with that run."""
    run = record["run"] | {"config": record["run"]["config"] | {"method": floor["name"]}}
    return {"run": run, "predictions": {floor["split"]: floor["predictions"]}}


def rate_table(records: list[dict], lost: list[dict]) -> pandas.DataFrame:
    """Mean, spread and lowest macro F1 on part D by corpus, class, method and rate. A failed run counts as zero."""
    table = runs_table(records).assign(learning_rate=[r["run"]["config"]["learning_rate"] for r in records])
    weights, corpora = records[0]["run"]["config"]["class_weights"], set(table.corpus)
    zeros = [r | {"macro_f1": 0.0} for r in lost if r["class_weights"] == weights and r["corpus"] in corpora]
    table = pandas.concat([table, pandas.DataFrame(zeros)]) if zeros else table
    table = table.rename(columns={"learning_rate": "rate"})
    table["class"] = table.method.map(lambda name: CLASS.get(name, name))
    of = table.groupby(["corpus", "class", "method", "rate"]).macro_f1
    return of.agg(["mean", "std", "min", "size"]).reset_index()


def rates_of(curve: pandas.DataFrame, floors: list[dict]) -> tuple[dict, dict]:
    """The best rate of each class on each corpus, and its grid, extended where the best rate is at an end.

    A class counts by the mean of its methods. A rate beyond one at which a run diverged is not asked for.
    """
    low = {f["corpus"]: f["macro_f1"] for f in floors if on_d(f, f["corpus"]) and f["name"] == "operation"}
    rates, grid = {}, {}
    for (corpus, name), of in curve.groupby(["corpus", "class"]):
        scores = of.groupby("rate")["mean"].mean()
        best, lowest = float(scores.idxmax()), of[of.rate == scores.index[-1]]["min"].min()  # of equals the lower rate
        points = set(scores.index)
        if best == scores.index[-1] and lowest > low.get(corpus, 0):
            points.add(2 * best)
        if best == scores.index[0]:
            points.add(best / 2)
        rates.setdefault(corpus, {})[name] = best
        grid.setdefault(corpus, {})[name] = sorted(points)
    return rates, grid


def variance(records: list[dict], split: str) -> np.ndarray:
    """The three parts of a difference's squared two-way error, mean over all pairs of the methods in the records.

    The part of clusters stays however many seeds there are. Those of items and of whole runs are of one seed a fold. A
    mean over all pairs is a mean over all permutations of the methods' names, so it shows no difference.
    """
    methods, found = dict.fromkeys(r["run"]["config"]["method"] for r in records), []
    for pair in combinations(methods, 2):
        (_, one), (_, other) = (contributions(of, split) for of in paired_runs(records, *pair, split))
        cells, items, seeds = [(names, a - b) for (names, a), (_, b) in zip(one, other, strict=True)], 0.0, 0.0
        clusters = two_way_error([(names, part.mean(0, keepdims=True)) for names, part in cells]) ** 2  # of the means
        for _, part in cells:
            rest = part - part.mean(0) - part.mean(1, keepdims=True) + part.mean()
            items += (rest**2).sum() / (len(part) - 1) * part.shape[1] / (part.shape[1] - 1)
            seeds += part.sum(1).var(ddof=1)
        found.append((clusters - items / len(part), items, seeds - items))
    return np.mean(found, axis=0).clip(min=0)


def expected(records: list[dict], rates: dict) -> pandas.DataFrame:
    """The errors to be expected on the test parts by number of seeds, from runs on part D at the chosen rates.

    The noise of items falls with the number of items. What makes a whole run better or worse falls with that of runs.
    """
    parts, rows = {}, []
    for (corpus,), of in groups_by(records, ["corpus"]).items():
        configs = ((r, r["run"]["config"]) for r in of)
        chosen = [r for r, c in configs if c["method"] in COMPARED
                  and c["learning_rate"] == rates[corpus][CLASS.get(c["method"], c["method"])]]  # fmt: skip
        clusters, items, runs = variance(chosen, "validation")
        ratio = len(of[0]["predictions"]["validation"]) / TEST_ITEMS[corpus]
        parts[corpus] = np.array([(clusters * ratio, items * ratio), (clusters * ratio, items * ratio + runs / 4)])
    parts["mean"] = sum(parts.values()) / len(parts) ** 2
    for corpus, kind in product(parts, (0, 1)):
        name = ("in single items", "as whole runs too")[kind]
        rows.append({"corpus": corpus, "seeds differ": name} | errors(*parts[corpus][kind]))
    return pandas.DataFrame(rows)


def errors(fixed: float, seed: float) -> dict:
    """The standard error by number of seeds a fold."""
    return {f"{n} seeds": float(np.sqrt(fixed + seed / n)) for n in SEEDS}


def seeds(runs: Path, out: Path) -> dict:
    """Choose the number of seeds from the first two of the headline, and write it to `seeds.json`, once."""
    chosen, path = settings() | {"seeds": 2}, second.SEEDS
    if path.exists():
        raise InputError(f"{path.name} exists: the number of seeds is fixed")
    corpora = chosen["primary"] or BOTH
    for corpus in corpora:
        if lacking := missing("headline", corpus, chosen, runs):
            raise InputError(f"two seeds a fold of the headline on {corpus} lack {len(lacking)} runs; make them first")
    made = confirmatory([r for r in recorded(runs, "headline") if r["run"]["config"]["method"] in COMPARED])
    parts = [variance(of, "test") for (corpus,), of in groups_by(made, ["corpus"]).items() if corpus in corpora]
    clusters, items, whole_runs = np.sum(parts, axis=0) / len(parts) ** 2
    by_number = errors(clusters, items + whole_runs)
    number = next((n for n in SEEDS if by_number[f"{n} seeds"] <= WANTED), max(SEEDS))
    made = {"seeds": number, "standard_error": by_number, "wanted": WANTED, "corpora": corpora, "methods": COMPARED}
    write_text(path, json.dumps(made, indent=1) + "\n")
    print(json.dumps(made))
    return made


def drawn(curve: pandas.DataFrame, floors: list[dict], best: dict) -> tuple:
    """The figure of macro F1 over the rate, and its title. It has a panel for each corpus, a line for each method, chosen rates filled.

    Points are means over three runs, bars their standard deviations.
    """
    from irtuning.analysis.figures import style
    from irtuning.analysis.figures.style import method_colour, title_of

    @style.styled
    def draw():
        figure, panels = style.corpus_panels(curve, 3.6)
        for part, (axis,) in panels:
            corpus = part.corpus.iloc[0]
            axis.set_title(title_of(corpus))
            for number, method in enumerate(m for m in RATED if m in set(part.method)):
                of, colour = part[part.method == method], method_colour(method)
                x = of.rate * 1.02 ** (number - 3)  # a little apart, so that bars do not cover each other
                axis.errorbar(x, of["mean"], yerr=of["std"], lw=1, capsize=2, color=colour, label=title_of(method),
                              fmt="o-", ms=4, mfc="white")  # fmt: skip
                rate = best[corpus][CLASS.get(method, method)]
                axis.plot(x[of.rate == rate], of["mean"][of.rate == rate], "o", ms=5, color=colour, zorder=9)
            for floor in (f for f in floors if on_d(f, corpus) and f["name"] == FLOOR):
                axis.axhline(floor["macro_f1"], color="0.25", ls="--", lw=1, label="edit-aware floor")
            ticks = [rate for rate in sorted(set(part.rate)) if not part.rate.between(1.01 * rate, 1.4 * rate).any()]
            axis.set(xscale="log", xlabel="learning rate", ylabel="macro F1 on part D")
            axis.set_xticks(ticks, [f"{tick:.6f}".rstrip("0") for tick in ticks], rotation=60)
            axis.minorticks_off()
        own = curve.apply(lambda row: best[row.corpus][row["class"]], axis=1)
        top = curve[curve.rate == own].set_index(["corpus", "method"])["mean"]
        near = curve[(curve.rate == 2 * own) | (curve.rate == own / 2)].set_index(["corpus", "method"])["mean"]
        lost, apart = (top.reindex(near.index) - near).max(), top.groupby("corpus").agg(np.ptp).max()
        title = f"Half or twice the best rate costs up to {lost:.2f} macro F1; methods differ by up to {apart:.2f}"
        style.entitle(style.legend_above(figure), title)
        return figure, title
    return draw()
