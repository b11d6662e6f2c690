"""Make the runs of the second edition of the study, stage by stage, by the plan in `../plan2.md`.

    python reports/study/second/second.py seal                                  # where Git is, before a stage elsewhere
    python reports/study/second/second.py gate --data DIR --workers 16 --minutes 8
    python reports/study/second/second.py rates --data DIR --workers 16 --minutes 8
    python reports/study/second/second.py decide                                # tables, settings.json, and the plan
    python reports/study/second/second.py headline --corpus iterater --data DIR --workers 16 --minutes 8
    python reports/study/second/second.py common secondary --data DIR --workers 16  # two stages, in this order
    python reports/study/second/second.py seeds                                 # after two seeds: writes seeds.json
    python reports/study/second/second.py collect                               # the parquet files, and transfer.md
    python reports/study/second/second.py restore                               # the runs back from the parquet files

`--workers` is the number of runs at a time on each GPU, and `--minutes` the time after which no run begins. A finished
run is one line of `RUNS/STAGE-CORPUS.jsonl.gz`, written when it ends. It is not made again, so a command is repeated
until it says that nothing is missing. A run whose training stopped is a line that says why. The machine of the runs
needs no Git: `seal` notes the commit of a clean tree, with the hashes of the plan and of the training code, in RUNS,
and a stage refuses to run where they differ.
"""

import argparse
import gc
import gzip
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path

from irtuning.companion.paths import REPOSITORY, training_fingerprint
from irtuning.comparison.runs import corpus_floors, with_budget
from irtuning.comparison.workers import gpus, outcomes
from irtuning.corpora.base import Corpus
from irtuning.errors import InputError, TrainingStopped
from irtuning.models.loading import load_tokenizer, resolve
from irtuning.training.config import RunConfig
from irtuning.training.prepare import Prepared, corpus_of, prepare
from irtuning.training.record import write_text

HERE = Path(__file__).resolve().parent
PLAN, SETTINGS, SEEDS = HERE.parent / "plan2.md", HERE / "settings.json", HERE / "seeds.json"
OPEN = "**Open until"
RUNS = REPOSITORY / "runs" / "second"
BOTH = ["iterater", "arxivedits"]  # the corpora on which class weights and rates are chosen
CORPORA = {"iterater": {"split": "folds"}, "arxivedits": {"split": "folds"}, "argrewrite": {}, "tetra": {}}
RATES_OF = {"argrewrite": "arxivedits", "tetra": "arxivedits"}  # corpora that take another one's rates
CLASS = {"ir": "many", "random-static": "many", "random-counts": "many", "last-k": "many"}  # others are their own
HEADLINE = ["ir", "full", "random-static", "random-counts", "last-k", "ist", "full-ft"]
OWN = ["rst", "lisa-adapters"]  # at the budgets of their papers
GRID = {"adapters": (5e-4, 1e-3, 2e-3), "parameters": (5e-5, 1e-4, 2e-4)}
RATED = ["ir", "full", "random-static", "ist", "full-ft", *OWN]  # methods whose runs choose the rates
GATE_RATE, GATE_SEEDS, RATE_SEEDS, FIRST_SEED = 1e-3, (151, 152, 153), (161, 162, 163), 171
COMMON = {"model": "smollm2-135m-q4", "form": "marked", "rank": 32, "alpha": 64, "batch_size": 16, "epochs": 4.0,
          "speed": ["uncast", "compile"]}
LONGEST_WAIT, LOOK = 400, 5  # seconds, for an ir run that another process makes, and between two looks
EVALUATIONS, SCORES_EVERY = 8, 10  # evaluations in a run; of the layers' scores every tenth step is kept
TESTED = ("headline", "common", "secondary", "small", "mini", "tetra")  # stages that score a test part
USUAL = {"gate": [*BOTH, "argrewrite"], "headline": [*BOTH, "argrewrite"], "tetra": ["tetra"],
         **dict.fromkeys(("time", "mini", "transfer"), ["iterater"])}  # corpora of the stages; of others BOTH


def settings() -> dict:
    """What gate, rates and `seeds` chose. Before `seeds`, the headline has two seeds in each fold."""
    chosen = {"class_weights": "none", "primary": [], "rates": {}, "grid": {}, "seeds": 2}
    chosen |= json.loads(SETTINGS.read_text(encoding="utf-8")) if SETTINGS.exists() else {}
    return chosen | ({"seeds": json.loads(SEEDS.read_text(encoding="utf-8"))["seeds"]} if SEEDS.exists() else {})


