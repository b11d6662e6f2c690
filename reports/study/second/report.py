"""The sections of the second edition's report, made from its store. Notebook 5 shows them, and it is the report.

    python reports/study/second/report.py     # executes notebook 5, and writes ../summary.md, ../summary.html and figures

Every number, every verdict and every sentence about them is computed. A section is a list of texts and figures. If a
stage that it needs is missing, its only text names that stage.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from itertools import chain
from statistics import mean, median

import decide
import drawings
import pandas
import second
from claims import (
    MEAN, NOT_RUN, ORDER, PRIMARY, STAGES, Study, card, choice, differences, interval, last_loss, pair, paired,
    peaks, run_differences, small_differences, steps_to_near, titled,
)  # fmt: skip
from second import BOTH, HEADLINE

from IPython.display import Markdown, display
from matplotlib.figure import Figure

from irtuning.analysis.ceiling import ANOTHER
from irtuning.analysis.figures.style import title_of
from irtuning.analysis.statistics import mean_of_corpora, method_scores
from irtuning.analysis.tables import chosen, groups_by, markdown, readable, run_title
from irtuning.companion.experiments import STUDY, Companion
from irtuning.companion.paths import REPOSITORY, Folders

sys.path.append(str(REPOSITORY / "reports" / "benchmarks"))
import measurements  # noqa: E402

EDIT_AWARE = "edit-aware floor"
EDITION = "study, second edition"  # in the stamp of a figure
WEIGHTS = """\
Class weights in all other runs: {chosen}, since Full PEFT's mean macro F1 on part D of ITERATER and arXivEdits is
{none:.3f} without weights and {balanced:.3f} with balanced ones."""
NO_VERDICT = "As the plan says, H1 to H5, H7 and H8 then get no verdict."
ON_D = """\
Macro F1 on part D, mean of {seeds} seeds at a rate of {rate:g}, which was fixed before rates were tuned. The operation
floor sees only whether text is inserted, deleted or replaced. The difference is that of the confusions of all seeds
taken together, so it is not quite that of the columns. Its error allows for other documents and other seeds."""
ON_TEST = """\
On the test parts, which are larger, Full PEFT is above the floor on {names} (by intervals of 95 %). The plan lets no test
score reopen the gate."""
DRAWN = "IR-Tuning's test macro F1 minus that of another method. ≈ marks what is shown to lie within ±0.01."
SEEN = "The smallest true difference that is found in four of five studies, mean over all pairs of the five methods:"
CONDITIONS = """\
Macro F1 under other conditions, for comparison only. Fold 4 holds part D, on which rates were chosen. Seeds three to six
launch their kernels in one way, and on ITERATER the first two do not (see the limits)."""
AT_ONE = """\
*At one rate* is at IR-Tuning's, which is {ist} times IST's best one and {full} times Full PEFT's. So differences to these
two come from the rate as well, and the other two rows repeat the main table."""
NOT_THERE = "ArgRewrite has no runs of IST and Full PEFT at this rate. A run that never gets to 95 % counts with its length."
STAGE_NAMES = {"rates": "learning rates", "headline": "the main comparison", "time": "time and memory", "common": "one rate",
               "secondary": "other methods", "small": "small corpora", "mini": "the small model", "tetra": "a new corpus",
               "transfer": "transfer to it"}  # fmt: skip
LATE = """\
After the first quarter of the steps, mean of runs. *Seeds agree* is Spearman's correlation, between seeds of a fold, of
how often each layer learns."""
LIMITS = """\
- **The gate is coarse.** Part D is small. A model that is truly better than the floor, but by less than two standard
  errors ({bars}), fails in most cases.
- **One small model.** SmolLM2-135M, dequantised from 4 bits. What holds here need not hold for billions of parameters.
- **Known texts.** ArXiv and Wikipedia may be in its pre-training, for all methods alike.
- **Rates** come from a grid and three runs a point. A comparison is one of methods together with their rates.
- **Intervals** allow for other documents and seeds, on these training sets. Fewer than five of either give none.
- **Launching.** In the first two seeds on ITERATER, some runs of last layers and IST launch their kernels in another way
  than those of IR-Tuning. Whether that changes losses by more than rounding is not measured.
