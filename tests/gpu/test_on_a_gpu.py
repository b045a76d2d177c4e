"""What only a GPU can show: kernels against the reference, the round as a graph, and that nobody waits.

    pytest -m gpu tests/gpu

Skipped where torch sees no GPU, which is where this was written.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from coolsd_rt.device import round_reference
from coolsd_rt.device.cuda_graph import Captured
from coolsd_rt.device.engine import DeviceEngine
from coolsd_rt.device.program import WARMUP_ROUNDS, Program
from coolsd_rt.device.round_ops import commit, draft_token, window
from coolsd_rt.device.state import DeviceState
from coolsd_rt.errors import CoolsdError
from coolsd_rt.models.eagle import Eagle
from coolsd_rt.ops.gpu import draft_sample, process_logits, verify
from coolsd_rt.runtime.randomness import uniform_table
from coolsd_rt.runtime.round import decode
from coolsd_rt.runtime.self_decoding import DecodeRequest
from tests.device.rounds import Sizes, commit_of, copied, drafts_of, same, window_of
from tests.device.test_device_rounds import CASES, Case, draw, engine_of
from tests.tiny import TARGET
from tests.tools.test_gpu_ties import session_of
from tools.gpu.ties import HostLoop

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")]


def both(*tensors: Any) -> list[Any]:
    return [t.cuda() if isinstance(t, torch.Tensor) else t for t in tensors]


@pytest.mark.parametrize("vocab", [1024, 16384, 65536])
@pytest.mark.parametrize("top_k", [0, 1, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_draw_what_the_reference_draws(vocab: int, top_k: int, dtype: torch.dtype) -> None:
    torch.manual_seed(vocab + top_k)
    logits, scale, u = torch.randn(8, 3, vocab).to(dtype), torch.full((4, 3), 3.0), torch.rand(4, 3)
    rules: dict[str, Any] = {"temperature": 0.9, "top_k": top_k, "top_p": 1.0}
    wanted = process_logits(logits, scale, **rules)
    tokens, probs = draft_sample(*both(logits, scale, u), **rules)
    torch.testing.assert_close(probs.cpu(), wanted, atol=1e-6, rtol=1e-4)
    cdf = probs.double().cumsum(-1).cpu()
    again = (cdf <= (u.double() * cdf[..., -1])[..., None]).sum(-1)
    assert torch.equal(tokens.cpu(), again)


@pytest.mark.parametrize("length", [0, 1, 5])
@pytest.mark.parametrize("resampler", ["optimal", "residual", "target"])
def test_verdicts_are_the_reference_s(length: int, resampler: str) -> None:
    torch.manual_seed(length)
    p, q = torch.rand(64, length + 1, 16384).pow(8), torch.rand(64, length, 16384).pow(8)
    p, q = p / p.sum(-1, keepdim=True), q / q.sum(-1, keepdim=True)
    tokens = q.flatten(0, 1).multinomial(1).view(64, length) if length else torch.zeros(64, 0, dtype=torch.int64)
    arguments = (
        p, q, tokens, torch.randint(0, length + 1, (64,)), torch.rand(length, dtype=torch.float64) * 2,
        torch.rand(64, length), torch.rand(64, length + 1), None, None, resampler,
    )  # fmt: skip
    wanted, found = verify(*arguments), verify(*both(*arguments))
    for a, b in zip(wanted, found, strict=True):
        assert torch.equal(a, b.cpu())


@pytest.mark.parametrize("length", [0, 1, 5])
@pytest.mark.parametrize("guided", [False, True])
def test_what_is_around_the_law_is_the_reference_s(length: int, guided: bool) -> None:
    """The kernels of a round beside the torch code that says what they mean, both on the GPU."""
    rng, sizes = torch.Generator().manual_seed(length), Sizes(64, length, guided, True)
    rounds: list[tuple[Any, Any, dict[str, Any]]] = [
        (window, round_reference.window, window_of(rng, sizes)),
        (commit, round_reference.commit, commit_of(rng, sizes, 16384, 0.0)),
        (commit, round_reference.commit, commit_of(rng, sizes, 16384, 0.2)),
    ]
    rounds += [
        (draft_token, round_reference.draft_token, step)
        for least in (0.0, 0.2)
        for step in drafts_of(rng, sizes, 16384, least, 0.9)
    ]
    for operator, meant, given in rounds:
        found, wanted = (dict(zip(given, both(*copied(given).values()), strict=True)) for _ in range(2))
        operator(**found)
        meant(**wanted)
        same(found, wanted)


@pytest.mark.parametrize("name", CASES)
def test_a_captured_image_is_the_host_loop_s(name: str) -> None:
    """On the same GPU in float32: the graph replayed against the loop stepped from the host.

    The host's first draft step is as wide as its batch needs, the device's always L + 1: other kernels, which round
    otherwise. So tokens may part where a decision was a near tie, and nowhere else.
    """
    case = CASES[name]
    engine = engine_of(case).to("cuda", "float32")
    device, near = DeviceEngine(engine), 0
    for seeds in ((1, 2, 3), (4, 5, 6), (7, 8, 9)):
        table = uniform_table(seeds, TARGET.tokens, case.law.length)
        host = HostLoop(session_of(engine, case), case.law, case.sampling, table, case.forced, case.drafter)
        found = decode(session_of(device, case), case.law, case.sampling, table, case.forced, drafter=case.drafter)
        partings = host.partings(found.codes)
        assert [parting for parting in partings if not parting.near] == []
        near += len(partings)
    assert near <= 1
    assert device.graph_fallback_reason == ""


@pytest.mark.parametrize("name", ["COOL-SD", "plain", "forced", "a draft model"])
def test_a_replay_decides_what_the_same_kernels_decide_one_by_one(name: str) -> None:
    """The graph against its own round, never captured: the same kernels, so the same tokens to the last."""
    case = CASES[name]
    engine = engine_of(case).to("cuda", "float32")
    table = uniform_table((1, 2, 3), TARGET.tokens, case.law.length)
    request = DecodeRequest(
        case.law, case.sampling, table, None if case.forced is None else np.asarray(case.forced), case.drafter
    )
    session = session_of(engine, case)
    prefix = session._whole.clone()
    rows = len(prefix)
    found = []
    for captured in (True, False):
        steps = engine.steps(rows, 64)
        state = DeviceState.empty(engine.dims, 3, rows, case.law.length, engine.like())
        program = Program(steps, state, request)
        if not captured:
            program._captured = Captured(program._round, "as the test wants it")
        found += [program.decode(request, prefix, None).codes for _ in range(2)]  # the second is all replays
        assert (program.graph_fallback_reason == "") == captured
    for codes in found[1:]:
        np.testing.assert_array_equal(codes, found[0])


def test_a_nan_of_the_draft_is_found_whatever_it_is_sure_of() -> None:
    case = CASES["paced"]
    engine = engine_of(case).to("cuda", "float32")
    assert isinstance(engine._draft, Eagle)
    engine._draft.fc.bias.data[0] = float("nan")
    with pytest.raises(CoolsdError, match="NaN"):
        draw(DeviceEngine(engine), replace(case, sampling=replace(case.sampling, confidence=0.0)), (1, 2, 3))


def test_guidance_of_half_precision_logits_stays_finite() -> None:
    """CFG of 7.5 over logits as large as float16 has them: in float32, on both sides."""
    torch.manual_seed(0)
    logits = (torch.randn(8, 2, 16384) * 1e4).clamp(-6e4, 6e4).half().cuda()
    probs = process_logits(logits, torch.full((4, 2), 7.5, device="cuda"), temperature=1.0, top_k=1000, top_p=1.0)
    assert bool(torch.isfinite(probs).all())
    torch.testing.assert_close(probs.sum(-1), torch.ones(4, 2, device="cuda"), atol=1e-5, rtol=0)


def program_of(case: Case) -> tuple[Program, DecodeRequest, torch.Tensor]:
    engine = engine_of(case).to("cuda", "float32")
    table = uniform_table([1, 2, 3], TARGET.tokens, case.law.length)
    request = DecodeRequest(case.law, case.sampling, table)
    steps = engine.steps(6, 40)
    state = DeviceState.empty(engine.dims, 3, 6, case.law.length, engine.like())
    prefix = torch.zeros(6, TARGET.prefix, TARGET.dim, device="cuda")
    return Program(steps, state, request), request, prefix


def waits(profile: torch.profiler.profile) -> int:
    """Calls that stop the host until the device is done."""
    return sum(e.count for e in profile.key_averages() if "Synchronize" in e.key or e.key == "aten::item")


def test_nobody_waits_for_a_round() -> None:
    """Of whole images, profiled: the host waits for a look at the counters every few rounds, never for a token."""
    program, request, prefix = program_of(CASES["COOL-SD"])
    program.decode(request, prefix, None)
    with profiled() as profile:
        done = program.decode(request, prefix, None)
    rounds = int(done.statistics.rounds.max())
    # Reading the result, the prefill's own, and looks near the end: far fewer than a token's or a step's would be.
    assert waits(profile) <= rounds + 24


def test_a_round_is_one_launch() -> None:
    program, request, prefix = program_of(CASES["COOL-SD"])
    program.decode(request, prefix, None)
    with profiled() as profile, torch.inference_mode():
        for _ in range(10):
            program.step(WARMUP_ROUNDS + 1)
    launches = {e.key: e.count for e in profile.key_averages() if "Launch" in e.key}
    assert launches == {"cudaGraphLaunch": 10}


def profiled() -> torch.profiler.profile:
    activities = torch.profiler.ProfilerActivity
    return torch.profiler.profile(activities=[activities.CPU, activities.CUDA])
