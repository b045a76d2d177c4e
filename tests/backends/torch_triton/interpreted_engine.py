"""The engine over fused steps: whole images by kernels, and when it is not believed. Run by `test_fused`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from coolsd_rt.backends.torch.eager import TorchEngine
from coolsd_rt.backends.torch.triton import engine as fused_engine
from coolsd_rt.backends.torch.triton.engine import FusedEngine, mismatch_reason
from coolsd_rt.backends.torch.triton.launch import Launcher
from coolsd_rt.backends.torch.triton.network import FusedDecoder, FusedStep
from coolsd_rt.device.engine import DeviceEngine
from coolsd_rt.errors import CoolsdError
from tests.device.test_device_rounds import CASES, PROMPTS, Case, draw
from tests.device.test_device_rounds import engine_of as engine_with
from tests.models.family_cases import CONFIGS, HEADS, random_draft, random_target
from tests.tiny import TARGET, networks
from tools.gpu.kernels import launches
from tools.gpu.sizes import TINY, networks_of

# Programs of kernels are slow here, and a layer after another is proven by `interpreted_networks`.
SMALL = replace(TARGET, layers=1, grid=3)


def engine_of(case: Case) -> TorchEngine:
    return engine_with(case, SMALL)


@pytest.mark.parametrize("name", ["plain", "COOL-SD", "a draft model"])
def test_rounds_by_kernels_decide_what_the_host_decides(name: str) -> None:
    case = CASES[name]
    engine = engine_of(case)
    one = ((4,), PROMPTS[:1])
    wanted, found = draw(engine, case, *one), draw(DeviceEngine(FusedEngine(engine)), case, *one)
    np.testing.assert_array_equal(found.codes, wanted.codes)
    np.testing.assert_array_equal(found.statistics.attempts, wanted.statistics.attempts)


def later(kept: Callable[..., Tensor], where: int) -> Callable[..., Tensor]:
    """Attention that is one position off, from the position `where` on."""

    def attend(self: Launcher, qkv: Tensor, heads: Any, table: Tensor, pos: Tensor, *rest: Any) -> Tensor:
        return kept(self, qkv, heads, table, pos + (pos >= where), *rest)

    return attend


def blank(kept: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *args, **named: kept(*args, **named).zero_()


def raising(*_: Any) -> Tensor:
    raise CoolsdError("the kernel attend", found="no such instruction")


def no_memory(*_: Any) -> Tensor:
    raise torch.cuda.OutOfMemoryError("out")


@pytest.mark.parametrize("name", ["COOL-SD", "a draft model"])
def test_right_kernels_are_found_right(name: str) -> None:
    engine = engine_of(CASES[name])
    assert mismatch_reason(engine, FusedEngine(engine)) == ""


def test_right_kernels_of_padded_prefixes_are_found_right() -> None:
    target = random_target(replace(CONFIGS["anole"], layers=1, heads=2))
    engine = TorchEngine(target, random_draft(target, **HEADS["anole"]), networks()[2])
    assert mismatch_reason(engine, FusedEngine(engine)) == ""


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("attend", later(Launcher.attend, 0), "from the eager networks'"),
        ("attend", later(Launcher.attend, 129), "from the eager networks'"),  # where chunks are merged
        ("attend", lambda *a: torch.full((a[1].shape[0] * a[1].shape[1], 64), torch.nan), "is nan from"),
        ("gated", blank(Launcher.gated), "from the eager networks'"),  # where torch has the products
        ("product", blank(Launcher.product), "a layer of the target is"),
        ("embed", blank(Launcher.embed), "logits are"),  # what no layer has
        ("attend", raising, "no such instruction"),
        ("attend", no_memory, "has no room"),
    ],
)
def test_wrong_kernels_are_found_wrong(
    monkeypatch: pytest.MonkeyPatch, name: str, wrong: Callable[..., Tensor], said: str
) -> None:
    engine = engine_of(CASES["COOL-SD"])
    monkeypatch.setattr(Launcher, name, wrong)
    assert said in mismatch_reason(engine, FusedEngine(engine))


def test_float32_and_old_gpus_keep_the_eager_networks(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine, capability = engine_of(CASES["COOL-SD"]), [9, 0]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: tuple(capability))
    assert fused_engine.with_triton(engine) is engine
    half = engine_of(CASES["COOL-SD"]).to("cpu", "float16")
    assert isinstance(fused_engine.with_triton(half), FusedEngine)
    assert not caplog.records
    capability[:] = [7, 5]
    assert fused_engine.with_triton(half) is half
    capability[:] = [9, 0]
    monkeypatch.setattr(Launcher, "attend", raising)
    assert fused_engine.with_triton(half) is half
    assert "without fused kernels" in caplog.text


@pytest.mark.parametrize("positions", [1, 3])
def test_every_launch_that_is_timed_runs(positions: int) -> None:
    """`tools/gpu/kernels.py`, but for its clock: two rows and six of a layer, over all layers."""
    network, _ = networks_of(TINY, "cpu")
    launcher = Launcher(torch.device("cpu"))
    layers, caches = FusedDecoder(network, launcher).layers, network.caches(2, 12)
    step = FusedStep(network.rope, torch.tensor([7, 7]), positions, None)
    timed = launches(launcher, layers, caches, step, 2 * positions)
    assert list(timed) == ["qkv", "wo", "up", "down", "attend", "layer"]
    for work in timed.values():
        work()
    assert all(bool(cache.k[:, :, 7 : 7 + positions].any()) for cache in caches)
