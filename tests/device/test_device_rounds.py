"""The rounds that a device runs by itself decide what the host's loop decides, from the same numbers.

On a CPU, with the eager networks under both. What a GPU adds, the graph of a round, is tested with `-m gpu`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from coolsd_rt.backends.torch.eager import TorchEngine
from coolsd_rt.device.engine import DeviceEngine
from coolsd_rt.device.program import refusal_reason
from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.law import Law, Tolerance, nearest_codes
from coolsd_rt.models.llamagen import LlamaGen, LlamaGenConfig
from coolsd_rt.runtime.drafters import DrafterName
from coolsd_rt.runtime.randomness import uniform_table
from coolsd_rt.runtime.round import LoopHooks, decode
from coolsd_rt.runtime.sampling import Sampling
from coolsd_rt.runtime.self_decoding import DecodeRequest, Loop, SelfDecodingSession
from coolsd_rt.runtime.state import capacity
from coolsd_rt.runtime.statistics import Generation
from tests.runtime.progresses import Heard
from tests.tiny import TARGET, VOCABULARY, networks
from tests.workflows.looking import Operators

PROMPTS = ["red apple", "blue star", "green leaf"]


@dataclass(frozen=True)
class Case:
    law: Law
    sampling: Sampling
    drafter: DrafterName = "eagle"
    forced: tuple[int, ...] | None = None


LENIENT = Tolerance("lantern", 0.2, nearest_codes(np.random.default_rng(0).standard_normal((TARGET.vocab, 3)), 3))
FORCED = tuple(7 if i % 5 == 4 else -1 for i in range(TARGET.tokens))
CASES = {
    "plain": Case(Law(()), Sampling(cfg_scale=2.0)),
    "plain without CFG": Case(Law(()), Sampling(top_k=5)),
    "lossless": Case(Law((1.0, 1.0, 1.0)), Sampling(cfg_scale=2.0)),
    "COOL-SD": Case(Law((1.9, 1.0, 0.6)), Sampling(cfg_scale=1.5, temperature=0.8, top_k=9)),
    "classic residual": Case(Law((0.7, 0.7), "residual"), Sampling(top_p=0.9)),
    "from P": Case(Law((1.2, 1.2), "target"), Sampling()),
    "synthetic": Case(Law((1.0, 1.0), "target", rates=(0.8, 0.5)), Sampling(cfg_scale=2.0)),
    "forced": Case(Law((1.3, 1.1)), Sampling(cfg_scale=2.0), forced=FORCED),
    "paced": Case(Law((1.3, 1.1, 1.0)), Sampling(cfg_scale=2.0, confidence=0.15, draft_confidence=0.12)),
    "scales by token": Case(Law((1.2, 1.0)), Sampling(cfg_scale=[3.0] * 7 + [1.0] * 9)),
    "a draft model": Case(Law((1.2, 1.0, 1.0)), Sampling(cfg_scale=2.0), "model"),
    "as long as the image": Case(Law((1.0,) * TARGET.tokens), Sampling()),
}


def engine_of(case: Case, config: LlamaGenConfig = TARGET) -> TorchEngine:
    target, draft, image = networks(0, config)
    if case.drafter == "model":
        torch.manual_seed(5)
        own = LlamaGen(replace(config, layers=1)).eval()
        own.output.weight.data.mul_(4)
        return TorchEngine(target, own.requires_grad_(False), image)
    return TorchEngine(target, draft, image)


def draw(engine: Any, case: Case, seeds: tuple[int, ...], prompts: list[str] = PROMPTS, **more: Any) -> Generation:
    words = [VOCABULARY.encode(p).ids for p in prompts]
    if case.sampling.guided:
        words += [VOCABULARY.unconditional().ids] * len(prompts)
    size = capacity(engine.dims, case.law.length, paced=True)
    session = engine.open(engine.encode_condition(np.asarray(words)), size)
    table = uniform_table(seeds, engine.dims.tokens, case.law.length)
    return decode(session, case.law, case.sampling, table, case.forced, drafter=case.drafter, **more)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_device_decides_what_the_host_decides(case: Case) -> None:
    """Tokens and counts of ragged batches. Several draws on one engine: its memory is used again."""
    engine = engine_of(case)
    device = DeviceEngine(engine)
    for seeds in ((1, 2, 3), (4, 5, 6), (7, 8, 9)):
        wanted, found = draw(engine, case, seeds), draw(device, case, seeds)
        np.testing.assert_array_equal(found.codes, wanted.codes)
        for name in ("rounds", "accepted_histogram", "attempts", "accepts", "degenerate", "draft_tokens"):
            np.testing.assert_array_equal(getattr(found.statistics, name), getattr(wanted.statistics, name), name)
        if case.law.length:
            assert int(found.statistics.attempts[0]) > 0


def test_requests_in_a_row_do_not_mix() -> None:
    """One engine, requests that differ in one thing each: what is compiled in makes another round, the rest is filled
    in anew."""
    engine = engine_of(CASES["lossless"])
    device = DeviceEngine(engine)
    law, sampling = Law((1.4, 1.1, 0.8)), Sampling(cfg_scale=2.0, top_k=9)
    base = Case(law, sampling)
    requests = [
        base,
        replace(base, sampling=replace(sampling, temperature=0.5)),
        replace(base, sampling=replace(sampling, top_p=0.6)),
        replace(base, sampling=replace(sampling, top_k=4)),
        replace(base, sampling=replace(sampling, cfg_scale=[2.5] * 8 + [1.0] * 8)),
        replace(base, sampling=replace(sampling, confidence=0.2)),
        replace(base, sampling=replace(sampling, draft_confidence=0.15)),
        replace(base, law=Law((1.0, 1.0, 1.0))),
        replace(base, law=Law((0.6, 0.6, 0.6), "residual")),
        replace(base, law=Law((1.0, 1.0, 1.0), "target", rates=(0.9, 0.9, 0.9))),
        replace(base, law=Law((1.0, 1.0, 1.0), "target", rates=(0.1, 0.1, 0.1))),
        base,  # the last two kinds are kept: this one beside the next
        replace(base, forced=FORCED),
        replace(base, forced=tuple(3 if i % 4 == 3 else -1 for i in range(TARGET.tokens))),
        base,
    ]
    for number, case in enumerate([*requests, *reversed(requests)]):
        seeds = (number, number + 1, number + 2)
        wanted, found = draw(engine, case, seeds), draw(device, case, seeds)
        np.testing.assert_array_equal(found.codes, wanted.codes, f"request {number}")
        np.testing.assert_array_equal(found.statistics.accepts, wanted.statistics.accepts, f"request {number}")


def test_the_session_really_ran_it() -> None:
    device, case = DeviceEngine(engine_of(CASES["lossless"])), CASES["lossless"]
    session = device.open(device.encode_condition(np.zeros((2, TARGET.prefix), np.int64)), 32)
    assert isinstance(session, SelfDecodingSession)
    table = uniform_table([3], TARGET.tokens, 3)
    assert session.decode(DecodeRequest(case.law, case.sampling, table)) is not None


def test_what_it_cannot_run_the_host_steps() -> None:
    """Jacobi drafts, n-gram lookup, waterfill: the same session, round by round."""
    for case in (
        Case(Law((1.0, 1.0)), Sampling(), "jacobi"),
        Case(Law((1.0, 1.0)), Sampling(), "ngram"),
        Case(Law((1.4, 1.2), "waterfill"), Sampling(cfg_scale=2.0)),
    ):
        table = uniform_table([1], TARGET.tokens, 2)
        assert refusal_reason(DecodeRequest(case.law, case.sampling, table, None, case.drafter))
        engine = engine_of(case)
        wanted, found = draw(engine, case, (1, 2, 3)), draw(DeviceEngine(engine), case, (1, 2, 3))
        np.testing.assert_array_equal(found.codes, wanted.codes)


def test_a_seed_has_its_image_in_any_batch() -> None:
    case = CASES["COOL-SD"]
    device = DeviceEngine(engine_of(case))
    together = draw(device, case, (11, 12, 13))
    alone = draw(device, case, (12,), PROMPTS[1:2])
    np.testing.assert_array_equal(alone.codes[0], together.codes[1])


def test_nan_is_found() -> None:
    engine = engine_of(CASES["lossless"])
    engine._target.output.weight.data[3] = float("nan")
    with pytest.raises(CoolsdError, match=r"NaN|distribution"):
        draw(DeviceEngine(engine), CASES["lossless"], (1, 2, 3))


def test_progress_is_told_to_the_end() -> None:
    """And what it says is decided is final, in a ragged batch, on an engine whose memory was used before."""
    case = CASES["COOL-SD"]
    device = DeviceEngine(engine_of(case))
    for seeds in ((3, 4, 5), (6, 7, 8)):
        heard = Heard()
        done = draw(device, case, seeds, hooks=LoopHooks(on_progress=heard))
        heard.check(done)
        assert len(heard.progress) > 2


@pytest.mark.parametrize("loop", ["auto", "device", "host"])
def test_the_loop_that_was_asked_for_runs(loop: Loop) -> None:
    """By what a result says, and by what ran: a device's round begins with one operator that the host never calls."""
    case = CASES["COOL-SD"]
    with Operators() as seen:
        found = draw(DeviceEngine(engine_of(case)), case, (1, 2, 3), loop=loop)
    assert found.loop == seen.loop == ("host" if loop == "host" else "device")
    assert seen.device_rounds == (0 if loop == "host" else int(found.statistics.rounds.max()))
    assert found.graph_fallback_reason == ("" if loop == "host" else "not on a GPU")


