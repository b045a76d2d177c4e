"""The form of each int8 matrix: measured, recorded, kept, asked for, and given up where it loses too much."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

from coolsd_rt.backends import LoadOptions
from coolsd_rt.backends.onnxruntime import engine as ort_engine
from coolsd_rt.backends.onnxruntime.saturation import PRODUCTS_FILE
from coolsd_rt.cli.build import command as build_command
from coolsd_rt.cli.inspect import command as inspect_command
from coolsd_rt.errors import CoolsdError
from coolsd_rt.prompts import conditioner_files
from coolsd_rt.spec import load_spec
from coolsd_rt.workflows.build import plan as plan_module
from coolsd_rt.workflows.build.accuracy import Loss, loss_of
from coolsd_rt.workflows.build.forms import MatrixForms
from coolsd_rt.workflows.build.processor import processor
from coolsd_rt.workflows.build.product_times import MARGIN, MatrixShape, ProductTimes, measure
from coolsd_rt.workflows.build.quantization import INEXACT, OVERFLOWS, quantization
from coolsd_rt.workflows.build.record import describe_forms
from coolsd_rt.workflows.build.run import BuildPlan, build, plan
from coolsd_rt.workflows.build.stages import BuildInputs
from coolsd_rt.workflows.parity.run import parity
from tests.stages import built, take
from tests.tiny import LENGTH, SPEC, TARGET, networks, write_spec, write_weights
from tests.workflows.building import edit, flip

EXACT: Callable[[bytes], Callable[[Any], float]] = lambda graph: lambda x: 0.0  # noqa: E731
BLOCK, ROWWISE = ProductTimes((1.0, 2.0), (2.0, 2.0)), ProductTimes((1.0, 3.0), (1.0, 1.3))


def spec_of(form: str) -> str:
    asked = "precision: int8, max_batch: 4" + (f", quantization: {form}" if form else "")
    return SPEC.replace("precision: fp32, max_batch: 4, quantization: block", asked)


def inputs(spec: Path, out: Path) -> BuildInputs:
    planned, loaded = plan(load_spec(spec), out), load_spec(spec)
    return BuildInputs(
        loaded.files, planned.hashes, planned.description, "int8", 5, conditioner_files(loaded.spec.condition),
        quantization=loaded.spec.engine.quantization,
    )  # fmt: skip


def to_run(planned: BuildPlan) -> list[str]:
    return [s.name for s in planned.stages if not s.cached]


@pytest.mark.parametrize(
    ("block", "rowwise", "form"),
    [
        ((1.0, 2.0), (1.0, 2.0), "block"),
        ((1.0, 2.0), (1.0, 1.9), "block"),  # within the noise
        ((1.0, 2.0), (1.0, 1.6), "rowwise"),
        ((1.0, 9.0), (1.04, 3.0), "rowwise"),  # a narrow step may lose a little of what a wide one gains
        ((1.0, 9.0), (1.15, 3.0), "block"),  # but not more: plain decoding takes it for every token
        ((1.0,), (0.5,), "rowwise"),
        ((MARGIN,), (1.0,), "block"),
    ],
)
def test_rowwise_has_to_win_by_a_margin(block: tuple[float, ...], rowwise: tuple[float, ...], form: str) -> None:
    assert ProductTimes(block, rowwise).faster == form


def test_forms_are_timed_in_turns_by_the_clock_that_is_given() -> None:
    """A machine that becomes slower and slower must not decide: each call costs more than the one before it."""
    now, step = [0], [1]

    def clock() -> int:
        step[0] += 1
        now[0] += step[0] * 1_000_000
        return now[0]

    times = measure(MatrixShape(64, 32, 3, (2, 8)), clock=clock)
    assert len(times.block) == len(times.rowwise) == 2
    assert times.faster == "block"
    assert times.rowwise[1] / times.block[1] == pytest.approx(1, rel=0.05)
    assert set(times.as_dict()) == {"block", "rowwise"}


def test_every_shape_is_timed_with_the_rows_that_the_spec_steps(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, spec_of("auto"))
    timed: list[MatrixShape] = []

    def slow_drafts(shape: MatrixShape, unsigned: bool) -> ProductTimes:
        timed.append(shape)
        assert not unsigned
        return ROWWISE if len(shape.widths) == 2 else BLOCK

    (tmp_path / "stage").mkdir()
    record = quantization(inputs(spec, tmp_path / "o"), tmp_path / "stage", EXACT, slow_drafts)["quantization"]
    dim, ffn = TARGET.dim, TARGET.ffn
    target = {m["rows"]: m for m in record["matrices"] if m["graph"] == "target" and m["columns"] == dim}
    assert {shape.widths for shape in timed} == {(2, 2 * (LENGTH + 1)), (2,), (1,)}
    assert target.keys() == {dim, ffn}
    assert target[dim]["count"] == TARGET.layers
    assert {m["form"] for m in record["matrices"] if m["graph"] == "target"} == {"rowwise"}
    assert {m["form"] for m in record["matrices"] if m["graph"] == "draft"} == {"block"}
    heads = [m for m in record["matrices"] if m["columns"] == TARGET.vocab]
    assert [(m["graph"], m["widths"]) for m in heads] == [("target", [2, 2 * (LENGTH + 1)]), ("draft", [1])]
    assert record["processor"] == processor()
    assert (tmp_path / "stage" / PRODUCTS_FILE).is_file()
    assert json.loads(json.dumps(record)) == record
    assert MatrixForms.of(record, "draft").rowwise == frozenset()
    assert (dim, 3 * dim) in MatrixForms.of(record, "target").rowwise


@pytest.mark.parametrize(
    ("wrong", "unsigned", "note", "forms"),
    [({False}, True, OVERFLOWS, {"rowwise"}), ({False, True}, False, INEXACT, {"block"})],
)
def test_products_that_overflow_take_another_form_and_say_so(
    tmp_path: Path, wrong: set[bool], unsigned: bool, note: str, forms: set[str]
) -> None:
    """The planted kernel: sums of int8 weights (and of uint8 ones) that are thousands away."""
    spec = write_spec(tmp_path, spec_of("rowwise"))

    def planted(graph: bytes) -> Callable[[Any], float]:
        codes = next(t for t in onnx.load_from_string(graph).graph.initializer if t.name == "codes")
        return lambda x: 4096.0 if (codes.data_type == onnx.TensorProto.UINT8) in wrong else 0.0

    (tmp_path / "stage").mkdir()
    record = quantization(inputs(spec, tmp_path / "o"), tmp_path / "stage", planted)["quantization"]
    assert (record["unsigned"], record["note"]) == (unsigned, note)
    assert {m["form"] for m in record["matrices"]} == forms
    assert (tmp_path / "stage" / PRODUCTS_FILE).is_file() == ("rowwise" in forms)
    assert note in describe_forms({"quantization": {"quantization": record}})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("forms")


@pytest.fixture(scope="module")
def rowwise(folder: Path) -> Any:
    return built(load_spec(write_spec(folder / "rowwise", spec_of("rowwise"))), folder / "engines")


def test_an_engine_that_asks_for_it_is_rowwise_and_passes_what_int8_has_to(rowwise: Any, folder: Path) -> None:
    facts = rowwise.manifest.stages["target"].facts["target"]
    written = Counter(n.op_type for n in onnx.load(rowwise.folder / "target.onnx").graph.node)
    assert written["MatMulInteger"] == facts["quantised_matrices"] == facts["rowwise_matrices"] == 4 * TARGET.layers + 1
    assert written["DequantizeLinear"] == 0
    assert 0 < facts["rowwise_loss"]["mean"] <= facts["rowwise_loss"]["worst"] < 0.05
    assert PRODUCTS_FILE in rowwise.manifest.files
    said = describe_forms({name: s.facts for name, s in rowwise.manifest.stages.items()})
    assert said.startswith("target 9 of 9 matrices row-wise, draft 6 of 6 matrices row-wise, as asked on ")
    receipt = parity(rowwise.folder, images=3, threads=1, spec_file=folder / "rowwise" / "tiny.yaml").receipt()
    assert receipt["batch_invariance"]["exact"] is True
    assert receipt["graphs"]["target"]["mean_tv"] < 0.05


def test_build_and_inspect_say_it(rowwise: Any, folder: Path) -> None:
    words = [str(folder / "rowwise" / "tiny.yaml"), "--out", str(folder / "engines")]
    for command, given in ((build_command, words), (inspect_command, [str(rowwise.folder)])):
        done = CliRunner().invoke(command, given)
        assert done.exit_code == 0, done.output
        assert "target 9 of 9 matrices row-wise, draft 6 of 6 matrices row-wise, as asked on" in done.output
    assert describe_forms({"quantization": {"quantization": ["broken"]}}) == ""
    assert "?" not in describe_forms(
        {"quantization": {"quantization": {"note": "two\nlines"}}, "target": {"target": 5}}
    )


def test_an_engine_is_not_loaded_where_its_products_are_wrong(rowwise: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    verified, options = rowwise.verified(), LoadOptions(threads=1)
    ort_engine.load(verified, options)
    monkeypatch.setattr("coolsd_rt.backends.onnxruntime.saturation.largest_error", lambda error: 4096.0)
    with pytest.raises(CoolsdError, match=r"in 16 bits .* build the engine on this machine") as caught:
        ort_engine.load(verified, options)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("tiny_engine")  # with the same conditions and images
def test_a_choice_is_kept_until_shapes_or_processor_change(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Building again chooses the same, whatever a clock would say by now; so does a build of weights trained anew."""
    spec = write_spec(tmp_path / "spec", spec_of(""))
    assert load_spec(spec).spec.engine.quantization == "auto"
    take(load_spec(spec), tmp_path / "engines", "condition", "image")
    first = build(plan(load_spec(spec), tmp_path / "engines"))
    assert first.fresh == ("quantization", "target", "draft")
    record = first.engine.manifest.stages["quantization"].facts["quantization"]
    assert all(len(m["milliseconds"]["block"]) == len(m["widths"]) for m in record["matrices"])
    assert "measured on" in describe_forms({n: s.facts for n, s in first.engine.manifest.stages.items()})

    def never(*given: Any) -> dict[str, Any]:
        raise AssertionError("measured again")

    monkeypatch.setattr("coolsd_rt.workflows.build.quantization.quantization", never)
    again = build(plan(load_spec(spec), tmp_path / "engines"))
    assert again.fresh == ()
    assert again.engine.manifest.fingerprint == first.engine.manifest.fingerprint
    flip(spec.parent / "target.safetensors")
    assert to_run(plan(load_spec(spec), tmp_path / "engines")) == ["condition", "target", "draft"]
    edit(spec, f"length: {LENGTH}", "length: 2")  # another width of step
    assert "quantization" in to_run(plan(load_spec(spec), tmp_path / "engines"))
    edit(spec, "length: 2", f"length: {LENGTH}")
    monkeypatch.setattr(plan_module, "processor", lambda: "another processor")
    assert to_run(plan(load_spec(spec), tmp_path / "engines")) == ["quantization", "condition", "target", "draft"]


