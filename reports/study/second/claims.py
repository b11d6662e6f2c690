"""The claims of the plan, judged by its rules from the store of the second edition: `../plan2.md`, "Hypotheses"."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

import decide
import numpy as np
import pandas
import second
from scipy import stats
from second import BOTH, TESTED, USUAL

from irtuning.analysis import layers
from irtuning.analysis.figures.style import title_of
from irtuning.analysis.statistics import (
    ALPHA, CONFIDENCE, EQUIVALENT, FEWEST, PAIRED, compare_methods, holm, mean_of_corpora,
)  # fmt: skip
from irtuning.analysis.tables import bound_name, groups_by, run_title
from irtuning.companion.archive import INDEX, read_archive
from irtuning.errors import InputError

STAGES = ("gate", "rates", "headline", "time", *TESTED[1:], "transfer")
LAYER_WISE = ("random-static", "last-k", "ist")  # IR-Tuning minus these are P1 to P3
PRIMARY = (*LAYER_WISE, "full")  # and P4
BELOW, NOT_RUN = "no verdict because below the gate", "not run"
MEAN = "primary corpora"  # in place of a corpus: the mean over them
ORDER = [*BOTH, "argrewrite", "tetra"]
LOSSES, NEAR, LESS = 10, 0.95, -0.30  # of the rules of H4, H5 and H6


@dataclass(frozen=True)
class Study:
    """What the store holds."""
    made: dict[str, list[dict]]  # the records of each stage
    floors: list[dict]  # with their predictions
    failed: list  # stage and line of each failed run
    chosen: dict  # settings.json and seeds.json

    @classmethod
    def read(cls, store: Path) -> "Study":
        """Read a store. InputError if its gate is not whole, or `settings.json` names other primary corpora."""
        index = json.loads((store / INDEX).read_text(encoding="utf-8"))
        made = {stage: sorted(read_archive(store, stage)[0], key=lambda r: ORDER.index(r["run"]["config"]["corpus"]))
                for stage in STAGES if stage in index}  # fmt: skip
        answers = pandas.read_parquet(store / "predictions.parquet")
        of = answers[answers.run.isna()].groupby(["corpus", "fold", "split", "method"])
        rows = {name: part[["id", "group", "intention", "predicted"]].to_dict("records") for name, part in of}
        floors = [f | {"predictions": rows.get((f["corpus"], f["fold"], f["split"], bound_name(f)))}
                  for f in next(iter(index.values()))["floors"]]  # fmt: skip
        failed = json.loads((store / "failed.json").read_text(encoding="utf-8"))
        study = cls(made, floors, failed, second.settings())
        if any(study.missing["gate", corpus] for corpus in BOTH):
            raise InputError(f"the gate in {store} is not whole; make and collect its runs first")
        passed = [c for c in study.decisive.corpus[study.decisive.passes] if c in BOTH]
        if passed != study.primary:
            raise InputError(f"settings.json has the primary corpora {study.primary}, the gate {passed}")
        return study

    @property
    def primary(self) -> list[str]:
        return self.chosen["primary"]

    @cached_property
    def planned(self) -> dict[tuple, set]:
        """The keys of the planned runs by stage and corpus."""
        runs = {(stage, c): second.planned(stage, c, self.chosen) for stage in STAGES for c in USUAL.get(stage, BOTH)}
        return {(stage, c): {second.key(run | {"score_test": stage in TESTED}) for run in of}
                for (stage, c), of in runs.items()}  # fmt: skip

    @cached_property
    def missing(self) -> dict[tuple, int]:
        """How many planned runs are not made, by stage and corpus.

        A failed run is not missing, nor are those that would have copied the budget of a failed run.
        """
        lost = [json.loads(line["key"]) for _, line in self.failed]
        copies = [run | {"method": name} for run in lost if run["method"] == "ir" for name in second.CLASS]
        known = {r["meta"]["key"] for of in self.made.values() for r in of} | set(map(second.key, lost + copies))
        return {name: len(keys - known) for name, keys in self.planned.items()}

    @cached_property
    def runs(self) -> dict[str, list[dict]]:
        """The records of each stage on the corpora where none is missing. What is half made tells nothing yet."""
        whole = {stage: [r for r in of if not self.missing[stage, r["run"]["config"]["corpus"]]]
                 for stage, of in self.made.items()}  # fmt: skip
        return {stage: of for stage, of in whole.items() if of}

    @cached_property
    def gate(self) -> pandas.DataFrame:
        return decide.gate(self.runs["gate"], self.floors)

    @property
    def decisive(self) -> pandas.DataFrame:
        """The gate with the chosen class weights."""
        return self.gate[self.gate.class_weights == self.chosen["class_weights"]]

    @cached_property
    def headline(self) -> list[dict]:
        """The headline's records on the confirmatory items."""
        return decide.confirmatory(self.runs.get("headline", []))

    @cached_property
    def level(self) -> list[dict]:
        """The headline's records at the one rate of IR-Tuning, with those that were run again for it."""
        rates = {r["run"]["config"]["corpus"]: r["run"]["config"]["learning_rate"] for r in titled(self.headline, "ir")}
        every = [*self.headline, *decide.confirmatory(self.runs.get("common", []))]
        return [r for r in every if r["run"]["config"]["learning_rate"] == rates.get(r["run"]["config"]["corpus"])]

    @cached_property
    def comparisons(self) -> pandas.DataFrame:
        """P1 to P4 and the difference to random layers at each step, on each corpus."""
        return differences(self.headline, [("ir", other) for other in (*PRIMARY, "random-counts")])

    def lacking(self, *stages: str) -> str:
        """Why stages cannot decide a claim on the corpora that count, or an empty text."""
        for stage in stages:
            usual = USUAL.get(stage, BOTH)
            corpora = [c for c in self.primary or BOTH if c in usual] or usual  # `time` is on ITERATER in any case
            if left := sum(self.missing[stage, c] for c in corpora):
                none = left == sum(len(self.planned[stage, c]) for c in corpora)
                return NOT_RUN if none else f"no verdict because {left} runs of {stage} are missing"
        return ""

    def judged(self, table: pandas.DataFrame) -> pandas.DataFrame:
        """The mean of differences over the primary corpora. If there is none, those of each corpus alone."""
        part = table[table.corpus.isin(self.primary or BOTH)]
        known = self.primary and set(self.primary) <= set(part.corpus)
        return mean_of_corpora(part).assign(corpus=MEAN) if known else part


