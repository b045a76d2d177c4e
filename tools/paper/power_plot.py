"""The plot of a power report: each law's difference from the base with its interval, a panel per figure.

Knows the JSON document and matplotlib. The same document gives the same files.
"""

from __future__ import annotations

import io
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot

FORMATS = ("png", "svg")
_TITLES = {
    "accept_length": "accept length, tokens per round\n(right is faster)",
    "retrieval": "retrieval accuracy\n(right is better)",
    "frechet": "Fréchet distance\n(left is better)",
}
_FOUND, _OPEN = "#0072B2", "0.55"  # significant after Holm's correction, and not
LEVEL = 0.05


def plots(report: dict[str, Any]) -> dict[str, bytes]:
    """Return format to content."""
    return {kind: _draw(report, kind) for kind in FORMATS}


def _draw(report: dict[str, Any], kind: str) -> bytes:
    figures = report["figures"]
    laws = [name for name, row in next(iter(figures.values())).items() if row["difference"] is not None]
    with pyplot.rc_context({"svg.hashsalt": "coolsd-rt", "font.size": 9}):
        size = (2 + 3.6 * len(figures), 1.6 + 0.34 * len(laws))
        figure, axes = pyplot.subplots(1, len(figures), figsize=size, squeeze=False, sharey=True)
        for place, (name, rows) in zip(axes[0], figures.items(), strict=True):
            _panel(place, [rows[law] for law in laws])
            place.set(xlabel=f"difference from {report['base']}", title=_TITLES[name])
            place.grid(alpha=0.25)
        axes[0][0].set_yticks(range(len(laws)), laws)
        axes[0][0].invert_yaxis()
        figure.text(0.5, -0.02, f"{report['images']} images a law, 95% intervals; filled: p below {LEVEL:g} after "
                    "Holm's correction over the laws", ha="center", fontsize=8)  # fmt: skip
        figure.tight_layout()
        data, metadata = io.BytesIO(), {"Date": None} if kind == "svg" else {"Software": None}
        options: dict[str, Any] = {"format": kind, "metadata": metadata, "bbox_inches": "tight", "dpi": 150}
        figure.savefig(data, **options)
        pyplot.close(figure)
    return data.getvalue()


def _panel(place: Any, rows: list[dict[str, Any]]) -> None:
    place.axvline(0, color="black", linewidth=0.8)
    for y, row in enumerate(rows):
        apart, found = row["difference"], row["p_holm"] < LEVEL
        colour = _FOUND if found else _OPEN
        place.plot([apart["low"], apart["high"]], [y, y], color=colour, linewidth=1.3)
        place.plot([apart["value"]], [y], "o", color=colour, markerfacecolor=colour if found else "white", markersize=5)
