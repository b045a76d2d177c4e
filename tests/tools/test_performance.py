"""The comparison by the user's way: a run on a tiny model, stopped and continued, and what its figures have to be."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from coolsd_rt.checkpoints.load import load_target
from coolsd_rt.errors import UserError
from coolsd_rt.spec import load_spec
from coolsd_rt.workflows import drawing, opening
from coolsd_rt.workflows.drawing import Job
from coolsd_rt.workflows.planning import kind_of
from tests.stages import built
from tests.tiny import LENGTH, TARGET, VOCABULARY, write_spec
from tools.demo.report import JACOBI, LOSSLESS, PLAIN, RELAXED
from tools.performance import contenders, models, run, tables
from tools.performance.contenders import AUTO, COMPILED, EAGER, OFFICIAL, TORCH, Contender, Drawn, Field, fixed
from tools.performance.models import GIB, Model, available_memory, prepare, shortage, traffic
from tools.performance.official import OfficialLoop
from tools.performance.run import Callbacks, Comparison, compare, finish
from tools.performance.splits import PARTS, split
from tools.performance.turns import Record, Turns


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("performance")


@pytest.fixture(scope="module")
def tiny(out: Path) -> Model:
    spec = write_spec(out / "spec")
    built(load_spec(spec), out / "out" / "engines")  # its stages are other tests' too
    return Model("demo", "Tiny", 2, spec=spec, precisions=("fp32",), sizes=(1, 2))


class _Stop(Exception):
    """As Ctrl-C comes."""


@pytest.fixture(scope="module")
def found(out: Path, tiny: Model, no_compiler: None) -> dict[str, Any]:
    """Figures of a run that was stopped after its fourth turn and went on."""
    asked = Comparison([tiny], out / "out", 1, turns=1, large=1 << 16)
    drawn: list[str] = []

    def stop(key: str) -> None:
        drawn.append(key)
        if len(drawn) == 4:
            raise _Stop

    with pytest.raises(_Stop):
        compare(asked, Callbacks(turn=stop))
    kept = json.loads((out / "out/run/turns.json").read_text())
    assert [key for key in kept if key.startswith("demo/fp32/plain/1/")] == ["demo/fp32/plain/1/0"]
    figures = compare(asked, Callbacks())
    whole = json.loads((out / "out/run/turns.json").read_text())
    assert {key: whole[key] for key in kept} == kept  # nothing was drawn twice
    return figures


@pytest.fixture(scope="module")
def no_compiler() -> Any:
    """torch.compile that finds no compiler: what Inductor does with one takes a minute."""

    def broken(*_: object, **__: object) -> Any:
        def step(*_: object) -> Any:
            raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nmore lines")

        return step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", broken)
        yield


def test_a_run_that_was_stopped_is_whole(out: Path, found: dict[str, Any]) -> None:
    model = found["models"]["demo"]
    rows = {(row["engine"], row["name"], row["images"]): row for row in model["rows"]}
    ours = [(("fp32"), name, 1) for name in (PLAIN, LOSSLESS, RELAXED, JACOBI, AUTO)]
    assert {(TORCH, EAGER, 1), (TORCH, OFFICIAL, 1), *ours, *(("fp32", n, 2) for n in contenders.AT_ONCE)} <= set(rows)
    assert all(row["turns"] == 1 for row in rows.values())
    assert rows["fp32", LOSSLESS, 1]["accept_length"] > 1 == rows["fp32", PLAIN, 1]["accept_length"]
    assert rows["fp32", AUTO, 1]["note"]
    assert found["seconds"] is None  # of a run that went on
    assert str(out) not in os.environ.get("COOLSD_CACHE", "")
    (plans,) = (out / "out/plans/plans").glob("*.json")
    (request,) = json.loads(plans.read_text())["requests"].values()  # a process of its own asks for the same plan
    assert set(request["plans"]) <= {"1", "2"}


def test_a_contender_that_cannot_run_is_left_out_with_the_reason(found: dict[str, Any]) -> None:
    model = found["models"]["demo"]
    assert COMPILED not in {row["name"] for row in model["rows"]}
    assert model["left_out"] == {f"{TORCH}/{COMPILED}/1": "InvalidCxxCompiler: No working C++ compiler found"}
    assert "No working C++ compiler" in tables.one_image(found, "demo")
    assert found["goals"] == []  # nothing to be beside


def test_ratios_are_those_of_the_medians(found: dict[str, Any]) -> None:
    rows = {(r["engine"], r["name"], r["images"]): r for r in found["models"]["demo"]["rows"]}
    eager, plain, two = rows[TORCH, EAGER, 1], rows["fp32", PLAIN, 1], rows["fp32", AUTO, 2]
    assert plain["versus_eager"] == pytest.approx(eager["ms"]["median"] / plain["ms"]["median"])
    assert two["versus_plain"] == pytest.approx(rows["fp32", PLAIN, 2]["ms"]["median"] / two["ms"]["median"])
    assert plain["over_floor"] == pytest.approx(plain["ms"]["median"] / found["models"]["demo"]["floors"]["fp32"]["ms"])
    assert "versus_eager" not in two  # eager code draws one image


def test_a_split_adds_up_to_the_whole(found: dict[str, Any]) -> None:
    splits = found["models"]["demo"]["splits"]
    assert [one["way"] for one in splits] == ["plain", "COOL-SD, delta 1.1", "auto"]
    for one in splits:
        assert sum(one["parts"].values()) == pytest.approx(one["wall"])
        assert tuple(one["parts"]) == PARTS
        assert one["parts"]["start"] > one["parts"]["target"] > 0  # a tiny model, and a process of Python
    assert splits[0]["parts"]["draft"] == 0 < splits[1]["parts"]["draft"]


def test_parts_of_a_process() -> None:
    told = {
        "seconds": 3.0, "seconds_target": 1.0, "seconds_draft": 0.5, "seconds_verify": 0.25, "seconds_image": 1.0,
    }  # fmt: skip
    parts = split(told, 5.0)["parts"]
    assert parts == {"start": 2.0, "target": 1.0, "draft": 0.5, "law": 0.25, "decoder": 1.0, "rest": 0.25}
    assert split(told | {"seconds_draft": None}, 5.0)["parts"]["rest"] == 0.75


def test_another_run_is_not_gone_on_with(out: Path, tiny: Model, found: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"the same comparison.*turns\.demo"):
        compare(Comparison([tiny], out / "out", 1, turns=3, large=1 << 16), Callbacks())
    finish(out / "out")
    assert not (out / "out/run").exists()
    assert (out / "out/engines").exists()


def test_contenders_take_turns(tmp_path: Path) -> None:
    drawn: list[str] = []

    def drawing_as(name: str) -> Contender:
        def draw(jobs: Sequence[Job]) -> Drawn:
            drawn.append(f"{name}{jobs[0].seed}")
            return Drawn(1.0, {}, 1.0)

        return Contender("fp32", name, 1, draw)

    field = Field((drawing_as("a"), drawing_as("b")), VOCABULARY, ("red apple",))
    between: list[int] = []
    Turns("demo", field, 2, Record(tmp_path / "run", {}), lambda key: None).run([between.append])
    assert drawn == ["a0", "a0", "b0", "b0", "a1", "b1"]  # the first of each is not timed
    assert between == [0, 1]


def test_the_floor_counts_matrices_and_valid_rows(tiny: Model) -> None:
    loaded = load_spec(tiny.spec or Path())
    dims = opening.open_reference(loaded, 1).dims
    layer = 4 * TARGET.dim**2 + 3 * TARGET.dim * TARGET.ffn
    matrices = TARGET.layers * layer + TARGET.vocab * TARGET.dim
    positions = TARGET.prefix + TARGET.grid**2 / 2
    cache = 2 * TARGET.layers * 2 * positions * TARGET.dim * 4  # K and V, two rows of guidance, float32
    for item in (1, 4):
        read = traffic(loaded, dims, item)
        assert (read.matrices, read.cache) == (matrices * item, cache)
        assert read.bytes == matrices * item + cache


@pytest.mark.parametrize("guided", [True, False])
def test_the_official_loop_draws_what_ours_does(tiny: Model, guided: bool) -> None:
    """Greedily, where no random number matters: another network, or another guidance, gives other tokens."""
    loaded = load_spec(tiny.spec or Path())
    engine = opening.open_reference(loaded, 1)
    settings = drawing.settings_of(loaded.spec, plain=True)
    sampling = replace(settings.sampling, top_k=1, cfg_scale=2.0 if guided else 1.0)
    network = OfficialLoop(load_target(loaded.files["target.weights"]))
    for prompt in ("red apple", "blue star"):
        jobs = drawing.plan([prompt], 1, 0, VOCABULARY)
        ours = drawing.draw(engine, jobs, VOCABULARY, replace(settings, sampling=sampling)).codes[0]
        rows = drawing.prefix_rows(jobs, VOCABULARY, guided)
        theirs = network.draw(torch.as_tensor(engine.encode_condition(rows.text)), sampling, 0)
        assert len(set(ours.tolist())) > 2
        assert theirs.tolist() == ours.tolist()


def test_random_weights_speculate_at_the_papers_lengths(tmp_path: Path) -> None:
    text = (write_spec(tmp_path).read_text()).replace(
        "schedule:", f"acceptance: {{rule: synthetic, rates: {[0.5] * LENGTH}}}\nresampler: {{kind: target}}\nschedule:"
    )
    text = text.replace("{kind: exponential, delta: 1.1}", "{kind: none}")
    (tmp_path / "tiny.yaml").write_text(text)
    loaded = load_spec(tmp_path / "tiny.yaml")
    laws = {name: drawing.settings_of(spec) for name, spec in fixed(loaded.spec).items()}
    for name, tau in ((LOSSLESS, 2.42), (RELAXED, 2.73)):
        rate = (laws[name].law.rates or (0.0,))[0]
        assert sum(rate**i for i in range(LENGTH + 1)) == pytest.approx(tau, abs=1e-3)
    assert laws[JACOBI].drafter == "jacobi"
    assert laws[JACOBI].law.rates == laws[RELAXED].law.rates
    assert kind_of(laws[LOSSLESS], "auto") != kind_of(laws[RELAXED], "auto")


def test_no_room_is_said_and_left_out(tmp_path: Path, tiny: Model) -> None:
    told: list[str] = []
    assert (available_memory() or 1 << 20) >= 1 << 20
    assert shortage(tiny, tmp_path) == ""
    for large in (replace(tiny, memory=1 << 60), replace(tiny, disk=1 << 60)):
        what = "memory" if large.memory else "disk space"
        assert shortage(large, tmp_path).startswith(f"{(1 << 60) // GIB} GiB of {what} are needed")
        figures = compare(Comparison([large], tmp_path / what, 1, 1), Callbacks(told.append))
        assert figures["models"] == {}
        assert what in tables.one_image(figures, "demo")
    assert [line.split(":")[0] for line in told] == ["demo is left out"] * 2


def test_a_model_is_made_once(out: Path, tiny: Model) -> None:
    told: list[str] = []
    first = prepare(tiny, out / "out", told.append)
    assert told == []  # the run above has built it
    assert first.loaded.spec.engine.max_batch == 4  # as many as the spec has, at least
    assert models.with_batch(first.loaded, 9).spec.engine.max_batch == 9
    assert run.ITEM == {"fp32": 4, "int8": 1}