def titled(records: Sequence[dict], name: str) -> list[dict]:
    """The records of a method, named by its run's title, or by its text if no run has this title."""
    return ([r for r in records if run_title(r["run"]["config"]) == name]
            or [r for r in records if r["run"]["config"]["method"] == name])  # fmt: skip


def paired(records: Sequence[dict], *names: str) -> list[dict[tuple, dict]]:
    """The runs of each of these methods by fold and seed, as far as all of them have one there."""
    runs = [{PAIRED(r["run"]["config"]): r for r in titled(records, name)} for name in names]
    common = sorted(set.intersection(*map(set, runs)))
    return [{key: of[key] for key in common} for of in runs]


def differences(records: Sequence[dict], pairs: Sequence[tuple], metric: str = "macro_f1") -> pandas.DataFrame:
    """The test scores' paired differences with two-way errors, on each corpus that has both methods."""
    rows = []
    for (corpus,), part in groups_by(records, ["corpus"]).items():
        for pair in pairs:
            both = [r for of in paired(part, *pair) for r in of.values()]
            if both:
                rows.append({"corpus": corpus} | asdict(compare_methods(both, *pair, metric=metric)))
    return pandas.DataFrame(rows)


def run_differences(records: Sequence[dict], others: Sequence[str], number) -> pandas.DataFrame:
    """The paired differences of a number of whole runs, IR-Tuning minus others, with t intervals.

    `number` gives that of a record, beside the other method's record of that fold and seed. The error is that of seeds
    within folds. It is unknown with one seed in a fold.
    """
    rows = []
    for (corpus,), part in groups_by(records, ["corpus"]).items():
        for other in others:
            one, two = paired(part, "ir", other)
            if not one:
                continue
            apart = {key: number(one[key], run) - number(run, run) for key, run in two.items()}
            values = pandas.Series(list(apart.values()), index=[fold for fold, _ in apart], dtype=float)
            folds, freedom = values.groupby(level=0), len(values) - values.index.nunique()
            error = np.sqrt((folds.var() / folds.size()).sum(skipna=False)) / folds.ngroups
            half = error * stats.t.ppf((1 + CONFIDENCE) / 2, freedom) if len(values) >= FEWEST and freedom else np.nan
            mean = folds.mean().mean()
            p_value = 2 * stats.t.sf(abs(mean) / error, freedom) if error else float(not mean)
            rows.append({"corpus": corpus, "method": "ir", "against": other, "difference": mean, "error": error,
                         "low": mean - half, "high": mean + half, "p_value": p_value,
                         "detectable": decide.DETECTABLE * error})  # fmt: skip
    return pandas.DataFrame(rows)


