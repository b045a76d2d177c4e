"""A round asks the device for nothing: on tensors without values, as a CUDA graph's capture sees them, it runs through.

Whatever needs a value on the host (`.item()`, a mask's indices, a branch) raises there. On a GPU the profiler counts.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from coolsd_rt.backends.torch.eager import TorchSession
from coolsd_rt.checkpoints.load import model_dims
from coolsd_rt.device.round import DeviceRound
from coolsd_rt.device.state import DeviceState
from coolsd_rt.law import Law
from coolsd_rt.models.eagle import Eagle
from coolsd_rt.models.llamagen import LlamaGen
from coolsd_rt.runtime.randomness import uniform_table
from coolsd_rt.runtime.sampling import Sampling
from coolsd_rt.runtime.self_decoding import DecodeRequest
from tests.tiny import DRAFT, TARGET

CASES = {
    "COOL-SD": (Law((1.9, 1.0, 0.6)), Sampling(cfg_scale=2.0, top_k=5, top_p=0.9, temperature=0.7)),
    "paced and synthetic": (
        Law((1.0, 1.0), "target", rates=(0.5, 0.5)),
        Sampling(confidence=0.3, draft_confidence=0.2),
    ),
    "plain": (Law(()), Sampling(cfg_scale=2.0)),
}


def round_of(law: Law, sampling: Sampling) -> DeviceRound:
    target, draft = LlamaGen(TARGET), Eagle(DRAFT)
    rows = 6 if sampling.guided else 3
    session = TorchSession(target, draft, model_dims(TARGET, DRAFT), rows, 32)
    forced = np.full(TARGET.tokens, -1)
    request = DecodeRequest(law, sampling, uniform_table([1, 2, 3], TARGET.tokens, law.length), forced)
    like = torch.empty(0, TARGET.dim)
    return DeviceRound(session, DeviceState.empty(session.dims, 3, rows, law.length, like), request)


@pytest.mark.parametrize(("law", "sampling"), CASES.values(), ids=CASES.keys())
def test_a_round_asks_for_no_value(law: Law, sampling: Sampling) -> None:
    with FakeTensorMode(), torch.inference_mode():
        one = round_of(law, sampling)
        one.prefill()
        for _ in range(3):
            one()


def test_the_check_finds_a_question() -> None:
    with FakeTensorMode(), torch.inference_mode():
        one = round_of(*CASES["plain"])
        one.prefill()
        with pytest.raises(DataDependentOutputException):
            bool((one.state.committed > 0).all())


def test_addresses_stay() -> None:
    """What a replay reads is where the capture found it."""
    law, sampling = CASES["COOL-SD"]
    one = round_of(law, sampling)
    state = one.state
    before = {name: value.data_ptr() for name, value in vars(state).items()}
    table = uniform_table([1, 2, 3], TARGET.tokens, law.length)
    with torch.inference_mode():
        for _ in range(2):
            state.reset(DecodeRequest(law, sampling, table), TARGET.tokens)
            one.prefill()
            one()
            one()
    assert {name: value.data_ptr() for name, value in vars(state).items()} == before
