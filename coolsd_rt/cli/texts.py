"""`coolsd-rt generate` with an engine that writes text: what it prints.

Knows the terminal. Does not know how a text is written.
"""

from __future__ import annotations

from math import isnan
from pathlib import Path

from coolsd_rt.cli.generate_screen import note_measuring
from coolsd_rt.cli.output import note, print_json, say
from coolsd_rt.cli.terminal import say_lines, say_part
from coolsd_rt.cli.terminal.progress import progress
from coolsd_rt.workflows.texts import TextPart, WrittenText
from coolsd_rt.workflows.texts_request import WriteCallbacks, WriteConfig, WriteReport, write


def write_texts(engine: Path, request: WriteConfig, *, as_json: bool) -> None:
    """Write the texts of a request, one alone as it comes, several when each is finished."""
    alone = len(request.prompts) * request.variants == 1 and not as_json
    if alone:
        report = write(engine, request, WriteCallbacks(part=_come, measuring=_measuring))
        say()
    else:
        with progress(quiet=as_json) as work:
            done = 0

            def finished(text: WrittenText) -> None:
                nonlocal done
                done += 1
                work.update(done)

            def start(texts: int) -> None:
                work.start("writing", texts, "texts")

            report = write(engine, request, WriteCallbacks(start, None, finished, _measuring))
    if as_json:
        print_json(report.as_dict())
        return
    if not alone:
        for text in report.texts:
            say(f"== {text.job.prompt} (seed {text.job.seed})")
            say_lines(text.text)
    note(_figures(report))


def _come(part: TextPart) -> None:
    say_part(part.text)


def _measuring(texts: int) -> None:
    note_measuring(texts, "text", "written")


def _figures(report: WriteReport) -> str:
    """Return one line about speed, for stderr: stdout has the texts and nothing else."""
    mean = report.statistics.mean_acceptance_length
    length = "" if isnan(mean) else f", accept length {mean:.2f}"
    cut = sum(text.reason == "length" for text in report.texts)
    ends = f", {cut} cut at the most tokens" if cut else ""
    rate = report.tokens / report.seconds if report.seconds else float("nan")
    drafts = "" if report.plan is None else f", drafts: {report.plan} (pacing auto)"
    texts = f"{len(report.texts)} texts, " if len(report.texts) > 1 else ""
    return f"{texts}{report.tokens} tokens in {report.seconds:.2f} s, {rate:.1f} tokens/s{length}{drafts}{ends}"
