"""Files read into rows that know their file and line, so that every error message can name them."""

import csv
import io
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from irtuning.errors import InputError, brief


class Row(NamedTuple):
    """One row of a table: its position in words, its line or row number (from 1), and its cells by column name."""

    where: str
    line: int
    cells: Mapping[str, object]

    def text(self, column: str) -> str:
        """Return a cell as stripped text, "" for a missing one (None or NaN)."""
        value = self.cells.get(column)
        if value is None or value != value:
            return ""
        if not isinstance(value, str | int | float):
            raise InputError(f"{self.where}: {column!r} must be text, got {type(value).__name__} {brief(value)}")
        return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()

    def parts(self, column: str) -> list[str]:
        """Return the parts of a cell that lists texts with commas between them."""
        return [part for part in self.text(column).split(",") if part]


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a .csv, .tsv, .jsonl or .json (objects) or .xlsx (first sheet) file, or raise InputError."""
    if not (reader := READERS.get(path.suffix.lower())):
        raise InputError(f"{path}: cannot read files that end in {path.suffix!r}; give one of {', '.join(READERS)}")
    if rows := reader(path):
        return rows
    raise InputError(f"{path} holds no rows; give a file with at least one revision")


def read_sheets(path: Path) -> dict[str, list[Row]]:
    """Return the rows of every sheet of an .xlsx workbook by title. The first row of a sheet names the columns."""
    import pandas

    options = {"sheet_name": None, "header": None, "dtype": object, "keep_default_na": False, "engine": "openpyxl"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # openpyxl warns of unknown styles, which do not change the values
            grids = pandas.read_excel(path, **options)
    except Exception as err:  # a damaged workbook raises errors of zipfile, the XML parser or openpyxl
        raise InputError(f"{path} cannot be read as an .xlsx workbook ({err!s:.200}); save it again as .xlsx") from err
    return {t: _table(enumerate(grid.values.tolist(), 1), f"{path}, sheet {t!r}, row") for t, grid in grids.items()}


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, without a byte order mark."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}: {error.reason}); save it as UTF-8") from error


def parse_object(text: str, where: str) -> dict:
    """Return the JSON object that a text holds. `where` names the text in the error message."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{where} must hold one JSON object, got {type(value).__name__}")
    return value


def require(rows: Iterable[Row], columns: Sequence[str]) -> None:
    """Raise InputError for the first row that lacks one of the columns. A cell may be empty."""
    for row in rows:
        if missing := ", ".join(repr(column) for column in columns if column not in row.cells):
            raise InputError(f"{row.where}: no column {missing}; expected {[*columns]}, found {brief([*row.cells])}")


def _read_jsonl(path: Path) -> list[Row]:
    lines = [(f"{path}, line {n}", n, text) for n, text in enumerate(read_text(path).split("\n"), start=1)]
    return [Row(where, n, parse_object(text, where)) for where, n, text in lines if text.strip()]


def _read_csv(path: Path, delimiter: str = ",") -> list[Row]:
    # not through pandas, which does not say on which line of the file a row is
    lines = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=delimiter, strict=True)
    try:
        return _table(((lines.line_num, cells) for cells in lines), f"{path}, line")
    except csv.Error as error:
        raise InputError(f"{path}, line {lines.line_num} is malformed: {error}; correct that line") from error


def _table(numbered: Iterable[tuple[int, list]], where: str) -> list[Row]:
    """Return rows under the column names of the first row that is not empty. Empty rows are left out."""
    columns, rows = [], []
    for line, cells in numbered:
        while cells and cells[-1] in (None, ""):
            cells.pop()
        if not columns:
            columns = [str(cell or "").strip() for cell in cells]
            if len(set(columns)) < len(columns):
                raise InputError(f"{where} {line}: column names occur twice in {brief(columns)}; rename them")
        elif len(cells) > len(columns):
            problem = f"has {len(cells)} cells for {len(columns)} columns {brief(columns)}"
            raise InputError(f"{where} {line} {problem}; quote a text that holds the separator")
        elif cells:
            rows.append(Row(f"{where} {line}", line, dict.fromkeys(columns) | dict(zip(columns, cells, strict=False))))
    return rows


READERS = {
    ".csv": _read_csv, ".tsv": partial(_read_csv, delimiter="\t"), ".jsonl": _read_jsonl, ".json": _read_jsonl,
    ".xlsx": lambda path: next(iter(read_sheets(path).values()), []),
}  # fmt: skip
