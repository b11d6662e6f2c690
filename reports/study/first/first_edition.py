"""Tables and verdicts of the first edition of the study, by the rules of its plan, `plan.md` beside this file.

    python reports/study/first/first_edition.py     # executes the notebook, and writes all that it made here

`first_edition.ipynb` and `summary.md` are made with it. Its records are in `../*.parquet`, and nothing is scored anew.

An interval of a score is over writers or papers and over seeds. Losses, steps, memory and recorded areas are numbers of
whole runs. Their interval is a t interval over the means of folds, or over the runs of a corpus with one fold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas
from scipy import stats

from irtuning.analysis import layers
from irtuning.analysis.statistics import (
    ALPHA, CONFIDENCE, FEWEST, against_all, compare_methods, comparisons_table, mean_of_corpora,
)  # fmt: skip
from irtuning.analysis.tables import groups_by, losses_table, models_of, run_title, runs_table, validation_table
from irtuning.companion.profiles import LAST, VARIANT
from irtuning.companion.reproduce import execute, write_report
from irtuning.errors import InputError

LAYER_WISE = ("rst", "ist", "lisa-adapters", "last-k")  # the baselines in the claim of better scores
PRIMARY = tuple(("ir", other) for other in ("full", *LAYER_WISE, "random-counts"))
CHEAPER = tuple((method, "ir") for method in (VARIANT, *LAST))  # our variant; last layers to the same depth, or as many
TESTS = ["p_value", "p_holm", "equivalent"]  # columns that tables without a test leave out
MARGIN = -0.01  # macro F1 that a method may lose and still be called non-inferior
WORTH_A_CLAIM = 0.15  # share of the time or memory of a step that must be saved
LESS = -0.30  # the abstract: PEFT needs 30 to 40 % less memory than full fine-tuning
LAST_STEPS = 10  # whose mean is a run's last training loss
RUN = ["corpus", "model", "fold", "seed"]  # the fields that compared runs of different methods have in common


def primary_comparisons(records: Sequence[dict]) -> pandas.DataFrame:
    """Return the score of IR-Tuning minus that of six methods on each corpus, with p values adjusted by Holm."""
    return comparisons_table(records, PRIMARY)


def pooled_comparisons(records: Sequence[dict]) -> pandas.DataFrame:
    """Return the primary comparisons and those of three cheaper methods as means over the corpora (exploratory)."""
    return mean_of_corpora(comparisons_table(records, (*PRIMARY, *CHEAPER), tests=1))


def on_untouched(records: Sequence[dict]) -> list[dict]:
    """Return the records without test items of groups that were validation items of any fold of their corpus."""
    seen = {(r["run"]["config"]["corpus"], row["group"]) for r in records for row in r["predictions"]["validation"]}
    left = [[row for row in r["predictions"]["test"] if (r["run"]["config"]["corpus"], row["group"]) not in seen]
            for r in records]  # fmt: skip
    return [r | {"predictions": {"test": rows}} for r, rows in zip(records, left, strict=True) if rows]


def non_inferiority(records: Sequence[dict]) -> pandas.DataFrame:
    """Return three cheaper methods' scores minus IR-Tuning's, and whether the whole interval is above the margin."""
    table = comparisons_table(records, CHEAPER, tests=1).drop(columns=TESTS)
    return table.assign(non_inferior=lambda t: t.low >= MARGIN)


def paired_with(records: Sequence[dict], pairs: Sequence[tuple]) -> pandas.DataFrame:
    """Return differences for these pairs without p values: no verdict needs them."""
    return comparisons_table(records, pairs, tests=1).drop(columns=TESTS)


def against_unchanged(records: Sequence[dict]) -> pandas.DataFrame:
    """Return the score of each variant of IR-Tuning minus IR-Tuning's, and whether both had one learning rate."""
    rates = {run_title(r["run"]["config"]): r["run"]["config"]["learning_rate"] for r in records}
    table = paired_with(records, [(name, "ir") for _, name in against_all(records)])
    return table.assign(equal_rates=table.method.map(rates) == rates["ir"])


def secondary_differences(records: Sequence[dict]) -> pandas.DataFrame:
    """Return IR-Tuning's score minus that of each method but Full PEFT, without p values."""
    return paired_with(records, [pair for pair in against_all(records) if "full" not in pair])


