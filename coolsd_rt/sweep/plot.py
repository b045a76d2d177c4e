"""Plots of a sweep: quality over accept length with the Pareto front, and accept length over a grid axis.

Knows figures and matplotlib. Does not know how they were measured. The same figures give the same files.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")

from matplotlib import pyplot

from coolsd_rt.metrics.metric import Figure, Kind
from coolsd_rt.sweep.results import PointResult, Results, kinds_of

# The colours of Okabe and Ito, which colour-blind readers can distinguish; black is for lossless and plain.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999933")
_MARKERS = "o^Dv<P>X"
_FORMATS = ("png", "svg")
_LENGTH = "accept length, tokens per round"
_STAR = "lossless: the target's distribution"


def plots(results: Results) -> dict[str, bytes]:
    """Return file name to content: pareto.* if there is a measure, accept_length.* if a grid axis has numbers."""
    out = {}
    kinds, axes = kinds_of(results.points), _numeric_axes(results.points)
    for kind in _FORMATS:
        if kinds:
            out[f"pareto.{kind}"] = _draw([(_pareto, results, k) for k in kinds], kind)
        if axes:
            out[f"accept_length.{kind}"] = _draw([(_over_axis, results, key) for key in axes], kind)
    return out


def _draw(panels: Sequence[tuple[Any, Results, Any]], kind: str) -> bytes:
    """Draw panels side by side, with one legend below them."""
    with pyplot.rc_context({"svg.hashsalt": "coolsd-rt", "font.size": 9}):
        figure, axes = pyplot.subplots(1, len(panels), figsize=(1 + 5.2 * len(panels), 5), squeeze=False)
        for (fill, results, what), place in zip(panels, axes[0], strict=True):
            fill(place, results, what)
            place.grid(alpha=0.25)
        legends = [place.get_legend_handles_labels() for place in axes[0]]
        shown = {label: line for lines, labels in legends for line, label in zip(lines, labels, strict=True)}
        below = figure.legend(
            list(shown.values()), list(shown), loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=min(4, len(shown))
        )
        figure.tight_layout()
        data, metadata = io.BytesIO(), {"Date": None} if kind == "svg" else {"Software": None}
        options: dict[str, Any] = {"format": kind, "metadata": metadata, "bbox_inches": "tight", "dpi": 150}
        figure.savefig(data, bbox_extra_artists=[below], **options)
        pyplot.close(figure)
    return data.getvalue()


def _pareto(place: Any, results: Results, kind: Kind) -> None:
    """Plot one measure over accept length."""
    by_name = {p.name: p for p in results.points}
    front = [by_name[name] for name in results.pareto[kind.name]]
    place.plot(
        [p.mean_acceptance_length.value for p in front],
        [p.quality[kind.name].value for p in front],
        color="0.8",
        linewidth=7,
        solid_capstyle="round",
        zorder=1,
        label="no other point is better in both",
    )
    for series, points, look in _series(results.points):
        x, y = [p.mean_acceptance_length for p in points], [p.quality[kind.name] for p in points]
        starred = all(p.lossless and not p.plain for p in points)
        _line(place, x, y, f"_{series}" if starred else series, look)
        for point, at, height in zip(points, x, y, strict=True):
            where = (at.value, height.value)
            place.annotate(_axis_text(point), where, (5, 4), textcoords="offset points", fontsize=7, alpha=0.8)
    for point in results.points:
        if point.lossless and not point.plain:
            x, y = [point.mean_acceptance_length], [point.quality[kind.name]]
            star = {"color": "black", "markersize": 15, "zorder": 5, "label": _STAR}
            place.plot([f.value for f in x], [f.value for f in y], "*", **star)
    better = "lower is better" if kind.lower_is_better else "higher is better"
    place.set(xlabel=_LENGTH, ylabel=f"{kind.label} ({better})")


def _over_axis(place: Any, results: Results, key: str) -> None:
    """Plot accept length over the values of one run-time key."""
    for series, points, look in _series(results.points):
        if _axis_of(points) == key:
            values = [Figure(value=p.axes[key], low=None, high=None, interval="") for p in points]
            _line(place, values, [p.mean_acceptance_length for p in points], series, look)
        elif len(points) == 1 and points[0].lossless and not points[0].plain:
            level = points[0].mean_acceptance_length.value
            label = series if "lossless" in series else f"{series} (lossless)"
            place.axhline(level, color="black", linestyle=":", label=label)
    place.set(xlabel=key, ylabel=_LENGTH)


def _line(place: Any, x: Sequence[Figure], y: Sequence[Figure], label: str, look: dict[str, Any]) -> None:
    _, caps, bars = place.errorbar(
        [f.value for f in x],
        [f.value for f in y],
        yerr=_error(y),
        xerr=_error(x),
        label=label,
        elinewidth=0.7,
        capsize=2,
        markersize=5,
        linewidth=1.3,
        zorder=3,
        **look,
    )
    for part in (*caps, *bars):
        part.set_alpha(0.4)


def _error(figures: Sequence[Figure]) -> Any:
    """Return error bars down and up, [2, n]; none where an interval is unknown."""
    down = [0.0 if f.low is None else f.value - f.low for f in figures]
    up = [0.0 if f.high is None else f.high - f.value for f in figures]
    return np.maximum([down, up], 0)


def _series(points: Sequence[PointResult]) -> list[tuple[str, list[PointResult], dict[str, Any]]]:
    """Return each series with its points and style, the same in every panel."""
    out, coloured = [], 0
    for series, group in groupby(points, key=lambda p: p.series):
        members = list(group)
        look = {"color": "black", "marker": "s" if members[0].plain else "."}
        if not all(p.lossless for p in members):
            look = {"color": _COLOURS[coloured % len(_COLOURS)], "marker": _MARKERS[coloured % len(_MARKERS)]}
            coloured += 1
        out.append((series, members, look))
    return out


def _axis_of(points: Sequence[PointResult]) -> str | None:
    """Return the key that a series varies, if there is exactly one and its values are numbers."""
    if any(len(p.axes) != 1 for p in points):
        return None
    (key,) = points[0].axes
    numbers = all(isinstance(p.axes[key], int | float) and not isinstance(p.axes[key], bool) for p in points)
    return key if numbers and len(points) > 1 else None


def _numeric_axes(points: Sequence[PointResult]) -> list[str]:
    found = [_axis_of(members) for _, members, _ in _series(points)]
    return [key for key in dict.fromkeys(found) if key is not None]


def _axis_text(point: PointResult) -> str:
    """Format a point's grid values, omitting long ones."""
    short = [value for value in point.axes.values() if isinstance(value, int | float | str)]
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in short)
