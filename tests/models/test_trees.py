"""One step along a tree, of the eager networks of every kind of family: as chain steps along each of its paths."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from coolsd_rt.backends.torch.eager import TorchEngine, TorchSession
from coolsd_rt.device.engine import DeviceEngine
from coolsd_rt.errors import CoolsdError
from coolsd_rt.models.layers import Tree, cached_step
from tests.models.family_cases import CAPACITY, CONFIGS, HEADS, ROWS, image, random_draft, random_target
from tests.trees import Grown, Planted, TreeCheck

NAMES = ("llamagen", "llamagen-t2i", "lumina-mgpt", "llama", "janus-pro")
"""RoPE on a grid and on a line, shared keys, padded prefixes whose angles count from their start."""


def engine(name: str, head: str = "plain") -> TorchEngine:
    target = random_target(CONFIGS[name])
    made: Any = target
    return TorchEngine(made, random_draft(target, **HEADS[head]), None)


def checked(name: str, head: str = "plain", bug: str = "", device: bool = False) -> TreeCheck:
    """A check of both models; a bug is planted in the session that steps along trees."""
    cfg, given = CONFIGS[name], image(CONFIGS[name])
    made = engine(name, head)
    prefix = made.encode_condition(given.condition)
    opener = DeviceEngine(made) if device else made
    first, second = (opener.open(prefix, CAPACITY, given.start) for _ in range(2))
    branching = Planted(first, bug) if bug else first
    return TreeCheck(branching, second, ROWS, cfg.prefix, cfg.layout.codes, cfg.dim, 1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_tree_is_its_paths(name: str) -> None:
    checked(name).all()


@pytest.mark.parametrize("head", [h for h in HEADS if h != "plain"])
def test_every_form_of_head_steps_along_trees(head: str) -> None:
    check = checked("lumina-mgpt", head)
    for tree in (Grown.of((2, 2)), Grown.random(6, 1)):
        check.draft(tree)


def test_the_backend_torch_steps_along_trees() -> None:
    checked("llama", device=True).all()


@pytest.mark.parametrize("bug", ["sibling", "depth", "moved"])
@pytest.mark.parametrize("name", ["llamagen", "llama"])
def test_planted_bugs_are_seen(name: str, bug: str) -> None:
    check = checked(name, bug=bug)
    with pytest.raises(AssertionError):
        check.all()
    assert check.worst > 1e-3


@pytest.mark.parametrize("bug", ["sibling", "depth"])
def test_planted_bugs_of_the_head_are_seen(bug: str) -> None:
    with pytest.raises(AssertionError):
        checked("llama", bug=bug).draft(Grown.of((3, 2)))


@pytest.mark.parametrize("name", NAMES)
def test_a_chain_as_a_tree_has_the_same_bits(name: str) -> None:
    """Depths 0, 1, 2, ... and a lower triangle: prefill, ragged rows and padding included."""
    cfg, given = CONFIGS[name], image(CONFIGS[name])
    target = random_target(cfg)
    prefix, both = target.condition(given.condition), [target.caches(ROWS, CAPACITY) for _ in range(2)]
    ids = torch.cat([torch.zeros(ROWS, cfg.prefix, dtype=torch.int64), given.tokens], dim=1)
    for pos, size in ((torch.zeros(ROWS, dtype=torch.int64), cfg.prefix), (cfg.prefix + torch.arange(ROWS), 4)):
        window = torch.stack([ids[row, p : p + size] for row, p in enumerate(pos.tolist())])
        tree = Tree(torch.arange(size).repeat(ROWS, 1), torch.ones(ROWS, size, size, dtype=torch.bool).tril())
        step = cached_step(target.rope, pos, size, CAPACITY, start=given.start)
        other = cached_step(target.rope, pos, size, CAPACITY, start=given.start, tree=tree)
        for here, there in zip(step[:4], other[:4], strict=True):
            assert here is not None
            assert there is not None
            assert torch.equal(here, there)
        wanted = target.step(window, pos, prefix, both[0], given.start)
        found = target.step(window, pos, prefix, both[1], given.start, tree)
        for x, y in zip(found, wanted, strict=True):
            assert torch.equal(x, y)


def test_a_tree_of_another_draft_is_refused() -> None:
    """A small model, or none, has no step along a tree."""
    target: Any = random_target(CONFIGS["llamagen"])
    session = TorchEngine(target, target, None).steps(2, CAPACITY)
    assert isinstance(session, TorchSession)
    one = torch.zeros(2, 1, dtype=torch.int64)
    with pytest.raises(CoolsdError, match="expected an EAGLE head"):
        session.draft_tree(one, torch.zeros(2, 1, 64), one[:, 0], one, torch.ones(2, 1, 1, dtype=torch.bool))


def test_depths_and_sight_of_a_static_tree() -> None:
    """By hand: widths 2, 2."""
    tree = Grown.of((2, 2))
    assert tree.depth(1).tolist() == [[0, 1, 1, 2, 2, 2, 2]]
    assert tree.depth(1, pending=False).tolist() == [[0, 0, 1, 1, 1, 1]]
    assert [np.flatnonzero(row).tolist() for row in tree.seen(1)[0]] == [
        [0], [0, 1], [0, 2], [0, 1, 3], [0, 1, 4], [0, 2, 5], [0, 2, 6],
    ]  # fmt: skip


class Chains:
    """Models that step along chains alone, as those of a compiled engine."""

    dims = None

    def target(self, ids: Any, pos: Any) -> Any: ...

    def draft(self, ids: Any, features: Any, pos: Any) -> Any: ...

    def reset(self, prefix: Any, start: Any) -> None: ...


def test_models_of_chains_alone_refuse_trees() -> None:
    """A session on a device asks its models, and says what they are."""
    made = engine("llamagen")
    made.steps = lambda rows, capacity: Chains()  # type: ignore[assignment, method-assign, return-value]
    session = DeviceEngine(made).open(torch.zeros(2, 3, 64), CAPACITY)
    one = torch.zeros(2, 1, dtype=torch.int64)
    with pytest.raises(CoolsdError, match="expected models that take trees, found Chains"):
        session.target_tree(one, one[:, 0], one, torch.ones(2, 1, 1, dtype=torch.bool))
