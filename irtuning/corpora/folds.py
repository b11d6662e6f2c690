"""Five fixed folds: each group is in one part only, as are equal pairs, with labels as balanced as that allows."""

import random
import warnings
from collections import Counter
from collections.abc import Sequence

from irtuning.corpora.base import Revision
from irtuning.corpora.leaks import pair_of
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
