"""Files read into rows that know their file and line, so that every error message can name them."""

import csv
import difflib
import io
import json
import logging
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from irtuning.errors import InputError, brief

logger = logging.getLogger(__name__)
ENCODINGS = (  # what Excel saves anywhere; of those that fit alike, the first is taken
    "cp1252", "cp1250", "cp1254", "cp1257", "cp1251", "cp1253", "cp1255", "cp1256", "cp874", "cp932", "cp949",
    "gb18030", "big5", "utf_16", "utf_32")  # fmt: skip
MOST_ROWS = 8  # named in one message
SEPARATORS = ",;\t|"
JSON_FORM = "write each object on a line of its own, or all of them in one array"


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
    if rows := reader(path):
        return rows
    raise InputError(f"{path} holds no rows; give a file with at least one revision")


def read_sheets(path: Path) -> dict[str, list[Row]]:
    """Return the rows of every sheet of an .xlsx workbook by title. The first row of a sheet names the columns."""
    return {title: _table(grid, f"{path}, sheet {title!r}, row") for title, grid in _grids(path).items()}


def read_text(path: Path) -> str:
    """Return the text of a file without its byte order mark. An encoding other than UTF-8 is detected and logged."""
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        if (text := _guess(content, path)) is None:
            line = content[: error.start].count(b"\n") + 1
            raise InputError(f"{path}, line {line} is not UTF-8 ({error.reason}); save the file as UTF-8") from error
    if "\0" in text:
        raise InputError(f"{path} holds zero bytes, so it is not text or lacks its encoding's mark; save it as UTF-8")
    return text


def _guess(content: bytes, path: Path) -> str | None:
    """Return the text in the encoding that fits best, or None where none fits or the file is UTF-8 with a fault."""
    from charset_normalizer import from_bytes
    text = content.decode("utf-8", errors="replace")
    strange = len(re.findall(r"[^\x00-\x7f]", text))
    if 2 * text.count("\ufffd") < strange or not (found := list(from_bytes(content, cp_isolation=ENCODINGS))):
        return None
    best = [match for match in found if (match.chaos, match.coherence) == (found[0].chaos, found[0].coherence)]
    encoding = min((name for match in best for name in match.could_be_from_charset), key=ENCODINGS.index)
    text = content.decode(encoding)
    sample = re.search(r"\w*[^\x00-\x7f]\w*", text)
    warning = "%s is not UTF-8 and was read as %s, such as %r; if letters are wrong, save it as UTF-8, as "
    logger.warning(warning + "iconv -f ENCODING -t UTF-8 FILE does", path, encoding, sample and sample[0])
    return text


def with_columns(rows: Iterable[Row], columns: Sequence[str]) -> list[Row]:
    """Return the rows with these columns, whose names in the file may differ in case, spaces, hyphens and underscores.

    Raise InputError for the rows that lack one.
    """
    made = []
    for row in rows:
        if row.cells.keys() >= {*columns}:
            made.append(row)
            continue
        alike = {column: [name for name in row.cells if _bare(name) == _bare(column)] for column in columns}
        renamed = {names[0]: c for c, names in alike.items() if c not in row.cells and len(names) == 1}
        made.append(row._replace(cells={renamed.get(name, name): value for name, value in row.cells.items()}))
    if lacking := [row for row in made if not row.cells.keys() >= {*columns}]:
        given = [str(name) for name in lacking[0].cells]
        near = {c: difflib.get_close_matches(c, given, 1) for c in columns if c not in given}
        missing = ", ".join(f"{c!r}{f' (did you mean {like[0]!r}?)' if like else ''}" for c, like in near.items())
        problem = f"{where(lacking)}: no column {missing}; expected {[*columns]}, found {brief(given)}"
        raise InputError(f"{problem}; rename a column, or give its name with --before, --after, --label or --group")
    return made


def where(rows: Sequence[Row]) -> str:
    """Return the position of one or more rows in words, shortened if they are many."""
    more = "".join(f", {row.line}" for row in rows[1:MOST_ROWS])
    return f"{rows[0].where}{more}{f' and {len(rows) - MOST_ROWS} more' if len(rows) > MOST_ROWS else ''}"


