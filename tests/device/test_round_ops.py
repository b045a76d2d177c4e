"""The operators around a round where no GPU is: their registration, and what does not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from coolsd_rt.device.round_ops import commit, draft_token, window
from coolsd_rt.errors import CoolsdError
from coolsd_rt.ops.gpu import draft_sample
from tests.device.rounds import Sizes, commit_of, copied, drafts_of, window_of
from tests.ops.gpu.cases import fresh

SIZES = Sizes(3, 2, True, True)
FREE = Sizes(3, 0, False, False)


@pytest.mark.parametrize("sizes", [SIZES, FREE], ids=["forced", "free"])
def test_registration(sizes: Sizes) -> None:
    rng = fresh()
    torch.library.opcheck(window, (), window_of(rng, sizes))
    torch.library.opcheck(commit, (), commit_of(rng, sizes, 30, 0.0))
    torch.library.opcheck(commit, (), commit_of(rng, sizes, 30, 0.2))
    for step in drafts_of(rng, sizes, 30, 0.2, 0.9):
        torch.library.opcheck(draft_token, (), step)


def test_a_draft_is_drawn_as_draft_sample_draws() -> None:
    """From the pending position's row, with the numbers of its own place in the window."""
    first, second = drafts_of(fresh(), SIZES, 30, 0.0, 0.9)
    rows = torch.arange(SIZES.rows)
    for step, logits in ((first, first["logits"][rows, first["last"]][:, None]), (second, second["logits"])):
        i, given = step["i"], copied(step)
        draft_token(**given)
        one = slice(i, i + 1)
        tokens, q = draft_sample(logits, step["scale"][:, one], step["u"][:, one], 0.8, 15, 0.9, step["forced"][:, one])
        assert torch.equal(given["q"][:, one], q)
        for written in (given["drafts"][:, one], given["ids"][:3, i + 1 : i + 2], given["ids"][3:, i + 1 : i + 2]):
            assert torch.equal(written, tokens)
        assert torch.equal(given["token"], torch.cat([tokens, tokens]))


def fails(operator: Any, given: dict[str, Any], match: str, **wrong: Any) -> None:
    with pytest.raises(CoolsdError, match=match):
        operator(**copied(given) | wrong)


def test_what_does_not_fit() -> None:
    rng = fresh()
    given = window_of(rng, SIZES)
    fails(window, given, "num_pending", num_pending=given["num_pending"].int())
    fails(window, given, "uniforms", uniforms=given["uniforms"][..., :2])
    fails(window, given, r"ids.*contiguous", ids=given["ids"].T.contiguous().T)
    fails(window, given, "the window's scale", scale=None)
    fails(window, given, "the window's forced", is_forced=None)
    step = drafts_of(rng, SIZES, 30, 0.2, 0.9)[0]
    fails(draft_token, step, "float64", logits=step["logits"].double())
    fails(draft_token, step, r"q.*contiguous", q=step["q"].transpose(0, 1).contiguous().transpose(0, 1))
    fails(draft_token, step, "token", token=step["token"][:3])
    said = commit_of(rng, SIZES, 30, 0.2)
    fails(commit, said, "broken", broken=said["broken"].long())
    fails(commit, said, "tensor p", p=said["p"][:, :2])
    fails(commit, said, "histogram", histogram=said["attempts"])