- **Test parts.** Runs that scored theirs: {scored}. Times that a run did so, at most: {most}."""


@dataclass(frozen=True)
class Picture:
    """A figure, what is to be seen in it, and the records that it was drawn from."""
    name: str
    figure: Figure
    title: str
    records: list[dict]


def read() -> Study:
    """Read the committed store."""
    return Study.read(second.HERE)


def show(companion: Companion, *sections: list) -> None:
    """Display the texts and figures of sections, and save the figures in the folder of the companion's profile."""
    for part in chain(*sections):
        if isinstance(part, Picture):
            part = companion.figure(part.figure, part.name, part.records, EDITION, title=part.title)
        display(Markdown(part) if isinstance(part, str) else part)


def needs(*stages: str, on: str | None = None) -> Callable:
    """Make a section say what is missing, unless these stages are whole on a corpus, or on the corpus `on`."""
    def named(write: Callable) -> Callable:
        @wraps(write)
        def section(study: Study) -> list:
            whole = {s for s in stages if any(on in (None, r["run"]["config"]["corpus"]) for r in study.runs.get(s, []))}
            words = ("not whole" if s in study.made else NOT_RUN for s in stages if s not in whole)
            lacking = ", ".join(map("{} ({})".format, (s for s in stages if s not in whole), words))
            where = f" on {title_of(on)}" if on else ""
            return [f"*Nothing is shown here yet, because this is missing{where}: {lacking}.*"] if lacking else write(study)
        return section
    return named


def top(study: Study) -> list:
    """The answer in one paragraph, and the card."""
    table = card(study)
    counted = "; ".join(f"{word}: {number}" for word, number in Counter(table.verdict).items())
    absent = ", ".join(f"{STAGE_NAMES[stage]} ({stage})" for stage in STAGES if stage not in study.made)
    half = ", ".join(f"{stage} on {title_of(c)} ({left} of {len(study.planned[stage, c])} runs missing)"
                     for (stage, c), left in study.missing.items() if stage in study.made and left)  # fmt: skip
    counts = [f"Verdicts on {len(table)} claims: {counted}.", f"Not run: {absent}." * bool(absent),
              f"Not whole, so left out: {half}." * bool(half)]  # fmt: skip
    text = ["\n\n".join(in_short(study)), " ".join(filter(None, counts)), markdown(table.replace("", "·"))]
    parts = ["\n\n".join(filter(None, text))]
    if "headline" in study.runs:
        short = table.verdict.str.partition(" because")[0]
        words = dict(zip(table.claim.str.partition(":")[0], short, strict=True))
        beside = {"random-static": f"H2: {words['H2']}", "last-k": f"H1, the upper three: {words['H1']}",
                  "full": f"H3: {words['H3']}"}  # fmt: skip
        figure = drawings.claims(with_mean(study, study.comparisons), beside)
        parts.append(Picture("05_claims", *figure, study.headline))
    return parts


def gate(study: Study) -> str:
    """Which corpora pass the gate, in words."""
    names = " and ".join(map(title_of, study.primary))
    passed = (f"**Primary: {names}.** There Full PEFT beats the {EDIT_AWARE}" if names else
              f"**No corpus passes the gate.** On none does Full PEFT beat the {EDIT_AWARE}")  # fmt: skip
    text = [f"{passed}, a linear model that sees the edit, by more than two standard errors on validation part D."]
    if not names:
        text.append(NO_VERDICT)
        table = differences(with_floor(study), [("full", decide.FLOOR)]) if study.headline else pandas.DataFrame()
        if len(table) and (above := " and ".join(map(title_of, table.corpus[table.low > 0]))):
            text.append(ON_TEST.format(names=above))
    return " ".join(text)