def planned(stage: str, corpus: str, chosen: dict) -> list[dict]:
    """The settings of every run of a stage on a corpus, those that lead others first. Folds' seeds differ."""
    where = COMMON | CORPORA[corpus] | {"corpus": corpus, "class_weights": chosen["class_weights"], "fold": 0}
    rates = chosen["rates"].get(RATES_OF.get(corpus, corpus), {})

    def runs(methods, seeds, rate=None, **more):
        folds = range(5)
        of = ((m, f, FIRST_SEED + 10 * f + s) for s in range(seeds) for m, f in product(methods, folds))
        return [where | {"method": m, "fold": f, "seed": seed, "learning_rate": rate or rate_of(m, rates)} | more
                for m, f, seed in of]  # fmt: skip
    if stage == "gate":
        gate = where | {"method": "full", "learning_rate": GATE_RATE, "speed": ["uncast"]}  # made before the others
        return [gate | {"seed": seed, "class_weights": weights} for seed, weights in product(GATE_SEEDS, ("none", "balanced"))]
    if stage == "rates":
        extended = chosen["grid"].get(corpus, {})
        grids = {m: extended.get(CLASS.get(m, m), first_grid(m)) for m in RATED}
        return [where | {"method": m, "seed": seed, "learning_rate": rate}
                for m, grid in grids.items() for seed, rate in product(RATE_SEEDS, grid)]  # fmt: skip
    if stage == "headline":
        return runs(HEADLINE, chosen["seeds"])
    if stage == "time":  # one run at a time: call it with one worker and one GPU
        return [where | {"method": m, "seed": FIRST_SEED + s, "learning_rate": rate_of(m, rates), "max_steps": 100}
                for s, m in product(range(3), HEADLINE)]  # fmt: skip
    if stage == "common":
        others = [m for m in ("full", "ist") if not rates or rate_of(m, rates) != rate_of("ir", rates)]  # equal: headline's
        return runs(others, chosen["seeds"], rate_of("ir", rates))
    if stage == "secondary":
        return [*runs(["ir:refresh_every=5", *OWN, "sampled", "probe"], 2), *runs(["ir", "full"], 2, head="frozen"),
                *runs(["ir"], 2, speed=[*COMMON.get("speed", ()), "float8"])]  # fmt: skip
    if stage == "small":
        few = ["ir", "full", "random-static", "last-k"]
        return [run for share in (0.1, 0.25) for run in runs(few, 2, train_share=share)]
    if stage == "transfer":  # models of the headline, trained again because their weights were not kept
        return [run for run in runs(["ir", "full"], 1) if run["fold"] == 0]
    if stage == "mini":
        return runs(HEADLINE, 2, model="mini", **dict.fromkeys(("learning_rate", "form", "rank", "alpha")))  # its own
    return runs(HEADLINE, 1)  # tetra


def rate_of(method: str, rates: dict) -> float | None:
    """The rate of a method's class. Variants of ir, and methods that train about as many layers, have that of ir."""
    name = method.split(":")[0]
    return rates.get(name) or rates.get(CLASS.get(name, "many"))


def first_grid(name: str) -> tuple[float, ...]:
    """The rates that every method or class of methods begins with."""
    return GRID["parameters" if name == "full-ft" else "adapters"]


def chains(runs: list[dict]) -> list[list[dict]]:
    """Runs alone, or behind the ir run whose budget they copy. The copies of a round of seeds follow the next round.

    So ir runs are over, or nearly, when their copies begin.
    """
    leader = {key(run): run for run in runs if run["method"] == "ir"}
    behind = [leader.get(key(run | {"method": "ir"})) if run["method"] in CLASS else None for run in runs]
    def place(item: tuple) -> int:
        run, first = item
        return (run["seed"] - FIRST_SEED) % 10 + 1.5 * (first not in (None, run))
    order = sorted(zip(runs, behind, strict=True), key=place)
    return [[run] if first in (None, run) else [first, run] for run, first in order]


def key(run: dict) -> str:
    """What tells a planned run from others."""
    return json.dumps({name: run[name] for name in sorted(run)})


