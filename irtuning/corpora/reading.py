"""Files read into rows that know where they stand, so that every complaint can name a file and a line."""

import csv
import io
import json
import math
import stat
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from irtuning.errors import InputError, brief

# What a damaged or hostile file may take; a corpus of revisions is far below.
LARGEST = 2**28  # bytes of a file, and of a workbook unpacked
EXPANSION = 50  # times its size that a workbook may unpack to, where that is more than 8 MiB; text packs to a tenth
COLUMNS = 1000  # of one table
CELLS = 2**23  # of one table: half a million rows of 16 columns
ROW_COST = 8  # in cells, since an empty row takes time too


class Row(NamedTuple):
    """One row of a table: its place in words, its line or row number (from 1), and its cells by column name."""

    where: str
    line: int
    cells: Mapping[str, object]

    def text(self, column: str) -> str:
        """A cell as stripped text: "" where it is missing, numbers as written; InputError for anything else."""
        return as_text(self.cells.get(column), f"{self.where}: {column!r}")

    def integer(self, column: str) -> int | None:
        """A cell as a whole number, None where it is missing."""
        value = self.cells.get(column)
        if value is None or value == "":
            return None
        if isinstance(value, int | float) and math.isfinite(value) and value == int(value):
            return int(value)
        raise InputError(f"{self.where}: {column!r} must be a whole number, got {value!r}")


def as_text(value: object, where: str) -> str:
    """A spreadsheet's or JSON value as stripped text; a missing one (None, NaN) is ""."""
    if value is None or isinstance(value, float) and math.isnan(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int | float):
        raise InputError(f"{where} must be text, got {type(value).__name__} {brief(value)}")
    text = str(value).strip()
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where} holds half a character ({error.object[error.start]!r}); save it again") from error
    return text


def read_rows(path: Path) -> list[Row]:
    """The rows of a .csv, .tsv, .jsonl (or .json with an object per line) or .xlsx file (its first sheet).

    InputError, naming the file and the line, for another ending, an unreadable or malformed file, or no rows.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: cannot read files that end in {path.suffix!r}; give one of {', '.join(READERS)}")
    rows = reader(path)
    if not rows:
        raise InputError(f"{path} holds no rows; give a file with at least one revision")
    return rows


def read_sheets(path: Path) -> dict[str, list[Row]]:
    """Every sheet of an .xlsx workbook by title; the first row of each names the columns."""
    import openpyxl

    content, room = io.BytesIO(_read(path)), CELLS
    try:
        _check_expansion(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # styles and extensions openpyxl does not know; values are unaffected
            grids = {}
            for sheet in openpyxl.load_workbook(content, read_only=True, data_only=True).worksheets:
                sheet.reset_dimensions()  # a wrong stored size would cut the sheet off
                grid = grids[sheet.title] = []
                for row in sheet.iter_rows(values_only=True):
                    room -= len(row) + ROW_COST
                    if room < 0:
                        raise ValueError(f"more than {CELLS:,} cells, empty ones included")
                    grid.append(row)
    except Exception as error:  # openpyxl passes on whatever zipfile, the XML parser or a bad cell raises
        raise InputError(
            f"{path} is not an .xlsx workbook that can be read ({str(error)[:200]}); save it again as .xlsx"
        ) from error
    return {title: _table(enumerate(grid, start=1), f"{path}, sheet {title!r}, row") for title, grid in grids.items()}


def read_json(path: Path) -> object:
    """A whole JSON file."""
    return _parse(read_text(path), str(path))


def read_text(path: Path) -> str:
    """A whole UTF-8 file (a byte order mark is dropped)."""
    try:
        return _read(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}: {error.reason}); save it as UTF-8") from error


def require(rows: Iterable[Row], columns: Iterable[str]) -> None:
    """Refuse the first row that lacks one of the columns; a cell may be empty, its column may not be missing."""
    columns = list(columns)
    for row in rows:
        missing = [column for column in columns if column not in row.cells]
        if missing:
            raise InputError(
                f"{row.where}: no column {', '.join(map(repr, missing))}; expected {columns}, found {brief(list(row.cells))}"
            )


def _read(path: Path) -> bytes:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe or a device may never end
            raise InputError(f"{path} is not a regular file; give one")
        if found.st_size > LARGEST:
            raise InputError(f"{path} has {found.st_size:,} bytes, the most is {LARGEST:,}; split it")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def _check_expansion(workbook: io.BytesIO) -> None:
    """ValueError for a workbook that unpacks to very much; zipfile reads no more than the sizes it states."""
    size = len(workbook.getbuffer())
    unpacked = sum(part.file_size for part in zipfile.ZipFile(workbook).infolist())
    most = max(2**23, min(LARGEST, EXPANSION * size))
    if unpacked > most:
        raise ValueError(f"its {size:,} bytes unpack to {unpacked:,}, more than {most:,}")


def _parse(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON: {error}") from error


def _read_jsonl(path: Path) -> list[Row]:
    rows = []
    for line, text in enumerate(read_text(path).split("\n"), start=1):
        if text.strip():
            cells = _parse(text, f"{path}, line {line}")
            if not isinstance(cells, dict):
                raise InputError(f"{path}, line {line} is not a JSON object; write one object per line")
            rows.append(Row(f"{path}, line {line}", line, cells))
    return rows


def _read_csv(path: Path, delimiter: str = ",") -> list[Row]:
    lines = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=delimiter, strict=True)
    try:
        return _table(((lines.line_num, cells) for cells in lines), f"{path}, line")
    except csv.Error as error:
        raise InputError(f"{path}, line {lines.line_num} is malformed: {error}") from error


def _read_first_sheet(path: Path) -> list[Row]:
    return next(iter(read_sheets(path).values()), [])


def _table(numbered: Iterable[tuple[int, Iterable[object]]], where: str) -> list[Row]:
    """Rows under the column names that the first non-empty one gives; empty rows are passed over."""
    columns: list[str] | None = None
    rows, room = [], CELLS
    for line, cells in numbered:
        cells = list(cells)
        filled = [place for place, cell in enumerate(cells, start=1) if cell not in (None, "")]
        if columns is None and filled:
            columns = [as_text(cell, f"{where} {line}: a column name") for cell in cells[: filled[-1]]]
            if len(columns) > COLUMNS:
                raise InputError(f"{where} {line} names {len(columns):,} columns, the most is {COLUMNS:,}; drop some")
            if len(set(columns)) < len(columns):
                raise InputError(f"{where} {line}: column names occur twice in {brief(columns)}; rename them")
        elif filled:
            if filled[-1] > len(columns):
                raise InputError(f"{where} {line} has {filled[-1]} cells for {len(columns)} columns {brief(columns)}")
            room -= len(columns)
            if room < 0:
                raise InputError(f"{where} {line} is beyond {CELLS:,} cells; split the file")
            rows.append(Row(f"{where} {line}", line, dict(zip_longest(columns, cells[: len(columns)]))))
    return rows


READERS = {
    ".csv": _read_csv,
    ".tsv": lambda path: _read_csv(path, "\t"),
    ".jsonl": _read_jsonl,
    ".json": _read_jsonl,
    ".xlsx": _read_first_sheet,
}