@pytest.mark.parametrize(
    ("case", "why"),
    [
        (Case(Law((1.0, 1.0)), Sampling(), "jacobi"), "drafts of the kind jacobi"),
        (Case(Law((1.0, 1.0)), Sampling(), "ngram"), "drafts of the kind ngram"),
        (Case(Law((1.4, 1.2), "waterfill"), Sampling()), "the resampler waterfill"),
        (Case(Law((1.0, 1.0), tolerance=LENIENT), Sampling()), "the rule lantern"),
    ],
)
def test_a_device_says_what_it_cannot_run(case: Case, why: str) -> None:
    device = DeviceEngine(engine_of(case))
    assert draw(device, case, (1, 2, 3)).loop == "host"
    with pytest.raises(UserError, match=rf'loop="device".*found {why}; use loop="auto" or loop="host"'):
        draw(device, case, (1, 2, 3), loop="device")


class Clocked(TorchEngine):
    """Every step of the target takes a second on a clock of its own, the prefill's a hundred."""

    now = 0.0

    def steps(self, rows: int, capacity: int) -> Any:
        steps = super().steps(rows, capacity)
        target = steps.target

        def slow(ids: Any, pos: Any) -> Any:
            self.now += 100.0 if ids.shape[1] == TARGET.prefix else 1.0
            return target(ids, pos)

        vars(steps)["target"] = slow
        return steps


@pytest.mark.parametrize("name", ["plain", "lossless", "COOL-SD", "paced"])
def test_the_devices_time_is_its_own(name: str) -> None:
    """All of it is a phase that no other shares, and a round's is the mean: without the prefill, at its one width."""
    case = CASES[name]
    assert case.law.length + 1 != TARGET.prefix  # a round's step is told from the prefill
    engine = Clocked(*networks())
    found = draw(DeviceEngine(engine), case, (1, 2, 3), hooks=LoopHooks(clock=lambda: engine.now)).statistics
    rounds = int(found.rounds.max())
    assert found.seconds == {"target": 0, "draft": 0, "verify": 0, "other": 0, "device": 100.0 + rounds}
    assert found.round_seconds == {case.law.length: [1.0]}
    assert found.seconds_by_phase("device") == {
        "target": None,
        "draft": None,
        "verify": None,
        "device": 100.0 + rounds,
        "other": None,
    }
