"""The table of the published rules' bias: the page has today's, and its digits do not depend on the nodes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from coolsd_rt.law.continuous.quadrature import Nodes, distances
from tests.named import ROOT
from tools.paper.continuous import DRAFTS, EDGES, TARGET, rules

PAGE = (ROOT / "docs/theory.md").read_text(encoding="utf-8")


def test_the_page_has_what_the_command_prints() -> None:
    command = [sys.executable, "-m", "tools.paper.continuous"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    table, rates = printed.strip().split("\n\n")
    assert table in PAGE
    told = [line.rsplit("acceptance 0", 1)[1] for line in rates.splitlines()]
    shared = [line.split(" | ")[2][1:] for line in table.splitlines() if "last step, omega 1" in line]
    for values in (told, shared):
        assert f"{', '.join(values[:-1])} and {values[-1]}" in PAGE


@pytest.mark.parametrize("rule", ["last step, omega 1", "published, with Sigma", "its code, last try"])
def test_finer_nodes_give_the_same_digits(rule: str) -> None:
    draft = DRAFTS["first .6, last .55 for .5"]
    found = [
        distances(TARGET.head, draft.head, rules(draft)[rule], nodes, EDGES)
        for nodes in (Nodes.normal(), Nodes.normal(90, 12))
    ]
    for name in ("tv", "ks", "acceptance", "fallback"):
        assert getattr(found[0], name) == pytest.approx(getattr(found[1], name), abs=2e-5)
