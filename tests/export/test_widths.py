"""A step of one position computes what a wider step computes for it, to the bit, in ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from coolsd_rt.backends.onnxruntime.graph import OrtGraph
from coolsd_rt.backends.registry import LoadOptions
from coolsd_rt.checkpoints.load import model_dims
from coolsd_rt.contract import target_contract
from coolsd_rt.export.graphs import TargetGraph
from coolsd_rt.export.torch_onnx import to_onnx
from coolsd_rt.export.widths import pad_single_queries
from tests.tiny import DRAFT, TARGET, networks

CONTRACT = target_contract(model_dims(TARGET, DRAFT))
WIDTH, CAPACITY = 6, 64


@pytest.fixture(scope="module")
def models() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The graph as exported, and rewritten."""
    model = to_onnx(TargetGraph(networks()[0]), CONTRACT)
    padded = onnx.ModelProto()
    padded.CopyFrom(model)
    assert pad_single_queries(padded) == TARGET.layers
    onnx.checker.check_model(padded)
    return model, padded


def graph(model: onnx.ModelProto) -> OrtGraph:
    return OrtGraph("target", model.SerializeToString(), CONTRACT, LoadOptions(threads=1, spinning=False))


def feed(pos: tuple[int, int], width: int) -> dict[str, np.ndarray]:
    rng, sizes = np.random.default_rng(0), {"R": 2, "T": CAPACITY, "S": width}
    made = {
        s.name: rng.standard_normal([sizes[n] if isinstance(n, str) else n for n in s.shape]).astype(s.dtype)
        for s in CONTRACT.inputs
    }
    return made | {"ids": rng.integers(0, 32, (2, width)), "pos": np.array(pos)}


@pytest.mark.parametrize("pos", [(0, 0), (3, 3), (9, 4)])
def test_one_position_at_a_time_has_the_bits_of_a_wide_step(
    models: tuple[onnx.ModelProto, onnx.ModelProto], pos: tuple[int, int]
) -> None:
    step, given = graph(models[1]), feed(pos, WIDTH)
    wide = step.call(**given)
    caches = {name: value for name, value in given.items() if name.startswith(("k_", "v_"))}
    for s in range(WIDTH):
        one = given | caches | {"ids": given["ids"][:, s : s + 1], "pos": given["pos"] + s}
        out = step.call(**one)
        for name in ("logits", "features"):
            np.testing.assert_array_equal(out[name][:, 0], wide[name][:, s], err_msg=f"{name} {s}")
        caches = {name: out[f"{name}_out"] for name in caches}
    for name, value in caches.items():
        np.testing.assert_array_equal(value, wide[f"{name}_out"], err_msg=name)


@pytest.mark.parametrize("width", [1, 2, 5])
def test_the_rewritten_graph_means_the_same(models: tuple[onnx.ModelProto, onnx.ModelProto], width: int) -> None:
    a, b = (graph(model).call(**feed((4, 2), width)) for model in models)
    for name, value in a.items():
        np.testing.assert_allclose(b[name], value, atol=2e-5, err_msg=name)


def test_a_graph_without_attention_stays() -> None:
    assert pad_single_queries(onnx.ModelProto()) == 0
