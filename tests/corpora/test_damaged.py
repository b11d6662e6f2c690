"""Files of every kind we read, damaged in every way we know: each loads or is refused by name, soon and in little memory."""

import io
import json
import os
import random
import resource
import signal
import sys
import zipfile
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import openpyxl
import pytest

from irtuning.corpora.load import load_corpus
from irtuning.corpora.argrewrite import COLUMNS, EDITS, read_workbook
from irtuning.corpora.arxivedits import COARSE, GOLD, read_edits
from irtuning.corpora.public import ARGREVISION_LABELS, ITERATER_LABELS
from irtuning.errors import InputError

SECONDS, WAIT = (
    5,
    60,
)  # what one file may take of the processor's time and, in case it waits for something, by the clock
GROWTH = 2**30  # bytes that all of them may take of memory
STRANGE = (
    None, True, -1, 0, 3.5, 1e308, float("nan"), float("inf"), 10**30, "", " ", "\ud800", "\x00", "a\nb", "é" * 9, [], {}, [[]],
    {"a": {"b": []}}, "x" * 300_000, "=1+1", "#REF!",
)  # fmt: skip
MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


def rows_of(columns, labels) -> list[dict]:
    before, after, label, group = columns
    return [
        {before: f"Old {i}.", after: f"New {i}, “é”.", label: labels[i % len(labels)], group: f"w{i // 2}"}
        for i in range(40)
    ]


def as_csv(rows, delimiter=",") -> bytes:
    lines = [list(rows[0]), *(row.values() for row in rows)]
    return "".join(delimiter.join(f'"{cell}"' for cell in line) + "\r\n" for line in lines).encode()


