"""Five fixed folds: each group is in one part only, as are equal pairs, with labels as balanced as that allows.

A corpus that comes in splits of its own may share groups and pairs between them. These are its leaks.
"""

import random
import warnings
from collections import Counter
from collections.abc import Sequence

from irtuning.corpora.base import SPLITS, Corpus, Revision
from irtuning.errors import InputError, brief

FOLDS = 5
VALIDATION_FOLDS = 8  # validation is an eighth of the rest, so the parts are about 70 / 10 / 20 per cent
SEED = 171


def assign_folds(groups: Sequence[str], labels: Sequence[str], folds: int = FOLDS) -> list[int]:
    """Return the fold (0 to folds - 1) of every row. Rows of one group share a fold, and labels are balanced.

    The groups are shuffled with SEED, so the order of the rows has no effect. InputError if there are too few.
    """
    import numpy
    from sklearn.model_selection import StratifiedGroupKFold
    names = sorted(set(groups))
    if _most_folds(groups, labels) < folds:
        rows = f"{len(names)} groups in {len(groups)} rows with labels {brief(dict(Counter(labels)))}"
        raise InputError(f"{rows} (equal pairs count once) cannot be split into {folds} folds; give more rows, or one "
                         "file per split")  # fmt: skip
    random.Random(SEED).shuffle(names)
    assigned, order = numpy.zeros(len(labels), dtype=int), {name: number for number, name in enumerate(names)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # a rare label may be absent from a fold
        for fold, (_, rows) in enumerate(StratifiedGroupKFold(folds).split(labels, labels, [order[g] for g in groups])):
            assigned[rows] = fold
    return assigned.tolist()


def cut(rows: Sequence[Revision], fold: int = 0) -> tuple[list[Revision], list[Revision], list[Revision]]:
    """Return the train, validation and test rows. The fold is test, and a part of the other folds is validation."""
    test, rest = _take(rows, FOLDS, fold)
    validation, train = _take(rest, max(2, min(VALIDATION_FOLDS, _most_folds(*_columns(rest)))), 0)
    return train, validation, test


def cut_apart(rows: Sequence[Revision], fold: int = 0) -> tuple[list[Revision], list[Revision], list[Revision]]:
    """Return train, validation and test, with one validation part that no test part of folds 0 to 3 touches.

    Test is the fold, as in `cut`. Folds 0 to 3 share a validation part, half of the test part of fold 4. So a choice
    that is made on their validation part has seen nothing that they test. Fold 4 cuts its own from the others.
    """
    train, validation, test = cut(rows, fold)
    if fold == FOLDS - 1:
        return train, validation, test
    shared, _ = _take(cut(rows, FOLDS - 1)[2], 2, 0)
    held_out = {r.id for r in (*shared, *test)}
    return [r for r in rows if r.id not in held_out], shared, test


def _most_folds(groups: Sequence[str], labels: Sequence[str]) -> int:
    return min(len(set(groups)), max(Counter(labels).values(), default=0))


def _take(rows: Sequence[Revision], folds: int, fold: int) -> tuple[list[Revision], list[Revision]]:
    numbered = list(zip(rows, assign_folds(*_columns(rows), folds), strict=True))
    return [r for r, number in numbered if number == fold], [r for r, number in numbered if number != fold]


def _columns(rows: Sequence[Revision]) -> tuple[list[str], list[str]]:
    """Return the group and the label of each row. Rows without a group that have the same texts are one group."""
    first: dict[tuple[str, ...], str] = {}
    return [r.group or first.setdefault(pair_of(r), r.id) for r in rows], [r.intention for r in rows]


def pair_of(revision: Revision) -> tuple[str, ...]:
    """Return what a model reads of a revision, without differences in white space."""
    return tuple(" ".join(text.split()) for text in revision.texts())


def leaks(corpus: Corpus) -> dict[str, int]:
    """Return how many rows repeat a pair, and how many pairs and groups are in several splits or have two labels."""
    import pandas
    rows = [(pair_of(r), split, r.intention) for split in SPLITS for r in corpus.split(split)]
    pairs = pandas.DataFrame(rows, columns=["pair", "split", "label"]).groupby("pair").nunique()
    return {"repeated rows": len(rows) - len(pairs), "pairs in several splits": int((pairs.split > 1).sum()),
            "pairs with two labels": int((pairs.label > 1).sum()), "groups in several splits": corpus.shared_groups}


def warnings_about(corpus: Corpus) -> list[str]:
    """Return a sentence about each leak of a corpus, with what to do."""
    cures = {
        "repeated rows": "each counts as an example of its own, so drop what is no revision of its own",
        "pairs in several splits": "the scores are too high, so keep each pair in one split or give its rows one group",
        "pairs with two labels": "no model can predict both, so decide on one",
        "groups in several splits": "the scores are too high, so keep each group in one split"}
    return [f"{count:,} {name}: {cures[name]}" for name, count in leaks(corpus).items() if count]
