"""Files read into rows that know their file and line, so that every error message can name them."""

import csv
import io
import json
import logging
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from irtuning.errors import InputError, brief, unknown

logger = logging.getLogger(__name__)
ENCODINGS = (  # what Excel saves anywhere; of those that fit alike, the first is taken
    "cp1252", "cp1250", "cp1254", "cp1257", "cp1251", "cp1253", "cp1255", "cp1256", "cp874", "cp932", "cp949",
    "gb18030", "big5", "utf_16", "utf_32")  # fmt: skip
SEPARATORS = ",;\t|"


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


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a table, or raise InputError.

    A table is a .csv or .tsv file, a .jsonl or .json file (an object a line, or one array of objects), a .parquet file
    or the first sheet of an .xlsx file.
    """
    if not (reader := READERS.get(path.suffix.lower())):
        raise InputError(f"{path}: cannot read files that end in {path.suffix!r}; give one of {', '.join(READERS)}")
    try:
        rows = reader(path)
    except Exception as error:  # the readers of damaged workbooks and Parquet files raise many classes
        text = str(error) if isinstance(error, InputError) else f"{path} cannot be read ({error!s:.200}); save it again"
        raise InputError(text) from error
    if not rows:
        raise InputError(f"{path} holds no rows; give a file with at least one revision")
    return rows


def read_sheets(path: Path, most: int | None = None) -> dict[str, list[Row]]:
    """Return the rows of the first `most` sheets of a workbook by title. Their first rows name the columns."""
    import openpyxl
    with warnings.catch_warnings(action="ignore"):  # of unknown styles, which do not change the values
        sheets = openpyxl.load_workbook(path, data_only=True).worksheets[:most]
    return {s.title: _table(enumerate(map(list, s.values), 1), f"{path}, sheet {s.title!r}, row") for s in sheets}


def read_text(path: Path) -> str:
    """Return the text of a file without its byte order mark. An encoding other than UTF-8 is detected and logged."""
    try:
        return (content := path.read_bytes()).decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError:
        from charset_normalizer import from_bytes
    text = content.decode(errors="replace")
    damaged = 2 * text.count("\ufffd") < len(re.findall(r"[^\x00-\x7f]", text))  # UTF-8, but for a few bytes
    found = [] if damaged else from_bytes(content, cp_isolation=ENCODINGS)
    fits = [(m.chaos, -m.coherence, ENCODINGS.index(name)) for m in found for name in m.could_be_from_charset]
    if not fits:
        raise InputError(f"{path} is not UTF-8, and no other encoding fits it; save it as UTF-8")
    encoding = ENCODINGS[min(fits)[2]]
    logger.warning("%s is not UTF-8 and was read as %s; if letters are wrong, save it as UTF-8", path, encoding)
    return content.decode(encoding)


def with_columns(rows: Iterable[Row], columns: Sequence[str]) -> list[Row]:
    """Return the rows with these columns, whose names in the file may differ in case, spaces, hyphens and underscores.

    Raise InputError for the first row that lacks one.
    """
    made = []
    for row in rows:
        bare = [_bare(name) for name in row.cells]
        names = {key: name for key, name in zip(bare, row.cells, strict=True) if bare.count(key) == 1}
        renamed = {names[_bare(c)]: c for c in columns if c not in row.cells and _bare(c) in names}
        cells = {renamed.get(name, name): value for name, value in row.cells.items()}
        if missing := [column for column in columns if column not in cells]:
            cure = "rename a column, or give its name with --before, --after, --label or --group"
            raise InputError(f"{row.where}: {unknown('column', missing[0], map(str, cells))}; {cure}")
        made.append(row._replace(cells=cells))
    return made


def _bare(name: object) -> str:
    return re.sub(r"[\W_]", "", str(name)).casefold()


def rows_of_lines(text: str, where: str) -> list[Row]:
    """Return the rows of JSON Lines, without empty lines, or those of one array of objects."""
    rows, number, array = [], 1, text.lstrip().startswith("[")
    try:
        for number, line in enumerate(map(json.dumps, json.loads(text)) if array else text.split("\n"), start=1):
            if line.strip():
                rows.append(Row(f"{where}, {'item' if array else 'line'} {number}", number, {**json.loads(line)}))
    except (ValueError, TypeError, RecursionError) as error:  # such as "'int' object is not a mapping"
        raise InputError(f"{where}, row {number} is no JSON object ({error}); write each object on a line") from error
    return rows


def _read_parquet(path: Path) -> list[Row]:
    from pyarrow import parquet
    return [Row(f"{path}, row {n}", n, row) for n, row in enumerate(parquet.read_table(path).to_pylist(), start=1)]


def _read_csv(path: Path) -> list[Row]:
    # not through pandas, which does not say on which line of the file a row is
    text, usual = read_text(path), "\t" if path.suffix.lower() == ".tsv" else ","
    header = next(filter(str.strip, text.splitlines()), "")
    separator = max(usual + SEPARATORS, key=header.count)
    if separator != usual:
        logger.info("%s was read with %r between the cells", path, separator)
    reader, numbered = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True), []
    between = re.compile(re.escape(separator) + "(?! )")  # commas of prose have a space behind them
    try:
        if "\0" in text:
            raise csv.Error("it has zero bytes, such as UTF-16 without its mark; save it as UTF-8")
        for cells in reader:
            if any("\n" in cell and len(between.findall(cell)) >= header.count(separator) for cell in cells):
                raise csv.Error("its quotation mark joins it with the next row")
            numbered.append((reader.line_num, cells))
    except csv.Error as error:
        here = f"{path}, line {numbered[-1][0] + 1 if numbered else 1}"
        raise InputError(f"{here}: {error}; double a quotation mark inside a text, or save as .xlsx") from error
    return _table(numbered, f"{path}, line")


def _table(numbered: Iterable[tuple[int, list]], where: str) -> list[Row]:
    """Return rows under the column names of the first row that is not empty. Empty rows are left out."""
    columns, rows = None, []
    for line, cells in numbered:
        texts = ["" if cell is None else str(cell).strip() for cell in cells]
        if columns is None:
            columns = texts if any(texts) else None
            if repeated := [name for name, count in Counter(filter(None, texts)).items() if count > 1]:
                raise InputError(f"{where} {line}: column names occur twice: {brief(repeated)}; rename them")
        elif any(texts[len(columns) :]):
            problem = f"has {len(cells)} cells for {len(columns)} columns {brief(columns)}"
            raise InputError(f"{where} {line} {problem}; quote a text that holds the separator")
        elif any(texts):
            rows.append(Row(f"{where} {line}", line, dict(zip(columns, cells, strict=False))))
    return rows


READERS = {
    ".csv": _read_csv, ".tsv": _read_csv, ".parquet": _read_parquet,
    ".xlsx": lambda path: next(iter(read_sheets(path, 1).values())),
    **dict.fromkeys((".jsonl", ".json"), lambda path: rows_of_lines(read_text(path), str(path)))}  # fmt: skip