@needs("gate")
def floor(study: Study) -> list:
    """The gate, floors and annotators on part D, and on the test parts once they are scored."""
    rows, ends = [], []
    for r in study.decisive.itertuples():
        here = {f["name"]: f for f in study.floors if decide.on_d(f, r.corpus)}
        people = [here[ANOTHER][f"macro_f1{end}"] for end in ("", "_low", "_high")] if ANOTHER in here else []
        ends.append((r.corpus, here["operation"]["macro_f1"], r.floor, r.macro_f1, r.difference, 2 * r.error,
                     *(people or [float("nan")] * 3)))  # fmt: skip
        rows.append({
            "corpus": title_of(r.corpus), "operation floor": score(here["operation"]["macro_f1"]),
            EDIT_AWARE: score(r.floor), "Full PEFT (sd)": f"{r.macro_f1:.3f} ({r.sd:.3f})",
            "Full PEFT − floor": f"{r.difference:+.3f}", "two standard errors": score(2 * r.error),
            "passes": "yes" if r.passes else "no", ANOTHER: score(*people) if people else "not known",
        })  # fmt: skip
    means = study.gate[study.gate.corpus.isin(BOTH)].groupby("class_weights").macro_f1.mean()
    columns = ["corpus", "operation", "floor", "full", "difference", "bar", "people", "low", "high"]
    parts = [ON_D.format(seeds=study.gate.runs.max(), rate=second.GATE_RATE) + "\n\n" + markdown(pandas.DataFrame(rows)),
             Picture("05_floor", *drawings.floor(pandas.DataFrame(ends, columns=columns)), study.runs["gate"]),
             WEIGHTS.format(chosen=study.chosen["class_weights"], **means)]  # fmt: skip
    hard = [f"{title_of(of[0])}, {of[2] + of[5]:.3f} against {of[6]:.3f}" for of in ends if of[2] + of[5] > of[6]]
    if hard:
        parts[0] += f"\nTo pass, Full PEFT would have to score higher than an annotator against another: {'; '.join(hard)}."
    if "headline" in study.runs:
        parts.append(f"Macro F1 on the test parts of folds 0 to 3:\n\n{markdown(test_scores(study))}")
    return parts


def score(value: float, low: float = float("nan"), high: float = float("nan")) -> str:
    """A score with its interval, if it has one."""
    return f"{value:.3f}" + (f" [{low:.3f}, {high:.3f}]" if low <= high else "")


def with_floor(study: Study) -> list[dict]:
    """The headline, with a copy of each run of Full PEFT that has the predictions of its fold's edit-aware floor."""
    of = {(f["corpus"], f["fold"]): f for f in study.floors if (f["name"], f["split"]) == (decide.FLOOR, "test")}
    full = [(r["run"]["config"], r) for r in titled(study.runs["headline"], "full")]
    return study.headline + decide.confirmatory([decide.beside(of[c["corpus"], c["fold"]], r) for c, r in full])


def test_scores(study: Study) -> pandas.DataFrame:
    """Macro F1 of each method and of the floor with intervals, by corpus."""
    records = with_floor(study)
    table = method_scores(records, "test")
    table["text"] = [score(*row) for row in table[["macro_f1", "low", "high"]].to_numpy()]
    table = table.pivot(index="method", columns="corpus", values="text").reindex([*HEADLINE, decide.FLOOR])
    for row in differences(records, [("full", decide.FLOOR)]).to_dict("records"):
        table.loc["Full PEFT − floor", row["corpus"]] = interval(row)
    people = [f for f in study.floors if (f["name"], f["split"]) == (ANOTHER, "test") and f["fold"] < 4]
    for corpus in dict.fromkeys(f["corpus"] for f in people):
        mean_of_folds = score(mean(f["macro_f1"] for f in people if f["corpus"] == corpus))
        table.loc[f"{ANOTHER} (mean of folds)", corpus] = mean_of_folds
    table = table[[corpus for corpus in ORDER if corpus in table]].rename(columns=title_of).fillna("")
    return table.rename(index={decide.FLOOR: EDIT_AWARE} | {name: title_of(name) for name in HEADLINE})


@needs("rates")
def rates(study: Study) -> list:
    """The rate of each class of methods, and the curve of the score over the rate."""
    lost = [json.loads(line["key"]) for stage, line in study.failed if stage == "rates"]
    curve = decide.rate_table(study.runs["rates"], lost)
    best = decide.rates_of(curve, study.floors)[0] | study.chosen["rates"]
    said = (f"{title_of(corpus)}: {', '.join(f'{title_of(name)} {rate:g}' for name, rate in of.items())}."
            for corpus, of in best.items())  # fmt: skip
    text = f"Best learning rates on part D (*many*: IR-Tuning, and methods with as many layers). {' '.join(said)}"
    text += " ArgRewrite takes those of arXivEdits."
    curve = curve[~curve.method.isin(second.OWN)]  # the methods of the headline
    return [text, Picture("05_rates", *decide.drawn(curve, study.floors, best), study.runs["rates"])]