def last_loss(record: dict, _: dict) -> float:
    return float(np.mean([step["loss"] for step in record["train"]["steps"][-LOSSES:]]))


def steps_to_near(record: dict, full: dict) -> int:
    """Steps to 95 % of Full PEFT's best validation macro F1. A run that never gets there counts with its length."""
    goal = NEAR * max(row["macro_f1"] for row in full["train"]["validation"])
    there = [row["step"] for row in record["train"]["validation"] if row["macro_f1"] >= goal]
    return min(there, default=len(record["train"]["steps"]))


def peaks(study: Study) -> pandas.DataFrame:
    """Measured peaks of GPU memory in MiB, one run at a time: a column for each method, a row for each seed."""
    rows = [(r["run"]["config"]["method"], r["run"]["config"]["seed"], r["meta"]["peak_memory_bytes"] / 2**20)
            for r in study.runs.get("time", []) if r["meta"]["peak_memory_kind"].startswith("GPU")]  # fmt: skip
    table = pandas.DataFrame(rows, columns=["method", "seed", "peak"])
    return table.pivot(index="seed", columns="method", values="peak")


def choice(study: Study) -> pandas.DataFrame:
    """What IR-Tuning chooses after the first quarter, by corpus. `agreement` is Spearman's rho of a fold's seeds."""
    runs = titled(study.headline, "ir")
    table, rhos = layers.choice_over_time(runs).droplevel("method"), {}
    for (corpus, _), part in groups_by(runs, ["corpus", "fold"]).items():
        shares = pandas.DataFrame([layers.late_shares(r) for r in part]).T.corr("spearman").to_numpy()
        rhos.setdefault(corpus, []).extend(shares[np.triu_indices(len(shares), 1)])
    means = {corpus: pandas.Series(of, dtype=float).mean() for corpus, of in rhos.items()}
    return table.assign(agreement=pandas.Series(means))


def small_differences(study: Study) -> pandas.DataFrame:
    """IR-Tuning minus each other method on small parts of the training data, on confirmatory items."""
    records, tables = decide.confirmatory(study.runs.get("small", [])), []
    for (share,), part in sorted(groups_by(records, ["train_share"]).items()):
        table = differences(part, [("ir", other) for other in ("full", "random-static", "last-k")])
        tables.append(table.assign(against=table.against + f", {share:.0%} of train"))
    return pandas.concat(tables) if tables else pandas.DataFrame()


def on_primary(study: Study, table: pandas.DataFrame) -> pandas.DataFrame:
    return table[table.corpus.isin(study.primary or BOTH)]


def after_holm(p_values: pandas.Series) -> np.ndarray:
    return np.array(holm(p_values)) < ALPHA


# The rules. Each returns a table of differences, and which words hold.


def higher(study: Study) -> tuple:
    each = on_primary(study, study.comparisons[study.comparisons.against.isin(LAYER_WISE)])
    table = study.judged(each)
    above = (table.low > 0).all() and (each.difference > 0).all() and set(table.against) == set(LAYER_WISE)
    return table, {"for": above, "against": ((table.high < 0) & after_holm(table.p_value)).any()}


def which(study: Study) -> tuple:
    table = study.judged(study.comparisons.query("against == 'random-static'"))
    equal, below = table.equivalent.all(), (table.high < 0).any()
    return table, {"for": (table.low > 0).all(), "equivalent": equal, "against": below}


def as_good(study: Study) -> tuple:
    table = study.judged(study.comparisons.query("against == 'full'"))
    above, near = (table.low > 0).all(), (table.low >= -EQUIVALENT).all()
    return table, {"for": above, "not worse": near and not above, "against": (table.high < 0).any()}


def lower_loss(study: Study) -> tuple:
    table = on_primary(study, run_differences(study.level, LAYER_WISE, last_loss))
    below = (table.high < 0).all() and set(table.against) == set(LAYER_WISE)
    return table, {"for": below, "against": ((table.low > 0) & after_holm(table.p_value)).any()}


def faster(study: Study) -> tuple:
    table = on_primary(study, run_differences(study.level, ["full"], steps_to_near))
    return table, {"for": (table.high < 0).all(), "against": (table.low > 0).any()}


