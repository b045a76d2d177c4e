"""Everything that draws takes the same way through the loop: the session's own where it has one, and it says so.

The engine is built with the backend `torch`, whose sessions decode by themselves on a CPU as well. Each test reads
which loop ran from the result, and sees it from below in the operators that torch is given.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from coolsd_rt.bench.html import page  # noqa: E402
from coolsd_rt.bench.report import BenchReport  # noqa: E402
from coolsd_rt.bench.run import BenchCallbacks, BenchConfig, bench  # noqa: E402
from coolsd_rt.bench.variants import VariantChoice  # noqa: E402
from coolsd_rt.cli.main import run as cli  # noqa: E402
from coolsd_rt.device import round_reference  # noqa: E402
from coolsd_rt.device.engine import DeviceEngine  # noqa: E402
from coolsd_rt.device.round import DeviceRound  # noqa: E402
from coolsd_rt.quality.run import QualityMeasures  # noqa: E402
from coolsd_rt.schedules.analyze import RecordingConfig, analyze  # noqa: E402
from coolsd_rt.schedules.budget import Budget  # noqa: E402
from coolsd_rt.schedules.tune import tune_engine  # noqa: E402
from coolsd_rt.spec import load_spec  # noqa: E402
from coolsd_rt.store import EngineFolder, open_engine  # noqa: E402
from coolsd_rt.sweep import plot  # noqa: E402
from coolsd_rt.sweep.run import SweepConfig, sweep  # noqa: E402
from coolsd_rt.workflows import opening  # noqa: E402
from coolsd_rt.workflows.build.run import build, plan, with_engine  # noqa: E402
from coolsd_rt.workflows.generate.run import GenerateConfig, generate  # noqa: E402
from coolsd_rt.workflows.parity.run import Parity, judge, parity  # noqa: E402
from coolsd_rt.workflows.png import read_provenance  # noqa: E402
from tests.quality.qualities import run as run_quality  # noqa: E402
from tests.workflows.looking import Operators  # noqa: E402

PROMPTS = ("red apple", "blue star", "green leaf")


@pytest.fixture(scope="module")
def built(tiny_spec: Path, tmp_path_factory: pytest.TempPathFactory) -> EngineFolder:
    """Sessions of this engine decode by themselves."""
    loaded = with_engine(load_spec(tiny_spec), backend="torch")
    return build(plan(loaded, tmp_path_factory.mktemp("torch") / "engines")).engine


def test_generate(built: EngineFolder, tmp_path: Path) -> None:
    with Operators() as seen:
        report = generate(built.folder, GenerateConfig(list(PROMPTS), tmp_path, 2))
    assert report.loop == seen.loop == "device"
    said = report.as_dict()
    assert said["loop"] == "device"
    assert said["seconds_device"] > 0
    assert said["seconds_target"] is said["seconds_draft"] is said["seconds_verify"] is None
    assert said["seconds_other"] > 0
    assert said["seconds_device"] + said["seconds_other"] == pytest.approx(said["seconds"])
    again = generate(built.folder, GenerateConfig(list(PROMPTS), tmp_path, 2))
    assert (again.loop, again.tokens) == (None, 0)  # nothing was drawn


def test_generate_steps_what_the_device_cannot(built: EngineFolder, tmp_path: Path) -> None:
    with Operators() as seen:
        report = generate(built.folder, GenerateConfig(["red apple"], tmp_path, draft="jacobi"))
    assert report.loop == seen.loop == "host"
    said = report.as_dict()
    assert said["seconds_device"] is None
    parts = [said[f"seconds_{phase}"] for phase in ("target", "draft", "verify", "other")]
    assert sum(parts) == pytest.approx(said["seconds"])


def test_generate_says_it_to_a_reader(
    built: EngineFolder, tiny_engine: EngineFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def shown(engine: EngineFolder, out: str) -> str:
        assert cli(["generate", str(engine.folder), "-p", "red apple", "--out", str(tmp_path / out)]) == 0
        found = capsys.readouterr()
        return found.out + found.err

    device, host = shown(built, "device"), shown(tiny_engine, "host")
    assert "seconds in device" in device
    assert not any(f"seconds in {phase}" in device for phase in ("target", "draft", "verify"))
    assert "seconds in device" not in host
    assert all(f"seconds in {phase}" in host for phase in ("target", "draft", "verify"))


@pytest.fixture(scope="module")
def benched(built: EngineFolder) -> tuple[BenchReport, Operators]:
    choice = VariantChoice(names=("lossless", "cool", "jacobi"))
    with Operators() as seen:
        report = bench(BenchConfig(built.folder, 6, 2, PROMPTS, threads=1, choice=choice))
    return report, seen


def test_bench(benched: tuple[BenchReport, Operators]) -> None:
    """The loop that `generate` takes is timed: the device's, and the host's for what the device cannot run."""
    report, seen = benched
    rows = {row["name"]: row for row in report.as_dict()["ways"]}
    loops = {name: row["loop"] for name, row in rows.items()}
    assert set(loops.values()) == {"device", "host"}
    assert all((loop == "host") == ("jacobi" in str(rows[name]["draft"])) for name, loop in loops.items())
    # Each turn takes as many rounds as its slowest image; so does the warm-up, which is the first turn once more.
    timed = [row.timed for row in report.rows if row.timed.loop == "device"]
    rounds = sum(int(part.rounds.max()) for entry in timed for part in [entry.parts[0], *entry.parts])
    assert seen.device_rounds == rounds
    assert {(row.timed.loop, row.timed.outside_engine is None) for row in report.rows} == {
        ("device", True),
        ("host", False),
    }
    for row in rows.values():
        for phases in (row["seconds_per_image_by_phase"], *(sample["by_phase"] for sample in row["samples"])):
            unknown = {phase for phase, seconds in phases.items() if seconds is None}
            assert unknown == ({"target", "draft", "verify"} if row["loop"] == "device" else {"device"})
            assert sum(seconds for seconds in phases.values() if seconds is not None) > 0


def test_bench_has_its_figures_of_either_loop(built: EngineFolder, benched: tuple[BenchReport, Operators]) -> None:
    """Counts of rounds and drafts come from the device as from the host, and the break-even has its times."""
    rows = {row["name"]: row for row in benched[0].as_dict()["ways"]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("coolsd_rt.device.engine.refusal_reason", lambda request: "for this test")
        choice = VariantChoice(names=("lossless", "cool"))
        stepped = bench(BenchConfig(built.folder, 6, 2, PROMPTS, threads=1, choice=choice)).as_dict()["ways"]
    counts = (
        "rounds",
        "rounds_with_drafts",
        "num_draft_tokens",
        "num_accepted_tokens_per_pos",
        "acceptance_by_position",
    )
    assert len(stepped) > 2
    for row in stepped:
        assert row["loop"] == "host"
        assert [row[name] for name in counts] == [rows[row["name"]][name] for name in counts]
        drafts = row["draft"] is not None
        for each in (row, rows[row["name"]]):
            assert (each["by_draft_length"] is not None) == drafts
            if drafts:
                assert each["num_draft_tokens"] > 0
                assert all(length["seconds_per_round"] != 0 for length in each["by_draft_length"])


def test_the_loop_is_in_the_tables_of_a_bench(benched: tuple[BenchReport, Operators]) -> None:
    times = benched[0].tables[2]
    at = times.columns.index("loop")
    assert {row[at] for row in times.rows} == {"device", "host"}
    for row in times.rows:
        cells = dict(zip(times.columns, row, strict=True))
        told = {phase for phase in ("target", "draft", "verify", "device") if cells[phase] != "-"}
        assert told == ({"device"} if cells["loop"] == "device" else {"target", "draft", "verify"})
    assert "<td>device</td>" in page(benched[0])


def test_a_bench_makes_each_kind_of_round_once(built: EngineFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ways take turns; what `generate` makes once for all of its batches is in no turn's time."""
    made: list[int] = []
    real = DeviceRound.__init__

    def counted(self: DeviceRound, steps: Any, state: Any, request: Any) -> None:
        made.append(request.length)
        real(self, steps, state, request)

    monkeypatch.setattr(DeviceRound, "__init__", counted)
    choice = VariantChoice(names=("cool",), draft_lengths=(1, 2))
    report = bench(BenchConfig(built.folder, 2, 1, PROMPTS, threads=1, choice=choice))
    assert len(made) == len(set(made)) == len({row.timed.variant.settings.law.length for row in report.rows}) > 2


