"""Write the report of the second edition from its store: `report.md`, `report.html` and their figures.

    python reports/study/second/report.py

Every number, verdict and sentence about them is computed. A stage that the store does not have is named as not run, and
what depends on it is left out.
"""

import argparse
import base64
import json
import re
from collections import Counter
from pathlib import Path

import decide
import drawings
import mistune
import pandas
import second
from claims import (
    MEAN, NOT_RUN, ORDER, PRIMARY, STAGES, Study, card, choice, differences, interval, last_loss, pair, paired,
    peaks, run_differences, small_differences, steps_to_near, titled,
)  # fmt: skip
from second import BOTH, HEADLINE

from irtuning.analysis.ceiling import ANOTHER
from irtuning.analysis.figures.style import title_of, to_image
from irtuning.analysis.statistics import mean_of_corpora, method_scores
from irtuning.analysis.tables import groups_by, markdown, run_title
from irtuning.companion import benchmarks
from irtuning.training.record import write_bytes, write_text

EDIT_AWARE = "edit-aware floor"
STYLE = """body { font: 15px/1.45 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; font-size: 85%; display: block; overflow-x: auto } img { max-width: 100% }
td, th { border: 1px solid #ccc; padding: 1px 6px; text-align: left; vertical-align: top }
@media print { body { font-size: 9.5px; margin: 0 } img { max-width: 60% } img, tr { break-inside: avoid } }"""


def top(study: Study, out: Path) -> str:
    """The answer in one paragraph, and the card."""
    table = card(study)
    names = " and ".join(map(title_of, study.primary))
    passed = (f"**Primary: {names}.** Full PEFT beats there a linear model that sees the edit, the edit-aware floor, by "
              "more than two standard errors. The verdicts hold for this model there.") if names else (
        "**No corpus passes the gate.** On none does Full PEFT beat the edit-aware floor, a linear model that sees the "
        "edit, by more than two standard errors. So claims that need such a corpus get no verdict, as the plan says.")  # fmt: skip
    counted = "; ".join(f"{word}: {number}" for word, number in Counter(table.verdict).items())
    absent = [stage for stage in STAGES if stage not in study.runs]
    text = [f"{passed} Of {len(table)} claims, {counted}.", f"Not run: {', '.join(absent)}." if absent else "",
            "A difference is IR-Tuning's score, loss, steps or memory minus another method's, on test parts of folds 0 "
            "to 3. Brackets are 95 % intervals. *Could have been seen* is the difference that a test at 5 % finds in "
            "four of five studies. *Equivalent* is within ±0.01, and counts against H2. *Not worse* is above -0.01.",
            markdown(table.map(lambda v: v or "·"))]  # fmt: skip
    if "headline" in study.runs:
        words = dict(zip(table.claim.str.partition(":")[0], table.verdict, strict=True))
        beside = {"random-static": f"P1 · H2: {words['H2']}", "last-k": f"P2 · H1 (P1 to P3): {words['H1']}", "ist": "P3",
                  "full": f"P4 · H3: {words['H3']}"}  # fmt: skip
        text.append(picture(out, "claims", *drawings.claims(with_mean(study, study.comparisons), beside)))
    return "\n\n".join(filter(None, text))


def floor(study: Study, out: Path) -> str:
    """The gate, floors and annotators on part D, and on the test parts once they are scored."""
    weights = study.gate.class_weights == study.chosen["class_weights"]
    rows = []
    for r in study.gate[weights].itertuples():
        here = {f["name"]: f for f in study.floors if decide.on_d(f, r.corpus)}
        people = [here[ANOTHER][name] for name in ("macro_f1", "macro_f1_low", "macro_f1_high")] if ANOTHER in here else []
        rows.append({
            "corpus": title_of(r.corpus), "operation floor": f"{here['operation']['macro_f1']:.3f}",
            EDIT_AWARE: f"{r.floor:.3f}", "Full PEFT (sd)": f"{r.macro_f1:.3f} ({r.sd:.3f})",
            "Full PEFT − floor": f"{r.difference:+.3f}", "two standard errors": f"{2 * r.error:.3f}",
            "passes": "yes" if r.passes else "no", ANOTHER: score(*people) if people else "not known",
        })  # fmt: skip
    means = study.gate[study.gate.corpus.isin(BOTH)].groupby("class_weights").macro_f1.mean()
    reach = [f"On {r['corpus']} Full PEFT has {r['Full PEFT (sd)'].split()[0]}, an annotator against another {r[ANOTHER]}."
             for r in rows if r[ANOTHER] != "not known"]  # fmt: skip
    text = [f"Macro F1 on part D, mean over {study.gate.runs.max()} seeds at {second.GATE_RATE:g}. The operation floor sees "
            "only whether text is inserted, deleted or replaced. The difference is that of counts pooled over seeds, and "
            "its error is two-way, over documents and seeds.", markdown(pandas.DataFrame(rows)), *reach,
            f"Class weights are {study.chosen['class_weights']} in all runs: Full PEFT's mean of ITERATER and arXivEdits is "
            f"{means['none']:.3f} without them and {means['balanced']:.3f} with balanced ones."]  # fmt: skip
    if "headline" in study.runs:
        text += ["Macro F1 on the test parts of folds 0 to 3:", markdown(test_scores(study))]
    return "\n\n".join(text)


