"""Tables and verdicts from the study's test scores, by the rules of its plan, `reports/study/plan.md`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import pandas

from irtuning.analysis.convergence import data_curve, reaching
from irtuning.analysis.statistics import ALPHA, against_all, compare_methods, comparisons_table, interval
from irtuning.analysis.tables import groups_by, models_of, runs_table
from irtuning.companion.benchmarks import LAYERS
from irtuning.companion.profiles import LAST, VARIANT
from irtuning.errors import InputError

LAYER_WISE = ("rst", "ist", "lisa-adapters", "last-k")  # the baselines in the claim of better scores
PRIMARY = tuple(("ir", other) for other in ("full", *LAYER_WISE, "random-counts"))
CHEAPER = tuple((method, "ir") for method in (VARIANT, *LAST))  # our variant; last layers to the same depth, or as many
TESTS = ["p_value", "p_holm"]  # columns that tables without a test leave out
MARGIN = -0.01  # macro F1 that a method may lose and still be called non-inferior
WORTH_A_CLAIM = 0.15  # share of the time or memory of a step that must be saved


def primary_comparisons(records: Sequence[dict]) -> pandas.DataFrame:
    """Return the score of IR-Tuning minus that of six methods on each corpus, with p values adjusted by Holm."""
    return comparisons_table(records, PRIMARY)


def non_inferiority(records: Sequence[dict]) -> pandas.DataFrame:
    """Return three cheaper methods' scores minus IR-Tuning's, and whether the whole interval is above the margin."""
    return comparisons_table(records, CHEAPER).drop(columns=TESTS).assign(non_inferior=lambda t: t.low >= MARGIN)


def secondary_differences(records: Sequence[dict]) -> pandas.DataFrame:
    """Return IR-Tuning's score minus that of each method but Full PEFT, without p values: no verdict needs them."""
    return comparisons_table(records, [pair for pair in against_all(records) if "full" not in pair]).drop(columns=TESTS)


def convergence_differences(records: Sequence[dict]) -> pandas.DataFrame:
    """Return how much later (or earlier) IR-Tuning reaches Full PEFT's last loss, with a 95 % t interval over runs.

    A run that never reaches it counts with its full length. `reached` is the share of IR-Tuning's runs that reach it.
    """
    rows, tables = [], [reaching(records, loss).assign(loss=loss) for loss in ("training", "validation")]
    for (loss, corpus), part in pandas.concat(tables).groupby(["loss", "corpus"], sort=False):
        ir, full = (part[part.method == name].set_index(["fold", "seed"]) for name in ("ir", "full"))
        for unit in ("steps", "seconds"):
            row = {"corpus": corpus, "loss": loss, "unit": unit, "reached": ir.reached.mean()}
            lengths = [runs[unit].fillna(runs[f"all_{unit}"]) for runs in (ir, full)]
            rows.append(row | interval(lengths[0] - lengths[1]))
    return pandas.DataFrame(rows)


def rate_differences(records: Sequence[dict]) -> pandas.DataFrame:
    """Return the step differences of `convergence_differences` at each learning rate. `≥` marks a lower bound."""
    columns = {}
    for (rate,), part in sorted(groups_by(records, ["learning_rate"]).items()):
        if {"ir", "full"} <= {record["run"]["config"]["method"] for record in part}:
            table = convergence_differences(part).query("unit == 'steps'").set_index(["corpus", "loss"])
            bound = table.reached.map(lambda share: "" if share == 1 else "≥ ")
            columns[f"{rate:g}"] = bound + table.difference.map("{:+.0f}".format)
    return pandas.DataFrame(columns)


