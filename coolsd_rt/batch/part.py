"""Parts of a job: so many rows of its prompts file each, in order. A part is what a shard or a worker draws.

Knows rows and their ids. Does not know engines, or files of images (`part_files`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from coolsd_rt import limits
from coolsd_rt.batch.prompt_row import is_taken_id, row_id
from coolsd_rt.batch.prompts_file import FileRow, read_rows
from coolsd_rt.errors import UserError
from coolsd_rt.spec.fields import check_fields
from coolsd_rt.spec.section import Within


@dataclass(frozen=True)
class Shard:
    """Which parts a process draws: those whose number modulo `count` is `index` - 1. index: from 1 to `count`."""

    index: Annotated[int, Within(limits.JOB_SHARDS)] = 1
    count: Annotated[int, Within(limits.JOB_SHARDS)] = 1

    def __post_init__(self) -> None:
        check_fields(self)
        if not 1 <= self.index <= self.count:
            expected = "i/n with i from 1 to n, as in 2/8"
            raise UserError("shard", expected=expected, found=f"{self.index}/{self.count}")

    def has(self, part: int) -> bool:
        """Whether a part is one of them."""
        return part % self.count == self.index - 1

    def __str__(self) -> str:
        return f"{self.index}-of-{self.count}"


WHOLE = Shard()


@dataclass(frozen=True)
class Part:
    """A part. number: from 0. rows: those of the file, in order."""

    number: int
    rows: tuple[FileRow, ...]

    def as_json(self) -> str:
        """Return the rows as JSON text; `of` takes it back."""
        return json.dumps([asdict(row) for row in self.rows])

    @staticmethod
    def of(number: int, text: str) -> Part:
        """Return the part of `as_json`'s text."""
        return Part(number, tuple(FileRow(**row) for row in json.loads(text)))


@dataclass(frozen=True)
class FailedRow:
    """A row without an image. place: where it stands in the file. id: None if it could not be read."""

    row: int
    place: str
    id: str | None
    problem: str

    @staticmethod
    def of(row: FileRow, problem: str) -> FailedRow:
        """Return the failure of a row."""
        given = row.values.get("id")
        return FailedRow(row.number, row.place, str(given) if type(given) in (str, int) else None, problem)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON data."""
        return asdict(self)


def read_parts(path: Path, size: int, shard: Shard = WHOLE) -> Iterator[Part]:
    """Yield the parts of a shard. size: rows of a part. Raises as `read_rows`.

    A row whose id another row before it has, in whichever shard, has that as its problem.
    """
    rows: list[FileRow] = []
    number = 0
    for row in _each_id_once(read_rows(path)):
        rows.append(row)
        if len(rows) == size:
            if shard.has(number):
                yield Part(number, tuple(rows))
            rows, number = [], number + 1
    if rows and shard.has(number):
        yield Part(number, tuple(rows))


def count_rows(path: Path) -> int:
    """Return the number of rows, reading the whole file once. Raises as `read_rows`."""
    return sum(1 for _ in read_rows(path))


def _each_id_once(rows: Iterable[FileRow]) -> Iterator[FileRow]:
    seen: set[bytes] = set()  # digests: a million ids of any length have to fit in memory
    for row in rows:
        given = row.values.get("id")
        if row.problem or not isinstance(given, str | int):
            yield row
            continue
        text = str(given)
        digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=12).digest()
        if digest in seen:
            yield replace(row, problem=f"id: expected one that no row before has, found {text[:80]!r} again")
        elif is_taken_id(text, row.number):
            own = row_id(row.number)
            yield replace(row, problem=f"id: expected another form than that of rows without one ({own}), found {text}")
        else:
            seen.add(digest)
            yield row
