"""Make the runs of the second edition of the study, stage by stage, by the plan in `../plan2.md`.

    python reports/study/second/second.py seal                                  # where Git is, before a stage elsewhere
    python reports/study/second/second.py gate --data DIR --workers 16 --minutes 8
    python reports/study/second/second.py rates --data DIR --workers 16 --minutes 8
    python reports/study/second/second.py decide                                # writes gate, rates and settings.json
    python reports/study/second/second.py headline --corpus iterater --data DIR --workers 16 --minutes 8
    python reports/study/second/second.py collect                               # writes the three parquet files

`--workers` is the number of runs at a time on each GPU, and `--minutes` the time after which no run begins. A finished
run is one line of `RUNS/STAGE-CORPUS.jsonl.gz`, written when it ends. It is not made again, so a command is repeated
until it says that nothing is missing. The machine of the runs needs no Git: `seal` notes the commit of a clean tree,
with the hashes of the plan and of the training code, in RUNS, and a stage refuses to run where they differ.
"""

import argparse
import gzip
import hashlib
import json
import os
import subprocess
import sys
import time
import zlib
from dataclasses import replace
from itertools import product
from pathlib import Path

from irtuning.companion.paths import REPOSITORY, training_fingerprint
from irtuning.comparison.runs import corpus_floors, with_budget
from irtuning.comparison.workers import gpus, outcomes
from irtuning.errors import InputError
from irtuning.models.loading import load_tokenizer, resolve
from irtuning.training.config import RunConfig
from irtuning.training.prepare import corpus_of, prepare
from irtuning.training.record import write_text
from irtuning.training.run import train

HERE = Path(__file__).resolve().parent
PLAN, SETTINGS, OPEN = HERE.parent / "plan2.md", HERE / "settings.json", "**Open until"
RUNS = REPOSITORY / "runs" / "second"
CORPORA = {"iterater": {"split": "folds"}, "arxivedits": {"split": "folds"}, "argrewrite": {}, "tetra": {}}
RATES_OF = {"argrewrite": "arxivedits", "tetra": "arxivedits"}  # corpora that take another one's rates
CLASS = {"ir": "many", "random-static": "many", "random-counts": "many", "last-k": "many"}  # others are their own
HEADLINE = ["ir", "full", "random-static", "random-counts", "last-k", "ist", "full-ft"]
OWN = ["rst", "lisa-adapters"]  # at the budgets of their papers
GRID = {"adapters": (5e-4, 1e-3, 2e-3), "parameters": (5e-5, 1e-4, 2e-4)}
GATE_RATE, GATE_SEEDS, RATE_SEEDS, FIRST_SEED = 1e-3, (151, 152, 153), (161, 162, 163), 171
COMMON = {"model": "smollm2-135m-q4", "form": "marked", "rank": 32, "alpha": 64, "batch_size": 16, "epochs": 4.0,
          "speed": ["uncast"]}
EVALUATIONS, SCORES_EVERY = 8, 10  # evaluations in a run; of the layers' scores every tenth step is kept
TESTED = ("headline", "common", "secondary", "small", "mini", "tetra")  # stages that score a test part


def settings() -> dict:
    """What gate and rates chose, or before that the values of the plan's draft."""
    known = json.loads(SETTINGS.read_text(encoding="utf-8")) if SETTINGS.exists() else {}
    return {"class_weights": "none", "seeds": 4, "rates": {}, "primary": []} | known


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
        return [where | {"method": "full", "seed": seed, "class_weights": weights, "learning_rate": GATE_RATE}
                for seed, weights in product(GATE_SEEDS, ("none", "balanced"))]  # fmt: skip
    if stage == "rates":
        grids = {m: chosen.get("grid", {}).get(CLASS.get(m, m), GRID["parameters" if m == "full-ft" else "adapters"])
                 for m in ("ir", "full", "random-static", "ist", "full-ft", *OWN)}  # fmt: skip
        return [where | {"method": m, "seed": seed, "learning_rate": rate}
                for m, grid in grids.items() for seed, rate in product(RATE_SEEDS, grid)]  # fmt: skip
    if stage == "headline":
        return runs(HEADLINE, chosen["seeds"])
    if stage == "time":  # one run at a time: call it with one worker and one GPU
        return [where | {"method": m, "seed": FIRST_SEED, "learning_rate": rate_of(m, rates), "max_steps": 100}
                for m in HEADLINE]  # fmt: skip
    if stage == "common":
        return runs(["full", "ist"], chosen["seeds"], rate_of("ir", rates))
    if stage == "secondary":
        return [*runs(["ir:refresh_every=5", *OWN, "sampled", "probe"], 2), *runs(["ir", "full"], 2, head="frozen")]
    if stage == "small":
        return [run for share in (0.1, 0.25) for run in runs(["ir", "full", "random-static", "last-k"], 2, train_share=share)]
    if stage == "mini":
        return runs(HEADLINE, 2, model="mini", **dict.fromkeys(("learning_rate", "form", "rank", "alpha")))  # its own
    return runs(HEADLINE, 1)  # tetra