def size_differences(records: Sequence[dict]) -> pandas.DataFrame:
    """Return IR-Tuning's macro F1 minus Full PEFT's at each share of train, and its slope per doubling of the data."""
    rows = []
    for (share,), part in sorted(groups_by(records, ["train_share"]).items()):
        rows.append({"train": f"{share:.0%}"} | asdict(compare_methods(part, "ir", "full")))
    scores = data_curve(records, "test").pivot_table("macro_f1", ["fold", "seed"], ["method", "share"])
    apart = scores["ir"] - scores["full"]
    slopes = np.polyfit(np.log2(apart.columns.to_numpy(float)), apart.to_numpy().T, 1)[0]
    rows.append({"train": "slope per doubling"} | interval(pandas.Series(slopes)))
    return pandas.DataFrame(rows)[list(rows[-1])]


def peak_memory(records: Sequence[dict]) -> pandas.DataFrame:
    """Return each method's measured peak of GPU memory on each corpus in MiB, mean over runs. It is NaN on a CPU."""
    return _with_peaks(records).pivot_table(index="method", columns="corpus", values="peak", sort=False, dropna=False)


def memory_differences(records: Sequence[dict]) -> pandas.DataFrame:
    """Return IR-Tuning's peak GPU memory minus Full PEFT's (MiB, NaN on a CPU), with a 95 % t interval over runs."""
    rows = []
    for corpus, part in _with_peaks(records).groupby("corpus", sort=False):
        ir, full = (part[part.method == name].set_index(["fold", "seed"]).peak for name in ("ir", "full"))
        rows.append({"corpus": corpus, **interval(ir - full), "share": (ir / full - 1).mean()})
    return pandas.DataFrame(rows)


def _with_peaks(records: Sequence[dict]) -> pandas.DataFrame:
    meta = pandas.DataFrame([record["meta"] for record in records])
    peaks = (meta.peak_memory_bytes / 2**20).where(meta.peak_memory_kind.str.startswith("GPU"))
    return runs_table(records).assign(peak=peaks)


def upper_half_savings(steps: pandas.DataFrame) -> pandas.DataFrame:
    """Return the time and memory that a step saves with upper layers instead of as many scattered ones, as shares."""
    sets = [steps[steps.layers == LAYERS[name]].set_index(["engine", "dropout"]) for name in ("upper", "scattered")]
    upper, scattered = (table[["step_ms", "peak_gib"]] for table in sets)
    saved = (1 - upper / scattered.reindex(upper.index)).dropna().set_axis(["time_saved", "memory_saved"], axis=1)
    return saved.assign(cheaper=saved.max(axis=1) >= WORTH_A_CLAIM).reset_index()


def mistakes(records: Sequence[dict], method: str = "ir", most: int = 5) -> pandas.DataFrame:
    """Return a method's most common confusions, as shares of an intention. `every_run`: share wrong in all runs."""
    runs = ((pandas.DataFrame(record["predictions"]["test"]), record["run"]["config"]) for record in records)
    rows = pandas.concat(answers.assign(corpus=run["corpus"], method=run["method"]) for answers, run in runs)
    rows["wrong"] = rows.intention != rows.predicted
    rows["always"] = rows.groupby(["corpus", "id"]).wrong.transform("min")
    rows = rows[rows.method == method]
    rows = rows.assign(total=rows.groupby(["corpus", "intention"]).id.transform("size"))
    table = rows[rows.wrong].groupby(["corpus", "intention", "predicted"], as_index=False)
    table = table.agg(count=("id", "size"), total=("total", "first"), every_run=("always", "mean"))
    table = table.sort_values(["corpus", "count"], ascending=[True, False], kind="stable").groupby("corpus").head(most)
    names = ["corpus", "intention", "predicted", "share", "every_run"]
    return table.assign(share=table["count"] / table.total)[names].reset_index(drop=True)


def costs(experiments: Mapping[str, Sequence[dict]]) -> pandas.DataFrame:
    """Return runs, steps and hours of each experiment. A run that several of them share counts for the first one."""
    seen, rows = set(), {}
    for name, records in experiments.items():
        runs = {str(record["run"]["config"]): record for record in records}
        new = [record for key, record in runs.items() if key not in seen]
        seen.update(runs)
        steps, scored = sum(len(r["train"]["steps"]) for r in new), sum(r["scores"]["test_scored"] for r in new)
        hours = sum(sum(record["meta"]["step_seconds"]) for record in new) / 3600
        rows[name] = {"runs": len(new), "steps": steps, "training_hours": hours, "test_scored": scored}
    table = pandas.DataFrame(list(rows.values()), index=list(rows))
    return pandas.concat([table, table.sum().to_frame("all").T.astype(table.dtypes)]).rename_axis("experiment")


