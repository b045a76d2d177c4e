"""Shapes of trees; one image's tokens with trees, alone or in a batch; chains as trees; and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coolsd_rt.errors import UserError
from coolsd_rt.law import Law
from coolsd_rt.runtime import Generation, LoopHooks, RoundRecord, Sampling, State, capacity, generate
from coolsd_rt.runtime.decoding_loop import DecodingLoop
from coolsd_rt.runtime.randomness import uniform_table
from coolsd_rt.runtime.self_decoding import DecodeRequest, Extent
from coolsd_rt.runtime.trees import TreeShape
from tests.runtime.fakes import FakeSession, Tables, dims
from tests.runtime.static_tree import Trees
from tests.runtime.tree_fakes import FakeTreeRowSession, FakeTreeSession

VOCAB, TOKENS = 3, 9
TABLES = Tables.random(VOCAB, TOKENS, seed=1).as_float32()
TREE = TreeShape((2, 2, 1))
LAW = Law((1.5, 1.0, 0.8))
SCALES = (3.0, 3.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.5, 2.0)
SAMPLING = Sampling(cfg_scale=SCALES)
SEEDS = [11, 12, 13, 14, 15]
SIZES = dims(VOCAB, TOKENS)
SHAPES = [(1,), (3,), (1, 1, 1), (2, 1), (2, 2), (3, 2, 1), (1, 3), (4, 2, 1, 1)]


def session(images: int, kind: type[FakeTreeSession] = FakeTreeSession, guided: bool = True, **more: Any) -> Any:
    more = {"slack": capacity(SIZES, TREE.nodes) - SIZES.positions} | more
    return kind(TABLES, SIZES, images, guided=guided, **more)


def draw(seeds: list[int], sampling: Sampling = SAMPLING, **more: Any) -> Generation:
    models = session(len(seeds), guided=sampling.guided, paced=sampling.confidence > 0, **more)
    return generate(models, LAW, sampling, seeds, tree=TREE)


def copied(array: Any) -> Any:
    return np.array(array.tolist())


# Shapes.


@pytest.mark.parametrize("widths", SHAPES, ids=str)
def test_nodes_are_numbered_level_by_level(widths: tuple[int, ...]) -> None:
    shape, number = TreeShape(widths), Trees(widths, ()).numbers
    assert shape.nodes == len(number) == shape.starts[-1]
    assert shape.depths.tolist() == [0, *(len(way) for way in number)]
    assert shape.parents.tolist() == [number.get(way[:-1], -1) for way in number]
    for way, node in number.items():
        below = [other for child, other in number.items() if child[:-1] == way]
        assert list(shape.children(node)) == below
        line = {0, *(number[way[: d + 1]] + 1 for d in range(len(way)))}
        assert set(np.flatnonzero(shape.ancestors[node + 1]).tolist()) == line
    assert list(shape.children(-1)) == list(range(widths[0]))
    for depth in range(1, len(widths) + 1):
        top = shape.top(depth)
        np.testing.assert_array_equal(top.ancestors, shape.ancestors[: top.nodes + 1, : top.nodes + 1])


def test_one_sibling_at_each_depth_is_a_chain() -> None:
    shape = TreeShape((1, 1, 1))
    assert shape.depths.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(shape.ancestors, np.tri(4, dtype=bool))


@pytest.mark.parametrize("widths", [(), (0,), (2, -1), (1025,), (2.0,), (True,), (64, 64)], ids=str)
def test_a_shape_that_cannot_be_is_refused(widths: Any) -> None:
    with pytest.raises(UserError):
        TreeShape(widths)


# Tokens.


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize(
    "sampling",
    [SAMPLING, Sampling(temperature=0.8, top_k=2), Sampling(cfg_scale=2.0, confidence=0.5, cfg_interval=3)],
    ids=["guided", "plain rows", "paced"],
)
def test_a_tree_of_one_sibling_draws_what_a_chain_draws(sampling: Sampling, library: str) -> None:
    """The same tokens, and P, Q and drafts of every round, to the last bit."""
    seeds, drawn = list(range(40)), []
    records: tuple[list[RoundRecord], list[RoundRecord]] = ([], [])
    for tree, into in zip((None, TreeShape((1, 1, 1))), records, strict=True):
        models = session(40, guided=sampling.guided, library=library, slack=40, paced=True)

        def keep(state: State, record: RoundRecord, into: list[RoundRecord] = into) -> None:
            into.append(replace(record, target=copied(record.target), draft=copied(record.draft)))

        hooks = LoopHooks(on_round=keep)
        drawn.append(generate(models, LAW, sampling, seeds, loop="host", hooks=hooks, tree=tree))
        assert ("target_tree" in models.calls) == (tree is not None)
        assert "move" not in models.calls
    chain, tree_drawn = drawn
    np.testing.assert_array_equal(chain.codes, tree_drawn.codes)
    for name in ("rounds", "accepts", "attempts", "accepted_histogram"):
        np.testing.assert_array_equal(getattr(chain.statistics, name), getattr(tree_drawn.statistics, name))
    for one, other in zip(*records, strict=True):
        for name in ("active", "offered", "num_drafts", "accepted", "window"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        for name in ("target", "draft", "drafts"):
            np.testing.assert_array_equal(getattr(one, name)[one.active], getattr(other, name)[one.active])


@pytest.mark.parametrize("sampling", [SAMPLING, Sampling(cfg_scale=2.0, confidence=0.5)], ids=["guided", "paced"])
def test_alone_and_in_a_ragged_batch(sampling: Sampling) -> None:
    together = draw(SEEDS, sampling, slack=60)
    assert len(set(together.statistics.rounds.tolist())) > 1  # rows finish at different times
    for row, seed in enumerate(SEEDS):
        alone = draw([seed], sampling, slack=60)
        assert alone.codes[0].tolist() == together.codes[row].tolist()
        assert alone.statistics.rounds[0] == together.statistics.rounds[row]
    np.testing.assert_array_equal(draw(SEEDS[::-1], sampling, slack=60).codes[::-1], together.codes)


def test_numpy_and_torch_draw_the_same() -> None:
    a, b = (draw(list(range(20)), library=library) for library in ("numpy", "torch"))
    np.testing.assert_array_equal(a.codes, b.codes)
    np.testing.assert_array_equal(a.statistics.attempts, b.statistics.attempts)


def test_the_target_is_called_once_a_round_and_rows_move_where_paths_branch() -> None:
    models = session(20)
    result = generate(models, LAW, SAMPLING, list(range(20)), tree=TREE)
    steps = models.calls.count("target") + models.calls.count("target_tree")
    assert steps == 1 + int(result.statistics.rounds.max())
    assert models.calls.count("move") > 1
    assert result.statistics.mean_acceptance_length > 1.5


def test_capacity_is_enough_and_not_generous() -> None:
    """No step of a ragged batch writes at or beyond it."""
    slack = capacity(SIZES, TREE.nodes) - SIZES.positions
    seeds = list(range(100))  # some are finished when others still draft whole trees
    draw(seeds, slack=slack)
    with pytest.raises(IndexError):
        draw(seeds, slack=slack - 1)


def test_texts_end_where_their_images_would_have_the_end() -> None:
    seeds = list(range(30))
    whole = generate(session(30), LAW, SAMPLING, seeds, tree=TREE).codes.tolist()
    limits = tuple(4 + seed % 6 for seed in seeds)
    for kind in (FakeTreeSession, FakeTreeRowSession):
        texts = generate(session(30, kind), LAW, SAMPLING, seeds, extent=Extent((2,)), tree=TREE)
        assert texts.lengths is not None
        for codes, text, n in zip(whole, texts.codes.tolist(), texts.lengths.tolist(), strict=True):
            end = codes.index(2) + 1 if 2 in codes else TOKENS
            assert text[:n] == codes[:end]
        short = generate(session(30, kind), LAW, SAMPLING, seeds, extent=Extent(limits=limits), tree=TREE)
        assert short.lengths is not None
        assert short.lengths.tolist() == list(limits)


# Images leave and join.


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_finished_images_leave_and_the_others_draw_what_they_would(library: str) -> None:
    models = session(len(SEEDS), FakeTreeRowSession, library=library)
    found = generate(models, LAW, SAMPLING, SEEDS, tree=TREE)
    assert models.rows < 2 * len(SEEDS)
    stayed = draw(SEEDS)
    np.testing.assert_array_equal(found.codes, stayed.codes)
    np.testing.assert_array_equal(found.statistics.accepts, stayed.statistics.accepts)


def opened(seeds: list[int], tree: TreeShape = TREE) -> DecodingLoop:
    table = uniform_table(seeds, TOKENS, tree.nodes)
    law = Law(LAW.omegas[: tree.depth])
    models = session(len(seeds), FakeTreeRowSession, paced=True)  # rounds may go without a draft
    loop = DecodingLoop(models, DecodeRequest(law, SAMPLING, table, tree=tree))
    loop.prefill()
    return loop


@given(waits=st.lists(st.integers(0, 3), min_size=1, max_size=3), drops=st.booleans())
@settings(max_examples=15, deadline=None)
def test_whenever_an_image_comes_it_has_the_tokens_that_it_has_alone(waits: list[int], drops: bool) -> None:
    loop, seeds = opened([21, 22]), [21, 22]
    drawn: dict[int, list[int]] = {}

    def rounds(count: int) -> None:
        for _ in range(count):
            if loop.state.remaining.any():
                loop.round()

    for i, wait in enumerate(waits):
        rounds(wait)
        new = [30 + 2 * i, 31 + 2 * i]
        loop.take(np.arange(len(seeds) + 2), opened(new))
        seeds += new
    if drops:
        loop.drop_drafts()
        begun = [int(n) for n in loop.state.decided]
    while loop.state.remaining.any():
        loop.round()
    for seed, codes in zip(seeds, loop.state.codes.tolist(), strict=True):
        drawn[seed] = codes
    alone = {seed: draw([seed]).codes[0].tolist() for seed in seeds}
    if drops:  # what was decided before stays
        assert all(drawn[seed][:n] == alone[seed][:n] for seed, n in zip(seeds, begun, strict=True))
    else:
        assert drawn == alone


def test_trees_of_different_shapes_do_not_share_a_step() -> None:
    with pytest.raises(ValueError, match="different shapes"):
        opened([1]).take(np.arange(2), opened([2], TreeShape((2, 1))))


# What is refused.


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"law": Law((1.0, 1.0))}, "omegas of a tree"),
        ({"law": Law((1.0,) * 3, "residual")}, "ratio with residual"),
        ({"law": Law((1.0,) * 3, "waterfill")}, "ratio with waterfill"),
        ({"law": Law((1.0,) * 3, "target", rates=(0.5,) * 3)}, "synthetic"),
        ({"sampling": Sampling(cfg_scale=SCALES, draft_confidence=0.5)}, "draft_confidence"),
        ({"drafter": "jacobi"}, "drafter of a tree"),
        ({"drafter": "ngram"}, "drafter of a tree"),
        ({"tree": TreeShape((4, 1, 1))}, "as many as there are codes"),
        ({"loop": "device"}, "device"),
    ],
)
def test_what_a_tree_cannot_be_combined_with(change: dict[str, Any], says: str) -> None:
    asked: dict[str, Any] = {"law": LAW, "sampling": SAMPLING, "seeds": [1], "tree": TREE} | change
    with pytest.raises(UserError, match=says):
        generate(session(1), **asked)


def test_a_loop_of_the_sessions_own_is_not_asked() -> None:
    """It would draft a chain."""

    class Own(FakeTreeSession):
        def refusal_reason(self, request: DecodeRequest) -> str:
            return ""

        def decode(self, request: DecodeRequest) -> Generation:
            raise AssertionError("drawn without trees")

    assert generate(session(1, Own), LAW, SAMPLING, [1], tree=TREE).loop == "host"
    with pytest.raises(UserError, match="drafts in a tree"):
        generate(session(1, Own), LAW, SAMPLING, [1], tree=TREE, loop="device")


def test_an_engine_without_trees_and_numbers_of_another_tree() -> None:
    chains = FakeSession(TABLES, SIZES, 1, guided=True)
    with pytest.raises(UserError, match="built for trees"):
        generate(chains, LAW, SAMPLING, [1], tree=TREE)
    table = uniform_table([1], TOKENS, 3)
    with pytest.raises(UserError, match="random numbers of a tree"):
        DecodingLoop(session(1), DecodeRequest(LAW, SAMPLING, table, tree=TREE))
