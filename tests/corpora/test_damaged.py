"""Damaged files of every kind that is read: each one loads or is refused by an error that names it."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_corpora import EDIT, PAIR, write_book, write_jsonl

from irtuning.corpora.argrewrite import COLUMNS, read_workbook
from irtuning.corpora.arxivedits import GOLD, read_edits
from irtuning.corpora.load import load_corpus
from irtuning.corpora.reading import read_rows
from irtuning.errors import InputError

# Examples share the folder, since each one overwrites its file. No deadline, since machines differ.
SHARED = [HealthCheck.function_scoped_fixture]
QUICK = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=SHARED)
ROWS = [dict(before=f"Old {i}.", after=f"New {i}, “é”.", label="abc"[i % 3], who=f"w{i // 2}") for i in range(40)]
GRID = [list(ROWS[0]), *(list(row.values()) for row in ROWS)]
DRAFT = [COLUMNS, *([i, f"S {i}.", i, 0, "Evidence", "Modify", str(i)] for i in range(1, 6))]
PAIRS = [{"0": PAIR | {GOLD: {"0": EDIT}}}]


def save_csv(path: Path, delimiter: str = ",") -> None:
    text = "".join(delimiter.join(f'"{cell}"' for cell in line) + "\r\n" for line in GRID)
    path.write_text(text, encoding="utf-8")


WHOLE = {
    "own.csv": (save_csv, load_corpus),
    "own.tsv": (lambda path: save_csv(path, "\t"), load_corpus),
    "own.jsonl": (lambda path: write_jsonl(path, ROWS), load_corpus),
    "own.xlsx": (lambda path: write_book(path, S=GRID), load_corpus),
    "train.json": (lambda path: write_jsonl(path, PAIRS), lambda path: list(read_edits(path))),
    "Annotation_2018argrewrite_1.xlsx": (lambda p: write_book(p, Old_Draft=DRAFT, New_Draft=DRAFT), read_workbook),
}


def damage(content: bytes, rng: random.Random) -> bytes:
    """Cut, change, insert, move or replace a part of the bytes."""
    a, b = sorted(rng.randrange(len(content)) for _ in range(2))
    junk = rng.choice([b"\x00", b'"', b"\xff", b"\r", b"\xef\xbb\xbf", b"}{", b"<", b"[" * 2000, rng.randbytes(9)])
    text = content.decode("latin-1")
    return rng.choice([
        content[:a], content[:a] + junk + content[a + len(junk) :], content[:a] + junk + content[a:],
        content[:a] + content[b:], content[:b] + content[a:], content * 2, junk, text.encode("utf-16"),
    ])  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_a_damaged_file_loads_or_is_refused_by_its_name(tmp_path, name):
    save, load = WHOLE[name]
    path = tmp_path / "A" / "12" / name
    path.parent.mkdir(parents=True)
    save(path)
    content, refused = path.read_bytes(), 0
    assert load(path)
    for number in range(25):
        path.write_bytes(damage(content, random.Random(f"{name} {number}")))
        try:
            load(path)
        except InputError as error:
            assert str(path) in str(error) and len(str(error)) < 5_000
            refused += 1
    assert 5 <= refused


def test_a_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "own.csv").symlink_to("own.csv")
    for path in (tmp_path / "own.csv", tmp_path / "absent.csv"):
        with pytest.raises(InputError, match=f"{path.name} cannot be read: .*"):
            read_rows(path)


@QUICK
@given(content=st.binary(max_size=200), ending=st.sampled_from(["csv", "tsv", "jsonl", "json", "xlsx"]))
def test_any_bytes(tmp_path, content, ending):
    path = tmp_path / f"own.{ending}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r".*own\."):
        load_corpus(path)
    with pytest.raises(InputError):
        list(read_edits(path))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@QUICK
@given(value=JSON, column=st.sampled_from(list(ROWS[0])), group=st.sampled_from([None, "who"]), fold=st.integers(0, 4))
def test_any_value_in_a_row(tmp_path, value, column, group, fold):
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(map(json.dumps, [*ROWS, ROWS[0] | {column: value}])), encoding="utf-8")
    try:
        assert load_corpus(path, group=group, fold=fold).checksum
    except InputError as error:
        assert str(path) in str(error)