def rate_of(method: str, rates: dict) -> float | None:
    """The rate of a method's class. Variants of ir, and methods that train about as many layers, have that of ir."""
    name = method.split(":")[0]
    return rates.get(name) or rates.get(CLASS.get(name, "many"))


def chains(runs: list[dict]) -> list[list[dict]]:
    """Runs in the order of their seeds: ir with those that copy its budget, one after another; others alone."""
    leader = {key(run): [run] for run in runs if run["method"] == "ir"}
    order = []
    for run in runs:
        first = leader.get(key(run | {"method": "ir"})) if run["method"] in CLASS else None
        if first is None or first[0] is run:
            order.append(first or [run])
        else:
            first.append(run)
    return order


def key(run: dict) -> str:
    """What tells a planned run from others."""
    return json.dumps({name: run[name] for name in sorted(run)})


def make(chain: list[dict], corpus, path: Path, seal: dict, end: float) -> list[str]:
    """Make the runs of a chain that are not in the file, until `end`, and append each. Return the methods made."""
    done, made, leader = {line["key"]: line for line in lines(path)}, [], None
    for run in chain:
        if line := done.get(key(run)):
            record = line["record"]
        elif time.time() > end:
            break
        else:
            config = with_budget(RunConfig.of(run), leader, "own" if run["method"] in OWN else "equal")
            steps = prepare(config, corpus=corpus).config.max_steps
            if config.train_share < 1:
                steps = max(150, steps)
            config = replace(config, max_steps=steps, eval_every=max(1, -(-steps // EVALUATIONS)))
            record = compact(train(prepare(config, corpus=corpus), progress=False).record, seal)
            append(path, {"key": key(run), "record": record})
            made.append(f"{run['method']} fold {run['fold']} seed {run['seed']}: "
                        f"{record['scores']['validation']['macro_f1']:.3f}")  # fmt: skip
        if run["method"] == "ir":
            leader = record
    return made


def compact(record: dict, seal: dict) -> dict:
    """The record with its seal, probabilities to four digits, and layers' scores of every tenth step."""
    for step in record["train"]["steps"]:
        few = step["step"] % SCORES_EVERY == 1 and step["scores"]
        step["scores"] = [s and float(f"{s:.4g}") for s in step["scores"]] if few else None
    for rows in record["predictions"].values():
        for row in rows:
            row["probabilities"] = [round(p, 4) for p in row["probabilities"]]
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


def lines(path: Path) -> list[dict]:
    """The whole lines of a file. A line that a killed process left unfinished is passed over."""
    found, content, at = [], path.read_bytes() if path.exists() else b"", 0
    while (at := content.find(b"\x1f\x8b\x08", at)) >= 0:
        member = zlib.decompressobj(wbits=31)
        try:
            found.append(json.loads(member.decompress(content[at:])))
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
        return subprocess.run(["git", "-C", str(REPOSITORY), *words], capture_output=True, text=True, check=True).stdout.strip()
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
    if stage in TESTED and OPEN in PLAN.read_text(encoding="utf-8"):
        raise InputError("the plan is still open, so no test part may be scored; close and commit it first")
    for path in sorted(runs.glob("*.jsonl.gz")):
        others = {line["record"]["meta"]["code"] for line in lines(path) if path.name.startswith(stage)} - {now["code"]}
        if others:
            raise InputError(f"{path.name} was made with other training code ({others.pop()}); move it away")
    return now


def run_stage(stage: str, corpora: list[str], data, runs: Path, workers: int, minutes: float) -> int:
    """Make what is missing of a stage until the time is over. Return the number of runs still missing."""
    seal, chosen, end = sealed(stage, runs), settings(), time.time() + 60 * minutes
    rated = stage in (*TESTED, "time") and stage != "mini"
    if rated and not all(chosen["rates"].get(RATES_OF.get(c, c)) for c in corpora):
        raise InputError("the learning rates are not chosen; run gate and rates, then `decide`")
    items, loaded = [], {}
    for corpus in corpora:
        path = runs / f"{stage}-{corpus}.jsonl.gz"
        done = {line["key"] for line in lines(path)}
        for chain in chains([run | {"score_test": stage in TESTED} for run in planned(stage, corpus, chosen)]):
            if all(key(run) in done for run in chain):
                continue
            fold = corpus, chain[0]["fold"]
            loaded[fold] = loaded.get(fold) or corpus_of(RunConfig.of(CORPORA[corpus] | {"corpus": corpus, "fold": fold[1]}), data)
            items.append((chain, loaded[fold], path, seal, end))
    write_floors(stage, loaded, runs)
    for model in {run["model"] for chain, *_ in items for run in chain}:
        load_tokenizer(resolve(model))  # a GGUF file is dequantised here, before several workers ask for it
    failed, begun = [], time.time()
    here = ((index, make(*item)) for index, item in enumerate(items))  # on a CPU and one at a time, in this process
    for index, outcome in outcomes(make, items, workers=workers * max(1, len(gpus()))) if gpus() or workers > 1 else here:
        if isinstance(outcome, Exception):
            failed.append(f"{items[index][0][0]['method']}: {outcome!r}")
        for text in outcome if isinstance(outcome, list) else ():
            print(f"{time.time() - begun:.0f} s, {items[index][1].name}: {text}", flush=True)
    missing = sum(key(run | {"score_test": stage in TESTED}) not in {line["key"] for line in lines(runs / f"{stage}-{c}.jsonl.gz")}
                  for c in corpora for run in planned(stage, c, chosen))  # fmt: skip
    print("\n".join([*failed, f"{missing} runs of {stage} are missing"]), flush=True)
    return missing


def write_floors(stage: str, loaded: dict, runs: Path) -> None:
    """Add the floors of the loaded folds, with their predictions, to `floors.json`."""
    path = runs / "floors.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    splits = ("validation", "test") if stage in TESTED else ("validation",)
    for corpus in loaded.values():
        if not any((f["corpus"], f["fold"], f["split"]) == (corpus.name, corpus.fold, splits[-1]) for f in known):
            known = [f for f in known if (f["corpus"], f["fold"]) != (corpus.name, corpus.fold)] + corpus_floors(corpus, splits)
    if loaded:
        write_text(path, json.dumps(known))


def recorded(runs: Path, stage: str) -> list[dict]:
    """The records of a stage on all corpora."""
    return [line["record"] for path in sorted(runs.glob(f"{stage}-*.jsonl.gz")) for line in lines(path)]


def seal(runs: Path) -> None:
    """Note the commit and the hashes of a clean tree."""
    now = state()
    if now["commit"] is None:
        raise InputError("no Git here; run this in a checkout")
    write_text(runs / "seal.json", json.dumps(now) + "\n")
    print(json.dumps(now))


def collect(runs: Path, out: Path) -> None:
    """Write the store: three parquet files, with the floors' predictions, and which runs are of which stage."""
    from irtuning.companion.archive import write_archive
    floors = json.loads((runs / "floors.json").read_text(encoding="utf-8"))
    stages = dict.fromkeys(path.name.split("-")[0] for path in sorted(runs.glob("*.jsonl.gz")))
    write_archive(out, {stage: (recorded(runs, stage), floors) for stage in stages})
    sizes = {path.name: path.stat().st_size for path in sorted(out.glob("*.parquet"))}
    print(json.dumps(sizes), f"{sum(sizes.values()) / 2**20:.1f} MiB of 12")


def main(arguments: list[str] | None = None) -> None:
    stages = ("gate", "rates", "headline", "time", *TESTED[1:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("seal", *stages, "decide", "collect"))
    parser.add_argument("--corpus", nargs="+", choices=CORPORA, help="default: those of the stage in the plan")
    parser.add_argument("--data", help="folder of the corpora's files; default IRTUNING_DATA")
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of the runs")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the store, of the tables and of settings.json")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time on each GPU")
    parser.add_argument("--minutes", type=float, default=1e6, help="after which no run begins")
    given = parser.parse_args(arguments)
    both = ["iterater", "arxivedits"]
    usual = {"gate": [*both, "argrewrite"], "headline": [*both, "argrewrite"], "tetra": ["tetra"], "time": ["iterater"], "mini": ["iterater"]}
    try:
        if given.stage == "seal":
            seal(given.runs)
        elif given.stage == "collect":
            collect(given.runs, given.out)
        elif given.stage == "decide":
            import decide
            decide.decide(given.runs, given.out)
        else:
            corpora = given.corpus or usual.get(given.stage, both)
            sys.exit(3 if run_stage(given.stage, corpora, given.data, given.runs, given.workers, given.minutes) else 0)
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
