"""What the study's records say, by the rules of its plan (reports/study/plan.md). Records in, frames out.

All scores are of the test split. A verdict is one of `consistent`, `inconsistent`, `inconclusive`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import pandas

from irtuning.analysis.statistics import compare_methods, comparisons_table, interval
from irtuning.errors import InputError
from irtuning.analysis.convergence import data_curve, reaching
from irtuning.companion.benchmarks import LAYERS
from irtuning.companion.profiles import VARIANT
from irtuning.analysis.tables import models_of, runs_table

PAPERS = ("rst", "ist", "lisa-adapters", "last-k")  # the layer-wise baselines of the claim
PRIMARY = tuple(("ir", other) for other in ("full", *PAPERS, "random-counts"))
AGAINST_IR = (VARIANT, "last-k:share=0.5", "last-k:share=0.33")  # ours, and the last layers: as deep, as many
MARGIN = -0.01  # macro F1 that a method may lose and still be called non-inferior
LEVEL = 0.05
UPPER, SCATTERED = LAYERS["upper"], LAYERS["scattered"]
CHEAPER = 0.15  # share of time or memory of a step that is worth a claim


def primary_comparisons(records: Sequence[dict]) -> pandas.DataFrame:
    """IR-Tuning minus each of six methods on each corpus; see `bootstrap.Comparison`; p values by Holm over all."""
    return comparisons_table(records, PRIMARY)


def non_inferiority(records: Sequence[dict]) -> pandas.DataFrame:
    """Our variant and the two last-k minus IR-Tuning: is the interval's lower end at or above the margin?"""
    table = comparisons_table(records, [(method, "ir") for method in AGAINST_IR])
    return table.assign(non_inferior=table.low >= MARGIN).drop(columns=["p_value", "p_holm"])


def secondary_differences(records: Sequence[dict]) -> pandas.DataFrame:
    """IR-Tuning minus every other method of a panel but Full PEFT: intervals; no p values, for no verdict rests on them."""
    others = dict.fromkeys(record["run"]["config"]["method"] for record in records)
    table = comparisons_table(records, [("ir", other) for other in others if other not in ("ir", "full")])
    return table.drop(columns=["p_value", "p_holm"])


def convergence_differences(records: Sequence[dict]) -> pandas.DataFrame:
    """IR-Tuning minus Full PEFT in steps and seconds to Full PEFT's last loss, over runs, with a 95 % t interval.

    A run that never gets there counts with its whole length; `reached` is the share of IR-Tuning's runs that do.
    """
    rows = []
    for loss in ("training", "validation"):
        table = reaching(records, loss)
        for corpus, part in table.groupby("corpus", sort=False):
            runs = {name: rows.set_index(["fold", "seed"]) for name, rows in part.groupby("method")}
            for unit, whole in (("steps", "all_steps"), ("seconds", "all_seconds")):
                apart = runs["ir"][unit].fillna(runs["ir"][whole]) - runs["full"][unit].fillna(runs["full"][whole])
                row = {"corpus": corpus, "loss": loss, "unit": unit, "reached": runs["ir"].reached.mean()}
                rows.append(row | interval(apart))
    return pandas.DataFrame(rows)


def rate_differences(records: Sequence[dict]) -> pandas.DataFrame:
    """The steps of `convergence_differences` with both methods at one learning rate: a column for each that both ran at.

    Exploratory, not of the plan: it tells what of a difference is the rate's. In words, for a run that never got there
    gives a lower bound.
    """
    columns = {}
    for rate in sorted({record["run"]["config"]["learning_rate"] for record in records}):
        own = [record for record in records if record["run"]["config"]["learning_rate"] == rate]
        if {"ir", "full"} <= {record["run"]["config"]["method"] for record in own}:
            table = convergence_differences(own).query("unit == 'steps'").set_index(["corpus", "loss"])
            bound = table.reached.map(lambda share: "" if share == 1 else "≥ ")
            columns[f"{rate:g}"] = bound + table.difference.map("{:+.0f}".format)
    return pandas.DataFrame(columns)


