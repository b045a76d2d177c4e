"""The engine on ONNX Runtime beside the eager reference, step by step, and its caches written where they are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from coolsd_rt.backends import LoadOptions, load
from coolsd_rt.backends.onnxruntime.caches import BUCKET, Caches, OrtMemory
from coolsd_rt.backends.onnxruntime.engine import OrtEngine
from coolsd_rt.backends.onnxruntime.graph import OrtGraph, OrtSteps
from coolsd_rt.backends.torch.eager import TorchEngine
from coolsd_rt.contract import cache_names
from coolsd_rt.errors import CoolsdError
from coolsd_rt.ops import process_logits, sample
from coolsd_rt.store import EngineFolder
from tests.backends.side_by_side import CAPACITY, Both, W, words
from tests.tiny import LENGTH, TARGET

VOCAB = TARGET.vocab
OPTIONS = LoadOptions(threads=1, spinning=False, verbose=True)


@pytest.fixture(scope="module")
def engine(tiny_engine: EngineFolder) -> OrtEngine:
    loaded = load(tiny_engine.verified(), OPTIONS)
    assert isinstance(loaded, OrtEngine)
    return loaded


@pytest.fixture(autouse=True)
def no_copies(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """ONNX Runtime warns whenever a TensorScatter had to copy its cache. No test of this file may see that."""
    yield
    assert "in-place optimization not activated" not in capfd.readouterr().err


@pytest.mark.parametrize("images", [1, 4])
def test_steps_are_the_references(engine: OrtEngine, tiny_reference: TorchEngine, images: int) -> None:
    """Prefill, single steps, verification of L + 1, ragged rows, rollback: logits and features within 1e-4."""
    both = Both(engine, tiny_reference, images)
    at = np.zeros(both.rows, np.int64)
    features = both.target(W, at)
    both.draft(features[:, : W - 1], at)
    at = at + W
    for size in (1, 1, LENGTH + 1):
        features = both.target(size, at)
        both.draft(features, at - 1)
        at = at + size
    at = at - np.arange(both.rows) % 3  # rows keep different numbers of drafts
    for size, back in ((LENGTH + 1, 3), (1, 0), (LENGTH + 1, 0)):
        features = both.target(size, at)
        both.draft(features, at - 1)
        at = at + size - back


def test_rows_do_not_disturb_each_other(engine: OrtEngine) -> None:
    """A row alone, and the same row among others at other positions."""
    prefix = engine.encode_condition(words(2))
    alone, among = engine.open(prefix[:1], CAPACITY), engine.open(prefix, CAPACITY)
    rng = np.random.default_rng(3)
    pos = np.array([0, 0, 0, 0])
    for size in (W, 2, 4):
        ids = rng.integers(0, VOCAB, (4, size))
        first, _ = alone.target(ids[:1], pos[:1])
        every, _ = among.target(ids, pos)
        assert np.abs(first - every[:1]).max() < 1e-5
        pos = pos + np.array([size, size, 1, size])


def test_caches_grow_by_buckets_and_keep_what_was_written(engine: OrtEngine, tiny_reference: TorchEngine) -> None:
    """Positions beyond the image are padding to RoPE on both sides: the caches alone are tested there."""
    both = Both(engine, tiny_reference, 1)
    at = np.zeros(2, np.int64)
    seen = []
    for _ in range(20):
        both.target(5, at)
        at = at + 5
        seen.append(both.tested._target._caches.capacity)
    assert seen == [BUCKET * -(-(5 * (i + 1)) // BUCKET) for i in range(20)]
    with pytest.raises(CoolsdError, match="at most 128 positions, found 130"):
        both.tested.target(both.ids(1), np.array([129, 3]))


@pytest.mark.parametrize(("top_k", "temperature"), [(VOCAB, 1.0), (5, 0.7)])
@pytest.mark.parametrize("images", [1, 4])
def test_the_fused_draft_is_single_steps_and_sampling(
    engine: OrtEngine, images: int, top_k: int, temperature: float
) -> None:
    """On one engine, from the same uniforms, with ragged counts: the same tokens and distributions."""
    prefix, rows = engine.encode_condition(words(images)), 2 * images
    proposing, single = engine.open(prefix, CAPACITY), engine.open(prefix, CAPACITY)
    assert proposing.propose_length == LENGTH
    rng = np.random.default_rng(4)
    features, at = rng.standard_normal((rows, W - 1, TARGET.dim)).astype(np.float32), np.zeros(rows, np.int64)
    for session in (proposing, single):
        session.draft(np.zeros((rows, W - 1), np.int64), features, at)
    drafted = np.full(images, W - 1)
    for size in (1, LENGTH + 1, 2):
        count = rng.integers(1, size + 1, images)
        count[0] = size
        ids = np.tile(rng.integers(0, VOCAB, (images, size)), (2, 1))
        features = rng.standard_normal((rows, size, TARGET.dim)).astype(np.float32)
        u = rng.random((images, LENGTH), np.float32)
        scale = (1 + 3 * rng.random((images, LENGTH))).astype(np.float32)
        pos, counts = np.tile(drafted, 2), np.tile(count, 2)
        tokens, probs = proposing.propose(ids, features, pos, counts, u, scale, temperature, top_k)

        logits, guessed = single.draft(ids, features, pos)
        row = np.arange(rows)
        logits, feature = logits[row, counts - 1][:, None], guessed[row, counts - 1][:, None]
        for i in range(LENGTH):
            if i:
                both = np.tile(tokens[:, i - 1 : i], (2, 1))
                logits, feature = single.draft(both, feature, pos + counts - 1 + i)
            q = process_logits(logits, scale[:, i : i + 1], temperature, top_k % VOCAB, 1.0)
            assert np.abs(probs[:, i] - q[:, 0]).max() < 1e-5
            assert (tokens[:, i] == sample(q, u[:, i : i + 1])[:, 0]).all()
        drafted = drafted + count


def test_an_odd_number_of_rows_does_not_propose(engine: OrtEngine) -> None:
    session = engine.open(engine.encode_condition(words(1))[:1], CAPACITY)
    assert session.propose_length == 0
    one = np.zeros((1, 1), np.int64)
    none = np.zeros((0, LENGTH), np.float32)
    with pytest.raises(CoolsdError, match="rows in pairs"):
        session.propose(one, np.zeros((1, 1, TARGET.dim), np.float32), one[0], one[0] + 1, none, none, 1.0, VOCAB)


def test_results_are_the_callers_own(engine: OrtEngine) -> None:
    """Bound outputs are used again by the next step; what was handed out stays."""
    session = engine.open(engine.encode_condition(words(1)), CAPACITY)
    ids, pos = np.zeros((2, 1), np.int64), np.zeros(2, np.int64)
    first, features = session.target(ids, pos)
    kept = first.copy(), features.copy()
    session.target(ids + 1, pos + 1)
    assert np.array_equal(first, kept[0])
    assert np.array_equal(features, kept[1])


def test_the_same_twice_is_the_same(engine: OrtEngine) -> None:
    out = []
    for _ in range(2):
        session = engine.open(engine.encode_condition(words(2)), CAPACITY)
        session.target(np.zeros((4, W), np.int64), np.zeros(4, np.int64))
        out.append(session.target(np.ones((4, LENGTH + 1), np.int64), np.full(4, W))[0])
    assert np.array_equal(out[0], out[1])


def test_caches_are_written_where_they_are(engine: OrtEngine) -> None:
    """The same memory before and after, rows written at pos, zeros elsewhere."""
    session = engine.open(engine.encode_condition(words(1)), CAPACITY)
    session.target(np.zeros((2, 2), np.int64), np.array([W, W + 3]))
    memory = session._target._caches.memory
    before = {name: (m.array, m.value.data_ptr()) for name, m in memory.items()}
    session.target(np.zeros((2, 1), np.int64), np.array([W + 2, W + 5]))
    for name, (array, address) in before.items():
        assert memory[name].array is array
        assert memory[name].value.data_ptr() == address == array.ctypes.data
        written = np.abs(array).sum(axis=(1, 3)) > 0
        assert np.flatnonzero(written[0]).tolist() == [W, W + 1, W + 2]
        assert np.flatnonzero(written[1]).tolist() == [W + 3, W + 4, W + 5]


def test_images_are_the_references(engine: OrtEngine, tiny_reference: TorchEngine) -> None:
    codes = np.random.default_rng(5).integers(0, VOCAB, (3, 16))
    found, wanted = engine.decode_images(codes), tiny_reference.decode_images(codes)
    assert found.dtype == np.uint8
    assert found.shape == (3, 8, 8, 3)
    assert np.abs(found.astype(int) - wanted).max() <= 1


def test_int8_is_near(tiny_engine_int8: EngineFolder, tiny_reference: TorchEngine) -> None:
    """8-bit weights move P a little: a mean total variation within a few per cent, and not none."""
    engine = load(tiny_engine_int8.verified(), OPTIONS)
    assert isinstance(engine, OrtEngine)
    both = Both(engine, tiny_reference, 2, tolerance=1.0)
    ids, pos = both.ids(W + 4), np.zeros(4, np.int64)
    found, _ = both.tested.target(ids, pos)
    wanted, _ = both.wanted.target(torch.from_numpy(ids), torch.from_numpy(pos))
    p, q = (process_logits(x, None, 1.0, 0, 1.0) for x in (found, wanted.numpy()))
    distance = 0.5 * np.abs(p - q).sum(-1)
    assert 0 < distance.mean() < 0.05
    both.draft(np.ones((4, 2, TARGET.dim), np.float32), pos)


def test_what_cannot_run_is_said(tiny_engine: EngineFolder, engine: OrtEngine) -> None:
    data, contract = tiny_engine.verified().read("target.onnx"), engine._graphs["target"].contract
    with pytest.raises(CoolsdError, match="a graph that ONNX Runtime loads"):
        OrtGraph("target", data[:1000], contract, OPTIONS)
    with pytest.raises(CoolsdError, match=r"expected .*features_in"):
        OrtGraph("target", data, engine._graphs["draft"].contract, OPTIONS)
    with pytest.raises(CoolsdError, match=r"expected TensorrtRtxProvider, found .*CPUExecutionProvider"):
        OrtGraph("target", data, contract, LoadOptions(providers=("TensorrtRtxProvider", "CPUExecutionProvider")))
    with pytest.raises(CoolsdError, match=r"graph condition.*expected a successful run") as caught:
        engine.encode_condition(np.full((1, W), 1000))
    assert "\n" not in str(caught.value)


def test_a_fallback_to_other_providers_is_an_error(engine: OrtEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime falls back silently: what runs is compared with what was asked."""
    import onnxruntime as ort

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    given: list[object] = []

    def session(*args: object, **more: object) -> object:
        given.append(more["providers"])
        return engine._graphs["target"].session

    monkeypatch.setattr(ort, "InferenceSession", session)
    with pytest.raises(CoolsdError, match="expected execution on CUDAExecutionProvider, found CPUExecutionProvider"):
        OrtGraph("target", b"", engine._graphs["target"].contract, LoadOptions(providers=("CUDAExecutionProvider",)))
    assert given == [[("CUDAExecutionProvider", {"use_tf32": "0"})]]  # float32 means float32


class TestTheWarning:
    """The watch above would see it: without aliasing, ONNX Runtime warns."""

    @pytest.fixture(autouse=True)
    def no_copies(self) -> None:
        """This one is meant to copy."""

    def test_it_appears_without_aliasing(self, engine: OrtEngine, capfd: pytest.CaptureFixture[str]) -> None:
        d = engine.dims
        prefix = OrtMemory.zeros((2, W, d.dim), "float32")
        caches = Caches([], (2, d.heads, d.head_dim), CAPACITY)  # no aliases: caches are inputs like any other
        steps = OrtSteps(engine._graphs["target"], caches, {"prefix": prefix})
        step = steps.at({"R": 2, "S": 1, "T": 64}, 1)
        feed = {name: np.zeros((2, d.heads, 64, d.head_dim), np.float32) for name, _ in cache_names(d.layers)}
        step(ids=np.zeros((2, 1), np.int64), pos=np.zeros(2, np.int64), **feed)
        assert "in-place optimization not activated" in capfd.readouterr().err
