"""Files read into rows that know their file and line, so that every error message can name them."""

import csv
import io
import json
import math
import warnings
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from irtuning.errors import InputError, brief


class Row(NamedTuple):
    """One row of a table: its position in words, its line or row number (from 1), and its cells by column name."""

    where: str
    line: int
    cells: Mapping[str, object]

    def text(self, column: str) -> str:
        """Return a cell as stripped text, "" where it is missing."""
        return as_text(self.cells.get(column), f"{self.where}: {column!r}")

    def integer(self, column: str) -> int | None:
        """Return a cell as a whole number, None where it is missing."""
        value = self.cells.get(column)
        if value is None or value == "":
            return None
        if isinstance(value, int | float) and math.isfinite(value) and value == int(value):
            return int(value)
        raise InputError(f"{self.where}: {column!r} must be a whole number, got {value!r}")


def as_text(value: object, where: str) -> str:
    """Return a spreadsheet's or JSON value as stripped text, "" for a missing one (None or NaN).

    Raises:
        InputError: the value is neither text nor a number.
    """
    if value is None or isinstance(value, float) and math.isnan(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int | float):
        raise InputError(f"{where} must be text, got {type(value).__name__} {brief(value)}")
    return str(value).strip()


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a .csv, .tsv, .jsonl, .json (one object per line) or .xlsx file (first sheet).

    Raises:
        InputError: the ending is another one, or the file is unreadable, malformed or without rows.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: cannot read files that end in {path.suffix!r}; give one of {', '.join(READERS)}")
    rows = reader(path)
    if not rows:
        raise InputError(f"{path} holds no rows; give a file with at least one revision")
    return rows


def read_sheets(path: Path) -> dict[str, list[Row]]:
    """Return the rows of every sheet of an .xlsx workbook by title. The first row of a sheet names the columns."""
    import pandas

    content = io.BytesIO(_read(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # openpyxl warns of unknown styles, which do not change the values
            grids = pandas.read_excel(
                content, sheet_name=None, header=None, dtype=object, keep_default_na=False, engine="openpyxl"
            )
    except Exception as error:  # a damaged workbook raises errors of zipfile, the XML parser or openpyxl
        cause = str(error)[:200]
        raise InputError(f"{path} is not an .xlsx workbook that can be read ({cause}); save it again as .xlsx") from error
    return {
        title: _table(enumerate(grid.values.tolist(), start=1), f"{path}, sheet {title!r}, row")
        for title, grid in grids.items()
    }


def read_json(path: Path) -> object:
    """Return the content of a JSON file."""
    return _parse(read_text(path), str(path))


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, without a byte order mark."""
    try:
        return _read(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}: {error.reason}); save it as UTF-8") from error


def require(rows: Iterable[Row], columns: Iterable[str]) -> None:
    """Raise InputError for the first row that lacks one of the columns. A cell may be empty."""
    columns = list(columns)
    for row in rows:
        missing = [column for column in columns if column not in row.cells]
        if missing:
            names = ", ".join(map(repr, missing))
            raise InputError(f"{row.where}: no column {names}; expected {columns}, found {brief(list(row.cells))}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


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
    # pandas does not say on which line of the file a row is
    lines = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=delimiter, strict=True)
    try:
        return _table(((lines.line_num, cells) for cells in lines), f"{path}, line")
    except csv.Error as error:
        raise InputError(f"{path}, line {lines.line_num} is malformed: {error}; correct that line") from error


def _read_first_sheet(path: Path) -> list[Row]:
    return next(iter(read_sheets(path).values()), [])


def _table(numbered: Iterable[tuple[int, list]], where: str) -> list[Row]:
    """Return rows under the column names of the first row that is not empty. Empty rows are left out."""
    columns: list[str] | None = None
    rows = []
    for line, cells in numbered:
        filled = [number for number, cell in enumerate(cells, start=1) if cell not in (None, "")]
        if columns is None and filled:
            columns = [as_text(cell, f"{where} {line}: a column name") for cell in cells[: filled[-1]]]
            if len(set(columns)) < len(columns):
                raise InputError(f"{where} {line}: column names occur twice in {brief(columns)}; rename them")
        elif filled:
            if filled[-1] > len(columns):
                raise InputError(
                    f"{where} {line} has {filled[-1]} cells for {len(columns)} columns {brief(columns)}; "
                    "quote a text that holds the separator"
                )
            rows.append(Row(f"{where} {line}", line, dict(zip_longest(columns, cells[: len(columns)]))))
    return rows


READERS = {
    ".csv": _read_csv,
    ".tsv": lambda path: _read_csv(path, "\t"),
    ".jsonl": _read_jsonl,
    ".json": _read_jsonl,
    ".xlsx": _read_first_sheet,
}
