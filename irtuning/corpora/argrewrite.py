"""ArgRewrite V.2: argumentative essays in three drafts, read from the published annotation workbooks.

A workbook has a sheet per draft and a row per sentence. The revision index identifies one annotated revision and occurs
on both sheets: `before` is every old sentence with that index, `after` every new one.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from irtuning.corpora.base import Corpus, Revision
from irtuning.corpora.folds import cut
from irtuning.corpora.reading import Row, read_sheets, require
from irtuning.corpora.sources import SOURCES, files, locate
from irtuning.errors import InputError, brief, unknown

# Precision counts as content and Organization as surface, after the authors' scheme.
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
UNANNOTATED = "Unannotated"  # one revision, dropped: it has no purpose
OPERATIONS = ("add", "delete", "modify")
SIDES = {"before": "Old Draft", "after": "New Draft"}
COLUMNS = (
    "Sentence Index", "Sentence Content", "Aligned Index", "Identical?", "Original Paragraph No", "New Paragraph No",
    "Revision Purpose Level 0", "Revision Operation Level 0", "Revision Index Level 0",
)  # fmt: skip
EDITS = "Subsentential Revision Tuple Level 0"  # only where the interface showed them: conditions A and D
# The numbers that the corpus's readme gives to purposes and operations inside a sentence.
EDIT_PURPOSES = {
    1: "Claims/Ideas", 2: "Rebuttal/Reservation", 3: "Warrant/Reasoning/Backing", 4: "Evidence",
    5: "General Content Development", 7: "Word-Usage/Clarity", 8: "Conventions/Grammar/Spelling", 9: "Organization",
    10: "Precision", 15: UNANNOTATED,
}  # fmt: skip
EDIT = re.compile(r"\[\((-?\d+), *(-?\d+)\), *\((-?\d+), *(-?\d+)\), *(\d+), *(\d+)\]")
CITATION = "Kashefi et al., ArgRewrite V.2: an annotated argumentative revisions corpus, LRE 56(3), 2022"


def load_argrewrite(data_dir: str | Path | None = None, fold: int = 0, labels: str | None = None) -> Corpus:
    """ArgRewrite V.2, 3,320 revisions by 86 writers, split in five folds by writer.

    `labels` is "fine" (nine purposes, the default) or "coarse" (surface, content). `extra["labels"]` always holds the
    purpose.
    """
    folder = locate("argrewrite", data_dir)
    rows = [revision for path in files("argrewrite", folder) for revision in read_workbook(path)]
    parts = cut(rows, fold)  # by the purposes, so that both label sets have the same splits
    if labels == "coarse":
        parts = [[replace(r, intention=r.extra["coarse"]) for r in part] for part in parts]
    names = COARSE_LABELS if labels == "coarse" else FINE_LABELS
    return Corpus("argrewrite", names, *parts, licence=SOURCES["argrewrite"].licence, citation=CITATION, fold=fold)


@dataclass(slots=True)
class Sentence:
    """A row of a sheet. `marks` holds (revision index, purpose, operation) for each revision it belongs to."""

    number: int
    text: str
    paragraph: int | None
    aligned: tuple[int, ...]
    identical: bool
    marks: list[tuple[str, str, str]]
    edits: str | None


@dataclass(slots=True)
class Joined:
    """One revision index: its purpose and operation, and its sentence numbers on either side."""

    purpose: str
    operation: str
    edits: str | None
    before: list[int] = field(default_factory=list)
    after: list[int] = field(default_factory=list)
    extended: bool = False


Draft = dict[int, Sentence]


def read_workbook(path: Path) -> list[Revision]:
    """The revisions between two drafts, in the order of the old sheet and then of the new one.

    The path ends in <condition>/<draft pair>/<file name with the writer>. InputError names the file, sheet and row.
    """
    essay = re.search(r"2018argrewrite_\d+", path.name)
    if essay is None:
        raise InputError(f"{path}: no writer (2018argrewrite_<number>) in the file name")
    sheets = read_sheets(path)
    missing = [title for title in SIDES.values() if title not in sheets]
    if missing:
        raise InputError(f"{path}: no sheet {', '.join(map(repr, missing))}; found {brief(list(sheets))}")
    drafts = {side: _draft(sheets[title], side) for side, title in SIDES.items()}
    joined = {index: one for index, one in _join(drafts, path).items() if one.purpose != UNANNOTATED}
    place = {"essay_id": essay[0], "condition": path.parts[-3], "draft_pair": path.parts[-2]}
    return [_revision(index, joined, drafts, place) for index in joined]


def _draft(rows: list[Row], side: str) -> Draft:
    require(rows, COLUMNS)
    draft = {}
    for row in rows:
        sentence = _sentence(row, "Original Paragraph No" if side == "before" else "New Paragraph No")
        if sentence.number in draft:
            raise InputError(f"{row.where}: sentence {sentence.number} occurs twice")
        draft[sentence.number] = sentence
    return draft


def _sentence(row: Row, paragraph: str) -> Sentence:
    number = row.integer("Sentence Index")
    if number is None:
        raise InputError(f"{row.where}: 'Sentence Index' is blank")
    aligned = [part for part in row.text("Aligned Index").split(",") if part not in ("", "ADD", "DELETE")]
    if not all(re.fullmatch("[0-9]{1,9}", part) for part in aligned):
        raise InputError(f"{row.where}: 'Aligned Index' must be ADD, DELETE or sentence numbers, got {brief(aligned)}")
    return Sentence(
        number=number,
        text=" ".join(row.text("Sentence Content").split()),
        paragraph=row.integer(paragraph),
        aligned=tuple(map(int, aligned)),
        identical=row.integer("Identical?") == 1,
        marks=_marks(row),
        edits=row.text(EDITS) if EDITS in row.cells else None,
    )


def _marks(row: Row) -> list[tuple[str, str, str]]:
    lists = [
        row.text(f"Revision {name} Level 0").split(",") if row.text(f"Revision {name} Level 0") else []
        for name in ("Index", "Purpose", "Operation")
    ]
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
    """The sentences of both drafts under their revision index, plus those that the alignment alone assigns."""
    joined: dict[str, Joined] = {}
    for side, draft in drafts.items():
        for sentence in draft.values():
            for index, purpose, operation in sentence.marks:
                one = joined.setdefault(index, Joined(purpose, operation.lower(), sentence.edits))
                if (one.purpose, one.operation) != (purpose, operation.lower()):
                    raise InputError(f"{path}: revision {index} has two purposes or operations; the sheets disagree")
                getattr(one, side).append(sentence.number)
    for one in joined.values():
        if one.operation == "modify":
            _extend(one, "before", one.after, drafts["before"])
            _extend(one, "after", one.before, drafts["after"])
    return joined


def _extend(one: Joined, side: str, opposite: Iterable[int], draft: Draft) -> None:
    """Add the changed sentences that have no index of their own and are aligned to the revision's other side."""
    loose = [s.number for s in draft.values() if not s.marks and not s.identical and set(s.aligned) & set(opposite)]
    one.extended |= bool(loose)
    getattr(one, side).extend(loose)
    getattr(one, side).sort()


