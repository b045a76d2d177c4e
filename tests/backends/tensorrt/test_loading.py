"""Loading a build on a fake of TensorRT's runtime: what is compared before a byte is read, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from coolsd_rt.backends.registry import LoadOptions  # noqa: E402
from coolsd_rt.backends.tensorrt import engine as engine_module  # noqa: E402
from coolsd_rt.backends.tensorrt.engine import load  # noqa: E402
from coolsd_rt.backends.tensorrt.model import Scratch  # noqa: E402
from coolsd_rt.backends.tensorrt.package import Gpu  # noqa: E402
from coolsd_rt.errors import CoolsdError  # noqa: E402
from tests.backends.tensorrt.benching import CPU, DIMS, Bench  # noqa: E402
from tests.backends.tensorrt.fakes import FakeEngine  # noqa: E402


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_more_rows_or_positions_than_were_built_for_are_one_clear_line(bench: Bench) -> None:
    engine, ids = bench.engine(), torch.zeros(5, 1, dtype=torch.int64)
    with pytest.raises(
        CoolsdError, match=r"expected at most 4 rows, found 5 rows; build with a larger engine.max_batch"
    ):
        engine.open(torch.zeros(5, 10, 4), 20).target(ids, ids[:, 0])
    with pytest.raises(CoolsdError, match=r"KV caches: expected at most 64 positions.*found 65; build it again"):
        engine.open(torch.zeros(2, 10, 4), 65).target(ids[:2], ids[:2, 0])


class NoMemory:
    """A GPU without room, in torch's words."""

    def __init__(self, *args: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore of it")


def test_memory_that_is_out_is_one_line_with_what_to_do(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's for the scratch, TensorRT's own for an engine or a context."""
    bench.engines["target"].device_memory_size_v2 = 1 << 20
    with monkeypatch.context() as patch:
        patch.setattr(Scratch, "want", NoMemory.__init__)
        with pytest.raises(CoolsdError, match=r"scratch buffers, found CUDA out of memory.*GiB.; close other programs"):
            bench.open()
    bench.trt.unread = "Error Code 2: OutOfMemory (Requested size was 9 bytes.)"
    del bench.trt.engines[b"draft"]
    with pytest.raises(CoolsdError, match=r"OutOfMemory \(Requested.*build with a smaller engine.max_batch"):
        bench.open()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda b: b.facts["draft"].update(version="1.6.0"),
            "engine draft: the version of tensorrt-rtx: expected 1.6.0",
        ),
        (lambda b: b.facts["target"].update(flavour="tensorrt"), "the package: expected tensorrt, as at build time"),
        (lambda b: b.facts["image"].update(capabilities=["9.0"]), r"expected 9.0.*found 8.9 \(Fake 4090\)"),
        (lambda b: b.facts.pop("draft"), "expected the graph draft, found none"),
        (lambda b: b.facts["draft"].pop("profiles"), "the build record of engine draft"),
    ],
)
def test_no_byte_is_read_of_a_build_for_another_machine(
    bench: Bench, change: Callable[[Bench], Any], words: str
) -> None:
    change(bench)
    with pytest.raises(CoolsdError, match=rf"{words}.*build it again"):
        bench.open()
    assert bench.read_names == []


def test_a_builds_manifest_is_all_that_a_load_needs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Facts of stages compile_<graph>, files of a checked folder."""
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(engine_module, "Scratch", lambda device: Scratch(CPU))
    stages = {f"compile_{n}": SimpleNamespace(facts={n: facts}) for n, facts in bench.facts.items()}
    manifest = SimpleNamespace(
        contract=bench.description.as_dict(),
        stages=stages | {"condition": SimpleNamespace(facts={"target": 0})},
        spec={"engine": {"backend": "tensorrt-rtx"}},
        spec_file="",
        build_view={},
    )
    folder = SimpleNamespace(folder=Path("engines/tiny/0"))
    verified: Any = SimpleNamespace(manifest=manifest, engine=folder, read=bench.read)
    assert load(verified, LoadOptions()).dims == DIMS
    assert sorted(bench.read_names) == ["condition.engine", "draft.engine", "image.engine", "target.engine"]
    del stages["compile_draft"], manifest.stages["compile_draft"]
    with pytest.raises(CoolsdError, match=r"expected the graph draft, found none; build it again: coolsd-rt build"):
        load(verified, LoadOptions())


def test_an_engine_for_all_gpus_loads_on_any(bench: Bench) -> None:
    for facts in bench.facts.values():
        facts["capabilities"] = []
    bench.gpu = Gpu("Fake B200", "10.0", 1)
    bench.open()
    assert len(bench.read_names) == 4


def _alias(made: FakeEngine) -> None:
    made.aliased["v_0_out"] = "k_0"


def _retype(made: FakeEngine) -> None:
    made.specs["logits"] = made.specs["ids"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_alias, "engine target: v_0_out: expected memory of v_0, found k_0"),
        (lambda made: made.aliased.clear(), "k_0_out: expected memory of k_0, found separate memory"),
        (_retype, "engine target: logits: expected .*float32"),
        (lambda made: made.specs.pop("pos"), "pos: no such tensor"),
        (lambda made: setattr(made, "capacity", 32), "engine target: k_0"),
        (lambda made: setattr(made, "num_optimization_profiles", 1), "expected 3 profiles, found 1"),
    ],
)
def test_an_engine_of_other_tensors_is_refused(bench: Bench, change: Callable[[FakeEngine], Any], words: str) -> None:
    change(bench.engines["target"])
    with pytest.raises(CoolsdError, match=words):
        bench.open()


def test_a_broken_engine_is_tensorrts_reason_in_one_line(bench: Bench) -> None:
    del bench.trt.engines[b"draft"]
    with pytest.raises(
        CoolsdError, match=r"^engine draft: expected an engine that TensorRT loads, found Serialization \(bad"
    ):
        bench.open()


def test_a_driver_that_is_too_old_is_said_so(bench: Bench) -> None:
    bench.trt.refuses = "CUDA initialization failure with error: 35. driver version is insufficient for CUDA runtime"
    with pytest.raises(CoolsdError, match=r"a compatible driver, found CUDA init.*install an NVIDIA driver"):
        bench.open()


def test_kernels_are_compiled_before_they_run_and_capturing_is_left_to_the_loop(bench: Bench) -> None:
    bench.open()
    for made in bench.engines.values():
        (config,) = made.configs
        assert config.strategy == "user"
        assert config.dynamic_shapes_kernel_specialization_strategy == "eager"
        assert config.cuda_graph_strategy == "disabled"
        assert config.cache is not None