def score(value: float, low: float, high: float) -> str:
    """A score with its interval, if it has one."""
    return f"{value:.3f}" + (f" [{low:.3f}, {high:.3f}]" if low == low else "")


def with_floor(study: Study) -> list[dict]:
    """The headline, with a copy of each run of Full PEFT that has the predictions of its fold's edit-aware floor."""
    of = {(f["corpus"], f["fold"]): f for f in study.floors if (f["name"], f["split"]) == (decide.FLOOR, "test")}
    full = [r for r in study.runs["headline"] if r["run"]["config"]["method"] == "full"]
    found = [(of.get((r["run"]["config"]["corpus"], r["run"]["config"]["fold"])), r) for r in full]
    return study.headline + decide.confirmatory([decide.beside(f, r) for f, r in found if f])


def test_scores(study: Study) -> pandas.DataFrame:
    """Macro F1 of the floor and of each method with its interval, and Full PEFT minus the floor, by corpus."""
    records = with_floor(study)
    table = method_scores(records, "test")
    table["text"] = [score(*row) for row in table[["macro_f1", "low", "high"]].to_numpy()]
    table = table.pivot(index="method", columns="corpus", values="text").reindex([*HEADLINE, decide.FLOOR])
    table = table[[corpus for corpus in ORDER if corpus in table]]
    for row in differences(records, [("full", decide.FLOOR)]).to_dict("records"):
        table.loc["Full PEFT − floor", row["corpus"]] = interval(row)
    people = pandas.DataFrame([f for f in study.floors if (f["name"], f["split"]) == (ANOTHER, "test") and f["fold"] < 4])
    for corpus, part in people.groupby("corpus") if len(people) else ():
        table.loc[f"{ANOTHER} (mean of folds)", corpus] = f"{part.macro_f1.mean():.3f}"
    names = {decide.FLOOR: EDIT_AWARE} | {name: title_of(name) for name in HEADLINE}
    return table.rename(index=names, columns=title_of).fillna("")


def rates(study: Study, out: Path) -> str:
    """The rates of each class of methods, and the curve of the score over the rate."""
    lost = [json.loads(line["key"]) for stage, line in study.failed if stage == "rates"]
    curve = decide.rate_table(study.runs["rates"], lost)
    best = decide.rates_of(curve, study.floors)[0] | study.chosen["rates"]
    write_bytes(out / "report_rates.png", decide.drawn(curve, study.floors, best))
    said = [f"{title_of(c)}: {', '.join(f'{title_of(name)} {rate:g}' for name, rate in of.items())}." for c, of in best.items()]
    text = f"Best rates on part D, of three runs a point (*many*: IR-Tuning and methods with as many layers). {' '.join(said)}"
    return f"{text}\n\n![Macro F1 on part D over the learning rate](report_rates.png)"


def choosing(study: Study, out: Path) -> str:
    """IR-Tuning against the other choices of layers, and against all layers."""
    pairs = [("ir", other) for other in dict.fromkeys(study.comparisons.against)]
    area = with_mean(study, differences(study.headline, pairs, "auprc")).drop(columns="equivalent")
    table = with_mean(study, study.comparisons)
    sure = table[(table.low > 0) | (table.high < 0)].to_dict("records")
    said = [f"{title_of(r['against'])} ({title_of(r['corpus'])}, {r['difference']:+.3f})" for r in sure]
    text = [f"Differences in macro F1 whose interval has no zero: {', '.join(said) or 'none'}. *Random layers* are drawn anew at "
            "each step, *one draw* once a run. ≈: shown to be within ±0.01.", wide(table),
            "AUPRC, which decides nothing:", wide(area)]  # fmt: skip
    if study.chosen["seeds"] > 1:
        text.append(picture(out, "detectable", *drawings.detectable(errors(study), 0.01, study.chosen["seeds"])))
    text += ["Macro F1 under other conditions, which decides nothing:", wide(sensitivity(study))]
    if "common" in study.runs:
        loss = run_differences(study.level, [*PRIMARY, "random-counts"], last_loss)
        steps = run_differences(study.level, ["full"], steps_to_near)
        text += ["Mean of the last ten training losses, at one learning rate:", wide(loss),
                 "Steps to 95 % of Full PEFT's best validation macro F1, at one learning rate:", wide(steps, "+.0f")]  # fmt: skip
    return "\n\n".join(text)