def test_blocks_that_are_asked_for_depend_on_no_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = write_spec(tmp_path, spec_of("block"))
    before = plan(load_spec(spec), tmp_path / "o")
    assert [s.name for s in before.stages] == ["condition", "target", "draft", "image"]
    monkeypatch.setattr(plan_module, "processor", lambda: "another processor")
    assert plan(load_spec(spec), tmp_path / "o").fingerprint == before.fingerprint


def test_outliers_lose_rowwise_what_blocks_keep() -> None:
    """One channel a thousand times the others, whose weights are small: what the others say is rounded away."""
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(size).astype(np.float32) for size in ((16, 1024), (1024, 64)))
    usual = loss_of(x, w)
    assert 0.005 < usual.block < usual.rowwise < 0.02
    assert not usual.too_large
    x[:, 5] *= 1000
    w[5] /= 1000
    found = loss_of(x, w)
    assert found.rowwise > 2.5 * found.block > 0.25
    assert found.too_large
    assert Loss(float("nan"), 0.1).too_large
    assert not Loss(0.2, 0.19).too_large  # blocks would not save it


def test_a_matrix_that_loses_too_much_is_by_blocks(tmp_path: Path) -> None:
    config = replace(TARGET, ffn=1024)
    spec = write_spec(tmp_path / "spec", spec_of("rowwise"), config)
    target = networks(0, config)[0]
    with torch.no_grad():
        ffn = target.layers[1].feed_forward
        ffn.w3.weight[7] *= 1000  # type: ignore[union-attr,index,operator]
        ffn.w2.weight[:, 7] /= 1000  # type: ignore[union-attr,index,operator]
    write_weights(spec.parent / "target.safetensors", target, config)
    engine = built(load_spec(spec), tmp_path / "engines")
    facts = engine.manifest.stages["target"].facts["target"]
    assert list(facts["too_lossy"]) == ["stack.layers.1.feed_forward.w2.weight"]
    assert facts["rowwise_matrices"] == facts["quantised_matrices"] - 1
    assert Counter(n.op_type for n in onnx.load(engine.folder / "target.onnx").graph.node)["DequantizeLinear"] == 1
    said = describe_forms({name: s.facts for name, s in engine.manifest.stages.items()})
    assert said.startswith("target 8 of 9 matrices row-wise (1 by blocks for precision), draft 6 of 6")


