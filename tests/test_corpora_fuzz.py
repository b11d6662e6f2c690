"""Whatever the bytes or rows, a loader gives a corpus or an InputError, never another exception."""

import json
import zipfile
from pathlib import Path

import openpyxl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irtuning.corpora import Corpus, load_corpus
from irtuning.corpora.argrewrite import COLUMNS, EDITS, read_workbook
from irtuning.corpora.arxivedits import COARSE, GOLD, read_edits
from irtuning.corpora.reading import read_rows
from irtuning.errors import InputError

# The folder may be shared by examples (each overwrites its file); no deadline, since machines differ.
QUICK = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FEW = settings(QUICK, max_examples=25)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
CELL = (
    st.none() | st.booleans() | st.integers(-2, 12) | st.floats(-2, 3) | st.sampled_from(["1", "1,2", "ADD", "", "x"])
)


def usually(strategy, other=JSON, odds=40):
    """The expected kind of value all but one time in so many, so that most examples get past the first check."""
    return st.integers(1, odds).flatmap(lambda n: other if n == odds else strategy)


def attempt(load, *arguments, **options) -> Corpus | list | None:
    """The result with its checksum computed, None where the input was refused."""
    try:
        result = load(*arguments, **options)
        return result.checksum and result if isinstance(result, Corpus) else list(result)
    except InputError as error:
        assert str(error)
        return None


@QUICK
@given(content=st.binary(max_size=200), ending=st.sampled_from(["csv", "tsv", "jsonl", "json", "xlsx"]))
def test_any_bytes(tmp_path, content, ending):
    path = tmp_path / f"own.{ending}"
    path.write_bytes(content)
    attempt(read_rows, path)
    attempt(load_corpus, path)
    attempt(read_edits, path)


@QUICK
@given(
    text=st.text(st.sampled_from('ab,"\n\r\t\\{}[]:0\x00\ufeff'), max_size=60), ending=st.sampled_from(["csv", "jsonl"])
)
def test_any_text_under_a_header(tmp_path, text, ending):
    path = tmp_path / f"own.{ending}"
    path.write_bytes(("before,after,label\n" + text).encode())
    attempt(load_corpus, path)


ROW = st.fixed_dictionaries(
    {
        "before": st.text(max_size=5),
        "after": usually(st.text(min_size=1, max_size=5), odds=200),
        "label": usually(st.sampled_from(["a", "b"]), odds=200),
        "who": usually(st.sampled_from("pqrstuvwxyz"), odds=200),
    }
)


@QUICK
@given(
    rows=st.lists(ROW, max_size=40),
    strange=st.lists(usually(JSON, ROW), max_size=1),
    group=st.sampled_from([None, "who"]),
    fold=st.integers(0, 4),
)
def test_any_json_rows(tmp_path, rows, strange, group, fold):
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(map(json.dumps, rows + strange)), encoding="utf-8")
    attempt(load_corpus, path, group=group, fold=fold)


def test_plain_rows_are_accepted(tmp_path):
    """The fuzz above would prove nothing if everything were refused."""
    rows = [{"before": "x", "after": "y", "label": "ab"[i % 2], "who": str(i)} for i in range(20)]
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert attempt(load_corpus, path, group="who") is not None


SPAN = st.sampled_from([None, [0, 1], [1, 3], [2, 4]])
EDIT = st.fixed_dictionaries(
    {
        "type": usually(st.just("Substitute")),
        "intention": usually(st.sampled_from(list(COARSE))),
        "sentence-1-token-indices": usually(SPAN),
        "sentence-2-token-indices": usually(SPAN),
    }
)
PAIR = st.fixed_dictionaries(
    {
        "sentence-1": usually(st.sampled_from(["a b c d", "a\u00a0b  c d"])),
        "sentence-2": usually(st.just("a b c d")),
        "arxiv-id": usually(st.just("1")),
        "easy-or-hard": usually(st.just("easy")),
        "sentence-1-level": usually(st.just(1)),
        "sentence-2-level": usually(st.just(2)),
        GOLD: usually(st.dictionaries(st.text(max_size=3), usually(EDIT), max_size=2)),
    }
)


