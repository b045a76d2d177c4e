"""COOL-SD's rule and those of other methods on the same tiny laws, exactly: `python -m tools.paper.rivals --out DIR`.

Every rule is enumerated on every world of `tools.paper.tiny_worlds`: total variation and both divergences of the joint
law of three tokens, and tokens a target pass. Beside each stands COOL-SD's relaxed law of the same accept length
(`tools.paper.matching`). Chains and trees of lossless drafts are compared by accept length.

Knows rules and worlds. Does not know engines. docs/rivals.md is the page. Needs the extra measure.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from coolsd_rt.cli.entry import enter, overwrite_option
from coolsd_rt.cli.paths import WRITES_IN
from coolsd_rt.cli.terminal import note, say_lines
from coolsd_rt.law import Law, Resampler, Tolerance, make_omegas
from coolsd_rt.law.comparison import Chain, RoundRule, RuleDistance, distance
from coolsd_rt.law.exact import completed, target_law, total_variation
from coolsd_rt.law.rivals import Grouped, PositionWise, RelaxedArgmax, SkippedVerification
from coolsd_rt.law.tree import LongestPath, StaticTree
from coolsd_rt.store.outputs import check_output, write_output
from tools.paper.matching import Peers, match
from tools.paper.rivals_page import page_of
from tools.paper.tiny_worlds import LENGTH, TinyWorld, worlds

FIGURES, PAGE = "rivals.json", "rivals.md"
EXACT = 1e-12
NEARER = 1e-6  # accept lengths are matched to about 1e-7
ONES = (1.0,) * LENGTH
TREES = ((1, 1, 1), (2, 1, 1), (2, 2, 1), (3, 2, 1), (4, 2, 1), (3, 3, 3))


@dataclass(frozen=True)
class Entry:
    """A line of the table. claim: whether its authors call it lossless. peers: what its distance is compared with."""

    method: str
    rule: str
    claim: str
    make: Callable[[TinyWorld], RoundRule]
    peers: Peers | None = None


def lantern(kind: str, bound: float, resampler: Resampler) -> Callable[[TinyWorld], RoundRule]:
    """LANTERN's rules with as many lending neighbours as there are, two at most."""

    def make(world: TinyWorld) -> RoundRule:
        tolerance = Tolerance(kind, bound, world.near, min(2, world.codes - 1))  # type: ignore[arg-type]
        return Chain(Law(ONES, resampler, tolerance))

    return make


def same(rule: RoundRule) -> Callable[[TinyWorld], RoundRule]:
    return lambda world: rule


CHAIN = Peers()
ENTRIES = (
    Entry("COOL-SD", "omega 1", "lossless", same(Chain(Law(ONES)))),
    Entry("COOL-SD", "uniform 1.2", "relaxed", same(Chain(Law((1.2,) * LENGTH))), CHAIN),
    Entry("COOL-SD", "exponential, delta 1.1, floor 1", "relaxed",
          same(Chain(Law(make_omegas("exponential", LENGTH, delta=1.1, floor=1.0)))), CHAIN),
    Entry("tree", "2, 2, 1; omega 1", "lossless", same(StaticTree((2, 2, 1), ONES))),
    Entry("tree", "2, 2, 1; omega 0.7", "lossless", same(StaticTree((2, 2, 1), (0.7,) * LENGTH))),
    Entry("tree", "2, 2, 1; omega 1.2", "relaxed", same(StaticTree((2, 2, 1), (1.2,) * LENGTH)), CHAIN),
    Entry("longest-path", "2, 1, 1", "lossless", same(LongestPath((2, 1, 1), ONES)),
          Peers((2, 1, 1))),
    Entry("longest-path", "2, 2, 1", "lossless", same(LongestPath((2, 2, 1), ONES)),
          Peers((2, 2, 1))),
    Entry("LANTERN", "bound .1, own residual", "relaxed", lantern("lantern", 0.1, "lantern"), CHAIN),
    Entry("LANTERN", "bound .1, G*", "ours", lantern("lantern", 0.1, "optimal"), CHAIN),
    Entry("LANTERN++", "factor 1.5, own residual", "relaxed", lantern("lantern_pp", 1.5, "lantern"), CHAIN),
    Entry("LANTERN++", "factor 1.5, G*", "ours", lantern("lantern_pp", 1.5, "optimal"), CHAIN),
    Entry("GSD", "radius 1, spread .15", "relaxed", same(Grouped(LENGTH, 1)), CHAIN),
    Entry("GSD", "radius 2, spread .15", "relaxed", same(Grouped(LENGTH, 2)), CHAIN),
    Entry("VVS", "1 of 3 drafts skipped, half of the passes", "relaxed",
          same(SkippedVerification(LENGTH, 1, 0.5)), CHAIN),
    Entry("VVS", "1 of 3 drafts skipped, every pass", "relaxed", same(SkippedVerification(LENGTH, 1)), CHAIN),
    Entry("VVS", "2 of 3 drafts skipped, every pass", "relaxed", same(SkippedVerification(LENGTH, 2)), CHAIN),
    Entry("SSD", "1 judging pass", "relaxed", same(PositionWise(LENGTH, 1)), CHAIN),
    Entry("SSD", "2 judging passes", "relaxed", same(PositionWise(LENGTH, 2)), CHAIN),
    Entry("relaxed-argmax", "slack .1, argmax", "relaxed", same(RelaxedArgmax(LENGTH, 0.1, 10)), CHAIN),
    Entry("relaxed-argmax", "slack .1, P", "ours", same(RelaxedArgmax(LENGTH, 0.1, 10, "target")), CHAIN),
)  # fmt: skip


