"""Go around the circle of notebook 6 on real corpora: label, train, label more, and see where it errs.

    python reports/annotation/circle.py DIR

DIR has ITERATER and ArgRewrite V.2, as `irtuning corpus --data` reads them. The annotator of each round is the corpus:
it gives its own labels to revisions of the training part, through the panel of `irtuning.annotate`. Every run is scored
on the validation part of fold 0, but for pairs without a change. No test part is looked at. `circle.json` gets numbers
and no text, after each corpus and seed. It takes about 17 minutes on one CPU core.
"""

import json
import random
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch

from irtuning import annotate, load_corpus, train
from irtuning.analysis.tables import stamp
from irtuning.companion.paths import REPOSITORY
from irtuning.corpora.base import Corpus
from irtuning.corpora.floors import edit_aware_floor, macro_f1
from irtuning.training.classifier import RevisionClassifier
from irtuning.training.record import provenance, write_text

RECORD = REPOSITORY / "reports" / "annotation" / "circle.json"
CORPORA, SEEDS = ("iterater", "argrewrite"), (171, 172)
POOL = 240  # revisions of the training part, as in notebook 6
ROUNDS = (("random", 20), ("random", 60), ("random", 180), ("mixed", 60))  # mixed: from the suggestions of the first
OPTIONS = {"model": "mini", "device": "cpu", "batch_size": 6, "learning_rate": 0.002, "progress": False}
STEPS = 60  # at least, as in notebook 6; more labels are seen six times each


def changed(corpus: Corpus) -> Corpus:
    """Return the corpus without validation revisions whose texts are equal. No intention is predicted for these."""
    return replace(corpus, validation=[r for r in corpus.validation if len({text.strip() for text in r.texts()}) > 1])


def known_to(corpus: Corpus, given: dict[str, str]) -> Corpus:
    """Return the corpus as one who labelled knows it: labelled revisions, and no intention that was not met so far.

    Its test part has all validation revisions with an invented label, so that they can be predicted and not scored.
    """
    labels = tuple(label for label in corpus.labels if label in given.values())
    rows = [replace(r, intention=given[r.id]) for r in corpus.train if r.id in given]
    seen = [r for r in corpus.validation if r.intention in labels]
    unseen = [replace(r, id=f"scored {r.id}", group="", intention=labels[0]) for r in corpus.validation]
    return replace(corpus, labels=labels, train=rows, validation=seen, test=unseen)


def labelled(pool: list, corpus: Corpus, order: str, amount: int, seed: int, folder: Path) -> dict[str, str]:
    """Label as many revisions of the pool through the panel, and return their labels."""
    truth, answers = {r.id: r.intention for r in pool}, folder / f"{order}{amount}.jsonl"
    for part in (20, amount) if order == "mixed" else (amount,):
        suggestions = folder / "random20" if order == "mixed" and part > 20 else None
        panel = annotate(pool, corpus.labels, suggestions, answers, annotator="corpus", seed=seed)
        while len(panel.rows) < part:
            panel.choose(truth[panel.current.id])
            if panel.waiting:
                panel.next()
    return {row["id"]: row["label"] for row in panel.rows}


def circle(corpus: Corpus, seed: int, folder: Path) -> tuple[list[dict], list[dict]]:
    """Return a row of numbers for each round of a corpus and seed, and the records of their runs."""
    pool, rows, records = random.Random(seed).sample(corpus.train, POOL), [], []
    truth = [r.intention for r in corpus.validation]
    for order, amount in ROUNDS:
        given = labelled(pool, corpus, order, amount, seed, folder)
        known, steps = known_to(corpus, given), max(STEPS, amount)
        one_each = list({r.intention: r for r in known.validation}.values())  # enough, since scores are made below
        options = OPTIONS | {"seed": seed, "max_steps": steps, "eval_every": steps}
        few = replace(known, validation=one_each, test=known.test[:1])
        run = train(corpus=few, output=folder / f"{order}{amount}", **options)
        predicted = [p.intention for p in RevisionClassifier.load(run.folder).predict(corpus.validation)]
        floor = macro_f1(corpus.labels, truth, edit_aware_floor(known, "test").predictions)
        row = {"corpus": corpus.name, "seed": seed, "order": order, "labels": amount, "steps": steps,
               "known": len(known.labels), "macro_f1": round(macro_f1(corpus.labels, truth, predicted), 4),
               "floor": round(floor, 4)}  # fmt: skip
        pairs = Counter(zip(truth, predicted, strict=True))
        rows.append(row | {"confusions": [[pairs[true, other] for other in corpus.labels] for true in corpus.labels]})
        records.append(run.record)
        print(row, flush=True)
    return rows, records


def main(data: str) -> None:
    """Make the record. What was made is written after each corpus and seed."""
    torch.set_num_threads(1)
    corpora, rows, records = [changed(load_corpus(name, data)) for name in CORPORA], [], []
    sizes = {c.name: {"labels": c.labels, "validation": len(c.validation), "checksum": c.checksum} for c in corpora}
    for seed in SEEDS:
        for corpus in corpora:
            with tempfile.TemporaryDirectory() as folder:
                made = circle(corpus, seed, Path(folder))
            rows, records = rows + made[0], records + made[1]
            about = {"corpora": sizes, "pool": POOL, "stamp": stamp(records, "circle").partition(" · ")[2]}
            meta = {name: value for name, value in provenance("cpu").items() if name in ("date", "versions", "commit")}
            write_text(RECORD, json.dumps(about | {"meta": meta, "rows": rows}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
