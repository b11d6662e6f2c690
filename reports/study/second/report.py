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
    MEAN, NOT_RUN, PRIMARY, STAGES, Study, card, choice, differences, interval, last_loss, paired, peaks,
    run_differences, small_differences, steps_to_near, titled,
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
td, th { border: 1px solid #ccc; padding: 2px 6px; text-align: left; vertical-align: top }
@media print { body { font-size: 10px; margin: 0 } h2, img, tr { break-inside: avoid } h2 { break-after: avoid } }"""


def top(study: Study, out: Path) -> str:
    """The answer in one paragraph, and the card."""
    table = card(study)
    words = Counter(table.verdict)
    names = " and ".join(map(title_of, study.primary))
    passed = (f"**Primary: {names}.** Full PEFT beats there a linear model that sees the edit, the edit-aware floor, by "
              "more than two standard errors. The verdicts hold for this model there.") if names else (
        "**No corpus passes the gate.** On none does Full PEFT beat the edit-aware floor, a linear model that sees the "
        "edit, by more than two standard errors. So claims that need such a corpus get no verdict, as the plan says.")  # fmt: skip
    counted = "; ".join(f"{word}: {number}" for word, number in words.items())
    absent = [stage for stage in STAGES if stage not in study.runs]
    text = [f"{passed} Of {len(table)} claims, {counted}.", f"Not run: {', '.join(absent)}." if absent else "",
            "A difference is IR-Tuning's score, loss, steps or memory minus another method's, on test parts of folds 0 "
            "to 3. Brackets are 95 % intervals. *Could have been seen* is the difference that a test at 5 % finds in "
            "four of five studies. *Equivalent* is within ±0.01, and counts against H2. *Not worse* is above -0.01.",
            markdown(table.map(lambda v: v or "·"))]  # fmt: skip
    if "headline" in study.runs:
        shown = pandas.concat([study.judged(study.comparisons), study.comparisons]).drop_duplicates(["corpus", "against"])
        text.append(picture(out, "claims", *drawings.claims(shown, table, study.primary)))
    return "\n\n".join(filter(None, text))


def floor(study: Study, out: Path) -> str:
    """The gate, floors and annotators on part D, and on the test parts once they are scored."""
    weights = study.gate.class_weights == study.chosen["class_weights"]
    rows = []
    for r in study.gate[weights].itertuples():
        here = {f["name"]: f for f in study.floors if decide.on_d(f, r.corpus)}
        people = here.get(ANOTHER)
        rows.append({
            "corpus": title_of(r.corpus), "operation floor": f"{here['operation']['macro_f1']:.3f}",
            EDIT_AWARE: f"{r.floor:.3f}", "Full PEFT (sd)": f"{r.macro_f1:.3f} ({r.sd:.3f})",
            "Full PEFT − floor": f"{r.difference:+.3f}", "two standard errors": f"{2 * r.error:.3f}",
            "passes": "yes" if r.passes else "no", ANOTHER: between(people, "macro_f1") if people else "not known",
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


def between(row: dict, name: str) -> str:
    """A score with its interval."""
    low, high = row.get(f"{name}_low", row.get("low")), row.get(f"{name}_high", row.get("high"))
    return f"{row[name]:.3f}" + (f" [{low:.3f}, {high:.3f}]" if low == low else "")


def with_floor(study: Study) -> list[dict]:
    """The headline, with a copy of each run of Full PEFT that has the predictions of its fold's edit-aware floor."""
    of = {(f["corpus"], f["fold"]): f for f in study.floors if (f["name"], f["split"]) == (decide.FLOOR, "test")}
    full = [r for r in study.runs["headline"] if r["run"]["config"]["method"] == "full"]
    found = [(of.get((r["run"]["config"]["corpus"], r["run"]["config"]["fold"])), r) for r in full]
    return study.headline + decide.confirmatory([decide.beside(f, r) for f, r in found if f])


def test_scores(study: Study) -> pandas.DataFrame:
    """Macro F1 of the floor and of each method with its interval, and Full PEFT minus the floor, by corpus."""
    records = with_floor(study)
    table = method_scores(records, "test").assign(text=lambda t: [between(row, "macro_f1") for row in t.to_dict("records")])
    table = table.pivot(index="method", columns="corpus", values="text").reindex([*HEADLINE, decide.FLOOR])
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
    pairs = list(zip(study.comparisons.method, study.comparisons.against, strict=True))
    area = differences(study.headline, list(dict.fromkeys(pairs)), "auprc")
    table, areas = (pandas.concat([t, study.judged(t)]).drop_duplicates(["corpus", "against"]) for t in (study.comparisons, area))
    both = table.merge(areas, on=["corpus", "against"], suffixes=("", "_area")).to_dict("records")
    rows = [{"IR-Tuning −": title_of(r["against"]), "corpus": title_of(r["corpus"]), "macro F1": interval(r),
             "detectable": f"{r['detectable']:.3f}", "within ±0.01": "yes" if r["equivalent"] else "not shown",
             "AUPRC": interval({n: r[f"{n}_area"] for n in ("difference", "low", "high")})} for r in both]  # fmt: skip
    sure = [f"{title_of(r['against'])} ({title_of(r['corpus'])}, {r['difference']:+.3f})" for r in both if r["low"] > 0 or r["high"] < 0]
    text = [f"Intervals without zero: {', '.join(sure) or 'none'}. Detectable is for one test at 5 %. Random layers are drawn "
            "anew at each step, *one draw* once a run. AUPRC decides nothing.", markdown(pandas.DataFrame(rows))]  # fmt: skip
    if len(study.headline) and study.chosen["seeds"] > 1:
        text.append(picture(out, "detectable", *drawings.detectable(errors(study), 0.01, study.chosen["seeds"])))
    text += ["The primary comparisons under other conditions, which decide nothing:", markdown(sensitivity(study))]
    if "common" in study.runs:
        text += [learning(study)]
    return "\n\n".join(text)


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
    made = study.runs["headline"]
    fold = {n: [r for r in made if (r["run"]["config"]["fold"] < 4) == early] for n, early in (("first", True), ("last", False))}
    kinds = {"as planned": study.headline, "with fold 4": study.headline + fold["last"],
             "with items that the first edition scored": fold["first"]}  # fmt: skip
    if "common" in study.runs:
        kinds["all at one rate"] = study.level
    rows, pairs = [], [("ir", other) for other in PRIMARY]
    for name, records in kinds.items():
        table = differences(records, pairs)
        rows += [(name, row) for row in study.judged(table).to_dict("records")]
    if study.primary and "argrewrite" in set(study.comparisons.corpus):
        of = study.comparisons[study.comparisons.corpus.isin([*study.primary, "argrewrite"])]
        rows += [("ArgRewrite in the mean", r) for r in mean_of_corpora(of).to_dict("records") if r["against"] in PRIMARY]
    cells = [{"condition": name, "corpus": title_of(row["corpus"]), "against": f"− {title_of(row['against'])}",
              "text": interval(row)} for name, row in rows]  # fmt: skip
    return pandas.DataFrame(cells).pivot_table("text", ["condition", "corpus"], "against", "first", sort=False).fillna("")


def learning(study: Study) -> str:
    """Training loss and steps to Full PEFT's score at one rate."""
    lost = run_differences(study.level, [*PRIMARY, "random-counts"], last_loss).assign(form="+.3f", what="last ten training losses")
    steps = run_differences(study.level, ["full"], steps_to_near).assign(form="+.0f", what="steps to 95 % of Full PEFT's best F1")
    rows = [{"at one rate": r["what"], "corpus": title_of(r["corpus"]), "IR-Tuning −": title_of(r["against"]),
             "difference": interval(r, r["form"])} for r in pd_rows(lost, steps)]  # fmt: skip
    return f"Loss and convergence at one learning rate:\n\n{markdown(pandas.DataFrame(rows))}"


def pd_rows(*tables: pandas.DataFrame) -> list[dict]:
    return [row for table in tables for row in table.to_dict("records")]


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
    return compared(small_differences(study))


def compared(table: pandas.DataFrame) -> str:
    rows = [{"corpus": title_of(r["corpus"]), "difference": f"{title_of(r['method'])} − {title_of(r['against'])}",
             "macro F1": interval(r), "detectable": f"{r['detectable']:.3f}"} for r in table.to_dict("records")]  # fmt: skip
    return markdown(pandas.DataFrame(rows))


def fails(study: Study, out: Path) -> str:
    """Each class's F1, and the commonest confusions."""
    frames = [pandas.DataFrame(r["predictions"]["test"]).assign(corpus=r["run"]["config"]["corpus"], method=r["run"]["config"]["method"])
              for r in with_floor(study) if r["run"]["config"]["method"] in ("ir", "full", decide.FLOOR)]  # fmt: skip
    rows = pandas.concat(frames)[["corpus", "method", "intention", "predicted"]]
    right = rows[rows.intention == rows.predicted].groupby(["corpus", "intention", "method"]).size()
    gold, given = (rows.groupby(["corpus", name, "method"]).size().rename_axis(right.index.names) for name in ("intention", "predicted"))
    f1 = (2 * right / gold.add(given, fill_value=0)).fillna(0).unstack("method").round(3)
    f1 = f1.rename(columns=lambda name: EDIT_AWARE if name == decide.FLOOR else title_of(name))
    ours = rows[rows.method == "ir"].groupby(["corpus", "intention"]).predicted.value_counts(normalize=True).rename("share").reset_index()
    wrong = ours[ours.intention != ours.predicted].sort_values("share", ascending=False).groupby("corpus", sort=False).head(3)
    said = [f"{title_of(r.corpus)}: {r.share:.0%} of *{r.intention}* is taken for *{r.predicted}*." for r in wrong.sort_values("corpus", kind="stable").itertuples()]
    return "\n\n".join(["F1 of each intention:", markdown(f1.reset_index().assign(corpus=lambda t: t.corpus.map(title_of))),
                        "IR-Tuning's commonest confusions, as shares of an intention:", "\n".join(f"- {line}" for line in said)])  # fmt: skip


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
        text += ["With the small model `mini`:", compared(differences(decide.confirmatory(study.runs["mini"]), others))]
    if "tetra" in study.runs:
        text += ["On TETRA, all five folds:", compared(differences(study.runs["tetra"], others))]
    if {"secondary", "headline"} <= set(study.runs):
        made = [eighth(r) for r in decide.confirmatory(study.runs["secondary"])]
        names = dict.fromkeys(run_title(r["run"]["config"]) for r in made)
        pairs = [("ir", name) for name in names if "head" not in name] + [("ir, head frozen", "full, head frozen")]
        text += ["Other methods:", compared(differences(titled(study.headline, "ir") + made, pairs))]
    return "\n\n".join(text)


def eighth(record: dict) -> dict:
    """A record, whose method says so if its frozen weights were in float8."""
    config = record["run"]["config"]
    name = config["method"] + " in float8" * ("float8" in config["speed"])
    return record | {"run": record["run"] | {"config": config | {"method": name}}}


def limits(study: Study, out: Path) -> str:
    """What the numbers do not say."""
    parts = [f"{r.corpus} {2 * r.error:.3f}" for r in study.gate[study.gate.class_weights == study.chosen["class_weights"]].itertuples()]
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
