"""The kernel `verify` in Triton's interpreter, row by row against the reference. Run by test_interpreted.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coolsd_rt.errors import CoolsdError
from coolsd_rt.law import DEVICE_RESAMPLERS
from coolsd_rt.ops.gpu import FAULT_DRAFT, FAULT_TOTAL, FAULT_WINDOW, raise_fault, verify
from tests.ops.gpu.cases import agree, alone, broken, fresh, uniforms, window
from tools.gpu.traffic import verify_traffic


def check(case: dict[str, Any], resampler: str) -> torch.Tensor:
    """Assert that every row is the reference's; the faults."""
    _, _, _, fault = results = verify(**case, resampler=resampler)
    agree(results, alone(case, resampler), case["target"].shape[-1])
    assert isinstance(fault, torch.Tensor)
    return fault


@pytest.mark.parametrize("resampler", DEVICE_RESAMPLERS)
@pytest.mark.parametrize(
    ("images", "length", "vocab"), [(12, 5, 1024), (3, 5, 16384), (1, 2, 65536), (5, 1, 999), (8, 7, 257)]
)
def test_against_the_reference(images: int, length: int, vocab: int, resampler: str) -> None:
    case = window(fresh(), images, length, vocab)
    assert not check(case, resampler).any()
    assert not check({**case, "forced": None}, resampler).any()


def test_a_batch_of_64() -> None:
    check(window(fresh(), 64, 4, 512), "optimal")


@pytest.mark.parametrize("resampler", DEVICE_RESAMPLERS)
def test_faults(resampler: str) -> None:
    rng = fresh()
    fault = check(broken(rng, window(rng, 30, 3, 300)), resampler)
    assert (fault > 0).any()
    assert (fault == 0).any()
    with pytest.raises(CoolsdError, match="drafted token"):
        raise_fault(fault)


@pytest.mark.parametrize("resampler", DEVICE_RESAMPLERS)
@pytest.mark.parametrize("wounded", ["target", "draft"])
def test_nan_beside_the_drafted_token(resampler: str, wounded: str) -> None:
    """It cannot be seen in the acceptance, only in the residual."""
    case = window(fresh(), 4, 1, 200)
    case["tokens"][:] = 7
    case["target"][:], case["draft"][:] = 0.001, 0.005
    case["u_accept"][:], case["omegas"][:], case["forced"] = 0.9, 1.0, None
    case[wounded][1, 0, 150] = torch.nan
    fault = check(case, resampler)
    assert fault.tolist() == [0, 0 if (resampler, wounded) == ("target", "draft") else FAULT_TOTAL, 0, 0]


def test_rates() -> None:
    rng = fresh()
    case = window(rng, 16, 4, 64)
    rates = torch.tensor([1.0, 0.75, 0.5, 0.0], dtype=torch.float64)
    check({**case, "rates": rates, "forced": None}, "target")
    check({**case, "rates": rates}, "target")
    case["u_accept"][:] = torch.tensor([0.9, 0.75, 0.0, 0.0])  # u = rate is a rejection
    check({**case, "rates": rates, "forced": None}, "target")


def test_no_drafts() -> None:
    case = window(fresh(), 6, 0, 130)
    check({**case, "forced": None}, "optimal")
    check(case, "optimal")


def test_the_test_is_strict() -> None:
    """u * Q = omega * P rejects, also at 0 = 0."""
    p = torch.tensor([[[0.25, 0.75], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]])
    q = torch.tensor([[[0.5, 0.5]], [[0.5, 0.5]]])
    case = {
        "target": p, "draft": q, "tokens": torch.zeros(2, 1, dtype=torch.int64), "num_drafts": torch.ones(2).long(),
        "omegas": torch.ones(1, dtype=torch.float64), "u_accept": torch.tensor([[0.5], [0.0]]),
        "u_resample": torch.zeros(2, 2), "forced": None, "rates": None,
    }  # fmt: skip
    accepted, token, degenerate, fault = verify(**case, resampler="optimal")
    assert (accepted.tolist(), token.tolist()) == ([0, 0], [1, 1])
    assert not degenerate.any()
    assert not fault.any()
    check(case, "optimal")


def test_the_ends_of_the_uniform() -> None:
    case = window(fresh(), 32, 3, 700)
    case["u_resample"][:] = torch.tensor([0.0, 1 - 2.0**-24, 1.0, 0.0])
    check(case, "optimal")


