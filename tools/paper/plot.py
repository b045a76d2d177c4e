"""The plots of `questions`: SVG, one a question. Knows the JSON document and matplotlib."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot

FILES = ("length.svg", "distance.svg", "ambiguity.svg")
_SHOWN = ("exponential", "exponential, floor 1", "uniform", "excess, nu 0.3", "free")


def plots(found: dict[str, Any]) -> dict[str, bytes]:
    """File name to SVG."""
    fills = (_length, _distance, _ambiguity)
    return {name: drawn(fill, found) for name, fill in zip(FILES, fills, strict=True)}


def drawn(fill: Callable[[Any, Any], None], found: Any) -> bytes:
    """Return a figure of two axes as SVG. fill: draws the document `found` into them."""
    with pyplot.rc_context({"svg.hashsalt": "coolsd-rt", "font.size": 9}):
        figure, axes = pyplot.subplots(1, 2, figsize=(10, 4))
        fill(axes, found)
        for place in axes:
            place.grid(alpha=0.25)
        figure.tight_layout()
        data = io.BytesIO()
        figure.savefig(data, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    return data.getvalue()


def _length(axes: Any, found: dict[str, Any]) -> None:
    rows, budget = found["by_length"], found["kl_per_token"]
    lengths = [row["length"] for row in rows]
    left, right = axes
    left.plot(lengths, [row["lossless"] for row in rows], "k--", label="lossless")
    for name in _SHOWN:
        left.plot(lengths, [row["accept_length"].get(name) for row in rows], marker=".", label=name)
    left.set(xlabel="draft length L", ylabel="accept length, tokens a round", title=f"at KL {budget:g} nats a token")
    left.legend()
    for row in rows:
        right.plot(range(1, row["length"] + 1), row["optimum"], marker=".", label=f"L {row['length']}")
    right.set(xlabel="draft position", ylabel="omega", title="the best omegas found")
    right.legend(ncols=2)


def _distance(axes: Any, found: dict[str, Any]) -> None:
    rows = found["by_distance"]
    tv = [row["tv"] for row in rows]
    left, right = axes
    names = {"lossless": "lossless", "paper": "exponential", "floor": "exponential, floor 1", "uniform": "uniform"}
    for key, name in names.items():
        label = name if key == "lossless" else f"{name}, delta {found['delta']:g}"
        left.plot(tv, [row["laws"][key]["accept_length"] for row in rows], marker=".", label=label)
        if key != "lossless":
            right.errorbar(
                tv,
                [row["laws"][key]["tv_round"] for row in rows],
                [2 * row["laws"][key]["tv_round_error"] for row in rows],
                marker=".",
                capsize=2,
                label=label,
            )
    for place in axes:
        place.axvline(0.4, color="0.6", linestyle=":")
    left.set(xlabel="TV(P, Q)", ylabel="accept length, tokens a round", title="drafts of falling quality")
    right.set(xlabel="TV(P, Q)", ylabel="TV of a round from the target", title="what the relaxation costs")
    left.legend()
    right.legend()


def _ambiguity(axes: Any, found: dict[str, Any]) -> None:
    rows = found["by_ambiguity"]
    left, right = axes
    left.plot([r["entropy"] for r in rows], [r["rejected"] for r in rows], marker="o", label="rejected")
    left.plot([r["entropy"] for r in rows], [r["tv"] for r in rows], marker=".", label="TV(P, Q)")
    left.set(xlabel="entropy of P, nats", ylabel="share", title="lossless decoding, by the entropy of P")
    right.plot([1 - r["top5"] for r in rows], [r["rejected"] for r in rows], marker="o", label="rejected")
    right.set(xlabel="mass of P outside its five likeliest codes", ylabel="share", title="by the top-5 mass of P")
    left.legend()
