"""One image's tokens: alone or in a batch, in one library or another, proposed or stepwise, today or tomorrow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from coolsd_rt.arrays import Array
from coolsd_rt.law import Law, make_omegas
from coolsd_rt.runtime import Generation, LoopHooks, Progress, RoundRecord, Sampling, State, capacity, generate
from tests.runtime.fakes import FakeSession, Tables, dims
from tests.runtime.progresses import Heard

VOCAB, TOKENS, LENGTH = 3, 8, 3
TABLES = Tables.random(VOCAB, TOKENS, seed=1).as_float32()
LAW = Law(make_omegas("exponential", LENGTH, delta=1.3))
SCALES = (3.0, 3.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.5)
SEEDS = [11, 12, 13, 14, 15]


def session(images: int, guided: bool = True, **more: Any) -> FakeSession:
    return FakeSession(TABLES, dims(VOCAB, TOKENS), images, guided=guided, **more)


def draw(seeds: list[int], law: Law = LAW, **more: Any) -> Generation:
    return generate(session(len(seeds), **more), law, Sampling(cfg_scale=SCALES), seeds)


def test_alone_and_in_a_ragged_batch() -> None:
    together = draw(SEEDS)
    assert len(set(together.statistics.rounds.tolist())) > 1  # rows finish at different times
    for row, seed in enumerate(SEEDS):
        alone = draw([seed])
        assert alone.codes[0].tolist() == together.codes[row].tolist()
        assert alone.statistics.rounds[0] == together.statistics.rounds[row]


def test_the_same_on_every_run_and_for_every_order() -> None:
    np.testing.assert_array_equal(draw(SEEDS).codes, draw(SEEDS).codes)
    np.testing.assert_array_equal(draw(SEEDS[::-1]).codes[::-1], draw(SEEDS).codes)
    assert (draw(SEEDS).codes != draw([s + 100 for s in SEEDS]).codes).any()


@pytest.mark.parametrize("length", [0, LENGTH])
def test_numpy_and_torch_draw_the_same(length: int) -> None:
    a, b = (draw(SEEDS, propose_length=length, library=library) for library in ("numpy", "torch"))
    np.testing.assert_array_equal(a.codes, b.codes)
    np.testing.assert_array_equal(a.statistics.attempts, b.statistics.attempts)


def test_proposed_and_stepwise_draw_the_same() -> None:
    proposing = session(len(SEEDS), propose_length=LENGTH)
    result = generate(proposing, LAW, Sampling(cfg_scale=SCALES, temperature=0.8, top_k=2), SEEDS)
    assert proposing.calls.count("propose") > 0
    assert proposing.calls.count("draft") == 1  # the prefill
    stepwise = session(len(SEEDS))
    expected = generate(stepwise, LAW, Sampling(cfg_scale=SCALES, temperature=0.8, top_k=2), SEEDS)
    assert "propose" not in stepwise.calls
    np.testing.assert_array_equal(result.codes, expected.codes)
    np.testing.assert_array_equal(result.statistics.accepts, expected.statistics.accepts)


@pytest.mark.parametrize(
    ("sampling", "propose_length", "guided"),
    [
        (Sampling(cfg_scale=2.0, top_p=0.9), LENGTH, True),  # the graph has no top-p
        (Sampling(cfg_scale=2.0), LENGTH + 1, True),  # compiled for another length
        (Sampling(), LENGTH, False),  # the graph wants pairs
    ],
)
def test_the_propose_graph_is_used_only_where_it_is_right(
    sampling: Sampling, propose_length: int, guided: bool
) -> None:
    fake = session(2, guided=guided, propose_length=propose_length)
    generate(fake, LAW, sampling, [1, 2])
    assert "propose" not in fake.calls


def test_a_forced_token_in_the_way_of_the_propose_graph() -> None:
    """Rounds that meet it go stepwise, the others use `propose`, and the tokens are those of the stepwise run."""
    forced = [-1] * (TOKENS - 2) + [1, -1]
    proposing, stepwise = session(3, propose_length=LENGTH), session(3)
    a, b = (generate(s, LAW, Sampling(cfg_scale=SCALES), [1, 2, 3], forced) for s in (proposing, stepwise))
    np.testing.assert_array_equal(a.codes, b.codes)
    assert "propose" in proposing.calls
    assert proposing.calls.count("draft") > 1
    assert (a.codes[:, TOKENS - 2] == 1).all()


class RoundsOtherwise(FakeSession):
    """Its graph `propose` and its single steps draw other tokens of the same law, as two ways of rounding would."""

    def propose(self, *given: Any) -> tuple[Array, Array]:
        ids, features, pos, count, uniforms, *rest = given
        return super().propose(ids, features, pos, count, 1 - uniforms, *rest)


def test_mates_do_not_decide_whether_drafts_are_proposed() -> None:
    """Forced tokens come up at other times in each image of a ragged batch; each goes its own way past them."""
    forced = [-1, -1, -1, 1, -1, -1, 2, -1]
    law, scales = Law((1.0,) * 2), Sampling(cfg_scale=SCALES)

    def drawn(seeds: list[int]) -> Any:
        models = RoundsOtherwise(TABLES, dims(VOCAB, TOKENS), len(seeds), guided=True, propose_length=2)
        result = generate(models, law, scales, seeds, forced)
        assert {"propose", "draft"} <= set(models.calls)
        return result.codes

    seeds = list(range(40))
    alone = np.concatenate([drawn([seed]) for seed in seeds])
    np.testing.assert_array_equal(drawn(seeds), alone)


def test_plain_decoding_never_calls_the_draft() -> None:
    fake = session(2)
    result = generate(fake, Law(()), Sampling(cfg_scale=SCALES), [1, 2])
    assert fake.calls == ["target"] * TOKENS
    assert result.statistics.mean_acceptance_length == 1.0
    assert result.statistics.rounds.tolist() == [TOKENS - 1] * 2


def test_the_target_is_called_once_a_round_and_once_before() -> None:
    fake = session(len(SEEDS))
    result = generate(fake, LAW, Sampling(cfg_scale=SCALES), SEEDS)
    assert fake.calls.count("target") == 1 + int(result.statistics.rounds.max())


class Poisoned(FakeSession):
    """Answers NaN for every image that is finished: its last token is at hand, so its rows are inert."""

    def target(self, ids: Array, pos: Array) -> tuple[Array, Array]:
        logits, features = super().target(ids, pos)
        self.finished = np.asarray(pos) >= self.dims.positions - 1
        logits[self.finished] = np.nan
        return logits, features

    def draft(self, ids: Array, features: Array, pos: Array) -> tuple[Array, Array]:
        logits, features = super().draft(ids, features, pos)
        if hasattr(self, "finished"):
            logits[self.finished] = np.nan
        return logits, features


def test_finished_images_do_not_matter() -> None:
    fake = Poisoned(TABLES, dims(VOCAB, TOKENS), len(SEEDS), guided=True)
    result = generate(fake, LAW, Sampling(cfg_scale=SCALES), SEEDS)
    assert fake.finished.any()
    np.testing.assert_array_equal(result.codes, draw(SEEDS).codes)


@pytest.mark.parametrize("prefix", [1, 4])
@pytest.mark.parametrize("tokens", [1, 2, 3])
def test_short_images_and_prefixes(prefix: int, tokens: int) -> None:
    """The draft length reaches the image's end at once; a prefix of one has nothing to prefill the draft with."""
    length = min(tokens, 2)
    tables = Tables.random(VOCAB, tokens, seed=2)
    fake = FakeSession(tables, dims(VOCAB, tokens, prefix), 3, guided=True)
    result = generate(fake, Law((1.0,) * length), Sampling(cfg_scale=2.0), [1, 2, 3])
    assert result.codes.shape == (3, tokens)
    assert (result.codes < VOCAB).all()


def test_capacity_is_enough_and_not_generous() -> None:
    """No step of a ragged batch writes at or beyond it."""
    sizes = dims(VOCAB, TOKENS)
    slack = capacity(sizes, LENGTH) - sizes.positions
    draw(SEEDS, slack=slack)
    draw(SEEDS, slack=slack, propose_length=LENGTH)
    with pytest.raises(IndexError):
        draw(SEEDS, slack=slack - 1)


def test_hooks_see_every_round() -> None:
    heard = Heard()
    records: list[RoundRecord] = []

    def on_round(state: State, record: RoundRecord) -> None:
        assert (state.cached == state.committed - 1).all()
        assert record.target.shape[1] == record.draft.shape[1] + 1 == record.window.shape[1]
        records.append(record)

    result = generate(
        session(2),
        LAW,
        Sampling(cfg_scale=SCALES),
        [1, 2],
        loop="host",
        hooks=LoopHooks(on_progress=heard, on_round=on_round),
    )
    assert len(heard.progress) == len(records) == int(result.statistics.rounds.max())
    heard.check(result)


def test_an_interrupt_goes_through() -> None:
    def stop(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(session(1), LAW, Sampling(cfg_scale=SCALES), [1], hooks=LoopHooks(on_progress=stop))
