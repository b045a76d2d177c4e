"""Logits of P and Q along given images, for each kind of draft, in training and in measurements.

Knows the networks and guidance. Does not know losses or laws. Legend as in `coolsd_rt.contract`; M images, R rows (2M
under CFG: all conditional rows first), N image tokens.
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
    """A batch of images.

    text: input of the condition, [R, W] or [R, W, E]. start: int64 [R] for targets with padded prefixes, else None.
    codes: int64 [M, N]. scale: CFG scale of each token, float32 [M, N]; None: R = M. numbers: image numbers, which
    identify images in later epochs; () if they do not recur. lengths: int64 [M], tokens of each text, behind which
    codes have no meaning; None: images.
    """

    text: Tensor
    start: Tensor | None
    codes: Tensor
    scale: Tensor | None
    numbers: tuple[int, ...] = ()
    lengths: Tensor | None = None

    def both(self) -> Tensor:
        """Return the codes of every row, int64 [R, N]."""
        return self.codes if self.scale is None else self.codes.repeat(2, 1)


class Along(NamedTuple):
    """Guided logits of image tokens first .. N - 1.

    target: float32 [M, N - first, codes]. drafts: the same for each depth; the first `depth` entries of a depth have no
    meaning. smooth: SmoothL1 loss of predicted features, one per depth. valid: bool [depths, N - first], tokens that a
    round drafts at this depth; None: all but the first `depth`.
    """

    first: int
    target: Tensor
    drafts: list[Tensor]
    smooth: list[Tensor]
    valid: Tensor | None = None


N = TypeVar("N", bound=nn.Module, covariant=True)


class Student(Protocol[N]):
    """A draft in training."""

    @property
    def network(self) -> N:
        """The draft's network."""
        ...

    def along(self, example: Example, steps: int, noise: Tensor | None = None) -> Along:
        """Return logits along the images for `steps` depths. Gradients reach only the draft.

        noise: added to the draft's input features, in their standard deviations, [R, S, C] of positions 0 .. S - 1.
        """
        ...


def guided(x: Tensor, scale: Tensor | None) -> Tensor:
    """Apply CFG to rows [2M, S, C] (conditional rows first) with scale [M, S or 1, 1] -> [M, S, C]. None: no change."""
    if scale is None:
        return x
    cond, uncond = x.chunk(2)
    return uncond + (cond - uncond) * scale


def guided_logits(target: Decoder, features: Tensor, scale: Tensor | None) -> Tensor:
    """Return logits float32 [M, S, codes] of the image codes. features: [R, S, C]. scale: [M, S].

    A head of one matrix is linear, so it is applied once, to guided features.
    """
    by = None if scale is None else scale[..., None]
    head = target.output
    if getattr(head, "bias", None) is None and isinstance(head, nn.Linear):
        return torch.as_tensor(head(guided(features, by)).float())
    return guided(head(features).float(), by)


class FeatureCache:
    """Caches features of recurring images on the host, up to `limit` bytes.

    The target is frozen, and guidance is applied to its features afterwards, so that they are the same in every epoch.
    Saves about half of a step's time on a CPU.
    """

    def __init__(self, limit: int = 1 << 30) -> None:
        self._left, self._known = limit, dict[int, Tensor]()

    def features(self, target: Decoder, example: Example) -> Tensor:
        """Return the target's features [R, S, C] of positions 0 .. S - 1."""
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
    """An EAGLE head on the target's features; the target's output head computes logits from its predictions."""

    def __init__(self, head: Eagle, target: Decoder, memory: FeatureCache | None = None) -> None:
        self.network, self.target, self.memory = head, target, memory or FeatureCache()

    def along(self, example: Example, steps: int, noise: Tensor | None = None) -> Along:
        """Return logits along the images; see `Student.along`."""
        target, codes = self.target, example.both()
        with torch.no_grad():
            prefix = target.condition(example.text)
            features = self.memory.features(target, example)
        table = self.network.table(target)
        prefix = seen_prefix(self.network.cfg, prefix, table)
        embedded = torch.cat([prefix[:, 1:], table(codes)], dim=1)
        given = features if noise is None else features + noise.to(features.dtype) * features.std()
        # Row t predicts the feature of t + 1, whose logits predict token t + 2; the last row has no target.
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
    """An independent small model, whose logits do not depend on where a round began: all depths are equal."""

    def __init__(self, model: Decoder, target: Decoder) -> None:
        self.network, self.target = model, target

    def along(self, example: Example, steps: int, noise: Tensor | None = None) -> Along:
        """Return logits along the images; see `Student.along`. `noise` is ignored."""
        by = None if example.scale is None else example.scale[..., None]
        codes = example.both()
        image = self.target.cfg.layout.codes
        with torch.no_grad():
            wanted = self.target(example.text, codes, example.start)[0]
        found = self.network(example.text, codes, example.start)[0]
        logits = guided(found[..., :image].float(), by)
        nothing = logits.new_zeros(())
        return Along(0, guided(wanted[..., :image].float(), by), [logits] * steps, [nothing] * steps)
