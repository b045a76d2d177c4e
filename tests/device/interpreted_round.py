"""The kernels around the law in Triton's interpreter against the torch code that says what they mean.

Run by test_interpreted.py. What draws a token is the same kernel code on both sides; interpreted_process.py tests it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from coolsd_rt.device import round_reference
from coolsd_rt.device.round_ops import commit, draft_token, window
from tests.device.rounds import Arguments, Sizes, commit_of, copied, drafts_of, same, window_of
from tests.ops.gpu.cases import fresh

SIZES = [
    Sizes(images, length, paired, forced)
    for (images, length), paired, forced in itertools.product(
        [(30, 0), (30, 1), (30, 3), (20, 5), (20, 20)], [False, True], [False, True]
    )
]
VOCAB = 150


def check(operator: Callable[..., None], meant: Callable[..., None], given: Arguments) -> Arguments:
    """Assert that both write the same into the same; what they wrote."""
    found, wanted = copied(given), copied(given)
    operator(**found)
    meant(**wanted)
    same(found, wanted)
    return found


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_window(sizes: Sizes) -> None:
    rng = fresh()
    given = window_of(rng, sizes)
    found = check(window, round_reference.window, given)
    assert torch.equal(found["ids"][:, 1:], given["ids"][:, 1:])


@pytest.mark.parametrize("least", [0.0, 0.2])
@pytest.mark.parametrize("sizes", [s._replace(images=4) for s in SIZES if 0 < s.length < 20], ids=str)
def test_drafts(sizes: Sizes, least: float) -> None:
    rng = fresh()
    steps = drafts_of(rng, sizes, VOCAB, least, top_p=0.9)
    before = steps[0]["num_drafts"]
    found = one_after_another(steps)
    assert torch.equal(found["ids"][: sizes.images, 1:], found["drafts"])
    assert torch.equal(found["ids"][:, -1:], found["token"])
    if least:
        assert torch.equal(found["peaks"], found["q"].amax(-1))
        assert (found["num_drafts"] <= before).all()
    else:
        assert torch.equal(found["num_drafts"], before)


def one_after_another(steps: list[Arguments]) -> Arguments:
    """Each draft checked on what the ones before it wrote."""
    written: dict[str, Any] = {}
    names = ("num_drafts", "peaks", "q", "drafts", "ids", "token")
    found: Arguments = {}
    for step in steps:
        found = check(draft_token, round_reference.draft_token, {**step, **written})
        written = {name: found[name] for name in names}
    return found


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_drafts_of_half_precision(dtype: torch.dtype) -> None:
    steps = drafts_of(fresh(), Sizes(4, 2, True, False), VOCAB, 0.0, top_p=1.0)
    one_after_another([{**step, "logits": step["logits"].to(dtype)} for step in steps])


def test_a_nan_cuts_no_window() -> None:
    """Where a draft that could count has NaN, the verdict has to see it; where none could, the cut stays."""
    rng, sizes = fresh(), Sizes(5, 3, False, False)
    steps = drafts_of(rng, sizes, VOCAB, 0.9999, top_p=1.0)
    for step in steps:
        step["logits"] = step["logits"] / 9  # nothing is near sure
    steps[0]["num_drafts"][:] = torch.tensor([3, 2, 3, 0, 3])
    steps[0]["logits"][0] = torch.nan
    steps[2]["logits"][1] = torch.nan  # past the two that count
    steps[1]["logits"][2] = torch.nan
    steps[0]["logits"][3] = torch.nan
    found = one_after_another(steps)
    assert found["num_drafts"].tolist() == [3, 0, 3, 0, 0]


def test_as_sure_as_asked_is_sure() -> None:
    """A probability of exactly `least`, which is no float32."""
    least = 0.7
    steps = drafts_of(fresh(), Sizes(1, 1, False, False), 2, least, top_p=1.0)
    p = torch.tensor([[[least, 0.3]]])
    given = commit_of(fresh(), Sizes(1, 0, False, False), 2, least) | {"p": p}
    assert check(commit, round_reference.commit, given)["draft_allowed"].all()
    nothing = float(torch.nextafter(torch.tensor(least), torch.tensor(0.0)))
    given["p"] = torch.tensor([[[nothing, 0.3]]])
    assert not check(commit, round_reference.commit, given)["draft_allowed"].any()
    peak = one_after_another(steps)["peaks"].item()
    assert (
        one_after_another([{**steps[0], "least": peak, "num_drafts": torch.ones(1).long()}])["num_drafts"].item() == 1
    )


@pytest.mark.parametrize("least", [0.0, 0.3])
@pytest.mark.parametrize("sizes", [s for s in SIZES if not s.paired and not s.forced], ids=str)
def test_commit(sizes: Sizes, least: float) -> None:
    rng = fresh()
    for _ in range(2):
        given = commit_of(rng, sizes, VOCAB, least)
        if least:
            given["p"][:2, :, 5:9] = torch.nan
        found = check(commit, round_reference.commit, given)
        done = given["committed"] == sizes.prefix + sizes.tokens
        for name in ("codes", "committed", "num_pending", "rounds", "fault"):
            assert torch.equal(found[name][done], given[name][done]), name
        assert int((found["histogram"] - given["histogram"]).sum()) == int((~done).sum())
        assert (found["committed"] <= sizes.prefix + sizes.tokens).all()
