"""Reads the rows of a prompts file one by one: JSONL, CSV, Parquet, or text with one prompt a line.

A row that cannot be read is a row with a problem, so that the others go on. The file is never whole in memory. Knows
the four formats. Does not know what a row may say (`prompt_row`).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from coolsd_rt.batch.prompt_row import COLUMNS, TEXTS
from coolsd_rt.errors import UserError
from coolsd_rt.files import JsonError, open_plain, parse_json
from coolsd_rt.limits import ROW_BYTES

FORMATS = (".jsonl", ".ndjson", ".csv", ".parquet", ".txt")
WHAT = "a file of prompts: .jsonl, .csv, .parquet or .txt"
_ROWS = 256  # rows of a Parquet file in memory


@dataclass(frozen=True)
class FileRow:
    """One row, as the file has it.

    Attributes:
        number: of the row, from 0; blank lines are no rows.
        place: where it stands, for people: `line 7`, `row 7`.
        values: by column; those that are null or empty are left out.
        problem: why it cannot be read; empty if it can.
    """

    number: int
    place: str
    values: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


def read_rows(path: Path) -> Iterator[FileRow]:
    """Yield the rows of a file, by the end of its name.

    Raises UserError if it is no plain file, of another kind, or has a column that no row may have; MissingExtra without
    pyarrow, for Parquet.
    """
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise UserError(str(path), expected=WHAT, found=f"the ending {kind!r}" if kind else "no ending")
    with open_plain(path, WHAT) as file:
        if kind == ".parquet":
            yield from _parquet(path, file)
        elif kind == ".csv":
            yield from _csv(path, file)
        else:
            yield from _lines(file, kind == ".txt")


def _texts(file: BinaryIO) -> Iterator[tuple[int, str, str]]:
    """Yield each line: its number from 1, its text, and a problem with it, for which the text is empty."""
    number = 0
    while line := file.readline(ROW_BYTES + 1):
        number, problem = number + 1, ""
        if len(line) > ROW_BYTES and not line.endswith(b"\n"):
            problem = f"expected a line of at most {ROW_BYTES} bytes, found more"
            while (rest := file.readline(ROW_BYTES)) and not rest.endswith(b"\n"):
                pass
        try:
            text = "" if problem else line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            text, problem = "", f"expected UTF-8, found the byte 0x{line[error.start]:02x}"
        yield number, text, problem


def _lines(file: BinaryIO, plain: bool) -> Iterator[FileRow]:
    """Yield the rows of a text file (plain) or of JSONL."""
    lines = (one for one in _texts(file) if one[1].strip() or one[2])  # without blank ones
    for number, (line, text, problem) in enumerate(lines):
        place = f"line {line}"
        if problem:
            yield FileRow(number, place, problem=problem)
        elif plain:
            yield FileRow(number, place, {"prompt": text.strip()})
        else:
            yield _json_row(number, place, text)


def _json_row(number: int, place: str, text: str) -> FileRow:
    try:
        data = parse_json(text)
    except JsonError as error:
        return FileRow(number, place, problem=f"expected a JSON object, found {error}")
    if not isinstance(data, dict):
        return FileRow(number, place, problem="expected a JSON object, found another JSON value")
    return FileRow(number, place, {key: value for key, value in data.items() if value is not None})


class _CsvRows:
    """Rows of cells. line: the last that was read. problem: of the last row; empty if it can be read."""

    def __init__(self, file: BinaryIO) -> None:
        self.line, self.problem = 0, ""
        self._inside = False  # a row: blank lines of a cell belong to it, others to nothing
        self._reader = csv.reader(self._lines(file), strict=True)

    def next(self) -> list[str] | None:
        """Return the cells of the next row; None at the end. Those of a row with a problem mean nothing."""
        while True:
            self.problem, self._inside = "", False
            try:
                cells = next(self._reader)
            except StopIteration:
                return None
            except csv.Error as error:
                cells, self.problem = [], self.problem or f"expected a row of CSV, found {error}"
            if cells or self.problem:
                return cells

    def _lines(self, file: BinaryIO) -> Iterator[str]:
        for line, text, problem in _texts(file):
            self.line, self.problem = line, self.problem or problem
            blank = not text.strip() and not self._inside
            self._inside = True
            yield "\n" if blank or problem else text


def _csv(path: Path, file: BinaryIO) -> Iterator[FileRow]:
    """Yield the rows of a CSV file, whose first line names the columns. A cell that is no text is JSON."""
    rows = _CsvRows(file)
    names = rows.next()
    if names is None or rows.problem:
        found = rows.problem.partition("found ")[2] or "nothing"
        raise UserError(str(path), expected="a first line with the names of the columns, in UTF-8", found=found)
    header = [name.strip() for name in names]
    _check_columns(path, header)
    number = 0
    while (cells := rows.next()) is not None:
        yield _csv_row(number, f"line {rows.line}", header, cells, rows.problem)
        number += 1


def _csv_row(number: int, place: str, header: Sequence[str], cells: Sequence[str], problem: str) -> FileRow:
    if problem:
        return FileRow(number, place, problem=problem)
    if len(cells) != len(header):
        return FileRow(number, place, problem=f"expected {len(header)} cells, found {len(cells)}")
    values = {name: _cell(name, cell) for name, cell in zip(header, cells, strict=True) if cell.strip()}
    return FileRow(number, place, values)


def _cell(name: str, text: str) -> Any:
    """Return a cell's value: a number, true, false or an object where it is JSON, else its text."""
    if name in TEXTS:
        return text
    try:
        return parse_json(text)
    except JsonError:
        return text.strip()


def _parquet(path: Path, file: BinaryIO) -> Iterator[FileRow]:
    import pyarrow as pa  # the extra `parquet`
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
        _check_columns(path, table.schema_arrow.names)
        number = 0
        for batch in table.iter_batches(batch_size=_ROWS):
            for values in batch.to_pylist():
                yield _parquet_row(number, values)
                number += 1
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:  # the last: of a date that Python has not
        raise UserError(str(path), expected="a Parquet file", found=" ".join(str(error).split())[:160]) from None


def _parquet_row(number: int, values: Mapping[str, Any]) -> FileRow:
    given = {key: _without_nulls(value) for key, value in values.items() if value is not None}
    other = [key for key, value in given.items() if not _is_json(value)]
    problem = ""
    if other:  # dates, decimals, bytes: no row means one, and workers elsewhere get rows as JSON
        found = type(given[other[0]]).__name__
        problem = f"{other[0]}: expected text, a number, true, false or a struct of these, found {found}"
    return FileRow(number, f"row {number + 1}", {key: given[key] for key in given if key not in other}, problem)


def _is_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_json, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_json, value))
    return value is None or isinstance(value, str | int | float)


def _without_nulls(value: Any) -> Any:
    """Return a value without the fields of structs that this row does not have."""
    if isinstance(value, dict):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    return value


def _check_columns(path: Path, names: Sequence[str]) -> None:
    """Raise UserError for a column that no row may have, one that is there twice, or if there are no prompts."""
    fix = f"there may be: {', '.join(COLUMNS)}"
    for name in names:
        if name not in COLUMNS:
            raise UserError(str(path), expected="columns of a prompts file", found=f"the column {name!r}", fix=fix)
        if list(names).count(name) > 1:
            raise UserError(str(path), expected="each column once", found=f"{name!r} twice")
    if "prompt" not in names:
        raise UserError(str(path), expected="a column prompt", found=", ".join(names) or "no columns")