@needs("headline")
def choosing(study: Study) -> list:
    """IR-Tuning against the other choices of layers, and against all layers."""
    pairs = [("ir", other) for other in dict.fromkeys(study.comparisons.against)]
    table, area = (with_mean(study, t) for t in (study.comparisons, differences(study.headline, pairs, "auprc")))
    parts = ["\n\n".join([f"{numbers(study)} {DRAWN}", wide(table), "The same for AUPRC, which decides nothing:",
                          wide(area.drop(columns="equivalent"))])]  # fmt: skip
    if not (seen := detectable(study)).empty:
        figure = drawings.detectable(seen, 0.01 if study.primary else None, study.chosen["seeds"])
        parts += [SEEN, Picture("05_detectable", *figure, study.headline)]
    parts.append(CONDITIONS)
    if not study.lacking("headline", "common"):
        parts[-1] += f" {at_one(study)}"
    parts.append(wide(sensitivity(study)))
    if study.lacking("headline", "common"):
        return [*parts, "*The losses and the steps at one learning rate are missing. They need the stage common.*"]
    loss = run_differences(study.level, [*PRIMARY, "random-counts"], last_loss)
    steps = run_differences(study.level, ["full"], steps_to_near)
    sooner = ", ".join(f"{title_of(row['corpus'])} {interval(row, '+.0f')}" for row in steps.to_dict("records"))
    return [*parts, "At IR-Tuning's rate, the mean of the last ten training losses (negative: IR-Tuning's is lower):", wide(loss),
            f"IR-Tuning's steps to 95 % of Full PEFT's best validation macro F1, minus Full PEFT's: {sooner}. {NOT_THERE}"]


def at_one(study: Study) -> str:
    """What the one rate of the stage `common` means, in words."""
    times = {name: {second.rate_of("ir", of) / second.rate_of(name, of) for of in map(study.chosen["rates"].get, BOTH)}
             for name in ("ist", "full")}  # fmt: skip
    return AT_ONE.format(**{name: " or ".join(f"{ratio:.2g}" for ratio in sorted(of)) for name, of in times.items()})


def numbers(study: Study) -> str:
    """How many layers learn at a step, in words."""
    def learning(method: str) -> str:
        runs = groups_by(titled(study.headline, method), ["corpus"]).values()
        means = [mean(len(chosen(step)) for record in of for step in record["train"]["steps"]) for of in runs]
        return " to ".join(dict.fromkeys(f"{number:.0f}" for number in (min(means), max(means))))
    return (f"Of 30 layers, {learning('ir')} learn at a step of IR-Tuning and {learning('ist')} at one of IST, so a difference "
            "to IST may come from their number.")  # fmt: skip


def without_zero(study: Study) -> str:
    """Whether there is a gain over random layers, which intervals exclude zero, and which lie within ±0.01, in words."""
    table = with_mean(study, study.comparisons)
    def named(part: pandas.DataFrame) -> str:
        return ", ".join(f"{title_of(name)} ({', '.join(f'{title_of(r.corpus)} {r.difference:+.3f}' for r in of.itertuples())})"
                         for name, of in part.groupby("against", sort=False))  # fmt: skip
    parts = {"above": table[table.low > 0], "below": table[table.high < 0]}
    words = " and ".join(f"{word} that of {named(part)}" for word, part in parts.items() if len(part))
    zero = ((table.low <= 0) & (table.high >= 0)).sum()
    words, same = words or "neither above nor below that of another method", named(table[table.equivalent]) or "none"
    drawn = table[table.against.isin(["random-static", "random-counts"]) & (table.low > 0)]
    gain = f"a gain is seen on {' and '.join(map(title_of, dict.fromkeys(drawn.corpus)))}" if len(drawn) else "no gain is seen"
    return (f"**Over as many random layers, {gain}.** IR-Tuning's test macro F1 is {words}; of {len(table)} differences, "
            f"{zero} could be zero. Shown to lie within ±0.01: {same}. Each interval has 95 % alone, and none is a verdict.")


def with_mean(study: Study, table: pandas.DataFrame) -> pandas.DataFrame:
    """A table of differences, below their mean over the primary corpora, if it is known."""
    judged = study.judged(table)
    return pandas.concat([judged[judged.corpus == MEAN], table])


