"""The file of rows that have no image, with the reasons.

Knows rows and a file. Does not know why a row failed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from coolsd_rt.batch.part import FailedRow, Shard
from coolsd_rt.files import check_target
from coolsd_rt.store.atomic import disk_errors
from coolsd_rt.store.results import save


class FailedFile:
    """The rows of a shard that failed, a JSON object a line, in the order of the prompts file.

    known: those of parts that are finished already. The file is made anew from the parts' reports by each run. Until
    the run ends, rows of parts that it finishes stand at the end.
    """

    def __init__(self, out: Path, shard: Shard) -> None:
        self.path = out / ("failed.jsonl" if shard.count == 1 else f"failed-{shard}.jsonl")
        self.known: list[FailedRow] = []

    @contextmanager
    def open(self) -> Iterator[Callable[[Sequence[FailedRow]], None]]:
        """Write the known rows; yield what appends others. Raises CoolsdError if the disk is full."""
        rows = list(self.known)
        if not rows:
            self.path.unlink(missing_ok=True)
        else:
            save(self.path, _lines(rows))

        def append(more: Sequence[FailedRow]) -> None:
            if more:
                rows.extend(more)
                check_target(self.path)
                with disk_errors(self.path), self.path.open("ab") as file:
                    file.write(_lines(more))

        yield append
        ordered = sorted(rows, key=lambda one: one.row)
        if ordered != rows:  # workers finish parts in any order
            save(self.path, _lines(ordered))


def _lines(rows: Sequence[FailedRow]) -> bytes:
    return b"".join(json.dumps(row.as_dict(), ensure_ascii=False).encode() + b"\n" for row in rows)
