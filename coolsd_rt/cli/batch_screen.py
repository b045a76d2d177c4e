"""What `coolsd-rt batch` shows: progress in rows while it draws, and figures afterwards. Does not know options."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from coolsd_rt.cli.generate_screen import note_measuring
from coolsd_rt.cli.output import note, show_fields
from coolsd_rt.cli.terminal.progress import Work

if TYPE_CHECKING:
    from coolsd_rt.batch.drawing import BatchFigures
    from coolsd_rt.batch.part import FailedRow
    from coolsd_rt.batch.run import BatchCallbacks, BatchReport

_SHOWN = 5  # failed rows that are told one by one


class BatchScreen:
    """Progress in rows, with images a second and the accept length."""

    def __init__(self, work: Work) -> None:
        self._work, self._began = work, 0.0
        self._finished = 0  # images of parts that were finished before
        self._failed_rows = 0
        self.images = 0  # there now, as far as this run has looked

    def callbacks(self) -> BatchCallbacks:
        """Return the callbacks that move the bar and write the lines."""
        from coolsd_rt.batch.run import BatchCallbacks  # what draws

        return BatchCallbacks(self._start, self._progress, self._failed, note_measuring)

    def _start(self, rows: int, done: int, images: int) -> None:
        self.images = self._finished = images
        if done:
            note(f"{done} of {rows} rows are finished already")
        self._work.start("drawing", rows - done, "rows")
        self._began = time.monotonic()

    def _progress(self, figures: BatchFigures) -> None:
        self.images = self._finished + figures.found + figures.drawn
        seconds = time.monotonic() - self._began
        parts = [f"{figures.drawn / seconds:.2f} images/s"] if figures.drawn and seconds > 0 else []
        if (length := figures.mean_acceptance_length) is not None:
            parts.append(f"accept length {length:.2f}")
        if self._failed_rows or figures.failed:
            parts.append(f"{max(self._failed_rows, figures.failed)} failed")
        self._work.update(figures.rows, figures=", ".join(parts))

    def _failed(self, row: FailedRow) -> None:
        self._failed_rows += 1
        if self._failed_rows <= _SHOWN:
            note(f"warning: {row.place}: {row.problem}")
        elif self._failed_rows == _SHOWN + 1:
            note("warning: more rows failed; the file of failed rows has all")


def show_batch(report: BatchReport) -> None:
    """Show the figures of a run on the terminal."""
    figures = report.figures
    rows: dict[str, object] = {"images": f"{report.images} of {report.rows} rows in {report.out}"}
    if report.failed_file is not None:
        rows["failed"] = f"{report.failed}, in {report.failed_file}"
    if figures.drawn:
        rows["drawn now"] = f"{figures.drawn} in {report.seconds:.1f} s, {figures.drawn / report.seconds:.2f} a second"
    if (length := figures.mean_acceptance_length) is not None:
        rows["accept length"] = f"{length:.2f}"
    if report.plan is not None:
        rows["drafts"] = f"{report.plan} (pacing auto)"
    show_fields(rows)