def run_differences(records: Sequence[dict], column: str, pairs: Sequence[tuple] = PRIMARY) -> pandas.DataFrame:
    """Return paired differences of a number of whole runs, with `share` of the second method's and `equal_rates`.

    `column` is auprc (of the test split), loss (mean of the last ten training losses) or peak (measured GPU memory in
    MiB, NaN on a CPU).
    """
    table, rows = runs_table(records, "test"), []
    table["rate"] = [record["run"]["config"]["learning_rate"] for record in records]
    table["loss"] = [np.mean([step["loss"] for step in r["train"]["steps"][-LAST_STEPS:]]) for r in records]
    meta = pandas.DataFrame([record["meta"] for record in records])
    table["peak"] = (meta.peak_memory_bytes / 2**20).where(meta.peak_memory_kind.str.startswith("GPU"))
    for corpus, part in table.groupby("corpus", sort=False):
        runs = {name: of_method.set_index(["fold", "seed"]) for name, of_method in part.groupby("method")}
        for pair in pairs:
            one, other = (runs[name] for name in pair)
            row = {"corpus": corpus, "method": pair[0], "against": pair[1]} | over_folds(one[column] - other[column])
            rows.append(row | {"share": (one[column] / other[column] - 1).mean(), "runs": len(one),
                               "equal_rates": set(one.rate) == set(other.rate)})  # fmt: skip
    return pandas.DataFrame(rows)


def interval(values: pandas.Series) -> dict[str, float]:
    """Return the mean of paired differences between runs and the ends of its 95 % t interval."""
    mean, half = values.mean(), half_width(values)
    return {"difference": mean, "low": mean - half, "high": mean + half}


def half_width(values: pandas.Series) -> float:
    """Return half the width of the 95 % t interval of a mean. It is NaN for fewer than five values."""
    enough = len(values) >= FEWEST
    return float(pandas.Series(values).sem() * stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) if enough else np.nan


def over_folds(values: pandas.Series) -> dict[str, float]:
    """Return the mean of runs' numbers and its 95 % t interval, over the means of folds if there are several."""
    folds = values.groupby(level="fold").mean()
    return interval(folds if len(folds) > 1 else values)


def reaching(records: Sequence[dict], loss: str = "training", smooth: int = 10) -> pandas.DataFrame:
    """Return when each run's loss first reaches the last loss of Full PEFT on the same fold and seed.

    One row per run: its keys, `reached`, `steps` and `seconds` until then (NaN if it is never reached), and the
    totals `all_steps` and `all_seconds`. `loss` is `training`, a running mean over `smooth` steps, or `validation`.
    """
    losses, keys = losses_table(records), [*RUN, "method"]
    if loss == "training":
        losses["loss"] = losses.groupby(keys).loss.transform(lambda s: s.rolling(smooth).mean())
    else:
        losses = validation_table(records).merge(losses.drop(columns="loss"), on=[*keys, "step"])
    goals = losses[losses.method == "full"].groupby(RUN).loss.last().rename("goal")
    losses = losses.merge(goals, on=RUN).rename(columns={"step": "steps"})
    ends = losses.groupby(keys, sort=False)[["steps", "seconds"]].last().add_prefix("all_")
    table = losses[losses.loss <= losses.goal].groupby(keys)[["steps", "seconds"]].first().reindex(ends.index)
    return table.assign(reached=table.steps.notna()).join(ends).reset_index()


def convergence_differences(records: Sequence[dict]) -> pandas.DataFrame:
    """Return how much later (or earlier) IR-Tuning reaches Full PEFT's last loss, with a 95 % t interval.

    A run that never reaches it counts with its full length. `reached` is the share of IR-Tuning's runs that reach it.
    """
    rows, tables = [], [reaching(records, loss).assign(loss=loss) for loss in ("training", "validation")]
    used = pandas.DataFrame([r["run"]["config"] for r in records]).groupby("method").learning_rate.agg(set)
    for (loss, corpus), part in pandas.concat(tables).groupby(["loss", "corpus"], sort=False):
        ir, full = (part[part.method == name].set_index(["fold", "seed"]) for name in ("ir", "full"))
        for unit in ("steps", "seconds"):
            row = {"corpus": corpus, "loss": loss, "unit": unit, "reached": ir.reached.mean()}
            lengths = [runs[unit].fillna(runs[f"all_{unit}"]) for runs in (ir, full)]
            rows.append(row | over_folds(lengths[0] - lengths[1]) | {"equal_rates": used["ir"] == used["full"]})
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


