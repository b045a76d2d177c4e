"""Planting a bug: the small worlds that the enumeration runs on, and how a function of the package is replaced.

A world is distributions, a method and the settings of a request; `holds` is the check of `test_exact_round` on it.
A bug is planted wherever the package has imported the function that it sits in, so that it does not matter which of its
modules calls it. The tree of `tests.runtime.tree` imports nothing of the package and stays as it is.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from coolsd_rt.arrays import Floats64
from coolsd_rt.errors import CoolsdError
from coolsd_rt.law import Law, Tolerance
from coolsd_rt.runtime import Sampling, decode
from tests.runtime.fakes import FakeSession, Tables, dims
from tests.runtime.tree import Leaf, Method, Model, leaves, probes

Change = Callable[[dict[str, Any]], None]  # of a call's arguments, by name


@dataclass(frozen=True, eq=False)
class World:
    """tables: of `vocab` codes and images of `tokens` tokens. scales: of guidance, one for each token."""

    tables: Tables
    method: Method
    vocab: int
    tokens: int
    scales: tuple[float, ...] | None = None
    top_k: int = 0

    @property
    def law(self) -> Law:
        """The method, as the loop is told."""
        m = self.method
        tolerance = None if m.lantern is None else Tolerance(*m.lantern[:2], np.array(m.lantern[2]), m.lend)  # type: ignore[arg-type]
        return Law(m.omegas, m.resampler, tolerance, m.rates)  # type: ignore[arg-type]

    @property
    def sampling(self) -> Sampling:
        return Sampling(cfg_scale=self.scales or 1.0, top_k=self.top_k)

    @functools.cached_property
    def leaves(self) -> list[Leaf]:
        return leaves(self._model(self.tables.p), self._model(self.tables.q), self.method, self.tokens)

    def _model(self, of: Callable[[tuple[int, ...], int], Floats64]) -> Model:
        """Guided in the logits, then the likeliest codes, then normalised."""

        def law(context: tuple[int, ...]) -> Floats64:
            weights = of(context, 0)
            if self.scales:
                uncond = of(context, 1)
                weights = uncond * (weights / uncond) ** self.scales[len(context)]
            if self.top_k:
                weights = np.where(weights >= np.sort(weights)[-self.top_k], weights, 0.0)
            return np.asarray(weights / weights.sum(), np.float64)

        return law


def holds(
    world: World,
    law: Law | None = None,
    *,
    session: type[FakeSession] = FakeSession,
    numbers: Callable[[Floats64], Floats64] = lambda table: table,
) -> bool:
    """Whether the loop draws every leaf of the world at both ends of its box.

    law: what the loop is told instead. session: the models it runs on. numbers: its random numbers, from those meant.
    """
    found, law = world.leaves, law or world.law
    for upper in (False, True):
        models = session(world.tables, dims(world.vocab, world.tokens), len(found), guided=world.scales is not None)
        uniforms = numbers(probes(found, world.tokens, law.length, upper))
        try:
            codes = decode(models, law, world.sampling, uniforms, world.method.forced).codes
        except (CoolsdError, AssertionError, IndexError):
            return False
        if codes.tolist() != [list(leaf.codes) for leaf in found]:
            return False
    return True


def plant(monkeypatch: pytest.MonkeyPatch, real: Callable[..., Any], planted: Callable[..., Any]) -> None:
    """Replace `real` in every module of the package that knows it."""
    places = [
        (module, name)
        for path, module in list(sys.modules.items())
        if path.startswith("coolsd_rt")
        for name, value in list(vars(module).items())
        if value is real
    ]
    assert places
    for module, name in places:
        monkeypatch.setattr(module, name, planted)


def plant_in_arguments(monkeypatch: pytest.MonkeyPatch, real: Callable[..., Any], change: Change) -> None:
    """Have `real` called with arguments that `change` has changed."""
    signature = inspect.signature(real)

    def planted(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        change(bound.arguments)
        return real(*bound.args, **bound.kwargs)

    plant(monkeypatch, real, planted)
