"""Parity on fakes: agreement passes, each kind of disagreement is seen, measured and judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coolsd_rt.errors import UserError
from coolsd_rt.law import Law
from coolsd_rt.runtime.sampling import Sampling
from coolsd_rt.store import open_engine
from coolsd_rt.workflows import drawing, opening
from coolsd_rt.workflows.drawing import Settings
from coolsd_rt.workflows.parity.distance import GraphParity
from coolsd_rt.workflows.parity.graphs import compare_graphs
from coolsd_rt.workflows.parity.images import ImageParity, compare_images
from coolsd_rt.workflows.parity.run import Parity, judge, parity
from tests.workflows.fakes import VOCABULARY, FakeEngine

SETTINGS = Settings(Law((1.5, 1.0, 0.6)), Sampling(cfg_scale=2.0))
PLAIN = Settings(Law(()), Sampling(cfg_scale=2.0))
JOBS = drawing.plan(["red apple", "yellow star"], 2, 0, VOCABULARY)


def graphs(tested: FakeEngine, settings: Settings = SETTINGS) -> GraphParity:
    codes = drawing.draw(FakeEngine(), JOBS, VOCABULARY, settings).codes
    return compare_graphs(tested, FakeEngine(), JOBS, VOCABULARY, settings, codes)


def whole(tested: FakeEngine, settings: Settings = SETTINGS, variants: int = 8) -> ImageParity:
    out = ImageParity()
    for batch in drawing.batches(drawing.plan(["red apple", "yellow star"], variants, 0, VOCABULARY), 4):
        compare_images(tested, FakeEngine(), batch, VOCABULARY, settings, out)
    return out


@pytest.mark.parametrize("settings", [SETTINGS, Settings(SETTINGS.law, Sampling(top_k=5)), PLAIN])
def test_an_engine_equals_itself(settings: Settings) -> None:
    found = graphs(FakeEngine(), settings)
    for name, figures in found.as_dict().items():
        assert figures["max_error"] == 0, name
    assert found.target.values > 0
    assert found.draft.values > 0
    pair = whole(FakeEngine(), settings, 2)
    assert (pair.images, pair.identical, pair.differences) == (4, 4, [])


def test_an_error_of_logits_is_measured() -> None:
    found = graphs(FakeEngine(error=1e-3)).as_dict()
    assert 1e-3 < found["target"]["max_error"] < 1e-2
    assert 0 < found["target"]["mean_tv"] < found["target"]["max_tv"] < 1e-2
    assert found["condition"]["max_error"] == found["image"]["max_error"] == found["target_features"]["max_error"] == 0


class Keeps(FakeEngine):
    """Forgets to roll back: a position that was written stays as it is."""

    def open(self, prefix: Any, capacity: int, start: Any = None) -> Any:
        session = super().open(prefix, capacity, start)
        step, top = session._step, {"target": -1, "draft": -1}

        def wrong(kind: str, ids: Any, pos: Any) -> Any:
            if int(np.min(pos)) <= top[kind]:
                before = session.seen[kind].copy()
                out = step(kind, ids, pos)
                session.seen[kind][:, : top[kind]] = before[:, : top[kind]]
                return out
            top[kind] = int(np.max(pos)) + ids.shape[1] - 1
            return step(kind, ids, pos)

        vars(session)["_step"] = wrong
        return session


class Draft(FakeEngine):
    """Another draft head."""

    def __init__(self) -> None:
        super().__init__()
        self.draft_head = self.draft_head + 0.01


class Painter(FakeEngine):
    def decode_images(self, codes: Any) -> Any:
        return super().decode_images(codes) ^ 1


@pytest.mark.parametrize(
    ("engine", "graph"),
    [(Keeps(), "target"), (Draft(), "draft"), (Painter(), "image")],
    ids=["cache", "draft", "image"],
)
def test_a_fault_shows_in_its_own_graph(engine: FakeEngine, graph: str) -> None:
    found = graphs(engine).as_dict()
    assert found[graph]["max_error"] > 1e-3
    others = {"condition", "image", "draft"} - {graph} if graph != "target" else {"condition", "image"}
    assert all(found[name]["max_error"] == 0 for name in others)


def test_a_nan_is_an_infinite_error() -> None:
    engine = FakeEngine()
    engine.head = engine.head.copy()
    engine.head[0, 0] = np.nan
    with np.errstate(invalid="ignore"):
        assert graphs(engine).target.largest == np.inf


@pytest.mark.parametrize("settings", [SETTINGS, PLAIN], ids=["drafts", "plain"])
def test_every_difference_is_explained_by_its_margin(settings: Settings) -> None:
    pair = whole(FakeEngine(error=0.05), settings)
    assert 0 < pair.identical < pair.images
    assert len(pair.differences) == pair.images - pair.identical
    assert pair.unexplained == 0
    for d in pair.differences:
        assert 0 <= d.margin <= d.error + 2e-6
        assert d.error < 0.2
    assert pair.equal_tokens < pair.tokens
    kinds = {d.decision for d in pair.differences}
    assert kinds <= (
        {"first token", "bonus"} if settings.plain else {"first token", "bonus", "draft", "acceptance", "resampling"}
    )
    if not settings.plain:
        assert len(kinds) > 1


def test_the_first_differing_token_is_where_it_says() -> None:
    jobs = drawing.plan(["red apple", "yellow star"], 8, 0, VOCABULARY)
    tested, reference = FakeEngine(error=0.05), FakeEngine()
    a, b = (drawing.draw(e, jobs, VOCABULARY, PLAIN).codes for e in (tested, reference))
    out = ImageParity()
    compare_images(tested, reference, jobs, VOCABULARY, PLAIN, out)
    first = {int(m): int(np.argmax(a[m] != b[m])) for m in np.flatnonzero((a != b).any(1))}
    assert {d.image: d.token for d in out.differences} == first
    assert first


class Hasty(FakeEngine):
    """A function of its own: it draws as its probabilities say, and they are far off."""

    def __init__(self) -> None:
        super().__init__(error=0.3)


def outcome(precision: str, tested: FakeEngine) -> tuple[str, ...]:
    return judge(precision, graphs(tested), whole(tested))


def test_fp32_passes_only_when_it_is_the_same_function() -> None:
    assert outcome("fp32", FakeEngine(error=1e-8)) == ()
    failed = " ".join(outcome("fp32", Hasty()))
    for what in ("logits of the target", "identical images", "probability error"):
        assert what in failed
    assert outcome("fp32", Draft()) != ()


@pytest.mark.parametrize(
    ("largest", "magnitude", "passes"),
    [(9e-4, 1.0, True), (2e-3, 300.0, True), (2e-3, 150.0, False), (2e-3, 0.0, False), (float("inf"), 300.0, False)],
)
def test_large_logits_are_judged_by_their_digits(largest: float, magnitude: float, passes: bool) -> None:
    found, good = GraphParity(), ImageParity(images=1, identical=1)
    found.draft.largest, found.draft.magnitude = largest, magnitude
    assert (judge("fp32", found, good) == ()) is passes


def test_int8_is_judged_by_distance_not_by_tokens() -> None:
    assert outcome("int8", FakeEngine(error=1e-2)) == ()
    assert outcome("int8", Draft()) == ()
    assert "total variation" in " ".join(outcome("int8", FakeEngine(error=2.0)))


def test_nan_fails_both_precisions() -> None:
    broken = GraphParity()
    broken.target.largest = float("inf")
    broken.p.seen.append(np.array([np.nan]))
    good = ImageParity(images=1, identical=1)
    assert judge("fp32", broken, good)
    assert judge("int8", broken, good)


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "open_reference", lambda *_: FakeEngine())


@pytest.mark.usefixtures("reference")
def test_the_receipt_is_in_the_manifest(engine: Path) -> None:
    result: Parity = parity(engine, images=3)
    assert result.passed
    receipt = open_engine(engine).manifest.parity
    assert receipt is not None
    assert receipt["passed"] is True
    assert (receipt["precision"], receipt["images"], receipt["identical"]) == ("fp32", 3, 3)
    assert receipt["graphs"]["target"]["max_error"] == receipt["max_logit_error"] == 0
    assert receipt["thresholds"]["logit_error"] == 1e-3


@pytest.mark.usefixtures("reference")
def test_a_failure_is_in_the_manifest_too(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "load_engine", lambda *_: Hasty())
    result = parity(engine, images=3)
    assert not result.passed
    receipt = open_engine(engine).manifest.parity
    assert receipt is not None
    assert receipt["passed"] is False
    assert receipt["failures"] == list(result.failures)


def test_other_weights_than_the_built_ones_are_refused(engine: Path, tmp_path: Path) -> None:
    (tmp_path / "target.safetensors").write_bytes(b"other")
    with pytest.raises(UserError, match=r"target\.safetensors .*built from"):
        parity(engine, images=1)


@pytest.mark.usefixtures("reference")
def test_a_moved_spec_has_to_be_named(engine: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("fake.yaml", "target.safetensors", "draft.safetensors", "vq.safetensors", "vocab.json"):
        (tmp_path / name).rename(moved / name)
    with pytest.raises(UserError, match="--spec"):
        parity(engine, images=1)
    assert parity(engine, images=1, spec_file=moved / "fake.yaml").passed


@pytest.mark.parametrize("images", [0, -1])
def test_a_number_of_images_has_to_be_positive(engine: Path, images: int) -> None:
    with pytest.raises(UserError, match="images"):
        parity(engine, images=images)