def _bare(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()


def _read_json(path: Path) -> list[Row]:
    text = read_text(path)
    if not text.lstrip().startswith("["):
        return rows_of_lines(text, str(path))
    return [_row(item, f"{path}, item {n}", n) for n, item in enumerate(_parsed(text, str(path)), start=1)]


def rows_of_lines(text: str, where: str) -> list[Row]:
    """Return the rows of JSON Lines. Empty lines are left out."""
    lines = [(f"{where}, line {n}", n, line) for n, line in enumerate(text.split("\n"), start=1)]
    return [_row(_parsed(line, here), here, n) for here, n, line in lines if line.strip()]


def _parsed(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON: {error}; {JSON_FORM}") from error


def _row(value: object, where: str, number: int) -> Row:
    if not isinstance(value, dict):
        raise InputError(f"{where} must hold one JSON object, got {type(value).__name__} {brief(value)}; {JSON_FORM}")
    return Row(where, number, value)


def _read_parquet(path: Path) -> list[Row]:
    from pyarrow import parquet
    try:
        rows = parquet.read_table(path).to_pylist()
    except (OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"{path} cannot be read as Parquet ({error!s:.200}); save it again") from error
    return [Row(f"{path}, row {n}", n, row) for n, row in enumerate(rows, start=1)]


def _read_csv(path: Path) -> list[Row]:
    # not through pandas, which does not say on which line of the file a row is
    text, usual = read_text(path), "\t" if path.suffix.lower() == ".tsv" else ","
    lines = re.split(r"\r\n|\n|\r", text)
    header = next(filter(str.strip, lines), "")
    separator = max(usual + SEPARATORS, key=header.count)
    if separator != usual:
        logger.info("%s was read with %r between the cells", path, separator)
    reader, numbered, last = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True), [], 0
    try:
        for cells in reader:
            joined = lines[last : reader.line_num]
            if len(joined) > 1 and all(_is_row(line, header, separator) for line in joined):
                raise csv.Error(f"its quotation mark joins it with line {reader.line_num}, though each is a full row")
            numbered.append((reader.line_num, cells))
            last = reader.line_num
    except csv.Error as error:
        if separator != "\t" or '"' in header:
            problem = f"{path}, line {last + 1} is malformed: {error}"
            raise InputError(f"{problem}; double a quotation mark inside a text, or save as .jsonl or .xlsx") from error
        # no text between tabs needs quotation marks, so that they may be a part of the texts
        logger.info("%s was read with its quotation marks as a part of the texts", path)
        numbered = [(n, line.split(separator)) for n, line in enumerate(lines, start=1)]
    return _table(numbered, f"{path}, line")


def _is_row(line: str, header: str, separator: str) -> bool:
    """Return whether a line has as many cells as the header, and its separators are not the commas of prose."""
    return line.count(separator) == header.count(separator) and (separator == "\t" or f"{separator} " not in line)


def _grids(path: Path) -> dict[str, list[tuple[int, list]]]:
    import pandas
    options = {"sheet_name": None, "header": None, "dtype": object, "keep_default_na": False, "engine": "openpyxl"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # openpyxl warns of unknown styles, which do not change the values
            grids = pandas.read_excel(path, **options)
            return {title: list(enumerate(grid.values.tolist(), 1)) for title, grid in grids.items()}
    except Exception as err:  # a damaged workbook raises errors of zipfile, the XML parser or openpyxl
        raise InputError(f"{path} cannot be read as an .xlsx workbook ({err!s:.200}); save it again as .xlsx") from err


def _read_xlsx(path: Path) -> list[Row]:
    (title, grid), *others = _grids(path).items()
    if unread := [name for name, more in others if len(more)]:
        logger.warning("%s: only the first sheet %r is read, not %s", path, title, brief(unread))
    return _table(grid, f"{path}, sheet {title!r}, row")


def _table(numbered: Iterable[tuple[int, list]], where: str) -> list[Row]:
    """Return rows under the column names of the first row that is not empty. Empty rows are left out."""
    columns, rows = [], []
    for line, cells in numbered:
        given = len(cells)
        while cells and (cells[-1] is None or not str(cells[-1]).strip()):
            cells.pop()
        if not columns:
            columns = [str(cell or "").strip() for cell in cells]
            if len(set(columns)) < len(columns):
                raise InputError(f"{where} {line}: column names occur twice in {brief(columns)}; rename them")
        elif len(cells) > len(columns):
            problem = f"has {len(cells)} cells for {len(columns)} columns {brief(columns)}"
            raise InputError(f"{where} {line} {problem}; quote a text that holds the separator")
        elif cells:  # a row that ends early lacks the last columns, which a reader may need
            values = dict.fromkeys(columns[:given]) | dict(zip(columns, cells, strict=False))
            rows.append(Row(f"{where} {line}", line, values))
    return rows


READERS = {".csv": _read_csv, ".tsv": _read_csv, ".jsonl": _read_json, ".json": _read_json, ".xlsx": _read_xlsx,
           ".parquet": _read_parquet}  # fmt: skip
