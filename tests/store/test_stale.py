"""Why an engine is stale: which weight, which tool from what to what, which key."""

from __future__ import annotations

from pathlib import Path

from coolsd_rt.store import staleness
from tests.store.conftest import SPEC, TOOLS, VIEW, toy_build

FILES = {"target.weights": "aa", "draft.weights": "aa"}
RUN = {"sampling": {"top_k": 0}}


def test_nothing_changed(out: Path) -> None:
    manifest = toy_build(out).manifest
    assert staleness(manifest) == []
    assert staleness(manifest, files=FILES, build_view=VIEW, run_view=RUN, tools=TOOLS) == []
    assert {**VIEW, **RUN}.items() <= SPEC.items()


def test_each_reason_is_named(out: Path) -> None:
    manifest = toy_build(out).manifest
    view = {"engine": {"precision": "int8"}, "draft": {"length": 6}}
    reasons = staleness(
        manifest,
        files={"target.weights": "bb", "draft.weights": "aa"},
        build_view=view,
        run_view={"sampling": {"top_k": 5}},
        tools={"torch": "2.14.0", "onnx": "1"},
    )
    assert [str(r) for r in reasons] == [
        "file target.weights: aa… -> bb…",
        "spec engine.precision: fp32 -> int8",
        "spec draft.length: 5 -> 6",
        "tool torch: 2.13.0 -> 2.14.0",
        "run-time sampling.top_k: 0 -> 5 (run-time: rebuilds nothing)",
    ]
    assert reasons[0].as_dict() == {"kind": "file", "what": "target.weights", "before": "aa…", "after": "bb…"}


def test_a_file_that_is_gone_and_a_tool_that_is_not_here(out: Path) -> None:
    manifest = toy_build(out).manifest
    assert [str(r) for r in staleness(manifest, files={"target.weights": "aa"})] == [
        "file draft.weights: aa… -> nothing"
    ]
    assert staleness(manifest, tools={}) == []
