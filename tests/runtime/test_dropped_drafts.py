"""Images that drop their drafts because the loop has become busy: their tokens depend on where, and on nothing else."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from coolsd_rt.law import Law
from coolsd_rt.runtime.slot_group import ImageRequest
from tests.runtime.served import LAW, SAMPLING, Served, alone, arrivals, requests


def alone_without_drafts_from(request: ImageRequest, token: int | None) -> list[int]:
    """The image by itself, where it drops its drafts at that token, which is the first of a round."""
    served = Served(1)
    served.loop.enter(0, request)
    if token == 1:  # its group had no turn before
        served.loop._admit()
        served.loop.drop_drafts()
    while served.loop.busy:
        if token != 1 and served.seen and served.seen[-1] and served.seen[-1][0].decided == token:
            served.loop.drop_drafts()
        served.step()
    assert served.drawn[0].plain_from == token
    codes: list[int] = served.drawn[0].codes.tolist()
    return codes


@given(
    came=arrivals(st.builds(replace, requests, may_drop_drafts=st.booleans())),
    slots=st.integers(1, 4),
    drops=st.sets(st.integers(0, 12), max_size=3),
)
@settings(max_examples=100, deadline=None)
def test_an_image_that_drops_its_drafts_goes_on_from_there(
    came: list[tuple[int, list[ImageRequest]]], slots: int, drops: set[int]
) -> None:
    """drops: steps after which the loop is busy. Who may not drop drafts has all of them; the others are drawn as they
    are alone, with drafts up to the same token."""
    served, asked, steps = Served(slots), list[ImageRequest](), 0

    def step() -> None:
        nonlocal steps
        if steps in drops:
            served.loop.drop_drafts()
        steps += 1
        served.step()

    for wait, images in came:
        for _ in range(wait):
            step()
        for image in images:
            served.loop.enter(len(asked), image)
            asked.append(image)
    while served.loop.busy:
        step()
    for ticket, request in enumerate(asked):
        drawn = served.drawn[ticket]
        if not request.may_drop_drafts:
            assert drawn.plain_from is None
        if drawn.plain_from is None:
            assert drawn.codes.tolist() == alone(request)
        else:
            assert drawn.codes.tolist() == alone_without_drafts_from(request, drawn.plain_from)


def test_who_drops_drafts_shares_steps_with_plain_images() -> None:
    served = Served(3)
    served.loop.enter(0, ImageRequest(None, LAW, SAMPLING, 1, may_drop_drafts=True))
    served.step()
    served.loop.enter(1, ImageRequest(None, Law(()), SAMPLING, 2))
    served.loop.enter(2, ImageRequest(None, Law(()), SAMPLING, 3))
    served.loop.drop_drafts()
    served.step()
    assert sorted(image.ticket for image in served.seen[-1]) == [0, 1, 2]
    assert served.seen[-1][0].num_drafts[-1] == 0