@pytest.mark.parametrize(("device", "said"), [("cuda", True), ("cpu", False)])
def test_rounds_without_a_graph_are_in_a_benchs_report(
    built: EngineFolder, monkeypatch: pytest.MonkeyPatch, device: str, said: bool
) -> None:
    """On a GPU they are slower for a reason that is no way's own; a CPU has none. The rounds say why themselves."""
    told, kept = list[str](), opening.spec_of

    def spec_of(folder: Any) -> Any:
        spec = kept(folder)
        return spec.model_copy(update={"engine": spec.engine.model_copy(update={"device": device})})

    monkeypatch.setattr(opening, "spec_of", spec_of)
    choice = VariantChoice(names=("lossless", "jacobi"))
    found = bench(
        BenchConfig(built.folder, 1, 1, PROMPTS, threads=1, choice=choice), BenchCallbacks(warning=told.append)
    )
    line = "rounds ran without a CUDA graph: not on a GPU"
    assert [told.count(line), list(found.warnings).count(line)] == [int(said)] * 2


def test_sweep(built: EngineFolder, tiny_spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot, "plots", lambda results: {})
    file = tmp_path / "sweep.yaml"
    points = "{plain: {plain: true}, spec: {}, stepped: {set: {resampler.kind: waterfill}}}"
    file.write_text(f"version: 1\nimages: 4\npoints: {points}\nquality: {{frechet: {{images: 6}}}}\n")
    request = SweepConfig(built.folder, file, tmp_path / "out", tiny_spec, threads=1)
    with Operators() as seen:
        results = sweep(request)
    wanted = {"plain": "device", "spec": "device", "stepped": "host"}
    assert {point.name: point.speed.loop for point in results.points} == wanted
    written = json.loads((tmp_path / "out" / "results.json").read_text())["points"]
    assert {point["name"]: point["speed"]["loop"] for point in written} == wanted
    assert seen.loop == "device"
    (tmp_path / "out" / "points" / "001-spec.json").unlink()
    assert {point.name: point.speed.loop for point in sweep(request).points} == wanted  # from the batches kept


