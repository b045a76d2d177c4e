"""What a step of training and a measurement compute, for images and for texts.

Knows students and objectives of both. Does not know optimizers, files or data.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor

from coolsd_rt.models.decoder import Decoder
from coolsd_rt.models.eagle import Eagle
from coolsd_rt.models.rows import RowHead
from coolsd_rt.train.acceptance import Acceptance
from coolsd_rt.train.measuring import measure
from coolsd_rt.train.objective import Objective
from coolsd_rt.train.row_students import RowStudent
from coolsd_rt.train.students import Example, FeatureCache, HeadStudent, ModelStudent
from coolsd_rt.train.text_objective import TextObjective, measure_texts
from coolsd_rt.train.text_students import TextFeatures, TextHeadStudent, TextModelStudent

Network = Eagle | RowHead | Decoder
"""A draft in training."""


class Lesson(Protocol):
    """Losses and measurements of one kind of output. It keeps the target's features of both sets of data."""

    def loss(
        self, network: Network, example: Example, depths: int, noise: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, list[float]]:
        """Return the loss along a batch, a scalar, and the mean TV(P, Q) of each depth."""
        ...

    def measured(self, network: Network, examples: Iterable[Example], omegas: tuple[float, ...]) -> Acceptance:
        """Return the acceptance along held-out data."""
        ...


class ImageLesson:
    """Of images. free: bool [N], tokens that are not forced."""

    def __init__(self, target: Decoder, objective: Objective, free: Tensor) -> None:
        self._target, self._objective, self._free = target, objective, free
        self._memory, self._held = FeatureCache(), FeatureCache()

    def loss(
        self, network: Network, example: Example, depths: int, noise: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, list[float]]:
        """Return the loss along a batch; see `Lesson.loss`. `generator` is not used.

        depths: not used for a row head, whose own sizes say which drafts differ.
        """
        if isinstance(network, RowHead):
            depths = min(network.cfg.ahead + 1, network.cfg.row)
        along = self._student(network, self._memory).along(example, depths, noise)
        return self._objective.loss(along, self._free)

    def measured(self, network: Network, examples: Iterable[Example], omegas: tuple[float, ...]) -> Acceptance:
        """Return the acceptance along held-out images."""
        student = self._student(network, self._held)
        most = student.most if isinstance(student, RowStudent) else None
        return measure(student, self._objective, examples, omegas, self._free, most)

    def _student(self, network: Network, memory: FeatureCache) -> HeadStudent | ModelStudent | RowStudent:
        if isinstance(network, Eagle):
            return HeadStudent(network, self._target, memory)
        if isinstance(network, RowHead):
            return RowStudent(network, self._target, memory)
        return ModelStudent(network, self._target)


class TextLesson:
    """Of texts. most: tokens after which they were cut. by: computes the features of losses, a copy of the target."""

    def __init__(self, target: Decoder, by: Decoder, objective: TextObjective, most: int) -> None:
        self._target, self._objective, self._most = target, objective, most
        self._memory, self._held = TextFeatures(by), TextFeatures(target)

    def loss(
        self, network: Network, example: Example, depths: int, noise: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, list[float]]:
        """Return the loss along a batch; see `Lesson.loss`. generator: draws tokens of the vocabulary."""
        along = self._student(network, self._memory).along(example, depths, noise)
        return self._objective.loss(along, generator)

    def measured(self, network: Network, examples: Iterable[Example], omegas: tuple[float, ...]) -> Acceptance:
        """Return the acceptance along held-out texts."""
        along = self._student(network, self._held).along
        return measure_texts(along, self._objective.objective, examples, omegas, self._most)

    def _student(self, network: Network, memory: TextFeatures) -> TextHeadStudent | TextModelStudent:
        if isinstance(network, Eagle):
            return TextHeadStudent(network, self._target, memory)
        if isinstance(network, RowHead):
            raise TypeError("a text has no rows")
        return TextModelStudent(network, self._target, memory)
