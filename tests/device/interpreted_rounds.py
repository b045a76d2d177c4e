"""Rounds on a device whose law is the Triton kernels. Run by `test_launching` with TRITON_INTERPRET=1."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from coolsd_rt.device.engine import DeviceEngine
from coolsd_rt.errors import CoolsdError
from coolsd_rt.law import Law
from coolsd_rt.models.eagle import Eagle
from coolsd_rt.ops import process_logits as reference
from coolsd_rt.ops.gpu import process_logits
from coolsd_rt.runtime.sampling import Sampling
from tests.device.test_device_rounds import CASES, Case, draw, engine_of

PACED = Case(Law((1.3, 1.1)), Sampling(cfg_scale=2.0, draft_confidence=0.12))


@pytest.mark.parametrize("name", ["plain", "COOL-SD", "synthetic", "forced", "paced", "a draft model"])
def test_the_kernels_decide_what_the_host_decides(name: str) -> None:
    case = CASES[name]
    engine = engine_of(case)
    wanted, found = draw(engine, case, (1, 2, 3)), draw(DeviceEngine(engine), case, (1, 2, 3))
    np.testing.assert_array_equal(found.codes, wanted.codes)
    np.testing.assert_array_equal(found.statistics.attempts, wanted.statistics.attempts)


@pytest.mark.parametrize(
    "case", [replace(PACED, sampling=Sampling(cfg_scale=2.0)), PACED], ids=["every draft", "sure ones"]
)
def test_a_nan_of_the_draft_is_found_whatever_it_is_sure_of(case: Case) -> None:
    """The host's loop refuses to draw from it; the device's round must not take it for an unsure draft."""
    engine = engine_of(case)
    assert isinstance(engine._draft, Eagle)
    engine._draft.fc.bias.data[0] = float("nan")
    for each in (engine, DeviceEngine(engine)):
        with pytest.raises(CoolsdError, match="NaN"):
            draw(each, case, (1, 2, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_guidance_of_half_precision_stays_finite(dtype: torch.dtype) -> None:
    """CFG of 7.5 over logits as large as float16 has them: both sides do it in float32."""
    torch.manual_seed(0)
    logits = (torch.randn(4, 2, 300) * 2e4).clamp(-6e4, 6e4).to(dtype)
    scale = torch.full((2, 2), 7.5)
    found = process_logits(logits, scale, temperature=1.0, top_k=100, top_p=1.0)
    assert bool(torch.isfinite(found).all())
    torch.testing.assert_close(found, reference(logits, scale, 1.0, 100, 1.0), atol=1e-6, rtol=1e-5)
