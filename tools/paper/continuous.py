"""The bias of the published rules for continuous tokens, by quadrature: `python -m tools.paper.continuous`.

On a two-step head of one channel (`tools.paper.two_steps`), for drafts whose deviations differ more and more from the
target's: how often a draft is accepted, and how far the token's law is from the target's. Prints the table of
docs/theory.md. Knows heads and rules. Does not know engines or images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import click
import numpy as np

from coolsd_rt.cli.entry import enter
from coolsd_rt.cli.terminal import say
from coolsd_rt.law.continuous.gaussians import RatioForm
from coolsd_rt.law.continuous.published import TEMPERATURE, code_rule, log_sigma, paper_rule
from coolsd_rt.law.continuous.quadrature import Distances, Nodes, ScalarRule, distances, position_law
from tools.paper.two_steps import TwoSteps

TARGET = TwoSteps()
NEAR = replace(TARGET, z=0.36, bend=1.15)
DRAFTS = {
    "the same": NEAR,
    "first step .6 for .7": replace(NEAR, first=0.6),
    "first step .5 for .7": replace(NEAR, first=0.5),
    "first .6, last .55 for .5": replace(NEAR, first=0.6, last=0.55),
}
EDGES = np.linspace(-9, 9, 361)


@dataclass(frozen=True)
class BiasRow:
    """A draft, a rule, and what the rule does with it."""

    draft: str
    rule: str
    found: Distances


def rules(draft: TwoSteps) -> dict[str, ScalarRule]:
    """The rules to compare, for the Sigma of a draft."""
    factor = log_sigma([TARGET.first], [draft.first])
    return {
        "last step, omega 1": ScalarRule(),
        "published, with Sigma": paper_rule(factor),
        "its code, last try": code_rule(factor),
        "its code, zeros": code_rule(factor, "zero"),
        "the variance alone": ScalarRule(form=RatioForm(squared=True)),
        "the temperature alone": ScalarRule(form=RatioForm(temperature=TEMPERATURE)),
    }


def rows(noise: Nodes) -> Iterator[BiasRow]:
    """The table's rows."""
    for name, draft in DRAFTS.items():
        for rule, each in rules(draft).items():
            yield BiasRow(name, rule, distances(TARGET.head, draft.head, each, noise, EDGES))


def own_noise(draft: TwoSteps) -> float:
    """Return the acceptance of the exact rule where draft and target have noise of their own in the first step."""
    nodes, rate = Nodes.normal(6, 16, 7.5), 0.0
    for value, weight in zip(nodes.points, nodes.weights, strict=True):
        pairs = np.stack([np.full(len(nodes.points), value), nodes.points], axis=-1)
        law = position_law(np.zeros(1), TARGET.reading(0), draft.reading(1), ScalarRule(), pairs)
        rate += weight * float(nodes.weights @ law.acceptance)
    return rate


def lines(found: list[BiasRow]) -> list[str]:
    """The table in Markdown."""
    out = ["| draft's deviations | rule | acceptance | TV | KS | bound reached |", "|---|---|---|---|---|---|"]
    for row in found:
        d = row.found
        # What an integral of 1e-13 would print as is the rounding of the machine.
        tv, ks = ("under 1e-10" if value < 1e-10 else f"{value:.4f}" for value in (d.tv, d.ks))
        out.append(f"| {row.draft} | {row.rule} | {d.acceptance:.3f} | {tv} | {ks} | {d.fallback:.4f} |")
    return out


@click.command()
def command() -> None:
    """Print how far the published rules for continuous tokens are from the target's law, on two-step heads."""
    for line in lines(list(rows(Nodes.normal()))):
        say(line)
    say("")
    for name, draft in DRAFTS.items():
        say(f"noise of its own, {name}: acceptance {own_noise(draft):.3f}")


def main() -> None:
    """Entry point."""
    enter(command)


if __name__ == "__main__":
    main()
