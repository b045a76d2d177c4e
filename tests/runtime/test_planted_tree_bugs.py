"""Bugs of trees, each planted into the loop or the session: the enumeration must notice every one.

Without a bug every world holds. Bugs of caches and masks are noticed by sessions that check what they are given, and by
those that answer anything, as an engine does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from coolsd_rt.arrays import Array, Floats64, Ints
from coolsd_rt.errors import CoolsdError
from coolsd_rt.law import Law
from coolsd_rt.law.siblings import NO_TOKEN, judge_siblings, reject, remove_token
from coolsd_rt.ops.tree import TreeVerdict, draw_siblings, verify_tree
from coolsd_rt.runtime import Sampling, decode
from coolsd_rt.runtime.trees import TreeShape
from tests.runtime.fakes import Tables, dims
from tests.runtime.planting import plant, plant_in_arguments
from tests.runtime.static_tree import Trees, tree_leaves, tree_probes
from tests.runtime.test_exact_trees import guided
from tests.runtime.tree import Leaf
from tests.runtime.tree_fakes import FakeTreeSession


@dataclass(frozen=True, eq=False)
class TreeWorld:
    tables: Tables
    trees: Trees
    vocab: int
    tokens: int
    scales: tuple[float, ...] | None = None

    @functools.cached_property
    def leaves(self) -> list[Leaf]:
        scales = self.scales or (1.0,) * self.tokens
        return tree_leaves(guided(self.tables.p, scales), guided(self.tables.q, scales), self.trees, self.tokens)


BINARY = TreeWorld(Tables.random(2, 5, seed=6), Trees((2, 2), (0.8, 0.7)), 2, 5)
RELAXED = TreeWorld(Tables.random(3, 4, seed=4), Trees((2, 2), (1.4, 0.6)), 3, 4)
GUIDED = TreeWorld(Tables.random(2, 5, seed=9, spread=0.5), Trees((2, 1), (1.0, 0.7)), 2, 5, (3.0, 2.0, 1.0, 0.5, 1.0))
LOSSLESS = TreeWorld(Tables.random(2, 4, seed=6), Trees((2, 1), (1.0, 1.0)), 2, 4)
WORLDS = {"lossless": LOSSLESS, "binary": BINARY, "relaxed": RELAXED, "guided": GUIDED}


def holds(world: TreeWorld, kind: type[FakeTreeSession] = FakeTreeSession) -> bool:
    """Whether the loop draws every leaf of the world at both ends of its box."""
    found, trees = world.leaves, world.trees
    for upper in (False, True):
        session = kind(world.tables, dims(world.vocab, world.tokens), len(found), guided=world.scales is not None)
        numbers = tree_probes(found, world.tokens, trees, upper)
        sampling = Sampling(cfg_scale=world.scales or 1.0)
        try:
            drawn = decode(session, Law(trees.omegas), sampling, numbers, tree=TreeShape(trees.widths)).codes
        except (CoolsdError, AssertionError, IndexError):
            return False
        if drawn.tolist() != [list(leaf.codes) for leaf in found]:
            return False
    return True


def lenient(kind: type[FakeTreeSession]) -> type[FakeTreeSession]:
    return type(f"Lenient{kind.__name__}", (kind,), {"strict": False})


def noticed(world: TreeWorld, kind: type[FakeTreeSession]) -> bool:
    """Whether the world does not hold, on a session that checks and on one that does not."""
    return not holds(world, kind) and not holds(world, lenient(kind))


REAL = (judge_siblings, reject, remove_token, draw_siblings, verify_tree)


@pytest.mark.parametrize("name", list(WORLDS))
def test_without_a_bug_it_holds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does planting as such break anything."""
    assert holds(WORLDS[name])
    assert holds(WORLDS[name], lenient(FakeTreeSession))
    for real in REAL:
        plant_in_arguments(monkeypatch, real, lambda arguments: None)
    assert holds(WORLDS[name])


# The law.


def test_q_that_is_not_renormalised_among_siblings(monkeypatch: pytest.MonkeyPatch) -> None:
    def planted(q: Floats64, tokens: Any) -> Floats64:
        rest = q.copy()
        rest[np.arange(len(q)), tokens] = 0.0
        return rest

    plant(monkeypatch, remove_token, planted)
    assert not holds(BINARY)
    assert not holds(RELAXED)


