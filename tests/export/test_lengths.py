"""Attention by lengths is attention by mask, in ONNX Runtime: prefill, one position, a window, ragged rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from coolsd_rt.backends.onnxruntime.graph import OrtGraph
from coolsd_rt.backends.registry import LoadOptions
from coolsd_rt.checkpoints.load import model_dims
from coolsd_rt.contract import target_contract
from coolsd_rt.errors import CoolsdError
from coolsd_rt.export.graphs import TargetGraph
from coolsd_rt.export.lengths import mask_to_lengths
from coolsd_rt.export.torch_onnx import to_onnx
from tests.tiny import DRAFT, TARGET, networks

DIMS = model_dims(TARGET, DRAFT)
CONTRACT = target_contract(DIMS)


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return to_onnx(TargetGraph(networks()[0]), CONTRACT)


@pytest.mark.parametrize(("pos", "size"), [((0, 0), 3), ((3, 3), 1), ((5, 4), 4), ((7, 3), 6)])
def test_lengths_are_the_mask(model: onnx.ModelProto, pos: tuple[int, int], size: int) -> None:
    other = onnx.ModelProto()
    other.CopyFrom(model)
    assert mask_to_lengths(other) == TARGET.layers
    assert mask_to_lengths(other) == 0
    onnx.checker.check_model(other)
    assert "LessOrEqual" not in {n.op_type for n in other.graph.node}  # what made the mask
    rng, sizes = np.random.default_rng(0), {"R": 2, "T": 16, "S": size}
    feed = {
        s.name: rng.standard_normal([sizes[n] if isinstance(n, str) else n for n in s.shape]).astype(s.dtype)
        for s in CONTRACT.inputs
    }
    feed |= {"ids": rng.integers(0, 32, (2, size)), "pos": np.array(pos)}
    a, b = (
        OrtGraph("target", m.SerializeToString(), CONTRACT, LoadOptions(threads=1, spinning=False)).call(**feed)
        for m in (model, other)
    )
    for name, value in a.items():
        np.testing.assert_allclose(b[name], value, atol=2e-5, err_msg=name)


def test_padded_prompts_keep_their_mask() -> None:
    padded = to_onnx(TargetGraph(networks()[0]), target_contract(replace(DIMS, padded=1)))
    with pytest.raises(CoolsdError, match="not padded"):
        mask_to_lengths(padded)