def best_rates(records: Sequence[dict]) -> pandas.DataFrame:
    """Return each method's mean validation macro F1 at each learning rate, and its `best` rate (lower of equals)."""
    table = runs_table(records).assign(rate=[record["run"]["config"]["learning_rate"] for record in records])
    scores = table.pivot_table(index="method", columns="rate", values="macro_f1", sort=False).sort_index(axis=1)
    best = scores.idxmax(axis=1).map("{:g}".format)  # a text, since rounding the table would turn the rates into 0
    return scores.assign(best=best, runs=table.groupby("method").size())


def size_differences(records: Sequence[dict]) -> pandas.DataFrame:
    """Return IR-Tuning's macro F1 minus that of each other method at each share of train, and the slope against Full.

    The slope is per doubling of the data, with a t interval over folds.
    """
    rows, scores = [], runs_table(records, "test").assign(share=[r["run"]["config"]["train_share"] for r in records])
    for (share,), part in sorted(groups_by(records, ["train_share"]).items()):
        others = dict.fromkeys(r["run"]["config"]["method"] for r in part if r["run"]["config"]["method"] != "ir")
        rows += [{"train": f"{share:.0%}"} | asdict(compare_methods(part, "ir", other)) for other in others]
    scores = scores.assign(method=scores.method.str.split(",").str[0])
    scores = scores.pivot_table("macro_f1", ["fold", "seed"], ["method", "share"])
    apart = scores["ir"] - scores["full"]
    slopes = np.polyfit(np.log2(apart.columns.to_numpy(float)), apart.to_numpy().T, 1)[0]
    slope = over_folds(pandas.Series(slopes, apart.index))
    rows.append({"train": "slope per doubling", "method": "ir", "against": "full"} | slope)
    return pandas.DataFrame(rows)[list(rows[-1])]


def peak_memory(records: Sequence[dict]) -> pandas.DataFrame:
    """Return each method's measured peak of GPU memory on each corpus in MiB, mean over runs. It is NaN on a CPU."""
    meta = pandas.DataFrame([record["meta"] for record in records])
    peaks = (meta.peak_memory_bytes / 2**20).where(meta.peak_memory_kind.str.startswith("GPU"))
    table = runs_table(records).assign(peak=peaks)
    return table.pivot_table(index="method", columns="corpus", values="peak", sort=False, dropna=False)


def memory_differences(records: Sequence[dict], pair: tuple = ("ir", "full")) -> pandas.DataFrame:
    """Return one method's peak GPU memory minus another's (MiB, NaN on a CPU), with an interval, also as shares."""
    table = run_differences(records, "peak", [pair])
    whole = (table.difference / table.share).to_numpy()  # of the second method
    return table.assign(share_low=table.low / whole, share_high=table.high / whole)


def choice_over_time(records: Sequence[dict], method: str = "ir") -> pandas.DataFrame:
    """Return for each corpus how one method's runs choose after the first quarter; see `layers.choice_over_time`."""
    records = [record for record in records if run_title(record["run"]["config"]) == method]
    return layers.choice_over_time(records).droplevel("method").reset_index()


def upper_half_savings(steps: pandas.DataFrame) -> pandas.DataFrame:
    """Return the time and memory that a step saves with upper layers instead of as many scattered ones, as shares."""
    sets = [steps[steps.layers == name].set_index("engine") for name in ("14, none below 16", "14 scattered")]
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
    return verdicts({
        "scores": primary_comparisons(records), "loss": run_differences(records, "loss"),
        "convergence": convergence_differences(records), "memory": memory_differences(records),
        "peft": memory_differences(records, ("full", "full-ft")), "choice": choice_over_time(records),
        "sizes": size_differences(of_sizes) if of_sizes else pandas.DataFrame(columns=["train", "against", "low", "high"]),
    }, setting_of(records), setting_of(of_sizes) if of_sizes else setting_of(records))  # fmt: skip


def setting_of(records: Sequence[dict]) -> str:
    """Return the models and corpora of the records in words."""
    corpora = dict.fromkeys(record["run"]["config"]["corpus"] for record in records)
    return f"{models_of(records)}, {' and '.join(corpora)}"