def test_quality(built: EngineFolder, tmp_path: Path) -> None:
    for name, draft, loop in (("own", None, "device"), ("stepped", "jacobi", "host")):
        with Operators() as seen:
            report = run_quality(built.folder, tmp_path, name, wanted=QualityMeasures(), draft=draft)
        assert report.as_dict()["loop"] == report.cost.loop == seen.loop == loop
        drawn = sorted((tmp_path / name / "images").iterdir())
        assert drawn
        assert {(read_provenance(path) or {})["loop"] for path in drawn} == {loop}


def test_analyze_and_tune_see_rounds_that_the_host_steps(built: EngineFolder) -> None:
    """P and Q come to nobody on the device's loop."""
    with Operators() as seen:
        found = analyze(RecordingConfig(built.folder, 3, PROMPTS, threads=1))
    assert found.as_dict()["loop"] == seen.loop == "host"
    assert found.rounds > 0
    with Operators() as seen:
        tune_engine(
            RecordingConfig(built.folder, 30, PROMPTS, threads=1), Budget("accept_length", 1.5), "optimal", None, None
        )
    assert seen.loop == "host"


def proven(engine: EngineFolder) -> tuple[Parity, Operators]:
    with Operators() as seen:
        outcome = parity(engine.folder, images=8, prompts=PROMPTS, threads=1)
    return outcome, seen


def test_parity(built: EngineFolder) -> None:
    outcome, seen = proven(built)
    assert outcome.passed
    assert outcome.images.identical == 8
    assert seen.loop == "device"
    assert seen.device_rounds >= 2 * 5  # two batches; a round decides four tokens of sixteen at most
    receipt = open_engine(built.folder).manifest.parity or {}
    assert receipt["loop"] == receipt["whole_images"]["loop"] == "device"


def test_parity_of_an_engine_that_the_host_steps(tiny_engine: EngineFolder) -> None:
    """ONNX Runtime's, beside the reference: nobody runs a device's round."""
    with Operators() as seen:
        found = parity(tiny_engine.folder, images=2, prompts=PROMPTS, threads=1).receipt()
    assert found["loop"] == seen.loop == "host"


def test_a_wrong_device_round_fails_parity(built: EngineFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of the device's loop alone: the same graphs, stepped by the host, are right. It may not be promoted."""
    real = round_reference.window

    def wrong(*args: Any) -> None:
        real(*args)
        u_accept = args[11]
        u_accept.copy_(u_accept.flip(0))  # of another image

    monkeypatch.setattr(round_reference, "window", wrong)
    outcome, _ = proven(built)
    assert not outcome.passed
    whole = outcome.images
    assert whole.identical < whole.images
    assert whole.unexplained > 0
    assert {d.decision for d in whole.differences} == {"between loops"}
    lines = judge("fp32", outcome.graphs, whole)
    assert any("differences: expected each explained" in line for line in lines)
    assert outcome.graphs.target.largest < 1e-3  # the graphs are not at fault


def test_a_near_tie_of_the_devices_kernels_is_explained(built: EngineFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every decision of the device's rounds moved by 5e-5 of probability: a few images part, each at a near tie."""
    real = DeviceRound.prefill

    def moved(self: DeviceRound) -> None:
        self.state.uniforms.add_(5e-5).clamp_(max=1 - 1e-6)
        real(self)

    monkeypatch.setattr(DeviceRound, "prefill", moved)
    outcome = parity(built.folder, images=200, prompts=PROMPTS, threads=1)
    found = outcome.images
    assert 0 < len(found.differences) < 30
    assert {d.decision for d in found.differences} == {"between loops"}
    assert found.unexplained == 0
    assert found.identical == 200 - len(found.differences)
    assert found.largest_error == 0.0  # of the engines: there is none between them


def test_only_batches_with_a_difference_are_drawn_again(built: EngineFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    real = DeviceEngine.open

    def counted(self: DeviceEngine, prefix: Any, *args: Any) -> Any:
        opened.append(len(prefix))
        return real(self, prefix, *args)

    monkeypatch.setattr(DeviceEngine, "open", counted)
    right = len(proven(built)[0].images.loops), len(opened)
    assert np.array(opened).sum() > 0
    patched = round_reference.commit

    def wrong(*args: Any) -> None:
        args[1].add_(1).remainder_(8)  # the token after the drafts is another
        patched(*args)

    monkeypatch.setattr(round_reference, "commit", wrong)
    opened.clear()
    outcome, _ = proven(built)
    assert outcome.images.identical == 0
    # Two batches: each is stepped again by the host, and once more where its first token needs the prefill's P.
    assert right[0] == 2
    assert len(opened) - right[1] == 2