def wide(table: pandas.DataFrame, form: str = "+.3f") -> str:
    """Differences with their intervals: a row for each pair of methods, a column for each corpus."""
    rows = [{"IR-Tuning": pair(r), title_of(r["corpus"]): interval(r, form) + " ≈" * bool(r.get("equivalent"))}
            for r in table.to_dict("records")]  # fmt: skip
    return markdown(pandas.DataFrame(rows).groupby("IR-Tuning", sort=False).first().fillna(""))


def detectable(study: Study) -> pandas.DataFrame:
    """The detectable difference by number of seeds (rows), on each corpus and on the mean over primary corpora."""
    parts = {}
    for (corpus,), of in groups_by(study.headline, ["corpus"]).items():
        parts[corpus] = decide.variance([r for runs in paired(of, *decide.COMPARED) for r in runs.values()], "test")
    if study.primary and set(study.primary) <= set(parts):
        parts[MEAN] = sum(parts[corpus] for corpus in study.primary) / len(study.primary) ** 2
    errors = {name: decide.errors(fixed, items + runs).values() for name, (fixed, items, runs) in parts.items()}
    table = decide.DETECTABLE * pandas.DataFrame(errors, index=list(decide.SEEDS))
    return table.dropna(axis="columns")  # unknown where failed runs leave a fold with one seed


def sensitivity(study: Study) -> pandas.DataFrame:
    """P1 to P4 with other items, corpora, seeds and rates. Where a condition changes nothing on a corpus, it is left out."""
    runs, pairs = study.runs["headline"], [("ir", other) for other in PRIMARY]
    late, old = "with seeds three to six", "with the first edition's items"
    kinds = {"with fold 4": study.headline + [r for r in runs if r["run"]["config"]["fold"] == 4],
             late: [r for r in study.headline if r["run"]["config"]["seed"] % 10 >= 3],
             old: [r for r in runs if r["run"]["config"]["fold"] < 4]}  # fmt: skip
    if not study.lacking("headline", "common"):
        kinds["at one rate"] = study.level
    found = {name: study.judged(differences(records, pairs)) for name, records in kinds.items() if records}
    for name, corpus in ((late, "arxivedits"), (old, "iterater")):
        if name in found:
            found[name] = found[name][found[name].corpus != corpus]
    if study.primary:
        of = study.comparisons[study.comparisons.against.isin(PRIMARY)]
        with_argrewrite = of[of.corpus.isin([*study.primary, "argrewrite"])]
        found["with ArgRewrite"] = mean_of_corpora(with_argrewrite).assign(corpus=MEAN)
    return pandas.concat(t.assign(corpus=t.corpus.map(title_of) + f", {name}") for name, t in found.items())


@needs("headline")
def dynamic(study: Study) -> list:
    """Whether IR-Tuning's choice goes on changing."""
    table = choice(study)
    shown = pandas.DataFrame({
        "layers": table.layers.map("{:.0f}".format), "learn at over 90 %": table.steady.map("{:.1f}".format),
        "at under 10 %": table.frozen.map("{:.1f}".format), "changes of the set (median)": table.changes.map("{:.0f}".format),
        "seeds agree (rho)": table.agreement.map("{:.2f}".format), "runs": table.runs,
    }).rename(index=title_of)  # fmt: skip
    first = [min(part, key=lambda r: (r["run"]["config"]["fold"], r["run"]["config"]["seed"]))
             for part in groups_by(titled(study.runs["headline"], "ir"), ["corpus"]).values()]  # fmt: skip
    return [f"{one_set(study)}\n\n{LATE}\n\n{markdown(shown)}", Picture("05_raster", *drawings.raster(first), first)]


def one_set(study: Study) -> str:
    """How much of the late steps the commonest set of layers has, in words."""
    shares = ", ".join(f"{row.one_set:.0%} on {title_of(corpus)}" for corpus, row in choice(study).iterrows())
    return f"After the first quarter of a run, its commonest set of layers learns at this share of the steps: {shares}."


