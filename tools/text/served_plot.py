"""The plot of `tools.text.served_report`: one SVG. Knows the JSON document and matplotlib."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tools.paper.plot import drawn


def plot(found: Mapping[str, Any]) -> bytes:
    """Return rejection by entropy, texts and images, beside what each law costs and gains, as SVG."""
    return drawn(_fill, found)


_MARKERS = "os^v"  # of the first ten laws, the next ten, ...: colours come again after ten


def _fill(axes: Any, found: Mapping[str, Any]) -> None:
    left, right = axes
    rows = found["by_ambiguity"][found["base"]]
    low, high = ([abs(row[end] - row["rejected"]) for row in rows] for end in ("low", "high"))
    entropy, rejected = ([row[name] for row in rows] for name in ("entropy", "rejected"))
    left.errorbar(entropy, rejected, (low, high), marker="o", capsize=2, label="texts")
    if images := found["images"]:
        left.plot([row["entropy"] for row in images], [row["rejected"] for row in images], marker=".", label="images")
    left.set(xlabel="entropy of P, nats", ylabel="share rejected", title="lossless decoding, by the entropy of P")
    left.legend()
    gain, cost = found["figures"]["accept_length"], found["figures"]["kl_revealed"]
    for i, (name, row) in enumerate(gain.items()):
        x, y = row["value"], cost[name]["value"]
        spread = [[abs(part["value"] - part[end])] for part in (x, y) for end in ("low", "high")]
        right.errorbar(
            [x["value"]], [y["value"]], spread[2:], spread[:2], marker=_MARKERS[i // 10], capsize=2, label=name
        )
    right.set(xlabel="accept length, tokens a round", ylabel="KL a token, nats, at most", title="gain and cost")
    right.legend(fontsize=7)
