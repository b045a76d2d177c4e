"""The files of one part: its images, and a report once it is finished.

    images/00012/cat.png      an image, named by its id
    images/00012.parquet      or all of them, with columns of their provenance; until then as PNGs in images/.00012/
    parts/00012.json          how many images there are, and which rows failed; written last

Each file is written whole or not at all, so that what is there after a kill is finished work. Knows names and files.
Does not know rows or engines.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from coolsd_rt.arrays import Pixels
from coolsd_rt.batch.part import FailedRow
from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.files import read_bytes, read_json, why_unusable
from coolsd_rt.limits import RESULT_BYTES
from coolsd_rt.store.atomic import disk_errors, write_atomic
from coolsd_rt.store.results import save
from coolsd_rt.workflows.generate.identity import PIXELS, Identity, Standing, said_by, sha256_pixels, standing
from coolsd_rt.workflows.png import write_png

Format = Literal["png", "parquet"]
_LARGEST = 1 << 30  # bytes of one image


@dataclass(frozen=True)
class PartReport:
    """What came of a part. rows: of the prompts file. images: there now, drawn in this run or before."""

    number: int
    rows: int
    images: int
    failed: tuple[FailedRow, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return JSON data."""
        failed = [one.as_dict() for one in self.failed]
        return {"part": self.number, "rows": self.rows, "images": self.images, "failed": failed}

    @staticmethod
    def of(data: Any) -> PartReport:
        """Read JSON data. Raises KeyError or TypeError for other data."""
        failed = tuple(FailedRow(**one) for one in data["failed"])
        return PartReport(int(data["part"]), int(data["rows"]), int(data["images"]), failed)


@dataclass(frozen=True)
class RowImage:
    """A finished image: its id, the number of its row, and its file's name."""

    id: str
    row: int
    name: str


class PartFiles:
    """The files of part `number` in the output folder `out`."""

    def __init__(self, out: Path, number: int, kind: Format) -> None:
        self._number, self._kind = number, kind
        hidden = "." if kind == "parquet" else ""
        self._folder = out / "images" / f"{hidden}{number:05d}"
        self._table = out / "images" / f"{number:05d}.parquet"
        self._report = out / "parts" / f"{number:05d}.json"

    def report(self) -> PartReport | None:
        """Return the report of a finished part; None if it is not finished. Raises CoolsdError for a broken one."""
        if why_unusable(self._report) == "nothing":
            return None
        what, fix = "the report of a finished part", "remove it, and the part is looked at again"
        data = read_json(self._report, what, RESULT_BYTES, fix=fix, error=CoolsdError)
        try:
            return PartReport.of(data)
        except (KeyError, TypeError, ValueError) as error:
            raise CoolsdError(str(self._report), expected=what, found="other JSON data", fix=fix) from error

    def has(self, name: str, identity: Identity) -> bool:
        """Whether an image is there and whole. Raises UserError if its file holds another image."""
        found = standing(self._path(name), identity)
        if found is Standing.OTHER:
            expected, fix = "no file, or the image of this row", "move it away, or name another folder with --out"
            raise UserError(str(self._path(name)), expected=expected, found="something else", fix=fix)
        return found is Standing.SAME

    def write(self, name: str, pixels: Pixels, said: dict[str, Any]) -> None:
        """Write an image. said: its provenance. Raises CoolsdError if the disk is full."""
        path = self._path(name)
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_png(path.parent, path.name, pixels, {**said, PIXELS: sha256_pixels(pixels)})

    def finish(self, images: Sequence[RowImage], rows: int, failed: Sequence[FailedRow]) -> PartReport:
        """Finish the part: all its images are written. Returns its report. Raises CoolsdError if the disk is full."""
        if self._kind == "parquet" and images:
            with disk_errors(self._table):
                write_atomic(self._table, self._as_parquet(images))
        report = PartReport(self._number, rows, len(images), tuple(failed))
        save(self._report, (json.dumps(report.as_dict(), indent=1) + "\n").encode())
        self.tidy()
        return report

    def tidy(self) -> None:
        """Remove what a finished part does not need: its images beside a table, files that a kill cut off."""
        if self._kind == "parquet":
            shutil.rmtree(self._folder, ignore_errors=True)
        else:
            for left in self._folder.glob(".*.tmp"):
                with contextlib.suppress(OSError):
                    left.unlink()

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.png"

    def _as_parquet(self, images: Sequence[RowImage]) -> bytes:
        import pyarrow as pa  # the extra `parquet`
        import pyarrow.parquet as pq

        columns = [self._columns(image) for image in images]
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(columns, _schema()), buffer, compression="zstd")
        return buffer.getvalue()

    def _columns(self, image: RowImage) -> dict[str, Any]:
        path = self._path(image.name)
        data, said = read_bytes(path, "an image of this job", _LARGEST), said_by(path)
        law, plan, sampling = said["law"], said.get("plan", {}), said["spec"]["sampling"]
        return {
            "id": image.id,
            "row": image.row,
            "prompt": said["prompt"],
            "seed": said["seed"],
            "image": data,
            "engine": said["engine"]["fingerprint"],
            "plain": law["plain"] or plan.get("draft_length") == 0,
            "draft": plan.get("draft", law["draft"]),
            "draft_length": plan.get("draft_length", law["draft_length"]),
            "rule": law["rule"],
            "resampler": law["resampler"],
            "omegas": law["omegas"],
            **{name: sampling[name] for name in ("cfg_scale", "temperature", "top_k", "top_p")},
            "pixels_sha256": said[PIXELS],
            "provenance": json.dumps(said, sort_keys=True),
        }


def _schema() -> Any:
    import pyarrow as pa

    text, whole, real = pa.string(), pa.int64(), pa.float64()
    return pa.schema(
        {
            "id": text, "row": whole, "prompt": text, "seed": pa.uint64(), "image": pa.binary(), "engine": text,
            "plain": pa.bool_(), "draft": text, "draft_length": whole, "rule": text, "resampler": text,
            "omegas": pa.list_(real), "cfg_scale": real, "temperature": real, "top_k": whole, "top_p": real,
            "pixels_sha256": text, "provenance": text,
        }
    )  # fmt: skip
