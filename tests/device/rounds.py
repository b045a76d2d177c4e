"""Rounds on a device at every place of an image: arguments of the operators around the law, what they write included.

What is written to holds numbers that nobody put there, so that a write too many shows. Legend as in
`coolsd_rt.device.round_ops`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from tests.ops.gpu.cases import laws, uniforms

Arguments = dict[str, Any]  # the keyword arguments of one operator


class Sizes(NamedTuple):
    """Of one kind of round. paired: under CFG. forced: some tokens are."""

    images: int
    length: int
    paired: bool
    forced: bool
    tokens: int = 20
    prefix: int = 3

    @property
    def rows(self) -> int:
        return self.images * (1 + self.paired)


def whole(rng: torch.Generator, low: int, high: int, *shape: int) -> Tensor:
    """int64, from low to high - 1."""
    return torch.randint(low, high, shape, generator=rng)


def known(rng: torch.Generator, s: Sizes) -> tuple[Tensor, Tensor]:
    """committed and num_pending [M]: anywhere, the first token, the last but one, and finished images."""
    decided = whole(rng, 1, s.tokens + 1, s.images)
    place = whole(rng, 0, 5, s.images)
    for where, count in ((1, 1), (2, s.tokens - 1), (3, s.tokens)):
        decided = torch.where(place == where, count, decided)
    num_pending = 1 + whole(rng, 0, 1 << 30, s.images) % decided.clamp(max=s.length + 1)
    return s.prefix + decided, num_pending


def forced_ids(rng: torch.Generator, vocab: int, *shape: int) -> Tensor:
    """int64, half of them -1."""
    ids = whole(rng, 0, vocab, *shape)
    return torch.where(whole(rng, 0, 2, *shape) > 0, ids, -1)


def window_of(rng: torch.Generator, s: Sizes) -> Arguments:
    """Arguments of coolsd::window."""
    images, length, width, rows = s.images, s.length, s.length + 1, s.rows
    committed, num_pending = known(rng, s)

    def junk(*shape: int) -> Tensor:
        return whole(rng, 1000, 2000, *shape)

    return {
        "codes": whole(rng, 0, 900, images, s.tokens), "committed": committed, "num_pending": num_pending,
        "draft_allowed": whole(rng, 0, 4, images) > 0, "uniforms": uniforms(rng, images, s.tokens, width, 3),
        "scales": uniforms(rng, s.tokens) * 9 if s.paired else None,
        "fixed": forced_ids(rng, 900, s.tokens) if s.forced else None,
        "prefix": s.prefix, "shift": int(whole(rng, 0, 2)), "num_drafts": junk(images),
        "u_draft": junk(images, length).float(), "u_accept": junk(images, length).float(),
        "u_resample": junk(images, width).float(), "scale": junk(images, width).float() if s.paired else None,
        "forced": junk(images, width) if s.forced else None,
        "is_forced": whole(rng, 0, 2, images, length) > 0 if s.forced else None,
        "first": junk(rows, width), "ids": junk(rows, width), "pos": junk(width, rows), "last": junk(rows),
    }  # fmt: skip


def drafts_of(rng: torch.Generator, s: Sizes, vocab: int, least: float, top_p: float) -> list[Arguments]:
    """Arguments of coolsd::draft_token, one draft after another. least: 0 is a window that is not cut."""
    images, length, width, rows = s.images, s.length, s.length + 1, s.rows
    shared: Arguments = {
        "u": uniforms(rng, images, length), "scale": uniforms(rng, images, width) * 5 if s.paired else None,
        "forced": forced_ids(rng, vocab, images, width) if s.forced else None,
        "temperature": 0.8, "top_k": vocab // 2, "top_p": top_p, "least": least,
        "num_drafts": whole(rng, 0, width, images),
        "peaks": torch.full((images, length), 7.0) if least else None,
        "q": torch.full((images, length, vocab), 7.0), "drafts": whole(rng, 1000, 2000, images, length),
        "ids": whole(rng, 1000, 2000, rows, width), "token": whole(rng, 1000, 2000, rows, 1),
    }  # fmt: skip
    found = []
    for i in range(length):
        last = None if i else whole(rng, 0, width, images).repeat(rows // images)
        logits = torch.randn(rows, 1 if i else width, vocab, generator=rng) * 3
        found.append({**shared, "i": i, "last": last, "logits": logits})
    return found


def commit_of(rng: torch.Generator, s: Sizes, vocab: int, least: float) -> Arguments:
    """Arguments of coolsd::commit. Of finished images a verdict may say anything; it is not to be heard."""
    images, length = s.images, s.length
    committed, num_pending = known(rng, s)
    left = (s.prefix + s.tokens - committed - 1).clamp(0, length)
    num_drafts = (whole(rng, 0, 1 << 30, images) % (left + 1)).clamp(max=length)
    accepted = whole(rng, 0, 1 << 30, images) % (num_drafts + 1)
    done = committed == s.prefix + s.tokens
    accepted = torch.where(done, whole(rng, 0, length + 1, images), accepted)
    num_drafts = torch.where(done, whole(rng, 0, length + 1, images), num_drafts)
    return {
        "accepted": accepted, "token": whole(rng, 0, 900, images), "empty": whole(rng, 0, 2, images) > 0,
        "broken": whole(rng, 0, 4, images).int(), "num_drafts": num_drafts, "drafts": whole(rng, 0, 900, images,
        length), "p": laws(rng, images * (length + 1), vocab).reshape(images, length + 1, vocab) if least else None,
        "least": least, "prefix": s.prefix, "codes": whole(rng, 1000, 2000, images, s.tokens),
        "committed": committed, "num_pending": num_pending, "draft_allowed": whole(rng, 0, 2, images) > 0,
        "rounds": whole(rng, 0, 99, images), "histogram": whole(rng, 0, 99, length + 1),
        "attempts": whole(rng, 0, 99, length), "accepts": whole(rng, 0, 99, length),
        "degenerate": whole(rng, 0, 99, 1), "proposed": whole(rng, 0, 99, 1),
        "fault": (whole(rng, 0, 2, images) * 4).int(),
    }  # fmt: skip


def copied(given: Arguments) -> Arguments:
    """The same with memory of its own."""
    return {key: value.clone() if isinstance(value, Tensor) else value for key, value in given.items()}


def same(found: Arguments, wanted: Arguments) -> None:
    """Assert that all tensors hold the same, NaN included."""
    for name, value in wanted.items():
        if isinstance(value, Tensor):
            both = (found[name], value)
            assert torch.equal(*(x.nan_to_num(-1.0) if x.is_floating_point() else x for x in both)), name
