"""Compare our sentences and our alignment with those of ArgRewrite V.2's annotators, and write alignment.json.

    python reports/alignment/alignment.py DIR

DIR has the corpus, as published. The two numbers of the rule, `LEAST` and `MERGING`, were chosen on every second
writer. The record has scores on these writers and on the held-out ones, and no text.
"""

import json
import sys
from itertools import pairwise
from pathlib import Path

from irtuning.companion.paths import REPOSITORY
from irtuning.corpora.argrewrite import PATTERN, SIDES
from irtuning.corpora.documents import LEAST, MERGING, align, sentences
from irtuning.corpora.reading import read_sheets
from irtuning.training.record import provenance, write_text

RECORD = REPOSITORY / "reports" / "alignment" / "alignment.json"


def read_drafts(folder: Path) -> list[dict]:
    """Return for each pair of drafts its writer, the sentences and paragraphs of both, and the aligned pairs."""
    drafts = []
    for path in sorted(folder.glob(PATTERN), key=Path.as_posix):
        sheets, draft = read_sheets(path), {"writer": path.name.split("_")[2]}
        rows = [sorted(sheets[title], key=lambda row: int(row.text("Sentence Index"))) for title in SIDES.values()]
        order = [{row.text("Sentence Index"): i for i, row in enumerate(side)} for side in rows]
        names = ("Original Paragraph No", "New Paragraph No")
        draft["texts"] = [[" ".join(row.text("Sentence Content").split()) for row in side] for side in rows]
        draft["paragraphs"] = [[row.text(name) for row in side] for side, name in zip(rows, names, strict=True)]
        draft["pairs"] = {(i, order[1][n]) for i, row in enumerate(rows[0]) for n in row.text("Aligned Index").split(",") if n in order[1]}
        drafts.append(draft)
    return drafts


def measure(drafts: list[dict]) -> dict:
    """Return precision, recall and F1 of aligned pairs by half of the writers, and of the ends of sentences."""
    chosen = set(sorted({draft["writer"] for draft in drafts})[::2])
    result = {"rule": {"least similarity": LEAST, "cost of a merge": MERGING}}
    for name, wanted in (("writers of the choice", True), ("writers held out", False)):
        part = [draft for draft in drafts if (draft["writer"] in chosen) == wanted]
        found = [{(i, j) for old, new in align(*d["texts"]) for i in old for j in new} for d in part]
        changed = [[{(i, j) for i, j in pairs if d["texts"][0][i] != d["texts"][1][j]} for pairs in (ours, d["pairs"])]
                   for ours, d in zip(found, part, strict=True)]  # fmt: skip
        result[name] = {"pairs of drafts": len(part), "all pairs": rates([(f, d["pairs"]) for f, d in zip(found, part, strict=True)]),
                        "changed pairs": rates(changed)}  # fmt: skip
    ends = [(ends_of(sentences(as_text(*of))), ends_of(of[0])) for d in drafts for of in zip(d["texts"], d["paragraphs"], strict=True)]
    return result | {"ends of sentences": rates(ends)}


def rates(sets) -> dict[str, float]:
    """Return precision, recall and F1 over all (found, expected) sets, with the number of each."""
    sets = [(set(found), set(expected)) for found, expected in sets]
    right, found, expected = (sum(map(len, of)) for of in ([f & e for f, e in sets], *zip(*sets, strict=True)))
    numbers = {"precision": right / found, "recall": right / expected, "f1": 2 * right / (found + expected)}
    return {name: round(value, 4) for name, value in numbers.items()} | {"found": found, "expected": expected}


def as_text(texts: list[str], paragraphs: list[str]) -> str:
    """Return a draft as a plain text with a blank line between paragraphs."""
    breaks = [" " if now == before else "\n\n" for before, now in pairwise(paragraphs)]
    return "".join(text + space for text, space in zip(texts, [*breaks, ""], strict=True))


def ends_of(texts: list[str]) -> set[int]:
    """Return how many characters other than spaces come before the end of each sentence."""
    lengths = [len(text.replace(" ", "")) for text in texts]
    return {sum(lengths[: i + 1]) for i in range(len(lengths))}


if __name__ == "__main__":
    meta = {name: value for name, value in provenance("cpu").items() if name in ("date", "versions", "commit")}
    write_text(RECORD, json.dumps(measure(read_drafts(Path(sys.argv[1]))) | {"meta": meta}, indent=1) + "\n")