def less_memory(study: Study, method: str = "ir", against: str = "full", most: float = 0) -> tuple:
    """The rule for pairs of one seed, as shares. There are three, so they have no interval."""
    found = peaks(study).reindex(columns=[method, against])
    share = (found[method] / found[against] - 1).dropna()
    seeds = [f"seed {seed}" for seed in share.index]
    table = pandas.DataFrame({"corpus": seeds, "method": method, "against": against, "difference": share})
    return table, {"for": (share < 0).all() and (share <= most).all(), "against": (share > most).all()}


def varies(study: Study) -> tuple:
    table = on_primary(study, choice(study).rename_axis("corpus").reset_index())
    over_layers, over_steps = (table.steady > 0) & (table.frozen > 0), table.changes > 0
    return table, {"for": (over_layers & over_steps).all(), "against": (~over_layers & ~over_steps).any()}


def small(study: Study) -> tuple:
    found = small_differences(study)
    table = study.judged(found[found.against.str.startswith("full,")])
    return table, {"for": (table.low > 0).all(), "against": ((table.high < 0) & after_holm(table.p_value)).any()}


PEFT_MEMORY = partial(less_memory, method="full", against="full-ft", most=LESS)
# the claim, the stages that it needs, its rule, whether it needs a primary corpus, and its number's format
CLAIMS = {
    "H1": ("scores higher than layer-wise baselines", ["headline"], higher, True, "+.3f"),
    "H2": ("what matters is which layers learn, not how many", ["headline"], which, True, "+.3f"),
    "H3": ("as good as Full PEFT, or better", ["headline"], as_good, True, "+.3f"),
    "H4": ("lower fine-tuning loss than layer-wise baselines, at one rate", ["headline", "common"], lower_loss, True, "+.3f"),
    "H5": ("converges in fewer steps than Full PEFT, at one rate", ["headline", "common"], faster, True, "+.0f"),
    "H6": ("needs less GPU memory than Full PEFT", ["time"], less_memory, False, "+.1%"),
    "H6, PEFT": ("Full PEFT needs 30 to 40 % less than full fine-tuning", ["time"], PEFT_MEMORY, False, "+.1%"),
    "H7": ("layer importance varies over layers and training", ["headline"], varies, True, ""),
    "H8": ("works on small corpora: above Full PEFT", ["small"], small, True, "+.3f"),
}


def card(study: Study) -> pandas.DataFrame:
    """Each claim with its effect, the difference that could have been seen, and its verdict."""
    rows = []
    for name, (claim, needs, rule, gated, form) in CLAIMS.items():
        lacking = study.lacking(*needs)
        effect, seen, verdict = "", "", BELOW + f", and {lacking}" * (lacking == NOT_RUN) if gated and not study.primary else lacking
        if not lacking:
            table, holds = rule(study)
            effect, seen = "<br>".join(said(table, form)), seeable(table, form)
            words = [word for word, yes in holds.items() if yes] if len(table) else [NOT_RUN]
            verdict = verdict or " and ".join(words) or "inconclusive"
        rows.append((f"{name}: {claim}", effect, seen, verdict))
    return pandas.DataFrame(rows, columns=["claim", "effect [95 %]", "could have been seen", "verdict"])


def said(table: pandas.DataFrame, form: str) -> list[str]:
    """The rows of differences in words, a line for each pair of methods. Those of `choice`, a line for each corpus."""
    if "changes" in table:
        return [f"{title_of(r.corpus)}: of {r.layers:.0f} layers {r.steady:.1f} learn at over 90 % of the late steps, "
                f"{r.frozen:.1f} at under 10 %; {r.changes:.0f} changes" for r in table.itertuples()]  # fmt: skip
    lines = {}
    for row in table.to_dict("records"):
        lines.setdefault(pair(row), []).append(f"{title_of(row['corpus'])} {interval(row, form)}")
    return [f"{name}: {'; '.join(of)}" for name, of in lines.items()]


def pair(row: dict) -> str:
    """The methods of a difference, without IR-Tuning if it is the first."""
    return f"{title_of(row['method']) * (row['method'] != 'ir')} − {title_of(row['against'])}".strip()


def interval(row: dict, form: str = "+.3f") -> str:
    """A difference with its interval, if it has one."""
    ends = f" [{row['low']:{form}}, {row['high']:{form}}]" if row.get("low") == row.get("low") is not None else ""
    return f"{row['difference']:{form}}{ends}"


def seeable(table: pandas.DataFrame, form: str) -> str:
    """The differences that a test at 5 % would find in four of five studies, from the smallest to the largest."""
    if "detectable" not in table:
        return ""
    return " to ".join(dict.fromkeys(f"{v:{form[1:]}}" for v in (table.detectable.min(), table.detectable.max())))
