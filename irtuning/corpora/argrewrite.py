"""ArgRewrite V.2: argumentative essays in three drafts, read from the published annotation workbooks.

A workbook has a sheet per draft and a row per sentence. A revision index names one annotated revision and occurs on
both sheets: `before` is every old sentence with that index, `after` every new one.
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from irtuning.corpora.base import Corpus, Revision
from irtuning.corpora.folds import cut
from irtuning.corpora.reading import Row, read_sheets, require
from irtuning.errors import InputError, brief, unknown

PATTERN = "dataset/annotations/*/*/Annotation_*.xlsx"
FINE_LABELS = (
    "Word-Usage/Clarity", "General Content Development", "Warrant/Reasoning/Backing", "Conventions/Grammar/Spelling",
    "Claims/Ideas", "Evidence", "Precision", "Organization", "Rebuttal/Reservation",
)  # fmt: skip
COARSE_LABELS = ("surface", "content")
SURFACE = ("Word-Usage/Clarity", "Conventions/Grammar/Spelling", "Organization")  # after the authors' own grouping
COARSE = {label: "surface" if label in SURFACE else "content" for label in FINE_LABELS}
UNANNOTATED = "Unannotated"  # one revision has no purpose and is dropped
SIDES = {"before": "Old Draft", "after": "New Draft"}
COLUMNS = (
    "Sentence Index", "Sentence Content", "Aligned Index", "Identical?",
    "Revision Purpose Level 0", "Revision Operation Level 0", "Revision Index Level 0",
)  # fmt: skip


def load_argrewrite(folder: Path, fold: int = 0, labels: str | None = None) -> Corpus:
    """Return the 3,320 revisions by 86 writers, split in five folds by writer.

    Args:
        folder: a copy of the published repository.
        fold: the test fold, 0 to 4.
        labels: "fine" (nine purposes, the default) or "coarse" (surface, content). With both, `extra["labels"]` holds
            the purpose.
    """
    paths = sorted(folder.glob(PATTERN), key=Path.as_posix)
    parts = cut([revision for path in paths for revision in read_workbook(path)], fold)  # by the fine labels, always
    if labels == "coarse":
        parts = [[replace(r, intention=COARSE[r.intention]) for r in part] for part in parts]
    return Corpus("argrewrite", COARSE_LABELS if labels == "coarse" else FINE_LABELS, *parts, fold=fold)


class Sentence(NamedTuple):
    """Row of a sheet. `marks` holds (revision index, purpose, operation) for each revision it belongs to."""

    number: int
    text: str
    aligned: set[str]
    identical: bool
    marks: list[tuple[str, str, str]]


@dataclass(slots=True)
class Joined:
    """Purpose and operation of one revision index, and its sentence numbers on either side."""

    purpose: str
    operation: str
    before: list[int] = field(default_factory=list)
    after: list[int] = field(default_factory=list)


def read_workbook(path: Path) -> list[Revision]:
    """Return the revisions between two drafts, in the order of the old sheet and then of the new one.

    The path ends in <condition>/<draft pair>/<file name with the writer>.

    Raises:
        InputError: the workbook is not as published. The message names the file, the sheet and the row.
    """
    essay = re.search(r"2018argrewrite_\d+", path.name)
    if essay is None:
        raise InputError(f"{path}: no writer (2018argrewrite_<number>) in the file name")
    sheets, drafts, revisions = read_sheets(path), {}, []
    for side, title in SIDES.items():
        if title not in sheets:
            raise InputError(f"{path}: no sheet {title!r}; found {brief(list(sheets))}")
        require(sheets[title], COLUMNS)
        drafts[side] = {sentence.number: sentence for sentence in map(_sentence, sheets[title])}
    for index, joined in _join(drafts, path).items():
        before, after = (" ".join(drafts[side][n].text for n in getattr(joined, side)) for side in SIDES)
        if joined.purpose != UNANNOTATED:
            identity, extra = f"{essay[0]}_{path.parts[-2]}_{index}", {"labels": joined.purpose}
            revisions.append(Revision(identity, before, after, joined.purpose, essay[0], extra=extra))
    return revisions


def _sentence(row: Row) -> Sentence:
    number, text = row.text("Sentence Index"), " ".join(row.text("Sentence Content").split())
    lists = [row.parts(f"Revision {name} Level 0") for name in ("Index", "Purpose", "Operation")]
    if not number.isdecimal():
        raise InputError(f"{row.where}: 'Sentence Index' must be a whole number, got {number!r}")
    if len({len(values) for values in lists}) > 1:
        raise InputError(f"{row.where}: index, purpose, operation must list as many revisions each, got {brief(lists)}")
    if strange := set(lists[1]) - {*FINE_LABELS, UNANNOTATED}:
        raise unknown(f"purpose in {row.where}:", min(strange), FINE_LABELS)
    marks, identical = list(zip(*lists, strict=True)), row.text("Identical?") == "1"
    return Sentence(int(number), text, set(row.parts("Aligned Index")), identical, marks)


def _join(drafts: dict[str, dict[int, Sentence]], path: Path) -> dict[str, Joined]:
    """Return the sentences of both drafts under their revision index, plus those that only the alignment assigns."""
    revisions: dict[str, Joined] = {}
    for side, draft in drafts.items():
        for sentence in draft.values():
            for index, purpose, operation in sentence.marks:
                joined = revisions.setdefault(index, Joined(purpose, operation.lower()))
                if (joined.purpose, joined.operation) != (purpose, operation.lower()):
                    raise InputError(f"{path}: revision {index} has two purposes or operations; the sheets disagree")
                getattr(joined, side).append(sentence.number)
    for joined in revisions.values():
        if joined.operation == "modify":
            for side, other in (("before", "after"), ("after", "before")):
                opposite = set(map(str, getattr(joined, other)))
                free = (s for s in drafts[side].values() if not s.marks and not s.identical and s.aligned & opposite)
                setattr(joined, side, sorted([*getattr(joined, side), *(s.number for s in free)]))
    return revisions