@QUICK
@given(pairs=usually(st.dictionaries(st.text(max_size=3), usually(PAIR), max_size=3)))
def test_any_sentence_pairs(tmp_path, pairs):
    for name in ("train", "dev", "test"):
        folder = tmp_path / "data" / "edits"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(pairs), encoding="utf-8")
    attempt(read_edits, folder / "train.json")
    attempt(load_corpus, "arxivedits", tmp_path)


MARKS = st.sampled_from(
    [
        (None, None, None),
        ("Evidence", "Modify", "1"),
        ("Precision", "Add", "2"),
        ("Unannotated", "Delete", "3"),
        ("Evidence,Precision", "Modify,Add", "1,2"),
    ]
)
SHEET = st.lists(
    st.tuples(
        st.sampled_from(["One.", "Two  words."]),
        usually(st.sampled_from(["ADD", "DELETE", "1", "2", "1,2"]), CELL),
        st.sampled_from([0, 1, None]),
        usually(st.sampled_from([1, None]), CELL),
        usually(st.sampled_from([1, None]), CELL),
        usually(MARKS, st.tuples(CELL, CELL, CELL)),
        usually(st.sampled_from(["", "[(0,1), (-1,-1), 7, 3]", "[(0,1), (1,2), 99, 9]"]), CELL),
        usually(st.none(), CELL),
    ),
    max_size=4,
)


def sheet_row(number: int, cells: tuple) -> tuple:
    *front, marks, edits, strange = cells
    return (number if strange is None else strange, *front, *marks, edits)


@FEW
@given(old=SHEET, new=SHEET)
def test_any_workbook_rows(tmp_path, old, new):
    path = tmp_path / "A" / "12" / "Annotation_2018argrewrite_1.xlsx"
    path.parent.mkdir(parents=True, exist_ok=True)
    book = openpyxl.Workbook()
    for sheet, rows in ((book.active, old), (book.create_sheet(), new)):
        sheet.title = "Old Draft" if rows is old and sheet is book.active else "New Draft"
        for row in [(*COLUMNS, EDITS), *(sheet_row(n, cells) for n, cells in enumerate(rows, start=1))]:
            sheet.append(row)
    book.save(path)
    attempt(read_workbook, path)


@pytest.fixture(scope="module")
def workbook(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("book") / "own.xlsx"
    book = openpyxl.Workbook()
    for row in (["before", "after", "label"], *([f"a{i}", "b", "xy"[i % 2]] for i in range(20))):
        book.active.append(row)
    book.save(path)
    return path.read_bytes()


@QUICK
@given(place=st.integers(0, 10_000), value=st.integers(0, 255), length=st.integers(0, 10_000))
def test_any_damaged_workbook(tmp_path, workbook, place, value, length):
    damaged = bytearray(workbook)
    damaged[place % len(damaged)] = value
    path = tmp_path / "own.xlsx"
    path.write_bytes(damaged if length % 3 else damaged[: length % len(damaged)])
    attempt(load_corpus, path)


@FEW
@given(
    name=st.sampled_from(["xl/workbook.xml", "xl/worksheets/sheet1.xml", "[Content_Types].xml"]),
    junk=st.binary(max_size=40),
)
def test_any_part_of_a_workbook(tmp_path, workbook, name, junk):
    (tmp_path / "whole.zip").write_bytes(workbook)
    path = Path(tmp_path / "own.xlsx")
    with zipfile.ZipFile(tmp_path / "whole.zip") as whole, zipfile.ZipFile(path, "w") as changed:
        for part in whole.namelist():
            changed.writestr(part, junk if part == name else whole.read(part))
    attempt(load_corpus, path)
