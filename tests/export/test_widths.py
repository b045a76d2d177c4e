"""A step of one position computes what a wider step computes for it, to the bit, in ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from coolsd_rt.backends.onnxruntime.graph import OrtGraph
from coolsd_rt.backends.registry import LoadOptions
from coolsd_rt.checkpoints.load import model_dims
from coolsd_rt.contract import target_contract
from coolsd_rt.export.graphs import TargetGraph
from coolsd_rt.export.torch_onnx import to_onnx
from coolsd_rt.export.widths import fold_queries
from tests.tiny import DRAFT, TARGET, networks

CONTRACT = target_contract(model_dims(TARGET, DRAFT))
WIDTH, CAPACITY = 6, 64
Feed = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def models() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The graph as exported, and rewritten."""
    model = to_onnx(TargetGraph(networks()[0]), CONTRACT)
    folded = onnx.ModelProto()
    folded.CopyFrom(model)
    assert fold_queries(folded) == TARGET.layers
    onnx.checker.check_model(folded)
    return model, folded


def graph(model: onnx.ModelProto) -> OrtGraph:
    return OrtGraph("target", model.SerializeToString(), CONTRACT, LoadOptions(threads=1, spinning=False))


def feed(pos: tuple[int, int], width: int, capacity: int = CAPACITY) -> Feed:
    """Inputs of a step. Rows of the caches do not depend on the capacity."""
    rng, sizes = np.random.default_rng(0), {"R": 2, "T": 2 * CAPACITY, "S": width}
    made = {
        s.name: rng.standard_normal([sizes[n] if isinstance(n, str) else n for n in s.shape]).astype(s.dtype)
        for s in CONTRACT.inputs
    }
    made |= {name: value[:, :, :capacity] for name, value in made.items() if name.startswith(("k_", "v_"))}
    return made | {"ids": rng.integers(0, 32, (2, width)), "pos": np.array(pos)}


def one_at_a_time(step: OrtGraph, given: Feed) -> Feed:
    """Logits and features [R, S, ...] of steps of one position, and the caches behind the last."""
    caches = {name: value for name, value in given.items() if name.startswith(("k_", "v_"))}
    parts: dict[str, list[np.ndarray]] = {"logits": [], "features": []}
    for s in range(given["ids"].shape[1]):
        out = step.call(**given | caches | {"ids": given["ids"][:, s : s + 1], "pos": given["pos"] + s})
        for name, found in parts.items():
            found.append(out[name])
        caches = {name: out[f"{name}_out"] for name in caches}
    joined = {name: np.concatenate(found, axis=1) for name, found in parts.items()}
    return joined | {f"{name}_out": value for name, value in caches.items()}


@pytest.mark.parametrize("pos", [(0, 0), (3, 3), (9, 4), (57, 20)])
def test_one_position_at_a_time_has_the_bits_of_a_wide_step(
    models: tuple[onnx.ModelProto, onnx.ModelProto], pos: tuple[int, int]
) -> None:
    step, given = graph(models[1]), feed(pos, WIDTH)
    wide = step.call(**given)
    for name, value in one_at_a_time(step, given).items():
        np.testing.assert_array_equal(value, wide[name], err_msg=name)


def test_the_exported_graph_has_other_bits_in_a_wide_step(models: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    """What the test above would say without the pass, on a processor whose kernels differ."""
    step, given = graph(models[0]), feed((9, 4), WIDTH)
    wide, narrow = step.call(**given), one_at_a_time(step, given)
    if np.array_equal(wide["logits"], narrow["logits"]):
        pytest.skip("this processor's kernels round alike at every width")
    np.testing.assert_allclose(wide["logits"], narrow["logits"], atol=2e-5)


def test_a_step_of_one_position_keeps_its_bits(models: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    """The pass gives wide steps the kernel of narrow ones, not the other way round: plain decoding does not change."""
    before, after = (graph(model).call(**feed((9, 4), 1)) for model in models)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)


def test_bits_do_not_depend_on_the_capacity(models: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    """Caches grow in buckets, by the longest row of a batch: masked positions have to add exact zeros."""
    step = graph(models[1])
    small, large = (step.call(**feed((57, 20), WIDTH, capacity)) for capacity in (CAPACITY, 2 * CAPACITY))
    for name in ("logits", "features"):
        np.testing.assert_array_equal(large[name], small[name], err_msg=name)


@pytest.mark.parametrize("width", [1, 2, 5])
def test_the_rewritten_graph_means_the_same(models: tuple[onnx.ModelProto, onnx.ModelProto], width: int) -> None:
    a, b = (graph(model).call(**feed((4, 2), width)) for model in models)
    for name, value in a.items():
        np.testing.assert_allclose(b[name], value, atol=2e-5, err_msg=name)


def test_layers_share_one_mask(models: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    nodes = [n for n in models[1].graph.node if n.op_type == "Attention"]
    assert len({n.input[3] for n in nodes}) == 1
    assert sum(n.op_type == "Expand" for n in models[1].graph.node) == 1


def test_a_graph_without_masked_attention_stays() -> None:
    assert fold_queries(onnx.ModelProto()) == 0
    plain = onnx.ModelProto(graph=onnx.GraphProto(node=[helper.make_node("Attention", ["q", "k", "v"], ["y"])]))
    before = plain.SerializeToString()
    assert fold_queries(plain) == 0
    assert plain.SerializeToString() == before
