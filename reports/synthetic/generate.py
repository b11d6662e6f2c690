"""Generator of the synthetic corpus that the package ships as `irtuning/corpora/synthetic.csv`.

Run `python reports/synthetic/generate.py` to write that file again. Each revision is drawn from a template of
`grammar.toml`, which fixes the kind of edit and the writer's intention, and is filled with words of its split. The
three splits share no template and no content word (people, things, places, names, adjectives, verbs). They share only
the kinds of edit and the closed-class words (articles, pronouns, connectives, number words, weekdays). A score on test
therefore measures reading, not memory.
"""

import csv
import random
import re
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = HERE.parents[1] / "irtuning" / "corpora" / "synthetic.csv"
_TABLES = tomllib.loads((HERE / "grammar.toml").read_text(encoding="utf-8"))
OPENERS, WORDS, PHRASES, GRAMMAR = (_TABLES[name] for name in ("openers", "words", "phrases", "grammar"))
LABELS = tuple(GRAMMAR)
SIZES = {"train": 1600, "validation": 200, "test": 200}
MOST_NOISE = 0.05

SHARED = {
    "k": "two three four five six seven eight nine ten eleven twelve",
    "d": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "y": "January March April June July August October December 1960 1975 1980 1994",
}
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]

EDIT = re.compile(r"\[([^\]|]*)\|([^\]|]*)\]")
CHOICE = re.compile(r"\(([^()]*)\)")
SLOT = re.compile(r"\{([a-z])(\d)")


class Word(str):
    """A content word with the forms that a template may ask for. It knows regular English forms only."""

    @property
    def s(self) -> "Word":
        """The plural of a noun or the third person of a verb."""
        if re.search("[^aeiou]y$", self):
            return Word(self[:-1] + "ies")
        return Word(self + ("es" if self.endswith(("s", "x", "sh", "ch")) else "s"))

    es = s

    @property
    def ed(self) -> "Word":
        """The past tense and the past participle of a verb."""
        if re.search("[^aeiou]y$", self):
            return Word(self[:-1] + "ied")
        return Word(self + ("d" if self.endswith("e") else "ed"))

    @property
    def article(self) -> str:
        """The indefinite article that belongs before the word."""
        return "an" if self[0] in "aeiou" and not self.startswith("us") else "a"

    @property
    def wrong_article(self) -> str:
        """The indefinite article that is wrong before the word."""
        return "a" if self.article == "an" else "an"

    @property
    def misspelt(self) -> str:
        """The word with two neighbouring letters swapped: the first two from its middle on that differ."""
        middle = len(self) // 2
        at = next((i for i in [*range(middle, len(self) - 1), *range(middle)] if self[i] != self[i + 1]), 0)
        return self[:at] + self[at + 1] + self[at] + self[at + 2 :]

    @property
    def digits(self) -> str:
        """The digits of a number word."""
        return str(NUMBERS.index(self))

    @property
    def left(self) -> "Word":
        """The first half of a pair."""
        return Word(self.split(":")[0])

    @property
    def right(self) -> "Word":
        """The second half of a pair."""
        return Word(self.split(":")[1])


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of edit: its intention, the templates of each split, and whether it may be read in either direction."""

    name: str
    intention: str
    templates: dict[str, tuple[str, ...]]
    reversible: bool


def generate(noise: float = 0.03, seed: int = 0) -> list[dict]:
    """Return the 1,600 / 200 / 200 rows of the corpus, in which ITERATER's five intentions are equally frequent.

    `noise` is the share of labels in every split (at most 0.05) that are replaced by another label. A row holds
    id, split, before, after, intention, template, kind, and `true_intention`, which is the intention before the noise.
    """
    if not 0 <= noise <= MOST_NOISE:
        raise ValueError(f"noise is {noise}; give a share of the labels from 0 to {MOST_NOISE}")
    return [row for split in SIZES for row in _split(split, noise, seed)]


@cache
def kinds() -> tuple[Kind, ...]:
    """Return every kind of edit in the grammar, in label order."""
    return tuple(kind for label in LABELS for kind in _parse(label, GRAMMAR[label]))


def _parse(intention: str, text: str) -> list[Kind]:
    """Return the kinds of edit in one intention's block: headings, each with its templates indented below it."""
    found = []
    for heading, body in re.findall(r"^(\S.*)\n((?: +.*\n)+)", text, flags=re.MULTILINE):
        lines = [line.strip() for line in body.splitlines()]
        by_split = {"train": tuple(lines[:-2]), "validation": (lines[-2],), "test": (lines[-1],)}
        found.append(Kind(heading.rstrip(" ~"), intention, by_split, heading.endswith("~")))
    return found


