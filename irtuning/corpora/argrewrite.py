"""ArgRewrite V.2: argumentative essays in three drafts, read from the published annotation workbooks.

A workbook has a sheet per draft and a row per sentence. A revision index names one annotated revision and occurs on
both sheets: `before` is every old sentence with that index, `after` every new one.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from irtuning.corpora.base import Corpus, Revision
from irtuning.corpora.folds import cut
from irtuning.corpora.reading import Row, read_sheets, require
from irtuning.errors import InputError, brief, unknown

PATTERN = "dataset/annotations/*/*/Annotation_*.xlsx"
# The authors count Precision as content and Organization as surface.
COARSE = {
    "Word-Usage/Clarity": "surface",
    "General Content Development": "content",
    "Warrant/Reasoning/Backing": "content",
    "Conventions/Grammar/Spelling": "surface",
    "Claims/Ideas": "content",
    "Evidence": "content",
    "Precision": "content",
    "Organization": "surface",
    "Rebuttal/Reservation": "content",
}
FINE_LABELS = tuple(COARSE)
COARSE_LABELS = ("surface", "content")
UNANNOTATED = "Unannotated"  # one revision has no purpose and is dropped
OPERATIONS = ("add", "delete", "modify")
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


@dataclass(slots=True)
class Sentence:
    """Row of a sheet. `marks` holds (revision index, purpose, operation) for each revision it belongs to."""

    number: int
    text: str
    aligned: tuple[int, ...]
    identical: bool
    marks: list[tuple[str, str, str]]


@dataclass(slots=True)
class Joined:
    """Purpose and operation of one revision index, and its sentence numbers on either side."""

    purpose: str
    operation: str
    before: list[int] = field(default_factory=list)
    after: list[int] = field(default_factory=list)


Draft = dict[int, Sentence]


def read_workbook(path: Path) -> list[Revision]:
    """Return the revisions between two drafts, in the order of the old sheet and then of the new one.

    The path ends in <condition>/<draft pair>/<file name with the writer>.

    Raises:
        InputError: the workbook is not as published. The message names the file, the sheet and the row.
    """
    essay = re.search(r"2018argrewrite_\d+", path.name)
    if essay is None:
        raise InputError(f"{path}: no writer (2018argrewrite_<number>) in the file name")
    sheets = read_sheets(path)
    missing = [title for title in SIDES.values() if title not in sheets]
    if missing:
        raise InputError(f"{path}: no sheet {', '.join(map(repr, missing))}; found {brief(list(sheets))}")
    drafts = {side: _draft(sheets[title]) for side, title in SIDES.items()}
    revisions = []
    for index, joined in _join(drafts, path).items():
        before, after = (" ".join(drafts[side][n].text for n in getattr(joined, side)) for side in SIDES)
        if joined.purpose != UNANNOTATED:
            identity = f"{essay[0]}_{path.parts[-2]}_{index}"
            extra = {"labels": joined.purpose}  # the coarse labels replace the intention, not this
            revisions.append(Revision(identity, before, after, joined.purpose, essay[0], extra=extra))
    return revisions


def _draft(rows: list[Row]) -> Draft:
    require(rows, COLUMNS)
    draft = {}
    for row in rows:
        sentence = _sentence(row)
        if sentence.number in draft:
            raise InputError(f"{row.where}: sentence {sentence.number} occurs twice")
        draft[sentence.number] = sentence
    return draft


def _sentence(row: Row) -> Sentence:
    number = row.integer("Sentence Index")
    if number is None:
        raise InputError(f"{row.where}: 'Sentence Index' is blank")
    aligned = [part for part in row.text("Aligned Index").split(",") if part not in ("", "ADD", "DELETE")]
    if not all(re.fullmatch("[0-9]{1,9}", part) for part in aligned):
        raise InputError(f"{row.where}: 'Aligned Index' must be ADD, DELETE or sentence numbers, got {brief(aligned)}")
    text = " ".join(row.text("Sentence Content").split())
    return Sentence(number, text, tuple(map(int, aligned)), row.integer("Identical?") == 1, _marks(row))


def _marks(row: Row) -> list[tuple[str, str, str]]:
    cells = [row.text(f"Revision {name} Level 0") for name in ("Index", "Purpose", "Operation")]
    lists = [cell.split(",") if cell else [] for cell in cells]
    if len({len(values) for values in lists}) > 1:
        raise InputError(f"{row.where}: index, purpose and operation must list as many revisions each, got {brief(lists)}")
    marks = list(zip(*lists, strict=True))
    for _, purpose, operation in marks:
        if purpose not in COARSE and purpose != UNANNOTATED:
            raise unknown(f"purpose in {row.where}:", purpose, COARSE)
        if operation.lower() not in OPERATIONS:
            raise unknown(f"operation in {row.where}:", operation, OPERATIONS)
    return marks


def _join(drafts: dict[str, Draft], path: Path) -> dict[str, Joined]:
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
            _extend(joined.before, joined.after, drafts["before"])
            _extend(joined.after, joined.before, drafts["after"])
    return revisions


def _extend(numbers: list[int], opposite: Iterable[int], draft: Draft) -> None:
    """Add the changed sentences that have no index of their own and are aligned to the revision's other side."""
    others = set(opposite)
    numbers += [s.number for s in draft.values() if not s.marks and not s.identical and others.intersection(s.aligned)]
    numbers.sort()