def size_differences(records: Sequence[dict]) -> pandas.DataFrame:
    """IR-Tuning minus Full PEFT in macro F1 at each share of the training split, by the bootstrap; then the slope.

    The slope is of the difference over the share's doublings, a line through each fold and seed, with a t interval.
    """
    shares = sorted({record["run"]["config"]["train_share"] for record in records})
    rows = []
    for share in shares:
        own = [record for record in records if record["run"]["config"]["train_share"] == share]
        rows.append({"train": f"{share:.0%}"} | asdict(compare_methods(own, "ir", "full")))
    scores = data_curve(records, "test").pivot_table(index=["fold", "seed"], columns=["method", "share"], values="macro_f1")
    apart = scores["ir"] - scores["full"]
    slopes = pandas.Series(np.polyfit(np.log2(apart.columns.to_numpy(float)), apart.to_numpy().T, 1)[0])
    slope = {"train": "slope per doubling"} | interval(slopes)
    return pandas.concat([pandas.DataFrame(rows)[list(slope)], pandas.DataFrame([slope])], ignore_index=True)


def peak_memory(records: Sequence[dict]) -> pandas.DataFrame:
    """Measured peak of GPU memory in MiB, mean over runs: a row for each method, a column for each corpus; NaN on a CPU."""
    return _with_peaks(records).pivot_table(index="method", columns="corpus", values="peak", sort=False, dropna=False)


def memory_differences(records: Sequence[dict]) -> pandas.DataFrame:
    """IR-Tuning minus Full PEFT in peak GPU memory, MiB, over the runs of a corpus, with a 95 % t interval; NaN on a CPU."""
    rows = []
    for corpus, part in _with_peaks(records).groupby("corpus", sort=False):
        peaks = part.pivot(index=["fold", "seed"], columns="method", values="peak")
        share = {"share": (peaks["ir"] / peaks["full"] - 1).mean()}
        rows.append({"corpus": corpus} | interval(peaks["ir"] - peaks["full"]) | share)
    return pandas.DataFrame(rows)


def _with_peaks(records: Sequence[dict]) -> pandas.DataFrame:
    found = [record["meta"] for record in records]
    peaks = [m["peak_memory_bytes"] / 2**20 if m["peak_memory_kind"].startswith("GPU") else float("nan") for m in found]
    return runs_table(records).assign(peak=peaks)


def upper_half_savings(steps: pandas.DataFrame) -> pandas.DataFrame:
    """What layers drawn among the upper half save of a step with as many scattered layers; `cheaper` by the plan's rule.

    Args:
        steps: `measured.step_table`.
    """
    rows = []
    for (name, dropout), part in steps.groupby(["engine", "dropout"], sort=False):
        part = part.set_index("layers")[["step_ms", "peak_gib"]]
        if {UPPER, SCATTERED} <= set(part.index):
            time, memory = 1 - part.loc[UPPER] / part.loc[SCATTERED]
            row = {"engine": name, "dropout": dropout, "time_saved": time, "memory_saved": memory}
            rows.append(row | {"cheaper": max(time, memory) >= CHEAPER})
    return pandas.DataFrame(rows)


def mistakes(records: Sequence[dict], method: str = "ir", most: int = 5) -> pandas.DataFrame:
    """The commonest confusions of a method, mean over its runs of a corpus.

    `share`: of the intention's items; `every_run`: of those mistaken so in one of the runs, how many are in all runs of
    every method that scored the item.
    """
    rows = pandas.DataFrame(
        [
            {"corpus": record["run"]["config"]["corpus"], "method": record["run"]["config"]["method"]}
            | {name: row[name] for name in ("id", "intention", "predicted")}
            for record in records
            for row in record["predictions"]["test"]
        ]
    )
    rows["wrong"] = rows.intention != rows.predicted
    always = rows.groupby(["corpus", "id"]).wrong.transform("min")
    own = rows.assign(always=always)[rows.method == method]
    counts = own.groupby(["corpus", "intention"]).size()
    found = own[own.wrong].groupby(["corpus", "intention", "predicted"]).agg(items=("id", "size"), every_run=("always", "mean"))
    found = found.reset_index().sort_values(["corpus", "items"], ascending=[True, False], kind="stable")
    total = counts.loc[list(zip(found.corpus, found.intention, strict=True))].to_numpy()
    found = found.assign(share=found["items"] / total).groupby("corpus", sort=False).head(most)
    return found[["corpus", "intention", "predicted", "share", "every_run"]].reset_index(drop=True)