def with_mean(study: Study, table: pandas.DataFrame) -> pandas.DataFrame:
    """A table of differences, below their mean over the primary corpora, if there are any."""
    return pandas.concat([study.judged(table), table] if study.primary else [table])


def wide(table: pandas.DataFrame, form: str = "+.3f") -> str:
    """Differences with their intervals: a row for each pair of methods, a column for each corpus."""
    rows = [{"IR-Tuning": pair(r), title_of(r["corpus"]): interval(r, form) + " ≈" * bool(r.get("equivalent"))}
            for r in table.to_dict("records")]  # fmt: skip
    return markdown(pandas.DataFrame(rows).groupby("IR-Tuning", sort=False).first().fillna(""))


def errors(study: Study) -> pandas.DataFrame:
    """The detectable difference by number of seeds (rows), for each corpus and the mean over primary corpora."""
    columns, parts = {}, {}
    compared = [r for r in study.headline if r["run"]["config"]["method"] in decide.COMPARED]
    for (corpus,), of in groups_by(compared, ["corpus"]).items():
        whole = [r for runs in paired(of, *decide.COMPARED) for r in runs.values()]
        parts[corpus] = decide.variance(whole, "test")
    if study.primary:
        parts[MEAN] = sum(parts[c] for c in study.primary) / len(study.primary) ** 2
    for name, (clusters, items, runs) in parts.items():
        columns[name] = [decide.DETECTABLE * e for e in decide.errors(clusters, items + runs).values()]
    return pandas.DataFrame(columns, index=list(decide.SEEDS))


def sensitivity(study: Study) -> pandas.DataFrame:
    """P1 to P4 with other items, corpora and rates."""
    first, last = ([r for r in study.runs["headline"] if (r["run"]["config"]["fold"] == 4) == late] for late in (False, True))
    kinds = {"with fold 4": study.headline + last, "with items that the first edition scored": first}
    if "common" in study.runs:
        kinds["all at one rate"] = study.level
    found = [(name, study.judged(differences(records, [("ir", other) for other in PRIMARY]))) for name, records in kinds.items()]
    if study.primary and "argrewrite" in set(study.comparisons.corpus):
        of = study.comparisons[study.comparisons.corpus.isin([*study.primary, "argrewrite"])]
        found.append(("with ArgRewrite", mean_of_corpora(of[of.against.isin(PRIMARY)]).assign(corpus=MEAN)))
    return pandas.concat(table.assign(corpus=table.corpus.map(title_of) + f", {name}") for name, table in found)


def dynamic(study: Study, out: Path) -> str:
    """Whether IR-Tuning's choice goes on changing."""
    table = choice(study)
    said = [f"On {title_of(c)} the set that learns most often has {r['one_set']:.0%} of the late steps." for c, r in table.iterrows()]
    columns = {"layers": "layers", "steady": "learn at over 90 %", "frozen": "at under 10 %", "changes": "changes of the set",
               "one_set": "commonest set", "agreement": "seeds agree (rho)", "runs": "runs"}  # fmt: skip
    shown = table[list(columns)].rename(index=title_of, columns=columns).round(2)
    first = [min(part, key=lambda r: (r["run"]["config"]["fold"], r["run"]["config"]["seed"]))
             for part in groups_by(titled(study.headline, "ir"), ["corpus"]).values()]  # fmt: skip
    text = "After the first quarter of the steps, mean over runs (changes: median; rho: Spearman's, of how often layers learn):"
    return "\n\n".join([" ".join(said), text, markdown(shown), picture(out, "raster", *drawings.raster(first))])