def verdicts(tables: Mapping[str, pandas.DataFrame], setting: str, of_sizes: str) -> pandas.DataFrame:
    """Return each claim with its verdict and evidence from `tables`, and whose rule it is: the plan's or ours."""
    scores, small = tables["scores"], tables["sizes"].query("train in ('5%', '10%') and against == 'full'")
    papers, chosen = (scores[scores.against.isin(names)] for names in (LAYER_WISE, ["random-counts"]))
    loss = tables["loss"][tables["loss"].against.isin(LAYER_WISE)]
    steps = "{corpus}, {loss} loss: {difference:+.1f} {unit} [{low:+.1f}, {high:+.1f}], {reached:.0%} get there"
    share = "{corpus}: {share:+.1%} [{share_low:+.1%}, {share_high:+.1%}]"
    lost = "{corpus}, against {against}: {difference:+.3f} [{low:+.3f}, {high:+.3f}]"
    kept = "{corpus}: {steady:.1f} of {layers:.0f} layers learn at over 90 % of the steps and {frozen:.1f} at under 10 %; "
    kept += "the set changes {changes:.0f} times"
    saved, choice = tables["peft"], tables["choice"]
    varies = [(choice.steady > 0) & (choice.frozen > 0), choice.changes > 0]
    rows = [
        ("scores higher than layer-wise baselines", "plan, but for it without Holm", *_compared(papers)),
        ("it is the choice of layers, not their number", "ours", *_compared(chosen)),
        ("lower fine-tuning loss than layer-wise baselines", "ours", *_apart(loss, -1, lost, True)),
        ("converges fast: steps and seconds to Full PEFT's loss", "plan for it, ours against",
         *_apart(tables["convergence"], -1, steps, True)),
        ("low GPU memory: measured peak below Full PEFT's", "ours", *_apart(tables["memory"], -1, share)),
        ("PEFT needs 30 to 40 % less memory than full fine-tuning", "ours",
         _verdict(saved.share_high <= LESS, saved.share_low > LESS), _listed(saved, share)),
        ("layer importance varies over layers and over training", "ours",
         _verdict(varies[0] & varies[1], ~varies[0] & ~varies[1]), _listed(choice, kept)),
        ("works on small corpora: above Full PEFT at 5 and 10 % of train", "ours",
         *_apart(small, 1, "{train} of train: {difference:+.3f} [{low:+.3f}, {high:+.3f}]")),
    ]  # fmt: skip
    table = pandas.DataFrame(rows, columns=["claim", "rule", "verdict", "evidence"])
    where = [setting] * (len(rows) - 1) + [of_sizes]
    return table.assign(verdict=[f"on {at}: {text}" for at, text in zip(where, table.verdict, strict=True)])


def _verdict(for_it: pandas.Series, against_it: pandas.Series) -> str:
    """Return `consistent` if all rows support a claim, and `inconsistent` if any contradicts it."""
    if not len(for_it):
        return "not run"
    return "consistent" if for_it.all() else "inconsistent" if against_it.any() else "inconclusive"


def _compared(table: pandas.DataFrame) -> tuple[str, str]:
    """Return the verdict on a table of differences, and a text with their number, extremes and detectable size.

    For a claim each test is at 5 % alone, since all must pass (intersection-union). Against it Holm's method decides.
    """
    above, below = (table.difference > 0) & (table.p_value < ALPHA), (table.difference < 0) & (table.p_holm < ALPHA)
    ends = table.loc[[table.difference.idxmin(), table.difference.idxmax()]].itertuples()
    least, most = (f"{row.difference:+.3f} (against {row.against}, {row.corpus})" for row in ends)
    counts = f"{above.sum()} of {len(table)} above zero at 5 %, {below.sum()} below it by Holm"
    detectable = f"detectable by Holm {table.detectable.min():.3f} to {table.detectable.max():.3f}"
    return _verdict(above, below), f"{counts}; {least} to {most}; {detectable}"


def _apart(table: pandas.DataFrame, sign: int, form: str, at_equal_rates: bool = False) -> tuple[str, str]:
    """Return the verdict on a table of intervals, and their list. A difference of this sign supports the claim.

    With `at_equal_rates` a difference between methods at different learning rates counts neither for nor against.
    """
    level = table.equal_rates if at_equal_rates else True
    sides = (table.low > 0, table.high < 0)[::sign]
    note = "" if np.all(level) else f"; methods at other rates say nothing here ({(~level).sum()} of {len(table)} rows)"
    return _verdict(sides[0] & level, sides[1] & level), _listed(table, form) + note


def _listed(table: pandas.DataFrame, form: str) -> str:
    return "; ".join(form.format(**row) for row in table.to_dict("records"))


if __name__ == "__main__":
    HERE = Path(__file__).resolve().parent
    execute(str(HERE / "first_edition"), HERE, {})  # a whole path, so that the notebook is read and written here
    (HERE / "first_edition.html").unlink()
    write_report(HERE / "first_edition.ipynb", HERE)
