"""How a build is aimed and timed, on stand-ins for the builder's config: what TensorRT-RTX on a CPU cannot show."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from coolsd_rt.backends.tensorrt import build as module
from coolsd_rt.backends.tensorrt.build import BuildOptions
from coolsd_rt.backends.tensorrt.loaders import loaders
from coolsd_rt.backends.tensorrt.package import Gpu
from coolsd_rt.errors import CoolsdError, MissingExtra, UserError

GPU = Gpu("Fake 4090", "8.9", 1)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "local_gpu", lambda: GPU)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "local_gpu", lambda: None)


@pytest.mark.usefixtures("gpu")
def test_an_engine_is_for_the_gpu_that_is_here() -> None:
    assert module._capabilities(TRT, "tensorrt", BuildOptions()) == ("8.9",)
    assert module._capabilities(TRT, "tensorrt-rtx", BuildOptions()) == ("8.9",)
    assert module._capabilities(TRT, "tensorrt-rtx", BuildOptions(capabilities=("12.0",))) == ("12.0",)


def test_an_engine_for_a_gpu_without_a_name_is_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "local_gpu", lambda: Gpu("Fake H200", "9.0", 1))
    assert module._capabilities(TRT, "tensorrt-rtx", BuildOptions()) == ()
    assert module._capabilities(TRT, "tensorrt", BuildOptions()) == ("9.0",)


@pytest.mark.usefixtures("no_gpu")
def test_tensorrt_wants_a_gpu_to_build_for_and_names_what_does_not() -> None:
    with pytest.raises(
        CoolsdError, match=r"expected an NVIDIA GPU to build for, found none.*tensorrt-rtx.*onnxruntime"
    ):
        module._capabilities(TRT, "tensorrt", BuildOptions())
    assert module._capabilities(TRT, "tensorrt-rtx", BuildOptions()) == ()


@pytest.mark.usefixtures("gpu")
def test_tensorrt_cannot_be_aimed() -> None:
    with pytest.raises(UserError, match=r"builds for its own GPU, found 9\.0"):
        module._capabilities(TRT, "tensorrt", BuildOptions(capabilities=("9.0",)))


TRT = SimpleNamespace(
    __name__="tensorrt_rtx",
    ComputeCapability=SimpleNamespace(__members__={"NONE": 0, "SM89": "sm89", "SM120": "sm120"}),
)


def test_targets_are_numbers_that_the_package_knows() -> None:
    assert module._aims(TRT, ("8.9", "12.0")) == [(8, 9), (12, 0)]
    assert module._aims(TRT, ()) is None
    with pytest.raises(UserError, match=r"expected only 8\.9, 12\.0, found 9\.0"):
        module._aims(TRT, ("8.9", "9.0"))


def test_times_are_kept_for_tensorrt_alone(tmp_path: Path) -> None:
    """TensorRT-RTX times nothing."""
    options = BuildOptions(timing_cache=tmp_path / "cache" / "times")
    assert module._times("tensorrt", options) == str(tmp_path / "cache" / "times")
    assert (tmp_path / "cache").is_dir()
    assert module._times("tensorrt-rtx", options) is None
    assert module._times("tensorrt", BuildOptions()) is None


class Times:
    """A timing cache that is a set of letters."""

    def __init__(self, data: bytes) -> None:
        self.letters = set(data.decode())

    def combine(self, other: Times, ignore_mismatch: bool) -> bool:
        self.letters |= other.letters
        return True

    @contextlib.contextmanager
    def serialize(self) -> Iterator[bytes]:
        yield "".join(sorted(self.letters)).encode()


def stand_in() -> ModuleType:
    """`tensorrt`, as far as a config is made and a builder runs."""
    made = ModuleType("tensorrt")
    pools, flags = SimpleNamespace(WORKSPACE="workspace"), SimpleNamespace(TF32="TF32")
    vars(made).update(
        __version__="11.0.0",
        MemoryPoolType=pools,
        BuilderFlag=flags,
        LayerType=SimpleNamespace(SHAPE="shape"),
        ProfilingVerbosity=SimpleNamespace(DETAILED="detailed"),
        Logger=SimpleNamespace(VERBOSE=0),
    )
    made.__spec__ = ModuleSpec("tensorrt", None)
    return made


class Config:
    """What a builder's config is told."""

    def __init__(self) -> None:
        self.cleared: list[str] = []
        self.profiles: list[Any] = []
        self.cache: Any = None
        self.profiling_verbosity = self.progress_monitor = None
        self.builder_optimization_level = 3

    create_timing_cache = staticmethod(Times)

    def clear_flag(self, flag: str) -> None:
        self.cleared.append(flag)

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.pool = (pool, size)

    def add_optimization_profile(self, profile: Any) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> None:
        self.cache = cache

    def get_timing_cache(self) -> Any:
        return self.cache