def claims(records: Sequence[dict], of_sizes: Sequence[dict]) -> pandas.DataFrame:
    """Return the verdict on each claim, from the main runs and those by data size. InputError for synthetic data."""
    if any(record["run"]["synthetic_corpus"] for record in records):
        raise InputError("a verdict needs real corpora, but these records are of the synthetic one")
    corpora = dict.fromkeys(record["run"]["config"]["corpus"] for record in records)
    small = size_differences(of_sizes) if of_sizes else pandas.DataFrame(columns=["train", "low", "high"])
    tables = (made(records) for made in (primary_comparisons, convergence_differences, memory_differences))
    return verdicts(*tables, small, f"{models_of(records)}, {' and '.join(corpora)}")


def verdicts(comparisons, convergence, memory, sizes, setting: str) -> pandas.DataFrame:
    """Return each claim with its verdict and evidence from four tables, and whose rule it is: the plan's or ours."""
    papers, chosen = (comparisons[comparisons.against.isin(names)] for names in (LAYER_WISE, ["random-counts"]))
    small = sizes[sizes.train.isin(("5%", "10%"))]
    steps = "{corpus}, {loss} loss: {difference:+.1f} {unit} [{low:+.1f}, {high:+.1f}], {reached:.0%} get there"
    mebibytes = "{corpus}: {difference:+.0f} MiB [{low:+.0f}, {high:+.0f}], {share:+.1%}"
    scores = "{train} of train: {difference:+.3f} [{low:+.3f}, {high:+.3f}]"
    rows = [
        ("scores higher than layer-wise baselines", "plan", *_compared(papers)),
        ("it is the choice of layers, not their number", "ours", *_compared(chosen)),
        ("converges fast: steps and seconds to Full PEFT's loss", "plan for it, ours against",
         *_apart(convergence, -1, steps)),
        ("low GPU memory: measured peak below Full PEFT's", "ours", *_apart(memory, -1, mebibytes)),
        ("works on small corpora: above Full PEFT at 5 and 10 % of train", "ours", *_apart(small, 1, scores)),
    ]  # fmt: skip
    table = pandas.DataFrame(rows, columns=["claim", "rule", "verdict", "evidence"])
    return table.assign(verdict=f"on {setting}: " + table.verdict)


def _verdict(for_it: pandas.Series, against_it: pandas.Series) -> str:
    """Return `consistent` if all rows support a claim, and `inconsistent` if any contradicts it."""
    if not len(for_it):
        return "not run"
    return "consistent" if for_it.all() else "inconsistent" if against_it.any() else "inconclusive"


def _compared(table: pandas.DataFrame) -> tuple[str, str]:
    """Return the verdict on a table of differences, and a text with their number, extremes and detectable size."""
    above, below = ((sign * table.difference > 0) & (table.p_holm < ALPHA) for sign in (1, -1))
    ends = table.loc[[table.difference.idxmin(), table.difference.idxmax()]].itertuples()
    least, most = (f"{row.difference:+.3f} (against {row.against}, {row.corpus})" for row in ends)
    counts = f"{above.sum()} of {len(table)} differences above zero beyond chance, {below.sum()} below"
    detectable = f"detectable {table.detectable.min():.3f} to {table.detectable.max():.3f}"
    return _verdict(above, below), f"{counts}; {least} to {most}; {detectable}"


def _apart(table: pandas.DataFrame, sign: int, form: str) -> tuple[str, str]:
    """Return the verdict on a table of intervals, and their list. A difference of this sign supports the claim."""
    sides = (table.low > 0, table.high < 0)[::sign]
    return _verdict(*sides), "; ".join(form.format(**row) for row in table.to_dict("records"))