def cost(study: Study, out: Path) -> str:
    """Score against memory and time on ITERATER, and the shapes of a model of 8B."""
    peak, records = peaks(study).mean(), [r for r in study.headline if r["run"]["config"]["corpus"] == "iterater"]
    seconds = pandas.Series({(r["run"]["config"]["method"], r["run"]["config"]["seed"]): pandas.Series(r["meta"]["step_seconds"]).median()
                             for r in study.runs["time"]}).groupby(level=0).mean()  # fmt: skip
    table = method_scores(records, "test").set_index("method")[["macro_f1", "low", "high"]]
    table = table.assign(peak=peak, ms=1000 * seconds)
    shown = pandas.DataFrame({
        "macro F1": table.macro_f1.map("{:.3f}".format), "peak (MiB)": table.peak.map("{:.0f}".format),
        "of Full PEFT": (table.peak / table.peak["full"]).map("{:.0%}".format), "step (ms)": table.ms.map("{:.0f}".format),
        "of Full PEFT's step": (table.ms / table.ms["full"]).map("{:.0%}".format)}).rename(index=title_of)  # fmt: skip
    record, _ = benchmarks.measurement("large_shapes_llama-3.1-8b")
    steps = benchmarks.step_table(record).query("engine == 'uncast, compile'").set_index("layers")[["step_ms", "peak_gib"]]
    steps = steps.round(1).rename(columns={"step_ms": "step (ms)", "peak_gib": "peak (GiB)"})
    device = ", ".join({r["meta"]["device"] for r in study.runs["time"]})
    return "\n\n".join([
        f"On ITERATER, one run at a time ({device}); the time is the median of a run's steps, mean over runs:",
        markdown(shown), picture(out, "costs", *drawings.costs(table)),
        f"The same at the shape of Llama-3.1-8B, 16 examples of 256 tokens ({benchmarks.measured_on(record)}). There is no score, "
        "because the weights are random:", markdown(steps)])  # fmt: skip


def scarce(study: Study, out: Path) -> str:
    """Small parts of the training data."""
    return wide(small_differences(study))


def fails(study: Study, out: Path) -> str:
    """Each class's F1, and the commonest confusions."""
    runs = [(r["run"]["config"], r["predictions"]["test"]) for r in with_floor(study)]
    rows = pandas.concat(pandas.DataFrame(p).assign(corpus=title_of(c["corpus"]), method=c["method"]) for c, p in runs
                         if c["corpus"] in (study.primary or BOTH) and c["method"] in ("ir", "full", decide.FLOOR))  # fmt: skip
    counts = rows.groupby(["corpus", "method", "intention", "predicted"], as_index=False).size()
    keys = ["corpus", "intention", "method"]
    gold = counts.groupby(keys)["size"].sum()
    given = counts.groupby(["corpus", "predicted", "method"])["size"].sum().rename_axis(keys)
    right = counts[counts.intention == counts.predicted].groupby(keys)["size"].sum()
    f1 = (2 * right / gold.add(given, fill_value=0)).fillna(0).unstack("method").map("{:.3f}".format)
    f1 = f1.rename(columns={decide.FLOOR: EDIT_AWARE} | {name: title_of(name) for name in ("ir", "full")})
    counts["share"] = counts["size"] / counts.groupby(keys)["size"].transform("sum")
    wrong = counts[(counts.method == "ir") & (counts.intention != counts.predicted)].sort_values("share", ascending=False)
    said = [f"- {r.corpus}: {r.share:.0%} of *{r.intention}* is taken for *{r.predicted}*."
            for _, part in wrong.groupby("corpus") for r in part.head(3).itertuples()]  # fmt: skip
    return "\n\n".join(["F1 of each intention:", markdown(f1.rename_axis(columns=None)),
                        "IR-Tuning's commonest confusions, as shares of an intention:", "\n".join(said)])  # fmt: skip


def transfer(study: Study, out: Path) -> str:
    """What ITERATER's models predict on TETRA."""
    parts = ["Share of each of TETRA's aspects (row) that a model of ITERATER calls so, without training on TETRA. There is no test:"]
    for record in study.runs["transfer"]:
        counts = pandas.DataFrame(record["meta"]["transfer"]["counts"]).fillna(0).T
        shares = counts.div(counts.sum(axis=1), axis=0).map("{:.0%}".format).assign(edits=counts.sum(axis=1).astype(int))
        parts += [f"**{title_of(record['run']['config']['method'])}**", markdown(shares.rename_axis("aspect"))]
    return "\n\n".join(parts)


def elsewhere(study: Study, out: Path) -> str:
    """Panels without a verdict: other methods, the small model, and a corpus from outside."""
    text, others = ["Without a verdict:"], [("ir", name) for name in HEADLINE if name not in ("ir", "full-ft")]
    if "mini" in study.runs:
        text += ["With the small model `mini`:", wide(differences(decide.confirmatory(study.runs["mini"]), others))]
    if "tetra" in study.runs:
        text += ["On TETRA, all five folds:", wide(differences(study.runs["tetra"], others))]
    if {"secondary", "headline"} <= set(study.runs):
        made = [eighth(r) for r in decide.confirmatory(study.runs["secondary"])]
        names = dict.fromkeys(run_title(r["run"]["config"]) for r in made)
        pairs = [("ir", name) for name in names if "head" not in name] + [("ir, head frozen", "full, head frozen")]
        text += ["Other methods:", wide(differences(titled(study.headline, "ir") + made, pairs))]
    return "\n\n".join(text)


