"""Render a `bench` report as one HTML file: tables, verdicts and plots, without scripts or external resources.

Knows HTML and matplotlib. Does not know how anything was measured. All text is escaped: prompts come from users, and
names from a manifest. The plots are SVG in the page, with letters drawn as paths.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from coolsd_rt.bench.at_once import table as at_once_table
from coolsd_rt.bench.report import DEFINITIONS, PHASES, BenchReport, BenchRow

_SPEED = "Tokens a second: a dot a turn, the median, its 95% interval. Green: pays, red: does not, grey: unclear."
_FEWEST = 10  # least number of evaluated drafts for a point of the acceptance plot
_COLOURS = {"pays": "#1a7f37", "does not pay": "#b42318", "unclear": "#6b7280", "too few runs": "#6b7280"}
_PHASE_COLOURS = dict(zip(PHASES, ("#2f6f9f", "#e08a1e", "#7a5195", "#2a9d8f", "#b8bec6"), strict=True))
_RC: dict[Any, Any] = {"svg.fonttype": "path", "svg.hashsalt": "coolsd-rt", "text.parse_math": False, "font.size": 9.0}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1f2328 }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { border: 1px solid #d0d7de; padding: .25rem .6rem; text-align: left; white-space: nowrap }
th { background: #f6f8fa } code, pre { background: #f6f8fa; padding: .1rem .3rem; white-space: pre-wrap }
.wide { overflow-x: auto } .warning { color: #b42318; font-weight: 600 } svg { max-width: 100%; height: auto }
"""


def page(report: BenchReport) -> str:
    """Return the whole HTML file."""
    title = f"coolsd-rt bench: {report.manifest.name}"
    warnings = "".join(f'<p class="warning">{escape(line)}</p>' for line in report.warnings)
    verdicts = "".join(f"<li>{escape(line)}</li>" for line in report.verdicts)
    with matplotlib.rc_context(_RC):
        plots = (_speed(report), _acceptance(report), _phases(report))
    parts = "".join(
        f"<h2>{escape(table.title.capitalize())}</h2>{_table(table.columns, table.rows)}{plot}"
        for table, plot in zip(report.tables, plots, strict=True)
    )
    if report.at_once:
        sizes = at_once_table(report.at_once)
        parts += f"<h2>{escape(sizes.title.capitalize())}</h2>{_table(sizes.columns, sizes.rows)}"
    body = (
        f"<h1>{escape(title)}</h1><p>{escape(report.note)}</p>{warnings}<ul>{verdicts}</ul>"
        f"{parts}"
        f"<h2>How it was measured</h2><pre>{escape(report.command)}</pre>{_facts(report)}"
        f"<h2>What the names say</h2>{_definitions()}"
    )
    # With this policy a browser runs and fetches nothing, even if the escaping had a hole.
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table. columns: empty: no header."""
    head = "<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in columns) + "</tr>" if columns else ""
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table>{head}{lines}</table></div>'


def _facts(report: BenchReport) -> str:
    here = report.machine
    facts = {
        "time": report.created,
        "processor": f"{here['cpu']}, {here['cores']} cores to use, {here['threads']} threads",
        "load average before": here["load_average"],
        "versions": ", ".join(f"{k} {v}" for k, v in {**here["versions"], "python": here["python"]}.items()),
        "engine": f"{report.manifest.name}, {report.manifest.fingerprint}, {report.spec.engine.precision}",
        "draft": f"{report.spec.draft.model}, length {report.spec.draft.length}",
        "run-time values": json.dumps(report.spec.run_view()),
        "not timed": "; ".join(f"{name}: {reason}" for name, reason in report.left_out.items()) or "nothing",
        "prompts and seeds": ", ".join(f"{job.prompt!r} {job.seed}" for jobs in report.turns for job in jobs),
    }
    return _table((), [(name, str(value)) for name, value in facts.items()])


def _definitions() -> str:
    terms = DEFINITIONS.items()
    return "<dl>" + "".join(f"<dt><code>{escape(k)}</code></dt><dd>{escape(v)}</dd>" for k, v in terms) + "</dl>"


def _speed(report: BenchReport) -> str:
    """Plot the tokens per second of each variant: turns as dots, the median as a line, its interval as a bar."""
    figure, axes = _canvas(report.rows)
    for at, row in enumerate(report.rows):
        colour = _COLOURS.get(str(row.verdict), "#1f2328")
        axes.plot(row.rate.samples, [at] * len(row.rate.samples), "o", color=colour, alpha=0.35, markersize=4)
        axes.plot([row.rate.median], [at], "|", color=colour, markersize=16, markeredgewidth=2.5)
        if row.rate.low is not None and row.rate.high is not None:
            axes.plot([row.rate.low, row.rate.high], [at, at], color=colour, linewidth=2)
    axes.axvline(report.rows[0].rate.median, color="#1f2328", linewidth=0.8, linestyle=":")
    axes.set_xlim(left=0)
    axes.set_xlabel("tokens a second; dotted: plain decoding")
    return _svg(figure, "speed", _SPEED)


def _phases(report: BenchReport) -> str:
    figure, axes = _canvas(report.rows)
    left = [0.0] * len(report.rows)
    for phase in PHASES:
        widths = [row.phases[phase] or 0.0 for row in report.rows]
        axes.barh(range(len(widths)), widths, left=left, height=0.7, color=_PHASE_COLOURS[phase], label=phase)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.set_xlabel("seconds an image")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(PHASES), frameon=False)
    return _svg(figure, "phases", "Median seconds an image, by phase; rest is prefix, caches and Python.")


def _acceptance(report: BenchReport) -> str:
    """Plot the acceptance by position, where enough drafts were evaluated; one panel per draft length."""
    lengths = sorted({row.timed.variant.settings.law.length for row in report.rows} - {0})
    figure = Figure(figsize=(9.5, 3.6 * len(lengths)))
    for axes, length in zip(figure.subplots(len(lengths), squeeze=False)[:, 0], lengths, strict=True):
        for row in report.rows:
            if row.timed.variant.settings.law.length == length:
                pairs = zip(row.total.accepts.tolist(), row.total.attempts.tolist(), strict=True)
                points = [(i, a / n) for i, (a, n) in enumerate(pairs, start=1) if n >= _FEWEST]
                axes.plot([i for i, _ in points], [share for _, share in points], marker=".", label=row.name)
        axes.set(xlabel="draft position", ylabel="share kept", xlim=(0.5, length + 0.5), ylim=(0, 1))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return _svg(
        figure, "acceptance", f"Share kept of the drafts judged at each position, where they are {_FEWEST} or more."
    )


def _canvas(rows: Sequence[BenchRow]) -> tuple[Figure, Axes]:
    """Return a figure with one line per variant, the first on top."""
    figure = Figure(figsize=(9.5, 1.0 + 0.32 * len(rows)))
    axes = figure.subplots()
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    return figure, axes


def _svg(figure: Figure, name: str, caption: str) -> str:
    """Return the figure as an element of the page. Its ids are prefixed by `name`, so that plots share none."""
    data = io.StringIO()
    none: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(data, format="svg", bbox_inches="tight", metadata=none)
    text = data.getvalue()
    text = text[text.index("<svg") :]
    for before in ('id="', 'href="#', "url(#"):
        text = text.replace(before, before + f"{name}-")
    text = text.replace("<svg", f'<svg role="img" aria-label="{escape(caption)}"', 1)
    return f"<figure>{text}<figcaption>{escape(caption)}</figcaption></figure>"
