"""The human ceiling: how well one annotator's labels predict another's, where a corpus publishes them all.

A classifier that agrees with the corpus's labels more than people do with each other has reached what can be asked of
it. The intervals are a bootstrap over documents, as for runs.
"""

from dataclasses import dataclass
from itertools import permutations

import numpy as np

from irtuning.analysis.statistics import CONFIDENCE, f1_of_seeds
from irtuning.corpora.base import Corpus

DRAWS, ENDS = 2_000, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
ANOTHER, MAJORITY = "annotator against another", "annotator against the others' majority"


@dataclass(frozen=True)
class Ceiling:
    """Agreement of annotators on one split: macro F1 over the corpus's labels, and the share of equal labels."""
    name: str
    split: str
    macro_f1: float
    macro_f1_low: float  # ends of the 95 % interval
    macro_f1_high: float
    accuracy: float
    rows: int  # of the split
    joined: int  # of them with annotators' labels


def human_ceiling(corpus: Corpus, split: str = "validation", draws: int = DRAWS) -> list[Ceiling]:
    """Return one annotator against another, and against the majority of the others where they have one.

    All pairs of annotators of a row count alike, in both directions. The list is empty if no row has their labels.
    """
    revisions = corpus.split(split)
    rows = [(r.group or r.id, r.extra["annotators"]) for r in revisions if r.extra.get("annotators")]
    if not rows:
        return []
    names = [*corpus.labels, *sorted({label for _, given in rows for label in given} - set(corpus.labels))]
    code, groups = ({name: i for i, name in enumerate(of)} for of in (names, sorted({group for group, _ in rows})))
    counts = np.zeros((2, len(groups), len(names), len(names)))  # of both comparisons by document
    for group, given in rows:
        labels = [code[label] for label in given]
        for one, other in permutations(labels, 2):
            counts[0, groups[group], one, other] += 1
        for i, one in enumerate(labels):
            others = np.bincount(np.delete(labels, i), minlength=len(names))
            if (others == others.max()).sum() == 1:
                counts[1, groups[group], others.argmax(), one] += 1
    weights = np.random.default_rng(0).multinomial(len(groups), np.full(len(groups), 1 / len(groups)), draws)
    weights = np.vstack([np.ones(len(groups), int), weights])  # the first draw takes each document once
    found = []
    for name, part in zip((ANOTHER, MAJORITY), counts, strict=True):
        scores, total = f1_of_seeds(part[None], weights, len(corpus.labels))[:, 0], part.sum(0)
        interval, accuracy = np.quantile(scores[1:], ENDS), float(total.trace() / total.sum())
        found.append(Ceiling(name, split, float(scores[0]), *map(float, interval), accuracy, len(revisions), len(rows)))
    return found