def eighth(record: dict) -> dict:
    """A record, whose method says so if its frozen weights were in float8."""
    config = record["run"]["config"]
    name = config["method"] + " in float8" * ("float8" in config["speed"])
    return record | {"run": record["run"] | {"config": config | {"method": name}}}


def limits(study: Study, out: Path) -> str:
    """What the numbers do not say."""
    parts = [f"{title_of(r.corpus)} {2 * r.error:.3f}" for r in study.gate[study.gate.class_weights == study.chosen["class_weights"]].itertuples()]
    once = max((r["scores"]["test_scored"] for of in study.runs.values() for r in of), default=0)
    return "\n".join(f"- {line}" for line in [
        f"**The gate is coarse.** Part D is small: a true advantage below two standard errors ({', '.join(parts)}) fails more often than not.",
        "**One small model.** SmolLM2-135M, dequantised from 4 bits, has 30 layers. What holds here need not hold for billions of parameters.",
        "**ArXiv and Wikipedia** may be in its pre-training, for all methods alike.",
        "**Rates come from a grid** and three runs a point. A comparison is one of methods with their rates.",
        "**Intervals** are over documents and seeds, on these training sets. Fewer than five units have none.",
        f"**Each run scored its test part at most {'once' if once < 2 else f'{once} times'}.** No texts are in the store."])  # fmt: skip


def made(study: Study, out: Path) -> str:
    """What was run, with which code and plan."""
    rows = []
    for stage in STAGES:
        runs, planned = study.runs.get(stage, []), sum(map(len, study.planned(stage).values()))
        hours = sum(sum(r["meta"]["step_seconds"]) for r in runs) / 3600
        rows.append({"stage": stage, "runs": len(runs) or NOT_RUN, "planned": planned,
                     "failed": sum(s == stage for s, _ in study.failed), "hours of training": f"{hours:.1f}" if runs else "",
                     "test parts scored": sum(r["scores"]["test_scored"] for r in runs)})  # fmt: skip
    every = [r for runs in study.runs.values() for r in runs]
    seals = {name: ", ".join(sorted({str(r["meta"][name]) for r in every})) for name in ("plan", "code", "commit", "device")}
    said = "; ".join(f"{name} {value}" for name, value in seals.items())
    lost = "".join(f"\n- failed: {stage}, {line['failed']}" for stage, line in study.failed)
    return f"{markdown(pandas.DataFrame(rows))}\nSeals of the records: {said}.{lost}"


SECTIONS = [  # title, stages that it needs, and what writes it
    ("Does the model beat the floor, and how far is the human?", {"gate"}, floor),
    ("Which learning rate?", {"rates"}, rates),
    ("Does choosing layers help?", {"headline"}, choosing),
    ("Is the dynamic method dynamic?", {"headline"}, dynamic),
    ("What does it cost, and what does it save?", {"headline", "time"}, cost),
    ("Small corpora", {"small"}, scarce),
    ("Where it fails", {"headline"}, fails),
    ("Transfer", {"transfer"}, transfer),
    ("Other panels", {"headline"}, elsewhere),
    ("Limits", set(), limits),
    ("What was run", set(), made),
]


def picture(out: Path, name: str, figure, title: str) -> str:
    """Write a figure, and return the Markdown that shows it."""
    write_bytes(out / f"report_{name}.png", to_image(figure))
    return f"![{title}](report_{name}.png)"


def report(store: Path, out: Path) -> str:
    """Write the report and its figures to a folder, and return its Markdown."""
    study = Study.read(store)
    parts = ["# The study, second edition: does choosing layers help?", top(study, out)]
    parts += [f"## {title}\n\n{write(study, out)}" for title, needs, write in SECTIONS if needs <= set(study.runs)]
    text = "\n\n".join(parts) + "\n"
    write_text(out / "report.md", text)
    page = mistune.create_markdown(escape=False, plugins=["table"])(text)

    def embedded(found: re.Match) -> str:
        return f'src="data:image/png;base64,{base64.b64encode((out / found[1]).read_bytes()).decode()}"'
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>The study</title><style>{STYLE}</style>'
    page = re.sub(r'src="(\w+\.png)"', embedded, page)
    write_text(out / "report.html", f'<!doctype html><html lang="en"><head>{head}</head><body>{page}</body></html>\n')
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=second.HERE, help="folder of the report")
    report(second.HERE, parser.parse_args().out)