def answer(entries: Sequence[Entry] = ENTRIES, among: Sequence[TinyWorld] | None = None) -> dict[str, Any]:
    """Compute the figures of every entry on every world."""
    every = list(worlds()) if among is None else list(among)
    lines = []
    for entry in entries:
        note(f"{entry.method}, {entry.rule}")
        lines.append(_line(entry, every))
    found = {"length": LENGTH, "worlds": [world.name for world in every], "lines": lines}
    if any(entry.method == "tree" for entry in entries):
        found["trees"] = [_tree(widths, every) for widths in TREES]
    return found


def _line(entry: Entry, every: Sequence[TinyWorld]) -> dict[str, Any]:
    found = [distance(entry.make(world), world.target, world.draft) for world in every]
    first = [_first_token(entry.make(world), world) for world in every]
    line = {
        "method": entry.method,
        "rule": entry.rule,
        "claim": entry.claim,
        "lossless": max(each.tv for each in found) < EXACT,
        "tv_first_token": _spread(first),
        **_figures(found),
        "tv_by_distance": _by_distance(every, [each.tv for each in found]),
    }
    if entry.peers is not None:
        matched = [match(w, entry.peers, each.accept_length, LENGTH) for w, each in zip(every, found, strict=True)]
        line["matched"] = {
            "uniform": _figures([each.uniform for each in matched]),
            "best": _figures([each.best for each in matched]),
            "rule_is_nearer": sum(
                a.tv < b.best.tv - NEARER for a, b in zip(found, matched, strict=True)
            ),
        }  # fmt: skip
    return line


def _first_token(rule: RoundRule, world: TinyWorld) -> float:
    law = completed(world.target, rule.emitted(world.target, world.draft), 1)
    return total_variation(law, target_law(world.target, 1))


def _tree(widths: tuple[int, ...], every: Sequence[TinyWorld]) -> dict[str, Any]:
    rule = StaticTree(widths, ONES)
    found = [distance(rule, world.target, world.draft) for world in every]
    return {
        "widths": list(widths),
        "drafts": rule.nodes,
        "tv_worst": max(each.tv for each in found),
        "accept_length": float(np.mean([each.accept_length for each in found])),
        "accept_length_by_distance": _by_distance(every, [each.accept_length for each in found]),
    }


def _figures(found: Sequence[RuleDistance]) -> dict[str, Any]:
    columns = {name: [asdict(each)[name] for each in found] for name in asdict(found[0])}
    return {name: _spread(values) for name, values in columns.items()}


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and greatest value; null where infinite."""
    return {
        key: x if math.isfinite(x) else None for key, x in (("mean", float(np.mean(values))), ("worst", max(values)))
    }


def _by_distance(every: Sequence[TinyWorld], values: Sequence[float]) -> dict[str, float]:
    groups = sorted({world.distance for world in every})
    return {f"{group:g}": float(np.mean([v for w, v in zip(every, values, strict=True) if w.distance == group]))
            for group in groups}  # fmt: skip


@click.command()
@click.option("--out", type=WRITES_IN, help="Folder to write rivals.json and rivals.md into.")
@click.option(
    "--method",
    "methods",
    type=click.Choice(list(dict.fromkeys(entry.method for entry in ENTRIES)), case_sensitive=False),
    multiple=True,
    help="Only the lines of this method; may be given several times.",
)
@overwrite_option
def command(out: Path | None, methods: tuple[str, ...], overwrite: bool) -> None:
    """Enumerate COOL-SD's rule and those of other methods on tiny laws, and print the tables.

    \b
    Example:
      python -m tools.paper.rivals --out out/rivals
      python -m tools.paper.rivals --method GSD
    """
    if out is not None:
        for name in (FIGURES, PAGE):
            check_output(out / name, "--out", overwrite=overwrite)
    found = answer([entry for entry in ENTRIES if not methods or entry.method in methods])
    page = page_of(found)
    if out is not None:
        write_output(out / FIGURES, (json.dumps(found, indent=1) + "\n").encode(), overwrite=overwrite)
        write_output(out / PAGE, page.encode(), overwrite=overwrite)
    say_lines(page)


def main() -> None:
    """Entry point."""
    enter(command)


if __name__ == "__main__":
    main()
