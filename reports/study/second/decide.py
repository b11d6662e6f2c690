"""Decide what the plan leaves to the gate and the rates: class weights, primary corpora, learning rates.

Called by `second.py decide`. It reads validation parts only, and writes `gate.md`, `rates.md`, `rates.png` and
`settings.json`.
"""

import json
from pathlib import Path

import pandas
from second import CLASS, GATE_RATE, GRID, recorded, settings

from irtuning.analysis.statistics import compare_methods
from irtuning.analysis.tables import markdown, runs_table
from irtuning.errors import InputError
from irtuning.training.record import write_bytes, write_text

BOTH = ["iterater", "arxivedits"]  # class weights and rates are chosen on these two
FLOOR = "edit-aware"


def decide(runs: Path, out: Path) -> dict:
    """Write the tables, the figure and the settings, and return the settings."""
    chosen, floors = settings(), json.loads((runs / "floors.json").read_text(encoding="utf-8"))
    table = gate(recorded(runs, "gate"), floors)
    chosen["class_weights"] = weights_of(table)
    passed = table[(table.class_weights == chosen["class_weights"]) & table.passes]
    chosen["primary"] = [corpus for corpus in passed.corpus if corpus != "argrewrite"]  # a replication only
    texts = {"gate.md": markdown(table.round(4)), "settings.json": json.dumps(chosen, indent=1)}
    if records := [r for r in recorded(runs, "rates") if r["run"]["config"]["class_weights"] == chosen["class_weights"]]:
        curve = rate_table(records)
        chosen["rates"], chosen["grid"] = rates_of(curve, floors)
        spread = errors(records, chosen["rates"])
        texts |= {"rates.md": f"{markdown(curve.round(4))}\n{markdown(spread.round(4))}", "settings.json": json.dumps(chosen, indent=1)}
        write_bytes(out / "rates.png", drawn(curve, floors))
    for name, text in texts.items():
        write_text(out / name, text.rstrip() + "\n")
        print(text)
    return chosen


def gate(records: list[dict], floors: list[dict]) -> pandas.DataFrame:
    """Full PEFT minus the edit-aware floor on part D, for each corpus and class weights, with its two-way error."""
    rows = []
    for (corpus, weights), part in grouped(records, "corpus", "class_weights").items():
        (floor,) = [f for f in floors if (f["corpus"], f["fold"], f["split"], f["name"]) == (corpus, 0, "validation", FLOOR)]
        found = compare_methods(part + [beside(floor, r) for r in part], "full", FLOOR, split="validation")
        f1 = runs_table(part).macro_f1
        rows.append({"corpus": corpus, "class_weights": weights, "rate": GATE_RATE, "runs": len(part), "macro_f1": f1.mean(), "sd": f1.std(),
                     "floor": floor["macro_f1"], "difference": found.difference, "error": found.error,
                     "passes": bool(found.difference > 2 * found.error)})  # fmt: skip
    if not rows:
        raise InputError("there are no runs of the gate; make them first")
    return pandas.DataFrame(rows)


def beside(floor: dict, record: dict) -> dict:
    """A record with a floor's predictions in place of a run's, paired with that run."""
    run = record["run"] | {"config": record["run"]["config"] | {"method": floor["name"]}}
    return {"run": run, "predictions": {floor["split"]: floor["predictions"]}}


def weights_of(table: pandas.DataFrame) -> str:
    """The class weights with the higher mean over the two corpora; of equals none."""
    means = table[table.corpus.isin(BOTH)].groupby("class_weights").macro_f1.mean()
    return "balanced" if means.get("balanced", 0) > means.get("none", 0) else "none"


def rate_table(records: list[dict]) -> pandas.DataFrame:
    """Mean and spread of macro F1 on part D for each corpus, class of methods, method and rate."""
    table = runs_table(records).assign(rate=[r["run"]["config"]["learning_rate"] for r in records])
    table["class"] = table.method.map(lambda name: CLASS.get(name, name))
    grouped = table.groupby(["corpus", "class", "method", "rate"], sort=False).macro_f1
    return grouped.agg(["mean", "std", "size"]).reset_index().sort_values(["corpus", "class", "method", "rate"])


def rates_of(curve: pandas.DataFrame, floors: list[dict]) -> tuple[dict, dict]:
    """The best rate of each class on each corpus, and each class's grid, extended where a best rate is at its end.

    A class counts by the mean of its methods. A rate beyond one that diverged is not asked for.
    """
    low = {f["corpus"]: f["macro_f1"] for f in floors if f["name"] == "operation" and f["split"] == "validation"}
    rates, grid = {}, {}
    means = curve.groupby(["corpus", "class", "rate"])["mean"].mean()
    for (corpus, name), of in means.groupby(level=["corpus", "class"]):
        scores = of.droplevel(["corpus", "class"]).sort_index()
        best = scores.idxmax()  # the lower of equals
        rates.setdefault(corpus, {})[name] = float(best)
        points = grid.setdefault(name, {*GRID["parameters" if name == "full-ft" else "adapters"], *scores.index})
        if best == scores.index[-1] and scores.iloc[-1] > low.get(corpus, 0):
            points.add(2 * best)
        if best == scores.index[0]:
            points.add(best / 2)
    return rates, {name: sorted(points) for name, points in grid.items()}


def errors(records: list[dict], rates: dict) -> pandas.DataFrame:
    """Two-way errors of paired differences on part D at the chosen rates. The differences themselves are not shown."""
    rows = []
    for (corpus,), part in grouped(records, "corpus").items():
        at = [r for r in part if r["run"]["config"]["learning_rate"] == rates[corpus].get("many")]
        pairs = [("ir", "random-static")] + [("ir", "full")] * (rates[corpus].get("many") == rates[corpus].get("full"))
        for pair in pairs:
            found = compare_methods(at, *pair, split="validation")
            rows.append({"corpus": corpus, "pair": " - ".join(pair), "error": found.error, "runs": found.runs, "clusters": found.clusters})
    return pandas.DataFrame(rows)


def drawn(curve: pandas.DataFrame, floors: list[dict]) -> bytes:
    """The figure of macro F1 over the rate, a panel for each corpus, a line for each method."""
    from irtuning.analysis.figures.style import corpus_panels, legend_above, method_colour, styled, to_image

    @styled
    def draw():
        figure, panels = corpus_panels(curve, 3.2)
        for part, (axis,) in panels:
            for method, of in part.groupby("method", sort=False):
                axis.errorbar(of.rate, of["mean"], yerr=of["std"], fmt="o-", ms=3, lw=1, capsize=2, color=method_colour(method), label=method)
            for floor in floors:
                if (floor["corpus"], floor["fold"], floor["split"], floor["name"]) == (part.corpus.iloc[0], 0, "validation", FLOOR):
                    axis.axhline(floor["macro_f1"], color="0.25", ls="--", lw=1, label="edit-aware floor")
            axis.set(xscale="log", xlabel="learning rate", ylabel="macro F1 on part D (mean and SD of three runs)")
        return legend_above(figure)
    return to_image(draw())


def grouped(records: list[dict], *names: str) -> dict[tuple, list[dict]]:
    """Records by these settings of their configurations."""
    groups: dict[tuple, list[dict]] = {}
    for record in records:
        groups.setdefault(tuple(record["run"]["config"][name] for name in names), []).append(record)
    return groups