@needs("headline", "time", on="iterater")
def cost(study: Study) -> list:
    """Score against memory and time on ITERATER, and the shapes of a model of 8B."""
    runs, scored = study.runs["time"], [r for r in study.headline if r["run"]["config"]["corpus"] == "iterater"]
    times = pandas.DataFrame([(r["run"]["config"]["method"], 1000 * median(r["meta"]["step_seconds"])) for r in runs])
    table = method_scores(scored, "test").set_index("method")[["macro_f1", "low", "high"]]
    table = table.assign(peak=peaks(study).mean(), ms=times.groupby(0)[1].mean())
    share = table / table.loc["full"]
    shown = pandas.DataFrame({
        "macro F1": table.macro_f1.map(score), "peak (MiB)": table.peak.map("{:.0f}".format),
        "of Full PEFT": share.peak.map("{:.0%}".format), "step (ms)": table.ms.map("{:.1f}".format),
        "of Full PEFT's step": share.ms.map("{:.0%}".format),
    }).rename(index=title_of)  # fmt: skip
    record, _ = measurements.measurement("large_shapes_llama-3.1-8b")
    large = measurements.step_table(record).query("engine == 'uncast, compile'").set_index("layers")
    large = readable(large.loc[measurements.SETS, ["step_ms", "peak_gib"]])  # the other sets are of another day
    device = ", ".join(sorted({r["meta"]["device"] for r in runs}))
    here = f"ITERATER, one run at a time ({device}). A time is the median of a run's steps, mean of runs:"
    there = f"Llama-3.1-8B's shape, 16 examples of 256 tokens, without a score ({measurements.measured_on(record)}):"
    origin = [r for r in study.runs["headline"] if r["run"]["config"]["corpus"] == "iterater"]
    figure = Picture("05_costs", *drawings.costs(table), [*origin, *runs])
    return [f"{here}\n\n{markdown(shown)}", figure, f"{there}\n\n{markdown(large)}"]


@needs("small")
def scarce(study: Study) -> list:
    """Small parts of the training data."""
    return [wide(with_mean(study, small_differences(study)))]


@needs("headline")
def fails(study: Study) -> list:
    """The F1 of each intention, and the commonest confusions."""
    runs = [(r["run"]["config"], r["predictions"]["test"]) for r in with_floor(study)]
    corpora = {config["corpus"] for config, _ in runs}
    corpora = corpora & {*(study.primary or BOTH)} or corpora
    rows = pandas.concat(
        pandas.DataFrame(answers).assign(corpus=title_of(config["corpus"]), method=config["method"])
        for config, answers in runs
        if config["corpus"] in corpora and config["method"] in ("ir", "full", decide.FLOOR)
    )
    counts = rows.groupby(["corpus", "method", "intention", "predicted"], as_index=False).size()
    keys = ["corpus", "intention", "method"]
    gold = counts.groupby(keys)["size"].sum()
    given = counts.groupby(["corpus", "predicted", "method"])["size"].sum().rename_axis(keys)
    right = counts[counts.intention == counts.predicted].groupby(keys)["size"].sum()
    f1 = (2 * right / gold.add(given, fill_value=0)).fillna(0).unstack("method").map(score).rename_axis(columns=None)
    f1 = f1.rename(columns={decide.FLOOR: EDIT_AWARE, "ir": title_of("ir"), "full": title_of("full")})
    counts["share"] = counts["size"] / counts.groupby(keys)["size"].transform("sum")
    wrong = counts[(counts.method == "ir") & (counts.intention != counts.predicted)].sort_values("share")
    said = [f"- {corpus}: " + ", ".join(f"{r.share:.0%} of *{r.intention}* taken for *{r.predicted}*"
                                        for r in part[-1:-4:-1].itertuples()) for corpus, part in wrong.groupby("corpus")]  # fmt: skip
    return [markdown(f1), "IR-Tuning's commonest confusions, as shares of an intention:", "\n".join(said)]


@needs("transfer")
def transfer(study: Study) -> list:
    """What ITERATER's models predict on TETRA."""
    counts = [pandas.DataFrame(r["meta"]["transfer"]["counts"]).fillna(0).astype(int).T for r in study.runs["transfer"]]
    shares = pandas.concat(table.div(table.sum(axis=1), axis=0).map("{:.0%}".format) for table in counts).fillna("0%")
    table = shares.groupby(level=0, sort=False).agg(" / ".join).assign(edits=counts[0].sum(axis=1))
    names = " / ".join(title_of(record["run"]["config"]["method"]) for record in study.runs["transfer"])
    said = "What models of ITERATER, never trained on TETRA, call the edits of each of its aspects"
    return [f"{said} ({names}). No test.\n\n{markdown(table.rename_axis('aspect'))}"]


