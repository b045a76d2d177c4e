"""The operators where no GPU is: their registration, the reference behind them, and what is missing said plainly."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from coolsd_rt import ops as reference
from coolsd_rt.errors import CoolsdError, MissingExtra
from coolsd_rt.law import DEVICE_RESAMPLERS
from coolsd_rt.ops.gpu import (
    FAULT_DRAFT,
    FAULT_TOTAL,
    FAULT_WINDOW,
    draft_sample,
    process_logits,
    raise_fault,
    sample,
    verify,
)
from tests.ops.gpu.cases import agree, alone, fresh, uniforms, window


def logits_case() -> tuple[Any, ...]:
    rng = fresh()
    logits, scale, u = torch.randn(4, 3, 50, generator=rng), torch.full((2, 3), 2.0), uniforms(rng, 2, 3)
    return logits, scale, u, torch.tensor([[-1, 4, -1], [-1, -1, 0]])


def test_registration() -> None:
    logits, scale, u, forced = logits_case()
    case = window(fresh(), 4, 3, 40)
    torch.library.opcheck(process_logits, (logits, scale, 0.9, 10, 0.9, forced))
    torch.library.opcheck(process_logits, (logits.half(), None, 1.0, 0, 1.0))
    torch.library.opcheck(draft_sample, (logits, scale, u, 0.9, 10, 0.9, forced))
    torch.library.opcheck(sample, (torch.rand(2, 3, 9), u))
    torch.library.opcheck(verify, (), {**case, "resampler": "optimal"})
    torch.library.opcheck(verify, (), {**window(fresh(), 4, 0, 40), "forced": None, "resampler": "optimal"})


def test_inside_a_compiled_function() -> None:
    logits, scale, u, _ = logits_case()

    def step(logits: Any) -> Any:
        tokens, probs = draft_sample(logits * 1.0, scale, u, 1.0, 5, 1.0)
        return tokens + 1, probs.amax(-1)

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True, dynamic=True)
    for found, expected in zip(compiled(logits), step(logits), strict=True):
        assert torch.equal(found, expected)


def test_exported() -> None:
    class Verify(torch.nn.Module):
        def forward(self, target: Any, draft: Any, tokens: Any, num_drafts: Any, omegas: Any, u: Any, v: Any) -> Any:
            return verify(target, draft, tokens, num_drafts, omegas, u, v, None, None, "optimal")

    case = window(fresh(), 4, 3, 40)
    inputs = tuple(case[key] for key in ("target", "draft", "tokens", "num_drafts", "omegas", "u_accept", "u_resample"))
    program = torch.export.export(Verify(), inputs)
    assert "coolsd.verify" in str(program.graph)
    for found, expected in zip(program.module()(*inputs), Verify()(*inputs), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("resampler", DEVICE_RESAMPLERS)
def test_on_a_cpu_it_is_the_reference(resampler: str) -> None:
    case = window(fresh(), 8, 3, 100)
    agree(verify(**case, resampler=resampler), alone(case, resampler), 100)
    logits, scale, u, _ = logits_case()
    tokens, probs = draft_sample(logits, scale, u, 0.8, 20, 0.9)
    assert torch.equal(probs, reference.process_logits(logits, scale, 0.8, 20, 0.9))
    assert torch.equal(tokens, reference.sample(probs, u))
    assert torch.equal(sample(probs, u)[0], tokens)


def test_forced_and_not_finite_on_a_cpu() -> None:
    logits, scale, _, forced = logits_case()
    logits[0, 1] = torch.nan
    logits[3, 0, 7] = -torch.inf
    probs = process_logits(logits, scale, 1.0, 10, 1.0, forced)
    assert probs[0, 1].nonzero().tolist() == [[4]]
    assert probs[1, 2].nonzero().tolist() == [[0]]
    assert probs[1, 0].isnan().all()
    assert probs[0, 0].isfinite().all()


def test_what_does_not_fit() -> None:
    case = window(fresh(), 4, 3, 40)
    with pytest.raises(CoolsdError, match="resampler"):
        verify(**case, resampler="waterfill")
    with pytest.raises(CoolsdError, match="omegas"):
        verify(**{**case, "omegas": case["omegas"].float()}, resampler="optimal")
    with pytest.raises(CoolsdError, match="draft"):
        verify(**{**case, "draft": case["target"]}, resampler="optimal")
    with pytest.raises(CoolsdError, match="float64"):
        process_logits(torch.zeros(1, 1, 4).double(), None, 1.0, 0, 1.0)
    with pytest.raises(CoolsdError, match="scale"):
        process_logits(torch.zeros(2, 1, 4), torch.ones(1, 2), 1.0, 0, 1.0)


def test_faults_have_the_references_words() -> None:
    raise_fault(torch.zeros(3, dtype=torch.int32))
    raise_fault([])
    for bits, words in (
        (FAULT_DRAFT | FAULT_TOTAL, "a drafted token cannot be verified"),
        (FAULT_TOTAL, "a distribution cannot be sampled"),
        (FAULT_WINDOW | FAULT_DRAFT, "a window of drafts cannot be verified"),
    ):
        with pytest.raises(CoolsdError, match=f"{words}.*row 1"):
            raise_fault(torch.tensor([0, bits, bits], dtype=torch.int32))


def test_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operators load, the reference runs, and a launch names the extra."""
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "coolsd_rt.ops.gpu.kernels", raising=False)
    monkeypatch.delattr("coolsd_rt.ops.gpu.kernels", raising=False)
    case = window(fresh(), 2, 1, 10)
    assert not verify(**case, resampler="optimal")[3].any()
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(MissingExtra, match="triton"):
        verify(**case, resampler="optimal")


def test_the_base_stays_light() -> None:
    code = "import sys, coolsd_rt.ops; print(sorted({'torch', 'triton'} & set(sys.modules)))"
    more = "import coolsd_rt.ops.gpu; print('triton' in sys.modules, 'coolsd_rt.ops.gpu.kernels' in sys.modules)"
    command = [sys.executable, "-c", f"{code}; {more}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "False False"]
