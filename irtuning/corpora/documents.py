"""Two versions of a document, split into sentences and aligned, so that each change is a revision."""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from irtuning.corpora.base import Revision
from irtuning.corpora.reading import read_text
from irtuning.errors import InputError

STEPS = (1, 1), (1, 2), (2, 1)  # how many sentences before and after one revision may join
LEAST = 0.35  # similarity of aligned texts; reports/alignment chose both numbers on half of ArgRewrite's writers
MERGING = 0.1  # what a split or a merge has to gain over aligning two sentences alone
WRAPPED = re.compile(r"^(.{40,}[^\s.!?:;\"'”’)\]])[ \t]*\n(?=\S)", re.MULTILINE)  # a line that goes on in the next
END = re.compile(r"(?<=[.!?])[\"'”’)\]]*\s+(?=[\"'“‘(\[]*[^\W_a-z])|\s*\n\s*")
SHORT = re.compile(r"\b(?:[A-Z]|Dr|Mrs?|Ms|Prof|St|vs|Figs?|Eqs?|Sec|No|al|cf|e\.g|i\.e)\.$")  # not an end


def sentences(text: str) -> list[str]:
    """Return the sentences of a plain text, with single spaces.

    A long line may go on in the next one. Any other line break ends a sentence.

    >>> sentences("Dr. Smith agreed. So did we (e.g. I)!")
    ['Dr. Smith agreed.', 'So did we (e.g. I)!']
    """
    found, start, text = [], 0, WRAPPED.sub(r"\1 ", text)
    for end in END.finditer(text):
        if "\n" in end[0] or not SHORT.search(text[start : end.start()]):
            found.append(text[start : end.end()])
            start = end.end()
    return [" ".join(part.split()) for part in (*found, text[start:]) if part.strip()]


def align(before: Sequence[str], after: Sequence[str]) -> list[tuple[list[int], list[int]]]:
    """Return the positions of aligned sentences in text order. ([], [j]) was added, and ([i], []) was deleted.

    The alignment has the highest sum of similarities above `LEAST`, without crossings. A sentence may be split in
    two, and two may be merged. A sentence that moved is deleted at one place and added at another. Similarity is the
    Dice coefficient of the words.
    """
    bags = [[Counter(re.findall(r"\w+", text.lower()) or [text]) for text in side] for side in (before, after)]
    old, new = ({1: side, 2: [one + other for one, other in pairwise(side)]} for side in bags)  # by number of sentences
    best = {(0, 0): (0.0, (0, 0))}  # for the first i and j sentences: the highest sum, and the step that led there
    for i, j in ((i, j) for i in range(len(before) + 1) for j in range(len(after) + 1) if i or j):
        ways = [(best[i - a, j - b][0], (a, b)) for a, b in ((1, 0), (0, 1)) if i >= a and j >= b]
        for a, b in (step for step in STEPS if i >= step[0] and j >= step[1]):
            one, other = old[a][i - a], new[b][j - b]
            gain = 2 * (one & other).total() / (one.total() + other.total()) - LEAST - MERGING * (a != b)
            if gain > 0:
                ways.append((best[i - a, j - b][0] + gain, (a, b)))
        best[i, j] = max(ways)
    (i, j), pairs = (len(before), len(after)), []
    while i or j:
        a, b = best[i, j][1]
        pairs.append((list(range(i - a, i)), list(range(j - b, j))))
        i, j = i - a, j - b
    return pairs[::-1]


def document_revisions(before: str, after: str) -> list[Revision]:
    """Return a revision without a label for each aligned pair of sentences of two texts, also for unchanged ones.

    The identity has the numbers of the sentences: `3>4`, `3>4,5` where one was split, `>5` where one was added.
    """
    sides, revisions = [sentences(text) for text in (before, after)], []
    for pair in align(*sides):
        name = ">".join(",".join(str(n + 1) for n in numbers) for numbers in pair)
        texts = (" ".join(side[n] for n in numbers) for side, numbers in zip(sides, pair, strict=True))
        revisions.append(Revision(name, *texts, ""))
    return revisions


def read_documents(before: str | Path, after: str | Path) -> list[Revision]:
    """Return `document_revisions` of two plain text files. InputError if one cannot be read or both are equal."""
    revisions = document_revisions(*(read_text(Path(path)) for path in (before, after)))
    if all(r.before == r.after for r in revisions):
        raise InputError(f"{before} and {after} have the same sentences; give two versions of a text")
    return revisions
