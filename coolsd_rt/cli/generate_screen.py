"""What `coolsd-rt generate` shows: progress while it draws, and figures afterwards. Does not know options."""

from __future__ import annotations

from math import isnan
from pathlib import Path

from coolsd_rt.cli.output import note, show_fields
from coolsd_rt.cli.terminal.progress import Work
from coolsd_rt.workflows.generate.report import GenerateReport
from coolsd_rt.workflows.generate.run import GenerateCallbacks


class GenerateScreen:
    """Progress in tokens over all images. Without a progress bar, one line per image as well."""

    def __init__(self, work: Work) -> None:
        self._work, self._whole = work, 0

    def listener(self) -> GenerateCallbacks:
        """Return the callbacks that move the bar and write the lines."""
        return GenerateCallbacks(
            lambda line: note(f"warning: {line}"),
            self._start,
            self._tokens,
            self._image,
            self._skipped,
            note_measuring,
        )

    @property
    def whole(self) -> int:
        """Images of the request that are there, drawn now or before."""
        return self._whole

    def _start(self, tokens: int) -> None:
        self._work.start("drawing", tokens, "tokens", announce=False)

    def _tokens(self, done: int, accept_length: float) -> None:
        self._work.update(done, figures=f"accept length {accept_length:.2f}")

    def _image(self, path: Path) -> None:
        self._whole += 1
        if not self._work.on_terminal:
            note(str(path))

    def _skipped(self, path: Path) -> None:
        self._whole += 1
        if not self._work.on_terminal:
            note(f"{path}: already there")


def note_measuring(count: int, what: str = "image", done: str = "drawn") -> None:
    """Say that plans are tried. count: images or texts at once."""
    whole = f"{count} {what}s at a time are" if count > 1 else f"one {what} at a time is"
    note(f"trying once how {whole} {done} fastest on this machine")


def show_drawn(report: GenerateReport, out: Path) -> None:
    """Show the figures of a request on the terminal. out: folder of the images."""
    rows: dict[str, object] = {"images": _counts(report, out)}
    rows |= _figures(report) if report.tokens else {}
    if report.sheet:
        rows["sheet"] = report.sheet
    show_fields(rows)


def _counts(report: GenerateReport, out: Path) -> str:
    skipped = len(report.drawn) - report.written
    if not skipped:
        return f"{report.written} in {out}"
    return f"{len(report.drawn)} in {out}: {report.written} written, {skipped} already there"


def _figures(report: GenerateReport) -> dict[str, object]:
    s, total = report.statistics, report.seconds
    by_position = " ".join("-" if isnan(share) else f"{share:.2f}" for share in s.acceptance_by_position)
    rows: dict[str, object] = {
        "seconds": f"{total:.2f} (and {report.seconds_load:.2f} to load the engine)",
        "tokens/s": f"{report.tokens_per_second:.1f}",
        "accept length": f"{s.mean_acceptance_length:.2f}",
        "acceptance by position": by_position or "no draft",
        "rounds": int(s.rounds.sum()),
    }
    if s.distance_per_token is not None:
        rows["tokens per pass"] = f"{s.tokens_per_pass:.2f}"
        rows["distance to the target"] = f"at most {s.distance_per_token:.4f} a token in total variation (estimated)"
    if report.plan is not None:
        rows["drafts"] = f"{report.plan} (pacing auto)"
    if report.loop == "device":
        rows["loop"] = "device"
    for phase, seconds in report.seconds_by_phase.items():
        if seconds is None:
            continue
        rows[f"seconds in {phase}"] = f"{seconds:.2f} ({seconds / total:.0%})"
    return rows
