"""P's and Q's logits along given images, for each kind of draft: what is trained, and what is measured.

Knows the networks and guidance. Does not know losses or laws. Legend as in `coolsd_rt.contract`; M images, R rows of
them (2M under CFG: all conditional rows first), N image tokens.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coolsd_rt.models.decoder import Decoder
from coolsd_rt.models.eagle import Eagle, seen_prefix
from coolsd_rt.train.chain import own_predictions


class Example(NamedTuple):
    """A batch of images. text: what the condition is made of, [R, W] or [R, W, E]. start: int64 [R], of targets whose
    prefixes are padded, else None. codes: int64 [M, N]. scale: CFG scale of each token, float32 [M, N]; None: R = M.
    numbers: the images' own, by which they are known when they come again; () where they do not."""

    text: Tensor
    start: Tensor | None
    codes: Tensor
    scale: Tensor | None
    numbers: tuple[int, ...] = ()

    def both(self) -> Tensor:
        """Codes of every row, int64 [R, N]."""
        return self.codes if self.scale is None else self.codes.repeat(2, 1)


class Along(NamedTuple):
    """Guided logits of image tokens first .. N - 1: the target's float32 [M, N - first, codes], and the draft's of
    each depth; entries before `depth` of a depth mean nothing. smooth: SmoothL1 of guessed features, one a depth."""

    first: int
    target: Tensor
    drafts: list[Tensor]
    smooth: list[Tensor]


N = TypeVar("N", bound=nn.Module, covariant=True)


class Student(Protocol[N]):
    """A draft that learns from a target."""

    @property
    def network(self) -> N: ...

    def along(self, example: Example, steps: int, noise: Tensor | None = None) -> Along:
        """Logits along the images, for `steps` depths. noise: added to the features that the draft is given,
        in their standard deviations, [R, S, C] of positions 0 .. S - 1. Gradients reach the draft alone."""
        ...


def guided(x: Tensor, scale: Tensor | None) -> Tensor:
    """CFG on rows [2M, S, C] (conditional rows first), scale [M, S or 1, 1] -> [M, S, C]; None: as they are."""
    if scale is None:
        return x
    cond, uncond = x.chunk(2)
    return uncond + (cond - uncond) * scale


def guided_logits(target: Decoder, features: Tensor, scale: Tensor | None) -> Tensor:
    """Features [R, S, C], scale [M, S] -> logits float32 [M, S, codes] of the image codes.

    A head that is one matrix is applied once, to guided features: it is linear.
    """
    by = None if scale is None else scale[..., None]
    head = target.output
    if getattr(head, "bias", None) is None and isinstance(head, nn.Linear):
        return torch.as_tensor(head(guided(features, by)).float())
    return guided(head(features).float(), by)


class FeatureCache:
    """Features of images that come again in every epoch, on the host, as long as they fit into `limit` bytes.

    The target is frozen, and guidance is applied to features after it: they are the same each time. Mostly half of a
    step's time on a CPU.
    """

    def __init__(self, limit: int = 1 << 30) -> None:
        self._left, self._known = limit, dict[int, Tensor]()

    def features(self, target: Decoder, example: Example) -> Tensor:
        """[R, S, C] of positions 0 .. S - 1."""
        numbers, known = example.numbers, self._known
        if not numbers or any(n not in known for n in numbers):
            with torch.no_grad():
                found: Tensor = target(example.text, example.both(), example.start)[1]
            self._keep(numbers, found)
            return found
        device = example.codes.device
        return torch.stack([known[n] for n in numbers], dim=1).flatten(0, 1).to(device)

    def _keep(self, numbers: tuple[int, ...], features: Tensor) -> None:
        if not numbers:
            return
        by_image = features.unflatten(0, (-1, len(numbers)))  # [1 or 2, M, S, C]
        for i, number in enumerate(numbers):
            mine = by_image[:, i]
            size = mine.numel() * mine.element_size()
            if number not in self._known and size <= self._left:
                self._known[number] = mine.cpu().clone()
                self._left -= size


class HeadStudent:
    """An EAGLE head on the target's features; the target's own head makes logits of its guesses."""

    def __init__(self, head: Eagle, target: Decoder, memory: FeatureCache | None = None) -> None:
        self.network, self.target, self.memory = head, target, memory or FeatureCache()

    def along(self, example: Example, steps: int, noise: Tensor | None = None) -> Along:
        target, codes = self.target, example.both()
        with torch.no_grad():
            prefix = target.condition(example.text)
            features = self.memory.features(target, example)
        table = self.network.table(target)
        prefix = seen_prefix(self.network.cfg, prefix, table)
        embedded = torch.cat([prefix[:, 1:], table(codes)], dim=1)
        given = features if noise is None else features + noise.to(features.dtype) * features.std()
        # Row t guesses the feature of t + 1, whose logits predict token t + 2; the last row's has no counterpart.
        guesses = own_predictions(self.network, target, embedded[:, :-1], given[:, :-1], steps, example.start)
        row = max(target.cfg.prefix - 2, 0)
        first = row + 2 - target.cfg.prefix
        scale = None if example.scale is None else example.scale[:, first:]
        truth = features[:, 1 + row :]
        with torch.no_grad():
            wanted = guided_logits(target, truth, scale)
        drafts, smooth = [], []
        for depth, guess in enumerate(guesses):
            rows = guess[:, row:]
            drafts.append(guided_logits(target, rows, scale))
            smooth.append(F.smooth_l1_loss(rows[:, depth:].float(), truth[:, depth:].float()))
        return Along(first, wanted, drafts, smooth)


class ModelStudent:
    """A small model of its own: what it gives a token does not depend on where a round began."""

    def __init__(self, model: Decoder, target: Decoder) -> None:
        self.network, self.target = model, target

    def along(self, example: Example, steps: int, noise: Tensor | None = None) -> Along:
        by = None if example.scale is None else example.scale[..., None]
        codes = example.both()
        image = self.target.cfg.layout.codes
        with torch.no_grad():
            wanted = self.target(example.text, codes, example.start)[0]
        found = self.network(example.text, codes, example.start)[0]
        logits = guided(found[..., :image].float(), by)
        nothing = logits.new_zeros(())
        return Along(0, guided(wanted[..., :image].float(), by), [logits] * steps, [nothing] * steps)
