"""Pairs of a text and an edited copy, made from plain text. They teach a small model to compare two texts.

The edits are random and express no intention of a writer. A pair is one string with the model's own marks, in the
classifier's form (`<s> before <sep> after </s>`) or under headings. After the end mark comes a tail with the answer:
which side was the source (`<before>` or `<after>`), and which words were deleted and inserted at each position
(`<del> words <ins> words`). If a text has no other side, its tail is the sentence that follows it in its document.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from irtuning.corpora.base import EDIT_MARKS, Revision
from irtuning.corpora.html import word_diff

SPECIAL = ("<pad>", "<s>", "</s>", "<sep>", *EDIT_MARKS, "<del>", "<ins>", "<before>", "<after>")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z“\"])")
MOST_WORDS = 60  # in a passage
MOST_LISTED = 30  # words listed for one edit in a tail
STRAIGHT = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "–": "-"})
SPACED = re.compile(r"\s*([.,;:!?()\"“”])\s*")

Words = list[str]
SWAPS = {  # closed-class words and the words that may replace them
    word: [other for other in group.split() if other != word]
    for group in (
        "a an the this that these those",
        "in on at of to for from with by into about over under",
        "is are was were be been has have had",
        "can could may might will would should must",
        "and or but so yet",
        "because since although though while if unless when where",
        "it they he she we this that",
        "its their his her our",
        "some many most several few all each every no any",
        "who which that what",
        "very quite rather really too so",
        "not never always often usually sometimes",
    )
    for word in group.split()
}
OPENERS = (
    (
        "However, Therefore, Moreover, Furthermore, Thus, Also, Indeed, Nevertheless, Hence, Meanwhile, Consequently, "
        "In addition, In fact, For example, As a result, In contrast, On the other hand, In other words, Of course,"
    )
    .replace(", ", ",|")
    .split("|")
)
JOINTS = (", and", ", but", ", so", ";", ", because", ", while", ", which means that")


@dataclass
class WordSource:
    """Words for edits to insert, gathered from documents: the followers of each word, names, and numbers."""

    followers: dict[str, Words] = field(default_factory=dict)
    names: Words = field(default_factory=lambda: ["Smith"])
    numbers: Words = field(default_factory=lambda: ["12"])

    @classmethod
    def of(cls, documents: Sequence[str], most: int = 24) -> "WordSource":
        """Gather words from documents. At most `most` followers of each word are kept."""
        source = cls()
        for document in documents:
            words = document.split()
            for previous, word in pairwise(words):
                known = source.followers.setdefault(previous, [])
                if len(known) < most:
                    known.append(word)
                if word[0].isdigit():
                    source.numbers.append(word)
                elif word[0].isupper() and previous[-1].isalpha():
                    source.names.append(word)
        return source

    def follow(self, previous: str, rng: random.Random) -> str:
        """Return a word that was seen after `previous`, or if there is none, after `the`."""
        return rng.choice(self.followers.get(previous) or self.followers.get("the") or ["one"])


def _drop(words: Words, at: int, rng: random.Random, source: WordSource) -> Words:
    return words[:at] + words[at + min(rng.choice((1, 1, 1, 2, 3, 5, 8)), len(words) - 1) :]


def _double(words: Words, at: int, rng: random.Random, source: WordSource) -> Words:
    return words[: at + 1] + words[at:]


def _move(words: Words, at: int, rng: random.Random, source: WordSource) -> Words:
    size = rng.choice((1, 1, 2, 4))
    rest = words[:at] + words[at + size :]
    to = rng.choice((at + 1, rng.randrange(len(rest) + 1)))
    return rest[:to] + words[at : at + size] + rest[to:]


def _replace(words: Words, at: int, rng: random.Random, source: WordSource) -> Words:
    new, previous = [], words[at - 1] if at else "The"
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        previous = source.follow(previous, rng)
        new.append(previous)
    return words[:at] + new + words[at + rng.choice((1, len(new))) :]


def _insert(words: Words, at: int, rng: random.Random, source: WordSource) -> Words:
    new = _replace(words[: at + 1], at, rng, source)[at:]
    return words[:at] + new + words[at:]


def _swap(words: Words, at: int, rng: random.Random, source: WordSource) -> Words:
    swappable = [i for i, word in enumerate(words) if word in SWAPS]
    if not swappable:
        return _replace(words, at, rng, source)
    at = rng.choice(swappable)
    new = [rng.choice(SWAPS[words[at]])] if rng.random() < 0.8 else []
    return words[:at] + new + words[at + 1 :]


def _open(words: Words, at: int, rng: random.Random, source: WordSource) -> Words:
    first = words[0] if words[0] == "I" or not words[0].istitle() else words[0].lower()
    return [*rng.choice(OPENERS).split(), first, *words[1:]]


def _join_or_split(words: Words, at: int, rng: random.Random, source: WordSource) -> Words:
    """Join two sentences, or split one at a comma."""
    ends = [i for i, word in enumerate(words[:-1]) if word[-1] in ".!?"]
    commas = [i for i, word in enumerate(words[:-2]) if word[-1] in ",;"]
    if ends:
        at, joint = rng.choice(ends), rng.choice(JOINTS)
        return [*words[:at], *(words[at][:-1] + joint).split(), words[at + 1].lower(), *words[at + 2 :]]
    if commas:
        at = rng.choice(commas)
        rest = words[at + 2 :] if words[at + 1] in ("and", "but", "so", "which", "while") else words[at + 1 :]
        return [*words[:at], words[at][:-1] + ".", rest[0].capitalize(), *rest[1:]]
    return _insert(words, at, rng, source)


def _fact(words: Words, at: int, rng: random.Random, source: WordSource) -> Words:
    """Replace a number or a name by another one."""
    facts = [i for i, word in enumerate(words) if word[0].isdigit() or (i and word[0].isupper())]
    if not facts:
        return _replace(words, at, rng, source)
    at = rng.choice(facts)
    return [*words[:at], rng.choice(source.numbers if words[at][0].isdigit() else source.names), *words[at + 1 :]]


def _case(words: Words, at: int, rng: random.Random, source: WordSource) -> Words:
    at = rng.choice((0, at))
    return [*words[:at], words[at].swapcase() if len(words[at]) == 1 else _flip(words[at]), *words[at + 1 :]]


def _flip(word: str) -> str:
    return word[0].lower() + word[1:] if word[0].isupper() else word[0].upper() + word[1:]


def _punctuate(words: Words, at: int, rng: random.Random, source: WordSource) -> Words:
    marked = [i for i, word in enumerate(words) if not word[-1].isalnum() and len(word) > 1]
    if marked and rng.random() < 0.6:
        at = rng.choice(marked)
        return [*words[:at], words[at][:-1] + rng.choice(("", "", ",", ".", ";")), *words[at + 1 :]]
    return [*words[:at], words[at] + rng.choice((",", ",", ";", ":", ".", "'s")), *words[at + 1 :]]


def _misspell(words: Words, at: int, rng: random.Random, source: WordSource) -> Words:
    at = max(range(len(words)), key=lambda i: len(words[i])) if len(words[at]) < 4 else at
    word, k = words[at], rng.randrange(max(1, len(words[at]) - 1))
    wrong = rng.choice(
        (
            word[:k] + word[k + 1 :],
            word[:k] + word[k] + word[k:],
            word[:k] + word[k + 1 : k + 2] + word[k] + word[k + 2 :],
            word[:k] + rng.choice("aeiourstln") + word[k + 1 :],
        )
    )
    return [*words[:at], wrong or word, *words[at + 1 :]]


def _inflect(words: Words, at: int, rng: random.Random, source: WordSource) -> Words:
    """Change the ending of a word, such as the one for number or tense."""
    at = rng.choice([i for i, word in enumerate(words) if word.isalpha() and len(word) > 3] or [at])
    word = words[at]
    stem = re.sub(r"(ing|ed|es|s|ly)$", "", word) if len(word) > 5 else word.removesuffix("s")
    new = rng.choice([stem + ending for ending in ("", "s", "ed", "ing", "ly") if stem + ending != word])
    return [*words[:at], new, *words[at + 1 :]]


EDITS: dict[Callable[[Words, int, random.Random, WordSource], Words], int] = {  # with relative frequencies
    _drop: 4, _insert: 3, _replace: 5, _swap: 4, _inflect: 3, _misspell: 3, _punctuate: 3, _move: 2, _double: 1,
    _open: 1, _join_or_split: 2, _fact: 1, _case: 1,
}  # fmt: skip


def edited(text: str, others: Sequence[str], rng: random.Random, source: WordSource) -> str:
    """Return a copy of `text` with one to six edits. Some of them insert a part or all of one of the `others`."""
    words = text.split()
    for _ in range(rng.choice((1, 1, 1, 1, 2, 2, 3, 4, 6))):
        at = rng.randrange(len(words))
        if others and rng.random() < 0.12:
            clause = rng.choice(others).split()
            if rng.random() < 0.3:
                words = words + clause
            else:
                start = rng.randrange(len(clause))
                words = words[: at + 1] + clause[start : start + rng.randint(3, 12)] + words[at + 1 :]
        else:
            words = rng.choices(list(EDITS), EDITS.values())[0](words, at, rng, source)
        words = words or ["The"]
    return " ".join(words)


def pairs_of(document: str, rng: random.Random, source: WordSource, *, tail: bool = True) -> Iterator[str]:
    """Yield one pair for each passage of a document, as a string with marks. Without `tail` it ends at `</s>`."""
    sentences = [s for line in document.splitlines() if line for s in SENTENCE_END.split(line)]
    at = 0
    while at < len(sentences):
        size = rng.choice((1, 1, 1, 1, 1, 2))
        passage, rest = " ".join(sentences[at : at + size]), sentences[at + size : at + size + 3]
        at += size
        if 3 <= len(passage.split()) <= MOST_WORDS:
            yield _written(passage, rest, rng, source, tail)


def _written(passage: str, rest: Sequence[str], rng: random.Random, source: WordSource, tail: bool) -> str:
    """Return a passage as a pair in one of the forms: with an empty side, unchanged, or edited."""
    kind = rng.random()
    if kind < 0.25:
        sides = _styled([passage, rest[0] if rest and len(rest[0].split()) <= MOST_WORDS else ""], rng)
        before, after = ("", sides[0]) if rng.random() < 0.6 else (sides[0], "")
        return _form(before, after, rng) + (" " + sides[1] if tail and sides[1] else "")
    short = [s for s in rest if len(s.split()) <= MOST_WORDS // 2]
    before, after = _styled([passage, passage if kind < 0.28 else edited(passage, short, rng, source)], rng)
    from_before = rng.random() < 0.5
    if not from_before:
        before, after = after, before
    hunks, spans, i, k = [], [], 0, 0
    for operation, old, new in word_diff(before, after):
        if operation != "equal":
            hunks.append((old, new))
            spans.append(((i, i + len(old)) if old else None, (k, k + len(new)) if new else None))
        i, k = i + len(old), k + len(new)
    if hunks and rng.random() < 0.3:  # mark one edit, and list only that one
        which = rng.randrange(len(hunks))
        before, after = Revision("", before, after, "", "", *spans[which]).texts()
        hunks = [hunks[which]]
    text = _form(before, after, rng)
    if tail and hunks:
        text += "<before>" if from_before else "<after>"
        text += "".join(f"<del>{_listed(old)}<ins>{_listed(new)}" for old, new in hunks[:6])
    return text


def _listed(words: Words) -> str:
    return "".join(f" {word}" for word in words[:MOST_LISTED])


def _styled(texts: Sequence[str], rng: random.Random) -> list[str]:
    """Return the texts, perhaps with straight quotes, and perhaps with spaces around punctuation."""
    if rng.random() < 0.5:
        texts = [text.translate(STRAIGHT) for text in texts]
    if rng.random() < 0.25:
        texts = [SPACED.sub(r" \1 ", text).strip() for text in texts]
    return list(texts)


def _form(before: str, after: str, rng: random.Random) -> str:
    form = rng.random()
    if form < 0.8:
        return f"<s>{before}<sep>{after}</s>"
    if form < 0.88:
        return f"<s>### Original text\n{before}\n\n### Revised text\n{after}</s>"
    if form < 0.94:
        return f"<s>Original: {before}\nRevised: {after}</s>"
    return f"<s>Revised: {after}\nOriginal: {before}</s>"
