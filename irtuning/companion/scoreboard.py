"""The scoreboard of the study's second edition: a strategy of your own beside the stored runs, in their settings."""

import hashlib
import json
from pathlib import Path

import pandas
from tqdm import tqdm

from irtuning.analysis import layers, statistics, tables
from irtuning.analysis.figures import style
from irtuning.analysis.figures.runs import comparison_forest
from irtuning.companion import archive, paths
from irtuning.comparison.runs import run_name, takes_budget, with_budget
from irtuning.errors import InputError
from irtuning.method.registry import BUILT_IN, IN_A_FILE, as_strategy, method_text, register
from irtuning.training import prepare, record
from irtuning.training.config import RunConfig
from irtuning.training.run import train

STUDY = paths.REPOSITORY / "reports" / "study"
STORE = STUDY / "second"
STAGES = ("headline", "tetra", "rates", "gate")  # a strategy is compared with the first that has predictions
NOTES = """\
Exploratory: no plan names {}, so it gets no verdict. It has the settings of the stored runs of `{}`{}. A difference is
its score minus the row's. Intervals are of 95 %, two-way over documents and seeds; fewer than five runs have none.
`changes` is the median number of steps after the first quarter that change the layers."""


def add_strategy(add: str, corpus: str = "iterater", *, data=None, final=False, output="runs/scoreboard",
                 progress=True) -> tuple[pandas.DataFrame, Path]:  # fmt: skip
    """Make what is missing of a strategy's runs. Return its scoreboard, and the folder with table, figure and records.

    `add` is `NAME=FILE.py:Class`, and `data` the folder of the corpus's files. With `final` the test parts are scored,
    once for each file, fold and seed, as `output/scored.jsonl` records. InputError is raised before the first run.
    """
    name, _, text = add.partition("=")
    if not (place := IN_A_FILE.fullmatch(text)) or (kind := type(strategy := as_strategy(text))) in BUILT_IN:
        raise InputError(f"{add!r} is not NAME=FILE.py:Class with a class of your own, such as mine=mine.py:Mine")
    kind.name = name
    register(kind)
    source = hashlib.sha256(Path(place[1]).read_bytes() + text[place.end(1) :].encode()).hexdigest()[:12]
    method, split, log = method_text(strategy), "test" if final else "validation", Path(output, "scored.jsonl")
    (stage, stored), code, corpora, runs, made = stored_runs(corpus, split), paths.training_fingerprint(), {}, {}, []
    of, like = tables.groups_by(stored, ["method"]), ("full-ft",) if strategy.scope == "parameters" else ("ir", "full")
    for like_run in next((of[name,] for name in like if (name,) in of), ()):  # the run whose settings are taken
        own = dict.fromkeys(("share", "counts", "precision")) | {"method": method, "score_test": final}
        config = RunConfig.of(like_run["run"]["config"] | own)
        if takes_budget(config) and ("ir",) not in of:
            raise InputError(f"{method} takes its number of layers from IR-Tuning, but {stage} has no run of it")
        here = corpora[config.fold] = corpora.get(config.fold) or prepare.corpus_of(config, data)
        prepared = prepare.prepare(config := with_budget(config, like_run), corpus=here, strategy=strategy)
        runs[source, corpus, config.fold, config.seed] = prepared, Path(output, "runs", source + code, run_name(config))
    scored = [tuple(json.loads(line)) for line in (log.read_text().splitlines() if final and log.exists() else ())]
    if not runs or {*runs} <= {*scored} or any(run in runs and not record.has_record(runs[run][1]) for run in scored):
        problem = f"has scored its test part, as {log} says; that is done once" if runs else f"needs runs of {like[0]}"
        raise InputError(f"{method} on {corpus} {problem}")
    for run, (prepared, folder) in tqdm(runs.items(), f"{method} on {corpus}, runs", disable=not progress):
        made.append(train(prepared, output=folder, progress=False).record)
        made[-1]["meta"] |= {"code": code, "source": source}
        if final and run not in scored:
            with log.open("a") as file:
                file.write(json.dumps(run) + "\n")
    archive.write_archive(target := Path(output, f"{method}-{corpus}-{split}".replace(":", "_")), {stage: (made, [])})
    table, figure = board(*map(confirmatory, (made, stored)) if final else (made, stored), split)
    record.write_bytes(target / "scoreboard.png", style.to_image(figure))
    other = ", whose training code was another one" * ({r["meta"]["code"] for r in stored} != {code})
    head = f"# {method} on the {split} part of {style.title_of(corpus)}\n\n{NOTES.format(method, stage, other)}"
    foot = f"![Differences](scoreboard.png)\n\n{tables.stamp(made, 'scoreboard')} · {source}\n"
    record.write_text(target / "scoreboard.md", f"{head}\n\n{tables.markdown(table)}\n{foot}")
    return table, target