def test_the_same_p_for_every_sibling(monkeypatch: pytest.MonkeyPatch) -> None:
    def planted(p: Any, q: Any, omega: Any, tokens: Any) -> Any:
        return (p, *reject(p, q, omega, tokens)[1:])

    plant(monkeypatch, reject, planted)
    assert not holds(BINARY)
    assert not holds(RELAXED)


@pytest.mark.parametrize("change", [lambda omegas: omegas[:, ::-1], lambda omegas: omegas[:, :1] + 0 * omegas])
def test_the_omega_of_another_depth(change: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    plant_in_arguments(monkeypatch, verify_tree, lambda a: a.update(omegas=change(a["omegas"])))
    assert not holds(RELAXED)


def test_siblings_drawn_with_replacement(monkeypatch: pytest.MonkeyPatch) -> None:
    def planted(q: Any, u: Any) -> Any:
        return np.concatenate([draw_siblings(q, u[..., j : j + 1]) for j in range(u.shape[-1])], axis=-1)

    plant(monkeypatch, draw_siblings, planted)
    assert not holds(RELAXED)


def longest_path(target: Any, draft: Any, tokens: Any, *rest: Any) -> TreeVerdict:
    """Planted: of two levels every sibling is judged as if those before it were rejected, and the longest path wins.

    Whether a later sibling is taken then depends on the drafts below it.
    """
    num_drafts, omegas, u_accept, u_resample, widths = rest[:5]
    found = verify_tree(target, draft, tokens, *rest)
    count = widths[0]
    rows = np.arange(len(tokens))
    p, q = target[:, 0], draft[:, 0]
    alone: list[Any] = []  # whether each sibling would be accepted on its own turn
    for j in range(count):
        one = np.full((len(tokens), count), NO_TOKEN)
        one[:, 0] = tokens[:, j]
        there = np.where(tokens[:, j] == NO_TOKEN, 0, tokens[:, j])
        u = np.repeat(u_accept[:, j : j + 1], count, axis=1)
        alone.append((judge_siblings(p, q, omegas[:, 0], one, u).kept == 0) & (tokens[:, j] != NO_TOKEN))
        weights, q, _ = reject(p, q, omegas[:, :1], there)
        p = weights / weights.sum(-1, keepdims=True)
    best, path, token = found.accepted.copy(), found.path.copy(), found.token.copy()
    for j in range(1, count):  # a later sibling with an accepted child, where the first that is accepted has none
        if omegas.shape[1] < 2:
            break
        hidden = tokens.copy()
        hidden[:, :j] = NO_TOKEN
        hidden[:, j + 1 : count] = NO_TOKEN
        fine = u_accept.copy()
        fine[:, j] = 0.0
        below = verify_tree(target, draft, hidden, num_drafts, omegas, fine, u_resample, widths)
        better = alone[j] & (below.accepted > best) & (num_drafts > 1) & (tokens[rows, below.path[:, 0]] >= 0)
        best, token = np.where(better, below.accepted, best), np.where(better, below.token, token)
        path = np.where(better[:, None], below.path, path)
    return TreeVerdict(best, token, found.degenerate, path)


def test_the_longest_path_in_place_of_the_first_accepted_sibling(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, verify_tree, longest_path)
    assert not holds(BINARY)
    assert not holds(LOSSLESS)


def test_the_numbers_of_another_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: all siblings are judged with the number of the first."""

    def change(arguments: dict[str, Any]) -> None:
        u = arguments["u_accept"].copy()
        u[:, 1] = u[:, 0]
        arguments["u_accept"] = u

    plant_in_arguments(monkeypatch, verify_tree, change)
    assert not holds(BINARY)


# The cache.


class NeverMoved(FakeTreeSession):
    def move(self, pos: Ints, path: Ints, count: Ints) -> None:
        pass


class OneRowBeside(FakeTreeSession):
    """The row of another node is moved: the one before an accepted node of depth 2."""

    def move(self, pos: Ints, path: Ints, count: Ints) -> None:
        path = path.copy()
        path[:, 1:] -= 1
        super().move(pos, path, count)


class OneRowShort(FakeTreeSession):
    """The last accepted row is not moved."""

    def move(self, pos: Ints, path: Ints, count: Ints) -> None:
        super().move(pos, path, np.maximum(count - 1, 0))


class OneRowBehind(FakeTreeSession):
    """Rows are moved to one position after their own."""

    def move(self, pos: Ints, path: Ints, count: Ints) -> None:
        super().move(pos + 1, path - 1, count)


@pytest.mark.parametrize("kind", [NeverMoved, OneRowBeside, OneRowShort, OneRowBehind])
def test_rows_that_are_moved_wrong(kind: type[FakeTreeSession]) -> None:
    assert noticed(BINARY, kind)


class ConditionalRowsMoved(FakeTreeSession):
    """Of each pair of rows only the first is moved."""

    def move(self, pos: Ints, path: Ints, count: Ints) -> None:
        count = count.copy()
        count[self.images :] = 0
        super().move(pos, path, count)


def test_rows_of_a_pair_that_part() -> None:
    assert noticed(GUIDED, ConditionalRowsMoved)


# The masks.


def changed(seen: Array, depth: Array, of: str) -> Array:
    """A mask in which a node sees its siblings before it too, or all of its depth, or not its parent."""
    wrong = seen.copy()
    size = seen.shape[1]
    for s in range(size):
        for j in range(size):
            same = bool(depth[0, s] == depth[0, j]) and s != j
            if (of == "siblings" and same and j < s) or (of == "level" and same):
                wrong[:, s, j] = True
            if of == "parents" and depth[0, j] == depth[0, s] - 1 and j > 0:
                wrong[:, s, j] = False
            if of == "triangle" and j <= s:
                wrong[:, s, j] = True
    return wrong


MASKS = ["siblings", "level", "parents", "triangle"]


@pytest.mark.parametrize("of", MASKS)
def test_a_target_whose_nodes_see_others(of: str) -> None:
    class Planted(FakeTreeSession):
        def target_tree(self, ids: Array, pos: Array, depth: Array, seen: Array) -> tuple[Array, Array]:
            return super().target_tree(ids, pos, depth, changed(seen, depth, of))

    assert noticed(BINARY, Planted)
    assert noticed(RELAXED, Planted)


@pytest.mark.parametrize("of", ["siblings", "level", "triangle"])
def test_a_head_whose_nodes_see_others(of: str) -> None:
    class Planted(FakeTreeSession):
        def draft_tree(self, ids: Array, features: Any, pos: Array, depth: Array, seen: Array) -> tuple[Array, Array]:
            return super().draft_tree(ids, features, pos, depth, changed(seen, depth, of))

    assert noticed(BINARY, Planted)
    assert noticed(RELAXED, Planted)


@pytest.mark.parametrize("step", ["target_tree", "draft_tree"])
def test_depths_that_are_places_in_the_step(step: str) -> None:
    """Planted: each node is taken to stand behind the one before it, as in a chain."""

    class Planted(FakeTreeSession):
        def target_tree(self, ids: Array, pos: Array, depth: Array, seen: Array) -> tuple[Array, Array]:
            return super().target_tree(ids, pos, places(depth) if step == "target_tree" else depth, seen)

        def draft_tree(self, ids: Array, features: Any, pos: Array, depth: Array, seen: Array) -> tuple[Array, Array]:
            return super().draft_tree(ids, features, pos, places(depth) if step == "draft_tree" else depth, seen)

    def places(depth: Array) -> Array:
        return np.arange(depth.shape[1]) + 0 * depth

    assert not holds(BINARY, Planted)


def test_the_features_of_another_parent() -> None:
    """Planted: a node is given the feature that was guessed at its sibling's row."""

    class Planted(FakeTreeSession):
        def draft_tree(self, ids: Array, features: Any, pos: Array, depth: Array, seen: Array) -> tuple[Array, Array]:
            return super().draft_tree(ids, np.roll(features, 1, axis=1), pos, depth, seen)

    deep = TreeWorld(Tables.random(2, 5, seed=6), Trees((2, 2, 1), (1.0, 1.0, 1.0)), 2, 5)
    assert holds(deep)
    assert not holds(deep, Planted)
