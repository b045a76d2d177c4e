"""What a GPU check proves of a backend, on a pipeline so small that a CPU does it in seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from coolsd_rt.device.program import Program
from coolsd_rt.spec import LoadedSpec, load_spec
from coolsd_rt.spec.model import Spec
from coolsd_rt.store import EngineFolder
from coolsd_rt.workflows.build.run import build, plan
from tools.gpu import proofs


@pytest.fixture(scope="module")
def networks(tiny_spec: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[EngineFolder, LoadedSpec]:
    loaded = load_spec(tiny_spec)
    data = loaded.spec.resolved()
    data["engine"] |= {"backend": "torch"}
    loaded = replace(loaded, spec=Spec.model_validate(data))
    return build(plan(loaded, tmp_path_factory.mktemp("networks"))).engine, loaded


def test_rounds_on_the_device_are_those_of_the_host(networks: tuple[EngineFolder, LoadedSpec]) -> None:
    found = proofs._rounds(*networks, "fp32", 3)
    counts = {"images": 3, "identical": 3, "near_ties": 0, "unexplained": 0}
    assert found == {**counts, "graph_fallback_reason": "not on a GPU"}


def test_images_of_another_round_are_told(
    networks: tuple[EngineFolder, LoadedSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = Program.decode

    def wrong(self: Program, *args: Any) -> Any:
        done = decode(self, *args)
        return replace(done, codes=np.where(np.arange(16) == 5, (done.codes + 1) % 32, done.codes))

    monkeypatch.setattr(Program, "decode", wrong)
    found = proofs._rounds(*networks, "fp32", 3)
    assert found is not None
    assert (found["identical"], found["near_ties"] + found["unexplained"]) == (0, 3)
    assert found["unexplained"] >= 2
    counted = proofs._rounds(*networks, "bf16", 3)
    assert counted is not None
    assert counted["unexplained"] == 0  # half precision: counted, not judged


def test_an_engine_without_rounds_of_its_own_is_left_out(tiny_engine: EngineFolder, tiny_spec: Path) -> None:
    assert proofs._rounds(tiny_engine, load_spec(tiny_spec), "fp32", 2) is None