def costs(panels: Mapping[str, Sequence[dict]]) -> pandas.DataFrame:
    """What each panel cost: runs it adds to those before, optimizer steps, hours of training, test splits scored."""
    seen, rows = set(), []
    for name, records in panels.items():
        keys = [str(sorted(record["run"]["config"].items())) for record in records]
        new = [record for record, key in zip(records, keys, strict=True) if key not in seen]
        seen.update(keys)
        rows.append({
            "panel": name, "runs": len(new), "steps": sum(len(r["train"]["steps"]) for r in new),
            "training_hours": sum(sum(r["meta"]["step_seconds"]) for r in new) / 3600,
            "test_scored": sum(r["scores"]["test_scored"] for r in new),
        })  # fmt: skip
    table = pandas.DataFrame(rows).set_index("panel")
    return pandas.concat([table, table.sum().to_frame("all").T.astype(table.dtypes)]).rename_axis("panel")


def claims(records: Sequence[dict], of_sizes: Sequence[dict]) -> pandas.DataFrame:
    """The abstract's claims with the verdict on each, from the headline's records and those on shares of the training split.

    `rule` says whose rule a verdict follows: the plan's, or one made when the report was written.

    Raises:
        InputError: records of a synthetic corpus, which can say nothing about a claim.
    """
    if any(record["run"]["synthetic_corpus"] for record in records):
        raise InputError("a verdict needs real corpora, and these records are of the synthetic one")
    corpora = dict.fromkeys(record["run"]["config"]["corpus"] for record in records)
    small = size_differences(of_sizes) if of_sizes else None
    tables = primary_comparisons(records), convergence_differences(records), memory_differences(records), small
    return verdicts(*tables, f"{models_of(records)}, {' and '.join(corpora)}")


def verdicts(
    comparisons: pandas.DataFrame, convergence: pandas.DataFrame, memory: pandas.DataFrame,
    sizes: "pandas.DataFrame | None", setting: str,
) -> pandas.DataFrame:  # fmt: skip
    """The verdict on each claim from the tables that it rests on, and what it rests on in words."""
    papers, chosen = (comparisons[comparisons.against.isin(names)] for names in (PAPERS, ["random-counts"]))
    small = None if sizes is None else sizes[sizes.train.isin(("5%", "10%"))]
    unrun = small is None or not len(small)
    rows = [
        ("scores higher than layer-wise baselines", "plan", _sure(papers), _compared(papers)),
        ("it is the choice of layers, not their number", "ours", _sure(chosen), _compared(chosen)),
        ("converges fast: steps and seconds to Full PEFT's loss", "plan for it, ours against", _said(convergence.high < 0, convergence.low > 0),
         _intervals(convergence, "{corpus}, {loss} loss: {difference:+.1f} {unit} [{low:+.1f}, {high:+.1f}], {reached:.0%} get there")),
        ("low GPU memory: measured peak below Full PEFT's", "ours", _said(memory.high < 0, memory.low > 0),
         _intervals(memory, "{corpus}: {difference:+.0f} MiB [{low:+.0f}, {high:+.0f}], {share:+.1%}")),
        ("works on small corpora: above Full PEFT at 5 and 10 % of train", "ours",
         "not run" if unrun else _said(small.low > 0, small.high < 0),
         "" if unrun else _intervals(small, "{train} of train: {difference:+.3f} [{low:+.3f}, {high:+.3f}]")),
    ]  # fmt: skip
    table = pandas.DataFrame(rows, columns=["claim", "rule", "verdict", "evidence"])
    return table.assign(verdict=[f"on {setting}: {said}" for said in table.verdict])


def _sure(table: pandas.DataFrame) -> str:
    sure = table.p_holm < LEVEL
    return _said((table.difference > 0) & sure, (table.difference < 0) & sure)


def _compared(table: pandas.DataFrame) -> str:
    if not len(table):
        return ""
    sure = table[table.p_holm < LEVEL]
    above, below = (sure.difference > 0).sum(), (sure.difference < 0).sum()
    ends = (table.loc[index] for index in (table.difference.idxmin(), table.difference.idxmax()))
    least, most = (f"{row.difference:+.3f} (against {row.against}, {row.corpus})" for row in ends)
    seen = f"{table.detectable.min():.3f} to {table.detectable.max():.3f}"
    return f"{above} of {len(table)} differences above zero beyond chance, {below} below; {least} to {most}; detectable {seen}"


def _intervals(table: pandas.DataFrame, form: str) -> str:
    return "; ".join(form.format(**row) for row in table.to_dict("records"))


def _said(above: pandas.Series, below: pandas.Series) -> str:
    if not len(above):
        return "not run"
    return "consistent" if above.all() else "inconsistent" if below.any() else "inconclusive"