def test_degenerate() -> None:
    """P = Q, or nearly: the token is from P, and it is counted."""
    rng = fresh()
    case = window(rng, 12, 3, 500)
    case["draft"] = case["target"][:, :3] * (1 + 1e-8 * torch.randn(12, 3, 500, generator=rng))
    case["tokens"] = case["draft"].argmax(-1)
    case["omegas"][:] = 1.0
    case["u_accept"][:] = 1.001  # no uniform is, but it rejects where Q is a hair under P, too
    case["forced"] = None
    degenerate = verify(**case, resampler="optimal")[2]
    assert degenerate.all()
    check(case, "optimal")
    check(case, "residual")


def test_windows_that_do_not_fit() -> None:
    case = window(fresh(), 4, 2, 50)
    case["num_drafts"] = torch.tensor([-1, 3, 2, 1])
    fault = verify(**case, resampler="optimal")[3]
    assert [bits & FAULT_WINDOW for bits in fault.tolist()] == [FAULT_WINDOW, FAULT_WINDOW, 0, 0]
    case["num_drafts"][:] = 2
    case["tokens"] = torch.tensor([[50, 0], [-1, 0], [0, 2**40], [0, 0]])
    case["draft"][:] = 0.02
    fault = verify(**case, resampler="optimal")[3]
    assert [bits & FAULT_DRAFT for bits in fault.tolist()] == [FAULT_DRAFT] * 3 + [0]


@given(st.data())
@settings(max_examples=50)
def test_small(data: st.DataObject) -> None:
    """Weights of eighths and uniforms of sixteenths: ties everywhere, and every sum exact."""
    vocab, length = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 3))
    eighths = st.lists(st.integers(0, 4), min_size=vocab, max_size=vocab)
    sixteenths = st.integers(0, 15).map(lambda n: n / 16)
    p = torch.tensor([[data.draw(eighths) for _ in range(length + 1)]], dtype=torch.float32) / 8
    q = torch.tensor([[data.draw(eighths) for _ in range(length)]], dtype=torch.float32) / 8
    case = {
        "target": p, "draft": q,
        "tokens": torch.tensor([[data.draw(st.integers(0, vocab - 1)) for _ in range(length)]]),
        "num_drafts": torch.tensor([data.draw(st.integers(0, length))]),
        "omegas": torch.tensor([data.draw(st.sampled_from([0.0, 0.5, 1.0, 2.0])) for _ in range(length)]).double(),
        "u_accept": torch.tensor([[data.draw(sixteenths) for _ in range(length)]]),
        "u_resample": torch.tensor([[data.draw(sixteenths) for _ in range(length + 1)]]),
        "forced": torch.tensor([[data.draw(st.booleans()) for _ in range(length)]]), "rates": None,
    }  # fmt: skip
    check(case, data.draw(st.sampled_from(DEVICE_RESAMPLERS)))


@pytest.mark.parametrize("resampler", ["optimal", "target"])
def test_traffic(monkeypatch: pytest.MonkeyPatch, resampler: str) -> None:
    """The bytes that the kernel asks for, counted, are those that `verify_traffic` says."""
    from triton.runtime import interpreter  # type: ignore[import-not-found, import-untyped, unused-ignore]

    builder = interpreter.InterpreterBuilder

    rng = fresh()
    case = {**window(rng, 6, 4, 1000), "forced": None}
    case["u_accept"] = uniforms(rng, 6, 4)
    counted = 0
    load, store = builder.create_masked_load, builder.create_masked_store

    def counting_load(self: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
        nonlocal counted
        out = load(self, pointers, mask, *rest)
        counted += int(mask.data.sum()) * int(out.data.itemsize)
        return out

    def counting_store(self: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        nonlocal counted
        counted += int(mask.data.sum()) * int(value.data.itemsize)
        return store(self, pointers, value, mask, *rest)

    monkeypatch.setattr(builder, "create_masked_load", counting_load)
    monkeypatch.setattr(builder, "create_masked_store", counting_store)
    accepted, _, _, fault = verify(**case, resampler=resampler)
    assert not fault.any()
    degenerate = verify(**case, resampler=resampler)[2]
    assert degenerate.dtype == torch.bool
    traffic = verify_traffic(4, 1000, accepted.tolist(), case["num_drafts"].tolist(), resampler)
    assert counted == 2 * traffic.moved
    assert traffic.floor < traffic.moved < 1.05 * traffic.floor
    assert traffic.moved < 0.3 * traffic.whole


def test_a_total_that_is_no_number() -> None:
    case = window(fresh(), 2, 1, 40)
    case["num_drafts"][:] = 0
    case["target"][1, 0] = 0.0
    fault = verify(**case, resampler="optimal")[3]
    assert fault.tolist() == [0, FAULT_TOTAL]
    with pytest.raises(CoolsdError, match="in row 1"):
        raise_fault(fault)