def _revision(index: str, joined: dict[str, Joined], drafts: dict[str, Draft], place: dict[str, str]) -> Revision:
    one = joined[index]
    old, new = ([drafts[side][number] for number in getattr(one, side)] for side in SIDES)
    before, after = (" ".join(s.text for s in sentences) for sentences in (old, new))
    extra = {
        "condition": place["condition"],
        "draft_pair": place["draft_pair"],
        "operation": one.operation,
        "labels": one.purpose,
        "coarse": COARSE[one.purpose],
        "all_labels": sorted({o.purpose for o in joined.values() if (o.before, o.after) == (one.before, one.after)}),
        "before_sent_idx": one.before,
        "after_sent_idx": one.after,
        "before_paragraph": _paragraphs(old),
        "after_paragraph": _paragraphs(new),
        **_neighbours("after", drafts["after"], one.after),
        **_neighbours("before", drafts["before"], one.before),
        "subsentential": _edits(one.edits),
        "flags": _flags(one, old, new, before == after),
    }
    identity = f"{place['essay_id']}_{place['draft_pair']}_{index}"
    return Revision(identity, before, after, one.purpose, place["essay_id"], extra=extra)


def _paragraphs(sentences: list[Sentence]) -> list[int]:
    return sorted({s.paragraph for s in sentences if s.paragraph is not None})


def _neighbours(side: str, draft: Draft, numbers: list[int]) -> dict[str, str]:
    """The sentences just before and just after a revision in one draft."""
    ends = {"prev": numbers[0] - 1, "next": numbers[-1] + 1} if numbers else {"prev": None, "next": None}
    return {f"{end}_{side}": draft[number].text if number in draft else "" for end, number in ends.items()}


def _edits(listed: str | None) -> list[dict] | None:
    """Edits inside a sentence; character ranges are in the sheet's own sentence, null on the missing side."""
    if listed is None:
        return None
    found = []
    for numbers in EDIT.findall(listed):
        start, end, new_start, new_end, purpose, operation = map(int, numbers)
        found.append(
            {
                "before_chars": [start, end] if start >= 0 else None,
                "after_chars": [new_start, new_end] if new_start >= 0 else None,
                "label": EDIT_PURPOSES.get(purpose),
                "operation": dict(enumerate(OPERATIONS, start=1)).get(operation),
            }
        )
    return found


def _flags(one: Joined, old: list[Sentence], new: list[Sentence], identical: bool) -> list[str]:
    """What is doubtful about a revision: alignment that says otherwise, sentences added by it, unchanged text."""
    conflict = any(
        sentences and {n for s in sentences for n in s.aligned} != set(opposite)
        for sentences, opposite in ((old, one.after), (new, one.before))
    )
    flags = {"extended_by_alignment": one.extended, "alignment_conflict": conflict, "text_identical": identical}
    return [name for name, holds in flags.items() if holds]
