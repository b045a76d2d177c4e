"""The engine and its steps on a fake of TensorRT's runtime that computes on the addresses it is given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from coolsd_rt.backends.tensorrt.engine import TrtEngine  # noqa: E402
from coolsd_rt.backends.tensorrt.model import Scratch  # noqa: E402
from coolsd_rt.contract import ModelDims  # noqa: E402
from coolsd_rt.device.engine import DeviceBackend, DeviceEngine, DeviceSession  # noqa: E402
from coolsd_rt.errors import CoolsdError  # noqa: E402
from coolsd_rt.runtime.interface import Engine, Session  # noqa: E402
from tests.backends.tensorrt.benching import CPU, DIMS, Bench  # noqa: E402
from tests.backends.tensorrt.fakes import FakeContext  # noqa: E402


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def protocols(models: TrtEngine, engine: DeviceEngine, session: DeviceSession) -> tuple[DeviceBackend, Engine, Session]:
    """For the type checker: they are what the loop asks for."""
    return models, engine, session


def whole(ids: Any, base: Any) -> Any:
    """What the fake model says of a row's tokens from position 0 on."""
    return base[:, None] + np.cumsum(ids + 1, axis=1)


def test_a_session_says_what_the_model_says_of_the_whole_sequence(bench: Bench) -> None:
    """Prefill, a verification, a step back, and single steps: any S, in parts where none was compiled."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 5, (4, 22))
    prefix = rng.random((4, 10, 4), np.float32)
    session = bench.engine().open(torch.from_numpy(prefix), bench.sizes.capacity)
    wanted = whole(ids, prefix.sum(axis=(1, 2)))
    steps = [(0, 10), (10, 14), (12, 13), (13, 14), (14, 16), (0, 22), (3, 20)]
    for first, last in steps:
        pos = torch.full((4,), first)
        logits, features = session.target(torch.from_numpy(ids[:, first:last]), pos)
        np.testing.assert_allclose(logits[..., 0], wanted[:, first:last], rtol=1e-5)
        np.testing.assert_allclose(logits[..., 4] - logits[..., 0], 4, rtol=1e-5)
        np.testing.assert_allclose(features[..., 2], wanted[:, first:last], rtol=1e-5)


def test_rows_may_stand_at_different_positions(bench: Bench) -> None:
    session = bench.engine().open(torch.zeros(2, 10, 4), 20)
    session.target(torch.ones(2, 10, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))
    logits, _ = session.target(torch.tensor([[3, 0], [0, 0]]), torch.tensor([4, 8]))
    np.testing.assert_allclose(logits[..., 0], [[4 * 2 + 4, 4 * 2 + 5], [8 * 2 + 1, 8 * 2 + 2]])


def test_one_row_is_run_as_two_and_comes_back_as_one(bench: Bench) -> None:
    session = bench.engine().open(torch.ones(1, 10, 4), 20)
    logits, features = session.target(torch.tensor([[2, 1, 0]]), torch.tensor([0]))
    assert logits.shape == (1, 3, 5)
    assert features.shape == (1, 3, 4)
    np.testing.assert_allclose(logits[0, :, 0], [43, 45, 46])
    assert bench.engines["target"].contexts[-1].shapes["ids"] == (2, 3)


def test_caches_are_one_address_for_input_and_output_in_every_context(bench: Bench) -> None:
    steps = bench.open().steps(2, 20)
    for size in (1, 4, 10):
        steps.target(torch.zeros(2, size, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))
    contexts = bench.engines["target"].contexts
    assert [c.profile for c in contexts] == [0, 1, 2]
    for name in ("k_0", "v_0"):
        assert len({c.addresses[n] for c in contexts for n in (name, f"{name}_out")}) == 1
    assert contexts[0].addresses["k_0"] != contexts[0].addresses["v_0"]


def test_all_contexts_share_the_largest_scratch_memory(bench: Bench) -> None:
    engine = bench.open()
    steps = engine.steps(2, 20)
    zeros = torch.zeros(2, 1, dtype=torch.int64)
    steps.target(zeros, zeros[:, 0])
    steps.draft(zeros, torch.zeros(2, 1, 4), zeros[:, 0])
    engine.decode_images(np.zeros((1, 9), np.int64))
    memories = {c.memory for made in bench.engines.values() for c in made.contexts}
    assert len(memories) == 1
    assert memories.pop()[1] == max(made.device_memory_size_v2 for made in bench.engines.values())


def test_a_step_that_was_bound_does_nothing_but_enqueue(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a CUDA graph captures: no context, no shape, no address, no memory."""
    steps = bench.open().steps(2, 20)
    ids, pos = torch.ones(2, 4, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    first, _ = steps.target(ids, pos)
    context = bench.engines["target"].contexts[0]
    context.calls.clear()
    for name in ("zeros", "empty", "cat"):
        monkeypatch.setattr(torch, name, lambda *a, **k: pytest.fail("a step that allocates"))
    again, _ = steps.target(ids, pos)
    assert context.calls == ["execute_async_v3"]
    assert again.data_ptr() == first.data_ptr()
    assert len(bench.engines["target"].contexts) == 1


def test_what_a_session_returns_is_the_callers_own(bench: Bench) -> None:
    session = bench.engine().open(torch.zeros(2, 10, 4), 20)
    pos = torch.zeros(2, dtype=torch.int64)
    logits, features = session.target(torch.zeros(2, 1, dtype=torch.int64), pos)
    before = logits.clone(), features.clone()
    session.target(torch.full((2, 1), 4), pos)
    assert torch.equal(logits, before[0])
    assert torch.equal(features, before[1])


def test_a_reset_is_a_new_batch_in_the_same_memory(bench: Bench) -> None:
    steps = bench.open().steps(2, 20)
    ids, pos = torch.ones(2, 10, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    steps.reset(torch.ones(2, 10, 4), None)
    steps.target(ids, pos)
    steps.reset(torch.zeros(2, 10, 4), None)
    logits, _ = steps.target(ids[:, :1], torch.full((2,), 9))
    np.testing.assert_allclose(logits[..., 0], 2)  # nothing of the batch before, nor of its prefix
    assert len(bench.engines["target"].contexts) == 2


def test_the_drafts_features_are_fed_and_its_cache_is_its_own(bench: Bench) -> None:
    session = bench.engine().open(torch.zeros(2, 10, 4), 20)
    pos = torch.zeros(2, dtype=torch.int64)
    session.target(torch.full((2, 10), 4), pos)
    features = torch.arange(24.0).reshape(2, 3, 4)
    logits, _ = session.draft(torch.zeros(2, 3, dtype=torch.int64), features, pos)
    wanted = features.sum(-1) + torch.tensor([1.0, 2.0, 3.0])
    np.testing.assert_allclose(logits[..., 0], wanted)


def test_a_draft_model_of_its_own_reads_its_own_part_of_the_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Bench(monkeypatch, ModelDims(**{**DIMS.as_dict(), "draft_dim": 4}))
    prefix = torch.cat([torch.zeros(2, 10, 4), torch.ones(2, 10, 4)], dim=-1)
    session = own.engine().open(prefix, 20)
    ids, pos = torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    np.testing.assert_allclose(session.target(ids, pos)[0][..., 0], 1)
    np.testing.assert_allclose(session.draft(ids, None, pos)[0][..., 0], 41)


def test_where_rows_begin_is_bound_for_padded_prefixes(monkeypatch: pytest.MonkeyPatch) -> None:
    padded = Bench(monkeypatch, ModelDims(**{**DIMS.as_dict(), "padded": 1}))
    session = padded.engine().open(torch.zeros(2, 10, 4), 20, [3, 7])
    ids, pos = torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    session.target(ids, pos)
    context = padded.engines["target"].contexts[0]
    assert context.array("start", {}).tolist() == [3, 7]


def test_condition_and_image_run_in_as_many_calls_as_they_were_built_for(bench: Bench) -> None:
    engine = bench.open()
    words = np.repeat([1, 2, 3], 4)[:10, None] * np.ones((1, 10), np.int64)
    prefix = engine.encode_condition(words)
    assert prefix.shape == (10, 10, 4)
    assert prefix[:, 0, 0].tolist() == [40] * 4 + [80] * 4 + [60] * 2  # the fake says the sum of a call
    assert [c.shapes["condition"][0] for c in bench.engines["condition"].contexts] == [4, 2]
    pixels = engine.decode_images(np.ones((5, 9), np.int64))
    assert pixels.shape == (5, 8, 8, 3)
    assert pixels.dtype == np.uint8
    assert [c.shapes["codes"][0] for c in bench.engines["image"].contexts] == [2, 1]


@pytest.mark.parametrize("call", ["set_input_shape", "set_tensor_address", "set_optimization_profile_async"])
def test_a_call_that_tensorrt_refuses_is_an_error(bench: Bench, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    made = bench.engines["target"]
    plain = made.create_execution_context

    def refusing(config: Any) -> Any:
        context = plain(config)
        context.refuses = call
        return context

    monkeypatch.setattr(made, "create_execution_context", refusing)
    steps = bench.open().steps(2, 20)
    with pytest.raises(CoolsdError, match=r"engine target: expected .* from TensorRT"):
        steps.target(torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))


def test_a_step_that_tensorrt_refuses_is_an_error(bench: Bench) -> None:
    steps = bench.open().steps(2, 20)
    ids, pos = torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    steps.target(ids, pos)
    bench.engines["target"].contexts[0].refuses = "execute_async_v3"
    with pytest.raises(CoolsdError, match="expected a step from TensorRT"):
        steps.target(ids, pos)


def test_scratch_memory_does_not_move_under_a_context(bench: Bench) -> None:
    scratch = Scratch(CPU)
    scratch.want(1000)
    scratch.bind(FakeContext(bench.engines["target"]))
    scratch.want(1000)
    with pytest.raises(RuntimeError, match="grows after a context"):
        scratch.want(1001)


def test_memory_that_was_bound_in_inference_mode_is_used_outside_of_it(bench: Bench) -> None:
    engine = bench.open()
    ids, pos = torch.ones(2, 1, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    with torch.inference_mode():
        steps = engine.steps(2, 20)
        steps.target(ids, pos)
    steps.reset(torch.zeros(2, 10, 4), None)
    logits, _ = steps.target(ids, pos)
    assert logits[..., 0].tolist() == [[2], [2]]


def test_a_shape_that_tensorrt_does_not_know_is_an_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = bench.open().steps(2, 20)
    monkeypatch.setattr(FakeContext, "infer_shapes", lambda self: ["pos"])
    with pytest.raises(CoolsdError, match="engine target: expected known shapes of all tensors, found no shape of pos"):
        steps.target(torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))