def _split(split: str, noise: float, seed: int) -> list[dict]:
    """Return one split: equally many rows of each intention, its kinds in turn, shuffled, and then with noise."""
    generator = random.Random(f"{split} {seed}")
    share, seen, drawn = SIZES[split] // len(LABELS), set(), []
    for label in LABELS:
        candidates = [kind for kind in kinds() if kind.intention == label]
        drawn += [_draw_new(candidates[number % len(candidates)], split, generator, seen) for number in range(share)]
    generator.shuffle(drawn)
    noisy = set(generator.sample(range(len(drawn)), round(noise * len(drawn))))
    return [_row(split, n, row, n in noisy, generator) for n, row in enumerate(drawn)]


def _row(split: str, number: int, drawn: dict, noisy: bool, generator: random.Random) -> dict:
    """Return the row of a draw. A noisy row gets an intention that is not its true one."""
    others = [label for label in LABELS if label != drawn["true_intention"]]
    intention = generator.choice(others) if noisy else drawn["true_intention"]
    texts = {"before": drawn["before"], "after": drawn["after"], "intention": intention}
    return {"id": f"synthetic-{split}-{number:04d}", "split": split} | texts | drawn


def _draw_new(kind: Kind, split: str, generator: random.Random, seen: set) -> dict:
    """Draw until the two sides differ and are new. Return the draw and add its sides to `seen`."""
    while True:
        row = _draw(kind, split, generator)
        if row["before"] != row["after"] and (row["before"], row["after"]) not in seen:
            seen.add((row["before"], row["after"]))
            return row


def _draw(kind: Kind, split: str, generator: random.Random) -> dict:
    """Return both sides of a random template of the kind, with random alternatives and words."""
    template = generator.choice(kind.templates[split])
    text = template
    for name in PHRASES:  # one choice per phrase, since a template may repeat it
        if f"<{name}>" in text:
            text = text.replace(f"<{name}>", _choose(PHRASES[name], generator))
    text = _choose(text, generator)
    words = _words(text, split, generator)
    opener = "" if text.startswith("[") else generator.choice(OPENERS[split].split("|"))
    sides = [_sentence(opener + EDIT.sub(rf"\{side}", text).format(**words)) for side in (1, 2)]
    if kind.reversible and generator.random() < 0.5:
        sides.reverse()
    record = {"template": template, "kind": kind.name, "true_intention": kind.intention}
    return {"before": sides[0], "after": sides[1]} | record


def _choose(text: str, generator: random.Random) -> str:
    """Return the text with one alternative of each `(x/y)` chosen, the innermost first."""
    while CHOICE.search(text):
        text = CHOICE.sub(lambda found: generator.choice(found[1].split("/")), text, count=1)
    return text


def _words(text: str, split: str, generator: random.Random) -> dict[str, Word]:
    """Return a word of the right type for each slot of the text. No two slots get the same word."""
    slots = sorted(set(SLOT.findall(text)))
    words = {}
    for letter in sorted({letter for letter, _ in slots}):
        names = [letter + number for kind, number in slots if kind == letter]
        pool = SHARED[letter].split() if letter in SHARED else _pool(WORDS[split][letter])
        words |= dict(zip(names, map(Word, generator.sample(pool, len(names))), strict=True))
    return words


def _pool(text: str) -> Sequence[str]:
    """Return the entries of a word list. The left half of a pair may hold spaces."""
    return re.findall(r"[^:\s][^:]*?:\S+", text) if ":" in text else text.split()


def _sentence(text: str) -> str:
    """Return a text with tidy spaces, capitals and a closing mark. An empty side stays empty."""
    text = re.sub(r"\s+([,.;:!?])", r"\1", " ".join(text.split())).strip()
    text = re.sub(r"^,\s*|,(?=[,.])", "", text)
    text = re.sub(r"(^|[.!?] )([a-z])", lambda found: found[1] + found[2].upper(), text)
    return text if not text or text[-1] in ".!?" else text + "."


def write(path: Path, rows: list[dict]) -> None:
    """Write the rows as a CSV file."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, rows[0], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET, generate())