def test_the_spec_says_auto_by_saying_nothing(tmp_path: Path) -> None:
    usual, asked = (load_spec(write_spec(tmp_path / (f or "none"), spec_of(f))).spec for f in ("", "block"))
    assert "quantization" not in usual.build_view()["engine"]
    assert asked.build_view()["engine"]["quantization"] == "block"
    assert type(usual).model_validate(usual.resolved()) == usual
    assert type(asked).model_validate(asked.resolved()) == asked
    for text, found in (
        (spec_of("rowwise").replace("precision: int8", "backend: torch"), "quantization: rowwise for torch on cpu"),
        (spec_of("columns"), "columns"),
    ):
        with pytest.raises(CoolsdError, match=found):
            load_spec(write_spec(tmp_path / "wrong", text))


@pytest.mark.parametrize(
    ("text", "ending"),
    [
        ("model name\t: Some CPU @ 2 GHz\nflags\t\t: fpu avx2 avx512_vnni\n", ", Some CPU @ 2 GHz, avx2 avx512_vnni"),
        ("Features\t: fp asimddp i8mm\nCPU part\t: 0xd40\n", ", 0xd40, asimddp i8mm"),
    ],
)
def test_a_processor_in_a_line(tmp_path: Path, text: str, ending: str) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(text)
    assert processor(tmp_path).endswith(ending)
    assert processor(tmp_path / "nowhere")
