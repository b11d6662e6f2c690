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
from irtuning.method.registry import BUILT_IN, IN_A_FILE, as_strategy, method_text
from irtuning.training import prepare, record
from irtuning.training.config import RunConfig

STUDY = paths.REPOSITORY / "reports" / "study"
STORE = STUDY / "second"
STAGES = ("headline", "tetra", "rates", "gate")  # a strategy is compared with the first that has predictions
NOTES = """\
Exploratory: no plan names {}, so it gets no verdict. It has the settings of the stored runs of `{}`{}. A difference is
its score minus the row's. Intervals of 95 % are two-way over documents and seeds; fewer than five of either have none.
`changes` is the median number of steps after the first quarter that change the layers."""


def add_strategy(add: str, corpus: str = "iterater", *, data=None, final=False, output="runs/scoreboard",
                 progress=True) -> tuple[pandas.DataFrame, Path]:  # fmt: skip
    """Make what is missing of a strategy's runs. Return its scoreboard, and the folder with table, figure and records.

    `add` is `NAME=FILE.py:Class`, and `data` the folder of the corpus's files. With `final` the test parts are scored,
    once for each file, fold and seed, as `output/scored.jsonl` records. InputError is raised before the first run.
    """
    from irtuning.training.run import train
    (name, _, text), corpora, runs, made = add.partition("="), {}, {}, []
    if not (place := IN_A_FILE.fullmatch(text)) or (kind := type(strategy := as_strategy(text))) in BUILT_IN:
        raise InputError(f"{add!r} is not NAME=FILE.py:Class with a class of your own, such as mine=mine.py:Mine")
    kind.name = name
    source = hashlib.sha256(Path(place[1]).read_bytes() + text[place.end(1) :].encode()).hexdigest()[:12]
    method, split, log = method_text(strategy), "test" if final else "validation", Path(output, "scored.jsonl")
    (stage, stored), code = stored_runs(corpus, split), paths.training_fingerprint()
    of, like = tables.groups_by(stored, ["method"]), ("full-ft",) if strategy.scope == "parameters" else ("ir", "full")
    leaders = {statistics.PAIRED(run["run"]["config"]): run for run in of.get(("ir",), ())}
    own = dict.fromkeys(("share", "counts", "precision")) | {"method": method, "score_test": final}
    for like_run in next((of[name,] for name in like if (name,) in of), ()):  # the run whose settings are taken
        config = RunConfig.of(like_run["run"]["config"] | own)
        if takes_budget(config) and not leaders:
            raise InputError(f"{method} takes its number of layers from IR-Tuning, but {stage} has no run of it")
        here = corpora[config.fold] = corpora.get(config.fold) or prepare.corpus_of(config, data)
        config = with_budget(config, leaders.get((config.fold, config.seed)))
        prepared = prepare.prepare(config, corpus=here, strategy=strategy)
        runs[source, corpus, config.fold, config.seed] = prepared, Path(output, "runs", source + code, run_name(config))
    scored = {tuple(json.loads(line)) for line in (log.read_text().splitlines() if final and log.exists() else ())}
    if not runs or scored >= {*runs} or any(not record.has_record(runs[run][1]) for run in scored & {*runs}):
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
    for stage, run in ((name, run) for name in STAGES for run in archive.read_archive(STORE, name)[0]):
        config, rates = (of := run["run"]["config"]), chosen["rates"].get(of["corpus"], {})
        rated = stage != "rates" or config["learning_rate"] == rates.get(config["method"], rates.get("many"))
        if rated and config["fold"] < 4 and config["class_weights"] == chosen["class_weights"]:
            for part in run["predictions"]:
                found.setdefault(f"{part} part of {config['corpus']}", {}).setdefault(stage, []).append(run)
    if (wanted := f"{split} part of {corpus}") not in found:
        there = "; ".join(f"{part} ({', '.join(stages)})" for part, stages in found.items())
        raise InputError(f"no stored run predicts the {wanted}. There are: {there or 'none'}")
    stage, records = next(iter(found[wanted].items()))
    methods, runs = len(tables.groups_by(records, ["method"])), tables.groups_by(records, ["fold", "seed"])
    return stage, [run for of in runs.values() for run in of if len(of) == methods]  # a run may have failed


def board(made: list[dict], stored: list[dict], split: str) -> tuple:
    """Return a row of scores, differences and layers for each method, the new one first, and their figure."""
    records, new = [*made, *stored], tables.run_title(made[0]["run"]["config"])
    apart = statistics.comparisons_table(records, statistics.against_all(records, new), split, tests=1)
    table = statistics.method_scores(records, split).set_index("method")[["macro_f1", "low", "high"]]
    ends = apart.set_index("against").rename(columns={"low": "low_of_difference", "high": "high_of_difference"})
    table = table.join(ends[["difference", "error", "low_of_difference", "high_of_difference"]])
    table = table.join(tables.runs_table(records).groupby("method").layer_share.mean())
    table = table.join(layers.choice_over_time(records).droplevel("corpus")[["changes", "runs"]])
    n, span = apart.low.count(), " to ".join(dict.fromkeys(apart.difference.agg(["min", "max"]).map("{:+.3f}".format)))
    sure = f"{(apart.low * apart.high > 0).sum()} of {n} intervals exclude zero" if n else "Too few runs for intervals"
    style.entitle(figure := comparison_forest(apart, split), f"{sure}; difference {span}")
    return tables.readable(table.rename(style.title_of)), figure


def confirmatory(records: list[dict]) -> list[dict]:
    """Return the records of folds 0 to 3, without test items of arXivEdits that the first edition scored."""
    scored = pandas.read_parquet(STUDY / "predictions.parquet", columns=["id"], filters=[("split", "==", "test")])
    seen = set(scored.id.unique())
    return [r | {"predictions": {"test": [row for row in r["predictions"]["test"] if row["id"] not in seen
                                          or r["run"]["config"]["corpus"] != "arxivedits"]}}
            for r in records if r["run"]["config"]["fold"] < 4]  # fmt: skip