def make(chain: list[dict], corpus: Corpus, path: Path, seal: dict, end: float, onto: Corpus | None) -> list[str]:
    """Make the runs of a chain that are not in the file, until `end`, and append each. Return the methods made.

    A run whose training stopped is not made again, nor are those that would copy its budget. Another process may still
    make the first run of a pair; it is waited for.
    """
    from irtuning.training.run import train  # the report reads records without what trains
    made, leader, given_up = [], None, min(end, time.time() + LONGEST_WAIT)
    for run in chain:
        while not (line := next(iter(lines(path, key(run))), None)) and run is not chain[-1]:
            if time.time() > given_up:
                return made
            time.sleep(LOOK)
        if line:
            record = line.get("record")
        elif time.time() > end:
            break
        else:
            config = with_budget(RunConfig.of(run), leader, "own" if run["method"] in OWN else "equal")
            steps = prepare(config, corpus=corpus).config.max_steps
            if config.train_share < 1:
                steps = max(150, steps)
            config = replace(config, max_steps=steps, eval_every=max(1, -(-steps // EVALUATIONS)))
            name = f"{run['method']} fold {run['fold']} seed {run['seed']}"
            gc.collect()  # a finished run's model is in a cycle of references, and would count in the next one's peak
            try:
                prepared = prepare(config, corpus=corpus)
                record = transfer(prepared, onto) if onto else train(prepared, progress=False).record
                append(path, {"key": key(run), "record": compact(record, seal)})
                made.append(f"{name}: {record['scores']['validation']['macro_f1']:.3f}")
            except TrainingStopped as error:
                if "out of memory" in str(error):  # no fault of the run
                    raise
                record = None
                append(path, {"key": key(run), "failed": str(error)})
                made.append(f"{name} FAILED: {error}")
        if run["method"] == "ir":
            leader = record
            if record is None:
                break
    return made


def transfer(prepared: Prepared, onto: Corpus) -> dict:
    """Train a run and return its record, with how often it predicts each intention on the edits of each label `onto`.

    Weights and texts are not kept.
    """
    from irtuning.training.classifier import RevisionClassifier
    from irtuning.training.run import train
    edits = [*onto.train, *onto.validation, *onto.test]
    with tempfile.TemporaryDirectory() as folder:
        record = train(prepared, output=Path(folder) / "run", save_every=0, progress=False).record
        answers = RevisionClassifier.load(Path(folder) / "run").predict(edits)
    counts = {label: Counter() for label in onto.labels}
    for edit, answer in zip(edits, answers, strict=True):
        counts[edit.intention][answer.intention or "nothing was revised"] += 1
    record["meta"]["transfer"] = {"corpus": onto.name, "counts": counts}
    return record


def compact(record: dict, seal: dict) -> dict:
    """The record with its seal, probabilities to three digits, and layers' scores of every tenth step."""
    for step in record["train"]["steps"]:
        few = step["step"] % SCORES_EVERY == 1 and step["scores"]
        step["scores"] = [s and float(f"{s:.4g}") for s in step["scores"]] if few else None
    for rows in record["predictions"].values():
        for row in rows:
            row["probabilities"] = [float(f"{p:.3g}") for p in row["probabilities"]]  # not places: small ones have an order
    record["meta"] |= {"plan": seal["plan"], "code": seal["code"], "commit": seal["commit"]}
    return record


def append(path: Path, line: dict) -> None:
    """Add a line to a file in one write, so that several processes may add to it and a killed one harms no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, gzip.compress(json.dumps(line).encode() + b"\n"))
    finally:
        os.close(handle)


def lines(path: Path, only: str | None = None) -> list[dict]:
    """The whole lines of a file, or those of one run. A line that a killed process left unfinished is passed over."""
    begin = b'{"key": ' + (json.dumps(only).encode() if only else b"")
    found, content, at = [], path.read_bytes() if path.exists() else b"", 0
    while (at := content.find(b"\x1f\x8b\x08", at)) >= 0:
        member = zlib.decompressobj(wbits=31)
        try:
            if (text := member.decompress(content[at:])).startswith(begin):
                found.append(json.loads(text))
            at = len(content) - len(member.unused_data)
        except (zlib.error, ValueError):
            print(f"a line of {path.name} is damaged and not read", file=sys.stderr)
            at += 1
    return found


def state() -> dict:
    """The hashes of plan and settings and of the training code, and the commit of a clean tree (None without Git)."""
    plan = hashlib.sha256(b"".join(p.read_bytes() for p in (PLAN, SETTINGS) if p.exists())).hexdigest()[:16]
    commit, changed = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    if commit and changed:
        raise InputError(f"files differ from the commit, such as {changed.split()[1]}; commit them first")
    return {"plan": plan, "code": training_fingerprint(), "commit": commit[:12] or None}


def git(*words: str) -> str:
    """What Git says of this repository, or an empty text where there is no Git."""
    try:
        command = ["git", "-C", str(REPOSITORY), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def sealed(stage: str, runs: Path) -> dict:
    """The seal for the records of a stage. InputError if the tree is not clean, or is another than that of the seal."""
    now, note = state(), runs / "seal.json"
    if now["commit"] is None:
        if not note.exists():
            raise InputError(f"no Git here and no {note}; run `seal` in a clean checkout and bring the file along")
        known = json.loads(note.read_text(encoding="utf-8"))
        if different := [name for name in ("plan", "code") if known[name] != now[name]]:
            raise InputError(f"{' and '.join(different)} differ from seal.json; run `seal` in a clean checkout again")
        now = known
    if stage in (*TESTED, "transfer") and OPEN in PLAN.read_text(encoding="utf-8"):
        raise InputError("the plan is still open, so no test part and no TETRA may be read; close and commit it first")
    for path in sorted(runs.glob("*.jsonl.gz")):
        found = [line["record"] for line in lines(path) if path.name.startswith(stage) and "record" in line]
        if others := {record["meta"]["code"] for record in found} - {now["code"]}:
            raise InputError(f"{path.name} was made with other training code ({others.pop()}); move it away")
    return now


def run_stages(stages: list[str], corpora: list[str] | None, data, runs: Path, workers: int, minutes: float) -> int:
    """Make what is missing of stages, in their order, until the time is over. Return the number of runs still missing.

    All are made by the same processes, which keep what they have compiled. Without `corpora`, each has those of the plan.
    """
    seals, chosen, end = {stage: sealed(stage, runs) for stage in stages}, settings(), time.time() + 60 * minutes
    wanted = [(stage, corpus) for stage in stages for corpus in corpora or USUAL.get(stage, BOTH)]
    for stage, corpus in wanted:
        rated = stage in (*TESTED, "time", "transfer") and stage != "mini"
        if rated and not chosen["rates"].get(RATES_OF.get(corpus, corpus)):
            raise InputError("the learning rates are not chosen; run gate and rates, then `decide`")
    def load(corpus: str, fold: int) -> Corpus:
        return corpus_of(RunConfig.of(CORPORA[corpus] | {"corpus": corpus, "fold": fold}), data)
    items, loaded, onto = [], {}, load("tetra", 0) if "transfer" in stages else None
    def add(chosen: dict) -> None:
        known = {(item[2], key(item[0][-1])) for item in items}
        for stage, corpus in wanted:
            path = runs / f"{stage}-{corpus}.jsonl.gz"
            lacking = {(path, key(run)) for run in missing(stage, corpus, chosen, runs)} - known
            for chain in chains([run | {"score_test": stage in TESTED} for run in planned(stage, corpus, chosen)]):
                if (path, key(chain[-1])) in lacking:
                    fold = corpus, chain[0]["fold"]
                    loaded[fold] = loaded.get(fold) or load(*fold)
                    items.append((chain, loaded[fold], path, seals[stage], end, onto if stage == "transfer" else None))
    add(chosen)
    write_floors(any(stage in TESTED for stage in stages), loaded, runs)
    for model in {run["model"] for chain, *_ in items for run in chain}:
        load_tokenizer(resolve(model))  # a GGUF file is dequantised here, before several workers ask for it
    problems, begun, count = [], time.time(), workers * max(1, len(gpus()))
    here = ((index, make(*item)) for index, item in enumerate(items))  # on a CPU and one at a time, in this process
    for index, outcome in outcomes(make, items, workers=count) if gpus() or workers > 1 else here:
        if isinstance(outcome, Exception):
            problems.append(f"{items[index][0][-1]['method']}: {outcome!r}")
        for text in outcome if isinstance(outcome, list) else ():
            print(f"{time.time() - begun:.0f} s, {items[index][2].name}: {text}", flush=True)
        if "headline" in stages and chosen != (now := settings()):  # the number of seeds was chosen meanwhile
            chosen = now
            add(chosen)
    left = Counter()
    for stage, corpus in wanted:
        left[stage] += len(missing(stage, corpus, settings(), runs))
    more = "; the number of seeds is open, call `seeds`" * ("headline" in stages and not SEEDS.exists())
    said = ", ".join(f"{count} runs of {stage}" for stage, count in left.items())
    print("\n".join([*problems, f"{said} are missing{more}"]), flush=True)
    return left.total()


def missing(stage: str, corpus: str, chosen: dict, runs: Path) -> list[dict]:
    """The planned runs of a stage on a corpus that its file does not have."""
    done = {line["key"] for line in lines(runs / f"{stage}-{corpus}.jsonl.gz")}
    wanted = [run | {"score_test": stage in TESTED} for run in planned(stage, corpus, chosen)]
    return [run for run in wanted if key(run) not in done]


def write_floors(tested: bool, loaded: dict, runs: Path) -> None:
    """Add the floors of the loaded folds, with their predictions, to `floors.json`."""
    path = runs / "floors.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    splits = ("validation", "test") if tested else ("validation",)
    for corpus in loaded.values():
        this = corpus.name, corpus.fold
        if not any((f["corpus"], f["fold"], f["split"]) == (*this, splits[-1]) for f in known):
            known = [f for f in known if (f["corpus"], f["fold"]) != this] + corpus_floors(corpus, splits)
    if loaded:
        write_text(path, json.dumps(known))


def recorded(runs: Path, stage: str) -> list[dict]:
    """The records of a stage on all corpora, without those of failed runs."""
    found = [line for path in sorted(runs.glob(f"{stage}-*.jsonl.gz")) for line in lines(path)]
    return [line["record"] for line in found if "record" in line]


def failed(stage: str, runs: Path) -> list[dict]:
    """The settings of the failed runs of a stage."""
    found = [line for path in sorted(runs.glob(f"{stage}-*.jsonl.gz")) for line in lines(path)]
    return [json.loads(line["key"]) for line in found if "failed" in line]


def seal(runs: Path) -> None:
    """Note the commit and the hashes of a clean tree."""
    now = state()
    if now["commit"] is None:
        raise InputError("no Git here; run this in a checkout")
    write_text(runs / "seal.json", json.dumps(now) + "\n")
    print(json.dumps(now))


def collect(runs: Path, out: Path) -> None:
    """Write the store: three parquet files, with the floors' predictions, and which runs are of which stage.

    Of a run that scored its test part, predictions on that part are stored, without probabilities after `common`. Those
    of the headline on validation stand beside, without probabilities too, for `irtuning study`. InputError is raised if
    the store has a run that the folder of the runs lacks, since the store is written anew.
    """
    import pandas
    from irtuning.analysis.tables import markdown
    from irtuning.companion.archive import INDEX, read_archive, write_archive
    floors = json.loads((runs / "floors.json").read_text(encoding="utf-8"))
    stages = dict.fromkeys(path.name.split("-")[0] for path in sorted(runs.glob("*.jsonl.gz")))
    made = [(path.name.split("-")[0], line) for path in sorted(runs.glob("*.jsonl.gz")) for line in lines(path)]
    stored = json.loads((out / INDEX).read_text(encoding="utf-8")) if (out / INDEX).exists() else {}
    held = {(stage, record["meta"]["key"]) for stage in stored for record in read_archive(out, stage)[0]}
    if (most := Counter((stage, line["key"]) for stage, line in made).most_common(1)) and most[0][1] > 1:
        raise InputError(f"a run of {most[0][0][0]} was made {most[0][1]} times: {most[0][0][1]}; keep one of each")
    if lost := held - {(stage, line["key"]) for stage, line in made}:
        raise InputError(f"{out} has {len(lost)} runs that {runs} lacks, such as one of {min(lost)[0]}; restore them first")
    parts = {stage: [rounded(stage, line["record"]) | {
        "meta": line["record"]["meta"] | {"key": line["key"]},
        "predictions": kept(stage, line["record"]["predictions"]),
    } for of, line in made if of == stage and "record" in line] for stage in stages}  # fmt: skip
    write_archive(out, {stage: (records, floors) for stage, records in parts.items()})
    write_text(out / "failed.json", json.dumps([[stage, line] for stage, line in made if "failed" in line]) + "\n")
    tables = []
    for record in recorded(runs, "transfer"):
        counts = pandas.DataFrame(record["meta"]["transfer"]["counts"]).fillna(0).astype(int).rename_axis("predicted")
        tables.append(f"## {record['run']['config']['method']}\n\n{markdown(counts)}")
    if tables:
        write_text(out / "transfer.md", "# What ITERATER's models predict on TETRA's edits\n\n" + "\n".join(tables))
    sizes = {path.name: path.stat().st_size for path in sorted(out.glob("*.parquet"))}
    print(json.dumps(sizes), f"{sum(sizes.values()) / 2**20:.1f} MiB of 12")


def rounded(stage: str, record: dict) -> dict:
    """A record with seconds and gradient norms to two digits, which halves what they take. The stage `time` keeps seconds.

    Probabilities stay as they are: to three places, AUPRC moved by up to 0.005.
    """
    def short(number: float | None) -> float | None:
        return None if number is None else float(f"{number:.2g}")
    if stage != "time":
        record["meta"]["step_seconds"] = [short(seconds) for seconds in record["meta"]["step_seconds"]]
    for step in record["train"]["steps"]:
        if "gradient_norm" in step:
            step["gradient_norm"] = short(step["gradient_norm"])
    return record


def kept(stage: str, predictions: dict) -> dict:
    """What the store has of a run's predictions. Stages whose AUPRC nobody compares have no probabilities."""
    if "test" not in predictions:
        return predictions
    bare = {split: [{name: row[name] for name in row if name != "probabilities"} for row in rows]
            for split, rows in predictions.items()}  # fmt: skip
    whole = {"test": predictions["test"]}
    return {"headline": bare | whole, "common": whole}.get(stage, {"test": bare["test"]})


def restore(runs: Path, out: Path) -> None:
    """Write the lines of the store back to the folder of the runs, so that stages go on from there."""
    import pandas
    from irtuning.analysis.tables import bound_name
    from irtuning.companion.archive import INDEX, read_archive
    if found := sorted(runs.glob("*.jsonl.gz")):
        raise InputError(f"{runs} has runs already, such as {found[0].name}; give another folder with --runs")
    for stage in json.loads((out / INDEX).read_text(encoding="utf-8")):
        records, floors = read_archive(out, stage)
        for record in records:
            path = runs / f"{stage}-{record['run']['config']['corpus']}.jsonl.gz"
            append(path, {"key": record["meta"].pop("key"), "record": record})
    for stage, line in json.loads((out / "failed.json").read_text(encoding="utf-8")):
        append(runs / f"{stage}-{json.loads(line['key'])['corpus']}.jsonl.gz", line)
    answers = pandas.read_parquet(out / "predictions.parquet")
    of = answers[answers.run.isna()].groupby(["corpus", "fold", "split", "method"], sort=False)
    rows = {name: part[["id", "group", "intention", "predicted"]].to_dict("records") for name, part in of}
    names = [(f["corpus"], f["fold"], f["split"], bound_name(f)) for f in floors]  # that of annotators has no predictions
    floors = [f | ({"predictions": rows[n]} if n in rows else {}) for n, f in zip(names, floors, strict=True)]
    write_text(runs / "floors.json", json.dumps(floors))


def main(arguments: list[str] | None = None) -> None:
    stages = ("gate", "rates", "headline", "time", *TESTED[1:], "transfer")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", nargs="+", choices=("seal", *stages, "decide", "seeds", "collect", "restore"))
    parser.add_argument("--corpus", nargs="+", choices=CORPORA, help="default: those of the stage in the plan")
    parser.add_argument("--data", help="folder of the corpora's files; default IRTUNING_DATA")
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of the runs")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the store and of the tables")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time on each GPU")
    parser.add_argument("--minutes", type=float, default=1e6, help="after which no run begins")
    given = parser.parse_args(arguments)
    try:
        first, *more = given.stage
        if more and not {*given.stage} <= {*stages}:
            raise InputError(f"{first} and {more[0]} are not two stages of runs; call one after the other")
        if first == "seal":
            seal(given.runs)
        elif first in ("collect", "restore"):
            {"collect": collect, "restore": restore}[first](given.runs, given.out)
        elif first in ("decide", "seeds"):
            import decide
            getattr(decide, first)(given.runs, given.out)
        else:
            left = run_stages(given.stage, given.corpus, given.data, given.runs, given.workers, given.minutes)
            sys.exit(3 if left else 0)
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