def as_jsonl(rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_xlsx(sheets: dict) -> bytes:
    book, stream = openpyxl.Workbook(), io.BytesIO()
    book.remove(book.active)
    for title, lines in sheets.items():
        sheet = book.create_sheet(title)
        for line in lines:
            sheet.append(line)
    book.save(stream)
    return stream.getvalue()


@cache
def whole_files() -> dict:
    """By kind of corpus: the file to damage, the others beside it, and how it is loaded."""
    own = rows_of(("before", "after", "label", "who"), "abc")
    iterater = as_jsonl(rows_of(("before_sent", "after_sent", "labels", "doc_id"), ITERATER_LABELS))
    revisions = rows_of(("old_sentences", "new_sentences", "purpose_labels", "essay"), ARGREVISION_LABELS)
    draft = [[i, f"S {i}.", i, 0, 1, 1, "Evidence", "Modify", str(i), "[(0,1), (0,1), 7, 3]"] for i in range(1, 6)]
    edit = {
        "type": "Substitute",
        "intention": next(iter(COARSE)),
        "sentence-1-token-indices": [0, 1],
        "sentence-2-token-indices": None,
    }
    pair = {"sentence-1": "a b", "sentence-2": "b", "arxiv-id": "1", "easy-or-hard": "easy", "sentence-1-level": 1,
            "sentence-2-level": 2, GOLD: {"0": edit}}  # fmt: skip
    grid = [list(own[0]), *(list(row.values()) for row in own)]
    drafts = {title: [[*COLUMNS, EDITS], *draft] for title in ("Old Draft", "New Draft")}
    load = {"who": lambda path: load_corpus(path, group="who")}
    rest = {f"{split}.jsonl": iterater for split in ("validation", "test")}
    return {
        "csv": ("own.csv", as_csv(own), {}, load["who"]),
        "tsv": ("own.tsv", as_csv(own, "\t"), {}, load["who"]),
        "jsonl": ("own.jsonl", as_jsonl(own), {}, load["who"]),
        "json": ("own.json", as_jsonl(own), {}, load_corpus),
        "xlsx": ("own.xlsx", as_xlsx({"Sheet": grid}), {}, load["who"]),
        "iterater": ("train.jsonl", iterater, rest, lambda path: load_corpus("iterater", path.parent)),
        "argrevision": ("argrevision.csv", as_csv(revisions), {}, lambda path: load_corpus("argrevision", path.parent)),
        "arxivedits": (
            "train.json",
            json.dumps({str(i): pair for i in range(9)}).encode(),
            {},
            lambda path: list(read_edits(path)),
        ),
        "argrewrite": ("A/12/Annotation_2018argrewrite_1.xlsx", as_xlsx(drafts), {}, read_workbook),
    }


def cut(content, rng):
    return content[: rng.randrange(len(content))]


def flip(content, rng):
    changed = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def insert(content, rng):
    at = rng.randrange(len(content))
    return (
        content[:at]
        + rng.choice([b"\x00", b"\x00" * 999, rng.randbytes(9), b'"', b"\xff", b"\r", b"\xef\xbb\xbf", b"}{", b"<"])
        + content[at:]
    )


def move(content, rng):
    """A slice lost, doubled or put elsewhere."""
    a, b = sorted(rng.randrange(len(content)) for _ in range(2))
    return rng.choice([content[:a] + content[b:], content[:b] + content[a:], content[b:] + content[:a]])


def replace(content, rng):
    """Nothing, another encoding, the content twice, or junk in place of the content."""
    text = content.decode("latin-1")
    junk = [
        b"",
        b"\n" * 99,
        b"\xef\xbb\xbf" + content,
        content * 2,
        rng.randbytes(200),
        b"PK\x03\x04",
        b"null",
        b"{}",
        b"[1]",
    ]
    return rng.choice([*junk, text.encode("utf-16"), text.encode("utf-32"), text.replace("e", "ÿ").encode("latin-1")])


def lines(content, rng):
    """A table's rows and columns in disorder: only a header, a doubled or missing column, ragged or huge rows."""
    rows = content.split(b"\n")
    mark = b"\t" if b"\t" in content else b","
    at = rng.randrange(len(rows))
    wide = mark.join(b"c%d" % i for i in range(20_000))
    changed = rng.choice([
        rows[:1], rows[1:], [rows[0] + mark + rows[0], *rows[1:]], [rows[0].replace(b"e", b"f"), *rows[1:]],
        [*rows[:at], rows[at] + mark + b"more", *rows[at + 1 :]], [*rows[:at], rows[at].split(mark)[0], *rows[at + 1 :]],
        [*rows[:at], b"x" * rng.choice([131_073, 2_000_000]), *rows[at:]], [*rows[:at], b'"' + rows[at], *rows[at + 1 :]],
        [wide, *[b"x"] * 2_000], [rows[0], *[b"u%d" % i + mark + b"v" + mark + b"l%d" % i + mark + b"w" for i in range(5_000)]],
    ])  # fmt: skip
    return b"\n".join(changed)


def values(content, rng):
    """JSON with a strange value somewhere, or nested as deep as a parser or its reporter may just not bear."""
    deep = rng.choice([5, 50, 300, 900, 950, 980, 990, 1000, 5_000, 200_000])
    nested = rng.choice(["[" * deep + "]" * deep, '{"a":' * deep + "1" + "}" * deep, "[" * deep])
    text = content.decode()
    parts = text.split(":")
    at = rng.randrange(1, len(parts))
    old = parts[at].split(",")[0].rstrip("}\n")
    new = rng.choice([nested, "9" * 5_000, "NaN", json.dumps(rng.choice(STRANGE))])
    return ":".join([*parts[:at], parts[at].replace(old, new, 1), *parts[at + 1 :]]).encode(errors="surrogatepass")


@cache
def bomb() -> bytes:
    """A sheet of 64 MB whose rows pack to a hundredth of it and take long to read."""
    return (
        b'<worksheet xmlns="%s"><sheetData>' % MAIN.encode()
        + b"<row><c><v>1</v></c></row>" * 2_400_000
        + b"</sheetData></worksheet>"
    )


ENTITIES = ('<!DOCTYPE a [<!ENTITY b "ha">' + "".join(f'<!ENTITY b{i} "{f"&b{i - 1 if i else str()};" * 20}">' for i in range(9)) + "]>").encode()  # fmt: skip


def workbook(content, rng):
    """A workbook with a part missing, changed, or made to grow when it is read."""
    with zipfile.ZipFile(io.BytesIO(content)) as whole:
        parts = {name: whole.read(name) for name in whole.namelist()}
    name = rng.choice(sorted(parts))
    sheet = next(n for n in sorted(parts) if "sheet1" in n and "rels" not in n)
    kind = rng.choice(["drop", "junk", "flip", "cut", "row", "column", "far", "entities", "bomb", "twice"])
    if kind == "drop":
        del parts[name]
    elif kind in ("junk", "flip", "cut"):
        parts[name] = {"junk": lambda c, r: r.randbytes(40), "flip": flip, "cut": cut}[kind](parts[name], rng)
    elif kind in ("row", "column", "far"):
        old, new = {
            "row": (b'r="3"', b'r="99999999999"'),
            "column": (b'r="A3"', b'r="ZZZ3"'),
            "far": (b'r="3"', b'r="1048576"'),
        }[kind]
        parts[sheet] = parts[sheet].replace(old, new)
    elif kind == "entities":
        parts[name] = ENTITIES + parts[name].replace(b"><", b">&b8;<", 3)
    elif kind == "bomb":
        parts[sheet] = bomb()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as changed:
        for part, body in parts.items():
            changed.writestr(part, body)
    return stream.getvalue() * (2 if kind == "twice" else 1)


def instead(path, rng):
    """Something else than the file under its name, or the file under another one."""
    content = path.read_bytes()
    path.unlink()
    kind = rng.choice(["nothing", "folder", "pipe", "loop", "device", "ending", "sparse"])
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "sparse":
        with path.open("wb") as stream:
            stream.truncate(2**40)
    elif kind == "ending":
        path = path.with_suffix(rng.choice([".csv", ".tsv", ".json", ".jsonl", ".xlsx", ".txt", ""]))
        path.write_bytes(content)
    return path


def damage(number: int, folder: Path):
    """The `number`th damaged file: its path, how to load it, and what was done."""
    rng, kinds = random.Random(f"damaged {number}"), whole_files()
    kind = list(kinds)[number % len(kinds)]
    name, content, beside, load = kinds[kind]
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    for other, body in beside.items():
        (folder / other).write_bytes(body)
    special = workbook if name.endswith("xlsx") else lines if name.endswith(("csv", "tsv")) else values
    change = rng.choice([cut, flip, insert, move, replace, special, special, special, instead])
    path.write_bytes(content if change is instead else change(content, rng))
    return (change(path, rng) if change is instead else path), load, f"{number}: {kind} {change.__name__}"


class Late(BaseException):
    """No Exception, so that no handler of ours can take it for a damaged file."""


TIMERS = {signal.ITIMER_PROF: (signal.SIGPROF, SECONDS), signal.ITIMER_REAL: (signal.SIGALRM, WAIT)}


@contextmanager
def in_time():
    def late(number, _):
        raise Late(signal.Signals(number).name)

    for timer, (number, seconds) in TIMERS.items():
        signal.signal(number, late)
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for timer in TIMERS:
            signal.setitimer(timer, 0)


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def refused(number: int, folder: Path) -> bool:
    """Whether a damaged file was refused, by its name or, for what only a whole corpus shows, the corpus's."""
    path, load, done = damage(number, folder)
    try:
        with in_time():
            load(path)
    except InputError as error:
        corpus = [f"corpus '{name}'" for name in ("iterater", "argrevision") if name in done]
        assert any(name in str(error) for name in (str(path), f"{folder} ", f"'{folder}'", *corpus)), f"{done}: {error}"
        assert len(str(error)) < 5_000, f"{done}: a message of {len(str(error)):,} letters"
        return True
    except BaseException as error:
        raise AssertionError(f"{done}: {type(error).__name__} {error}") from error
    return False


def count_refused(numbers, tmp_path) -> int:
    bomb(), whole_files()
    before = peak()
    found = 0
    for number in numbers:
        folder = tmp_path / str(number)
        found += refused(number, folder)
    assert peak() - before < GROWTH
    return found


def test_200_damaged_files(tmp_path):
    assert 100 < count_refused(range(200), tmp_path) < 200


@pytest.mark.soak
def test_10_000_damaged_files(tmp_path):
    assert 5_000 < count_refused(range(10_000), tmp_path) < 10_000


def test_a_workbook_that_unpacks_to_very_much_is_not_unpacked(tmp_path):
    path = tmp_path / "own.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as small:
        small.writestr("xl/worksheets/sheet1.xml", bomb())
    with pytest.raises(InputError, match=r"own\.xlsx .* unpack to 62,400,112, more than"):
        load_corpus(path)


def test_the_files_are_whole_before(tmp_path):
    for kind, (name, content, beside, load) in whole_files().items():
        path = tmp_path / kind / name
        path.parent.mkdir(parents=True)
        for other, body in {path: content}.items() | {path.parent / n: b for n, b in beside.items()}.items():
            other.write_bytes(body)
        assert load(path)
