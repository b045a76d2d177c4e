"""The operators that are written for ONNX Runtime alone, as exported graphs that it runs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from coolsd_rt.export.ops import OPSET, kth_largest, translations
from coolsd_rt.export.propose import draw
from coolsd_rt.ops import sample

CODES = 4096


class Call(nn.Module):
    """A function of two tensors as a module."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.function(x, y)


def exported(function: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> ort.InferenceSession:
    program = torch.onnx.export(
        Call(function).eval(), (x, y), dynamo=True, opset_version=OPSET, verbose=False,
        custom_translation_table=dict(translations()), input_names=["x", "y"],
    )  # fmt: skip
    assert program is not None
    return ort.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def numbers() -> Tensor:
    """Three rows of logits: distinct, with ties everywhere, and all equal."""
    torch.manual_seed(0)
    distinct = torch.randperm(CODES).float() / 7
    return torch.stack([distinct, torch.randint(0, 5, (CODES,)).float(), torch.ones(CODES)])[:, None]


@pytest.mark.parametrize("k", [1, 2, 6, 1000, 3000, CODES])
def test_the_kth_largest_of_each_row(numbers: Tensor, k: int) -> None:
    """Small k and large k: ONNX Runtime finds them by different methods, and without an order of the k."""
    session = exported(kth_largest, numbers, torch.tensor([5]))
    found = session.run(None, {"x": numbers.numpy(), "y": np.array([k])})[0]
    wanted = numbers.sort(dim=-1, descending=True).values[..., k - 1 : k]
    assert np.array_equal(found, wanted.numpy())


def test_a_draw_takes_the_code_that_the_loop_takes() -> None:
    """Points of every part of the range, half of the codes without weight; the last code too."""
    rng = np.random.default_rng(0)
    probs = np.exp(3 * rng.standard_normal((64, CODES))).astype(np.float32) * (rng.random((64, CODES)) < 0.5)
    probs[:8, :-1] = 0.0
    probs[:, -1] = 1.0
    u = np.concatenate([[0.0, 1 - 2.0**-24], np.linspace(0, 0.9999, 62)]).astype(np.float32)
    session = exported(draw, torch.from_numpy(probs), torch.from_numpy(u[:, None].astype(np.float64)))
    found = session.run(None, {"x": probs, "y": u[:, None].astype(np.float64)})[0]
    assert found.dtype == np.int64
    assert found.tolist() == sample(probs, u).tolist()
    assert (found[:8] == CODES - 1).all()