def stored_runs(corpus: str, split: str) -> tuple[str, list[dict]]:
    """Return the first stage with predictions on a part of a corpus, and its runs at chosen rates that no method lacks.

    Fold 4 is left out: its validation part lies in others' test parts. InputError says what can be compared today.
    """
    if not (STORE / "settings.json").exists():
        raise InputError(f"{STORE} has no stored runs; clone the repository and install it with `pip install -e .`")
    chosen, found = json.loads((STORE / "settings.json").read_text()), {}
    for name, run in ((stage, run) for stage in STAGES for run in archive.read_archive(STORE, stage)[0]):
        config, rates = (of := run["run"]["config"]), chosen["rates"].get(of["corpus"], {})
        rated = name != "rates" or config["learning_rate"] == rates.get(config["method"], rates.get("many"))
        if rated and config["fold"] < 4 and config["class_weights"] == chosen["class_weights"]:
            for part in run["predictions"]:
                found.setdefault((config["corpus"], part), {}).setdefault(name, []).append(run)
    if (corpus, split) not in found:
        there = "; ".join(f"{part} of {name} ({', '.join(of)})" for (name, part), of in found.items())
        raise InputError(f"no stored run predicts the {split} part of {corpus}. Those that do: {there or 'none'}")
    stage, records = next(iter(found[corpus, split].items()))
    methods, runs = len(tables.groups_by(records, ["method"])), tables.groups_by(records, ["fold", "seed"])
    return stage, [run for of in runs.values() for run in of if len(of) == methods]  # a run may have failed


def board(made: list[dict], stored: list[dict], split: str) -> tuple:
    """Return a row of scores, differences and layers for each method, the new one first, and their figure."""
    records, others = [*made, *stored], [name for (name,) in tables.groups_by(stored, ["method"])]
    pairs = [(made[0]["run"]["config"]["method"], other) for other in others]
    apart = statistics.comparisons_table(records, pairs, split, tests=1)
    ends = apart.set_index("against").rename(columns={"low": "from", "high": "to"})
    table = statistics.method_scores(records, split).set_index("method")[["macro_f1", "low", "high"]]
    table = table.join(ends[["difference", "error", "from", "to"]])
    table = table.join(tables.runs_table(records).groupby("method").layer_share.mean())
    table = table.join(layers.choice_over_time(records).droplevel("corpus")[["changes", "runs"]])
    sure, (low, high) = ((apart.low > 0) | (apart.high < 0)).sum(), apart.difference.agg(["min", "max"])
    title = f"{sure} of {apart.low.count()} intervals exclude zero; differences go from {low:+.3f} to {high:+.3f}"
    style.entitle(figure := comparison_forest(apart, split), title)
    return tables.readable(table.rename(style.title_of)), figure


def confirmatory(records: list[dict]) -> list[dict]:
    """Return the records of folds 0 to 3, without test items of arXivEdits that the first edition scored."""
    seen = set(pandas.read_parquet(STUDY / "predictions.parquet", filters=[("split", "==", "test")]).id)
    new = lambda of, rows: [row for row in rows if of["corpus"] != "arxivedits" or row["id"] not in seen]  # noqa: E731
    return [r | {"predictions": {"test": new(r["run"]["config"], r["predictions"]["test"])}}
            for r in records if r["run"]["config"]["fold"] < 4]  # fmt: skip