class Builder:
    """Finds the letters `found`, while another build writes `meanwhile`; or fails."""

    def __init__(self, found: str = "", path: Path | None = None, meanwhile: bytes = b"", broken: bool = False) -> None:
        self.config = Config()
        self._found, self._path, self._meanwhile, self._broken = found, path, meanwhile, broken

    def create_builder_config(self) -> Config:
        return self.config

    def build_serialized_network(self, network: Any, config: Config) -> bytes | None:
        config.cache.letters |= set(self._found)
        if self._path is not None and self._meanwhile:
            self._path.write_bytes(self._meanwhile)
        return None if self._broken else b"an engine"


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """polygraphy over the stand-in."""
    pytest.importorskip("polygraphy")
    made = stand_in()
    monkeypatch.setitem(sys.modules, "tensorrt", made)
    loaders.cache_clear()
    util = loaders("tensorrt").engine.__init__.__globals__["trt_util"]
    monkeypatch.setattr(util, "str_from_config", lambda config, network: "")
    yield made
    loaders.cache_clear()


class Network(list[Any]):
    """Without inputs or layers."""

    num_inputs = 0


def build(trt: Any, builder: Builder, options: BuildOptions) -> memoryview:
    parsed: Any = SimpleNamespace(builder=builder, network=Network())
    monitor: Any = SimpleNamespace(error=None, stop=False)
    contract: Any = SimpleNamespace(inputs=())
    log: Any = SimpleNamespace(errors=["out of tactics"], words=[])
    shared = module._Build(trt, log, "tensorrt", options, monitor)
    config = module._config(shared, parsed, contract, (), ("8.9",))
    return module._serialise(shared, parsed, config, "target")


def test_tensorrt_is_configured(tensorrt: Any) -> None:
    builder = Builder()
    assert bytes(build(tensorrt, builder, BuildOptions(workspace=7, level=1))) == b"an engine"
    config = builder.config
    assert (config.pool, config.builder_optimization_level) == (("workspace", 7), 1)
    assert set(config.cleared) == {"TF32"}
    assert config.profiling_verbosity == "detailed"


def test_times_of_builds_are_merged_and_none_is_lost(tensorrt: Any, tmp_path: Path) -> None:
    path = tmp_path / "cache" / "times"
    build(tensorrt, Builder("ab"), BuildOptions(timing_cache=path))
    build(tensorrt, Builder("c", path, b"abd"), BuildOptions(timing_cache=path))
    assert path.read_bytes() == b"abcd"


def test_a_build_that_fails_leaves_the_times_alone_and_is_one_line(tensorrt: Any, tmp_path: Path) -> None:
    path = tmp_path / "times"
    with pytest.raises(CoolsdError, match=r"^graph target: expected an engine from TensorRT, found out of tactics$"):
        build(tensorrt, Builder("a", broken=True), BuildOptions(timing_cache=path))
    assert not path.exists()


def test_a_missing_polygraphy_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    loaders.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        MissingExtra,
        match=r"polygraphy is not installed, but compiling an engine needs it.*pip install .*\[tensorrt-rtx",
    ):
        loaders("tensorrt-rtx")


def test_another_s_polygraphy_stays_as_it_is() -> None:
    """It was imported for one package; the other is served beside it."""
    pytest.importorskip("polygraphy")
    import polygraphy.config

    loaders.cache_clear()
    loaders("tensorrt-rtx")
    assert sys.modules["polygraphy.config"] is polygraphy.config
    assert "POLYGRAPHY_USE_TENSORRT_RTX" not in os.environ
