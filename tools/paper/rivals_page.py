"""The tables of `tools.paper.rivals` in Markdown. Knows its figures. Does not compute any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any


def page_of(found: dict[str, Any]) -> str:
    """Return the table of rules, and that of chains and trees where it was made."""
    return "\n".join([*rules(found), *(["", *trees(found)] if "trees" in found else [])]) + "\n"


def rules(found: dict[str, Any]) -> Iterator[str]:
    """Distances of every rule, and of COOL-SD at the same accept length."""
    yield from _header(
        "method", "rule", "claim", "lossless", "TV mean", "TV worst", "KL(out, P)", "KL(P, out)", "accept length",
        "TV uniform", "TV best", "KL best", "nearer in",
    )  # fmt: skip
    for line in found["lines"]:
        at = line.get("matched")
        beside = ["", "", "", ""]
        if at is not None:
            three = (at["uniform"]["tv"], at["best"]["tv"], at["best"]["kl"])
            beside = [*(_number(each["mean"]) for each in three), f"{at['rule_is_nearer']} of {len(found['worlds'])}"]
        lossless = "yes" if line["lossless"] else "no"
        divergences = (_number(line[name]["mean"]) for name in ("kl", "kl_of_target"))
        tvs = (_number(line["tv"][name]) for name in ("mean", "worst"))
        tokens = f"{line['accept_length']['mean']:.2f}"
        yield _row([line["method"], line["rule"], line["claim"], lossless, *tvs, *divergences, tokens, *beside])


def trees(found: dict[str, Any]) -> Iterator[str]:
    """Accept length of lossless trees, by TV(P, Q)."""
    groups = list(found["trees"][0]["accept_length_by_distance"])
    yield from _header("siblings by depth", "drafts", *(f"TV(P, Q) {group}" for group in groups))
    for tree in found["trees"]:
        lengths = (f"{value:.2f}" for value in tree["accept_length_by_distance"].values())
        yield _row([", ".join(map(str, tree["widths"])), str(tree["drafts"]), *lengths])


def _header(*names: str) -> Iterator[str]:
    yield _row(names)
    yield "|" + "---|" * len(names)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _number(value: float | None) -> str:
    if value is None:
        return "infinite"
    return "0" if value < 5e-5 else f"{value:.4f}"
