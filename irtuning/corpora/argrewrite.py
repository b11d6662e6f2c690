"""ArgRewrite V.2: argumentative essays in three drafts, read from the published annotation workbooks.

A workbook has a sheet per draft and a row per sentence. A revision index names one annotated revision and occurs on
both sheets: `before` is every old sentence with that index, `after` every new one.
"""

import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from irtuning.corpora.base import Corpus, Revision
from irtuning.corpora.folds import cut
from irtuning.corpora.reading import Row, read_sheets

PATTERN = "dataset/annotations/*/*/Annotation_*.xlsx"
FINE_LABELS = (
    "Word-Usage/Clarity", "General Content Development", "Warrant/Reasoning/Backing", "Conventions/Grammar/Spelling",
    "Claims/Ideas", "Evidence", "Precision", "Organization", "Rebuttal/Reservation")  # fmt: skip
COARSE_LABELS = ("surface", "content")
SURFACE = ("Word-Usage/Clarity", "Conventions/Grammar/Spelling", "Organization")  # after the authors' own grouping
UNANNOTATED = "Unannotated"  # one revision has no purpose and is dropped
SIDES = {"before": "Old Draft", "after": "New Draft"}
LISTS = ("Revision Index Level 0", "Revision Purpose Level 0", "Revision Operation Level 0")


def load_argrewrite(folder: Path, fold: int = 0, labels: str | None = None) -> Corpus:
    """Return the 3,320 revisions, split in five folds by their 86 writers, with the purpose in `extra["labels"]`."""
    paths = sorted(folder.glob(PATTERN), key=Path.as_posix)
    parts = cut([revision for path in paths for revision in read_workbook(path)], fold)  # by the fine labels, always
    if labels != "coarse":
        return Corpus("argrewrite", FINE_LABELS, *parts, fold=fold)
    parts = [[replace(r, intention="surface" if r.intention in SURFACE else "content") for r in part] for part in parts]
    return Corpus("argrewrite", COARSE_LABELS, *parts, fold=fold)


def read_workbook(path: Path) -> list[Revision]:
    """Return the revisions of a workbook whose path ends in <condition>/<draft pair>/<name with the writer>."""
    essay, sheets, revisions = re.search(r"2018argrewrite_\d+", path.name)[0], read_sheets(path), []
    drafts = {side: {int(row.text("Sentence Index")): row for row in sheets[title]} for side, title in SIDES.items()}
    for index, (purpose, numbers) in _join(drafts).items():
        if purpose != UNANNOTATED:
            texts = ([drafts[side][n].text("Sentence Content") for n in numbers[side]] for side in SIDES)
            before, after = (" ".join(" ".join(sentences).split()) for sentences in texts)
            identity, extra = f"{essay}_{path.parts[-2]}_{index}", {"labels": purpose}
            revisions.append(Revision(identity, before, after, purpose, essay, extra=extra))
    return revisions


def _join(drafts: dict[str, dict[int, Row]]) -> dict[str, tuple[str, dict[str, list[int]]]]:
    """Return purpose and sentence numbers by side of each revision index, with aligned sentences of modifications."""
    facts, numbers = {}, defaultdict(lambda: {side: [] for side in SIDES})
    free = {side: {} for side in SIDES}  # changed sentences that have no revision index, with their alignment
    for side, draft in drafts.items():
        for number, row in draft.items():
            lists = [list(filter(None, row.text(name).split(","))) for name in LISTS]
            for index, purpose, operation in zip(*lists, strict=True):
                facts[index] = purpose, operation.lower()
                numbers[index][side].append(number)
            if not lists[0] and row.text("Identical?") != "1":
                free[side][number] = set(row.text("Aligned Index").split(","))
    for of in (numbers[index] for index, (_, operation) in facts.items() if operation == "modify"):
        for side, other in (("before", "after"), ("after", "before")):
            opposite = set(map(str, of[other]))
            of[side] = sorted([*of[side], *(n for n, aligned in free[side].items() if aligned & opposite)])
    return {index: (facts[index][0], of) for index, of in numbers.items()}