@needs("headline")
def elsewhere(study: Study) -> list:
    """Panels without a verdict: the small model, a corpus from outside, and other methods."""
    text, pairs = [], [("ir", name) for name in HEADLINE if name not in ("ir", "full-ft")]
    if "mini" in study.runs:
        device = ", ".join(sorted({run["meta"]["device"] for run in study.runs["mini"]}))
        text += [f"With the small model `mini`, two seeds a fold, its own rates, one for all adapters and not tuned per method ({device}):",
                 wide(differences(decide.confirmatory(study.runs["mini"]), pairs))]  # fmt: skip
    if "tetra" in study.runs:
        text += ["A corpus from outside, all five folds:", wide(differences(study.runs["tetra"], pairs))]
    if "secondary" in study.runs:
        made = decide.confirmatory(study.runs["secondary"])
        for config in (r["run"]["config"] for r in made):
            config["method"] = "IR-Tuning in float8" if "float8" in config["speed"] else config["method"]
        names = dict.fromkeys(run_title(r["run"]["config"]) for r in made)
        pairs = [("ir", name) for name in names if "head" not in name] + [("ir, head frozen", "full, head frozen")]
        there, here = (", ".join(sorted({r["meta"]["device"] for r in runs})) for runs in (study.headline, made))
        text += [f"Other methods ({here}), beside the headline's IR-Tuning ({there}):", wide(differences(titled(study.headline, "ir") + made, pairs))]
    absent = ", ".join(STAGE_NAMES[stage] for stage in ("mini", "tetra", "secondary") if stage not in study.runs)
    return text + [f"*Not run: {absent}.*"] * bool(absent)


@needs("gate")
def limits(study: Study) -> list:
    """What the numbers do not say."""
    bars = ", ".join(f"{title_of(row.corpus)} {2 * row.error:.3f}" for row in study.decisive.itertuples())
    scored = Counter(r["meta"]["key"] for runs in study.made.values() for r in runs if r["scores"]["test_scored"])
    return [LIMITS.format(bars=bars, scored=len(scored), most=max(scored.values(), default=0))]


@needs("gate")
def made(study: Study) -> list:
    """What was run, with which plan and code."""
    rows = []
    for stage in STAGES:
        runs = study.made.get(stage, [])
        planned = sum(len(keys) for (of, _), keys in study.planned.items() if of == stage)
        hours = sum(sum(r["meta"]["step_seconds"]) for r in runs) / 3600
        rows.append({"stage": stage, "runs": len(runs) or NOT_RUN, "planned": planned, "hours": f"{hours:.1f}",
                     "failed": sum(of == stage for of, _ in study.failed),
                     "test parts scored": sum(r["scores"]["test_scored"] for r in runs)})  # fmt: skip
        rows[-1] |= {name: ", ".join(sorted({str(r["meta"][name])[:8] for r in runs})) for name in ("plan", "code", "commit")}
    cards = ", ".join(sorted({r["meta"]["device"] for runs in study.made.values() for r in runs}))
    said = f"All on {cards}. The plan's hash changes whenever the plan or its settings are filled in."
    lost = [f"- failed: {stage}, {line['failed']}" for stage, line in study.failed]
    return ["\n".join([markdown(pandas.DataFrame(rows)), said, *lost])]


def in_short(study: Study) -> tuple[str, str, str]:
    """What was seen, in three sentences or a few more: the gate, the scores, and the layers."""
    if "headline" in study.runs:
        return gate(study), without_zero(study), one_set(study)
    records, planned = [r for of in study.made.values() for r in of], sum(map(len, study.planned.values()))
    scored = sum(r["scores"]["test_scored"] for r in records)
    return (gate(study), "The headline is whole on no corpus yet, so no test score of two methods is compared.",
            f"{len(records)} of {planned} planned runs are made, and {scored} of them scored a test part.")  # fmt: skip


if __name__ == "__main__":
    from irtuning.companion.reproduce import execute, write_report
    folders = Folders(STUDY)
    execute("05_the_study", folders.reports, {"profile": STUDY})
    write_report(folders.reports / "05_the_study.ipynb", folders.figures)
