"""The human ceiling: how well one annotator's labels predict another's, where a corpus publishes them all.

A classifier that agrees with the corpus's labels more than people do with each other has reached what can be asked of
it. The intervals are a bootstrap over documents, as for runs.
"""

from dataclasses import dataclass
from itertools import permutations

import numpy as np

from irtuning.analysis.statistics import CONFIDENCE, f1_of_seeds
from irtuning.corpora.base import Corpus
from irtuning.corpora.sources import CORPORA

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
    accuracy_low: float
    accuracy_high: float
    cohen_kappa: float
    fleiss_kappa: float
    rows: int  # of the split
    joined: int  # of them with annotators' labels


def human_ceiling(corpus: Corpus, split: str = "validation", draws: int = DRAWS) -> list[Ceiling]:
    """Return one annotator against another, and against the majority of the others where they have one.

    All pairs of annotators of a row count alike, in both directions. The list is empty if no row has their labels;
    `why_no_ceiling` then says why.
    """
    from sklearn.metrics import cohen_kappa_score
    revisions = corpus.split(split)
    rows = [(r.group or r.id, r.extra["annotators"]) for r in revisions if r.extra.get("annotators")]
    if not rows:
        return []
    names = [*corpus.labels, *sorted({label for _, given in rows for label in given} - set(corpus.labels))]
    code, groups = ({name: i for i, name in enumerate(of)} for of in (names, sorted({group for group, _ in rows})))
    counts = np.zeros((2, len(groups), len(names), len(names)))  # of both comparisons by document
    given = np.array([[code[label] for label in labels] for _, labels in rows])
    for (group, _), labels in zip(rows, given, strict=True):
        for one, other in permutations(labels, 2):
            counts[0, groups[group], one, other] += 1
        for i, one in enumerate(labels):
            others = np.bincount(np.delete(labels, i), minlength=len(names))
            if (others == others.max()).sum() == 1:
                counts[1, groups[group], others.argmax(), one] += 1
    weights = np.random.default_rng(0).multinomial(len(groups), np.full(len(groups), 1 / len(groups)), draws)
    weights = np.vstack([np.ones(len(groups), int), weights])  # the first draw takes each document once
    found, fleiss = [], fleiss_kappa(given, len(names))
    codes = np.indices(counts.shape[2:]).reshape(2, -1)  # both annotators' labels of each cell
    for name, part in zip((ANOTHER, MAJORITY), counts, strict=True):
        pooled = np.tensordot(weights, part, (1, 0))
        scores = (f1_of_seeds(part[None], weights, len(corpus.labels))[:, 0], _agreement(pooled))
        numbers = [float(x) for of in scores for x in (of[0], *np.quantile(of[1:], ENDS))]
        cohen = cohen_kappa_score(*codes, sample_weight=pooled[0].ravel())
        found.append(Ceiling(name, split, *numbers, float(cohen), fleiss, len(revisions), len(rows)))
    return found


def why_no_ceiling(corpus: Corpus) -> str:
    """Return why a corpus has no human ceiling, or an empty text if it has one."""
    source = CORPORA.get(corpus.name)
    if any(r.extra.get("annotators") for r in corpus.validation):
        return ""
    if source is None or not source.annotators:
        return "the corpus does not give the labels of each annotator"
    return f"{source.annotators} is not beside its files; get it from {source.home}, then --data names the folder"


def fleiss_kappa(given: np.ndarray, classes: int) -> float:
    """Return Fleiss' kappa of label codes, shape (rows, annotators)."""
    votes, people = np.stack([np.bincount(labels, minlength=classes) for labels in given]), given.shape[1]
    agreement = ((votes**2).sum(1) - people) / (people * (people - 1))
    chance = ((votes.sum(0) / votes.sum()) ** 2).sum()
    return float((agreement.mean() - chance) / (1 - chance))


def _agreement(counts: np.ndarray) -> np.ndarray:
    return counts.trace(axis1=1, axis2=2) / counts.sum((1, 2))
