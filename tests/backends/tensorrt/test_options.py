"""How a build is aimed and timed, on stand-ins for the builder's config: what TensorRT-RTX on a CPU cannot show."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coolsd_rt.backends.tensorrt import build as module
from coolsd_rt.backends.tensorrt.build import BuildOptions
from coolsd_rt.backends.tensorrt.package import Gpu
from coolsd_rt.errors import CoolsdError, UserError

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
        CoolsdError, match=r"expected the NVIDIA GPU to build for, found none.*tensorrt-rtx.*onnxruntime"
    ):
        module._capabilities(TRT, "tensorrt", BuildOptions())
    assert module._capabilities(TRT, "tensorrt-rtx", BuildOptions()) == ()


@pytest.mark.usefixtures("gpu")
def test_tensorrt_cannot_be_aimed() -> None:
    with pytest.raises(UserError, match=r"builds for its own GPU, found 9\.0"):
        module._capabilities(TRT, "tensorrt", BuildOptions(capabilities=("9.0",)))


class Config:
    """The targets of a builder's config."""

    def __init__(self) -> None:
        self.num_compute_capabilities = 0
        self.aims: list[Any] = []

    def set_compute_capability(self, aim: Any, index: int) -> bool:
        self.aims.append((index, aim))
        return True


TRT = SimpleNamespace(
    __name__="tensorrt_rtx",
    ComputeCapability=SimpleNamespace(__members__={"NONE": 0, "SM89": "sm89", "SM120": "sm120"}),
)


def test_targets_are_set_by_name() -> None:
    config = Config()
    module._aim(TRT, config, ("8.9", "12.0"))
    assert (config.num_compute_capabilities, config.aims) == (2, [(0, "sm89"), (1, "sm120")])
    with pytest.raises(UserError, match=r"expected some of 8\.9, 12\.0, found 9\.0"):
        module._aim(TRT, Config(), ("9.0",))


class Times:
    """A timing cache that is a set of letters."""

    def __init__(self, data: bytes) -> None:
        self.letters = set(data.decode())

    def combine(self, other: Times, ignore: bool) -> bool:
        self.letters |= other.letters
        return True

    def serialize(self) -> bytes:
        return "".join(sorted(self.letters)).encode()


def timed(trt_name: str, path: Path | None, found: bytes, meanwhile: bytes | None = None) -> Any:
    """A build that finds `found` while another writes `meanwhile`."""
    config = SimpleNamespace(cache=None, create_timing_cache=Times)
    config.set_timing_cache = lambda cache, ignore: setattr(config, "cache", cache)
    config.get_timing_cache = lambda: config.cache
    with module._timing(SimpleNamespace(__name__=trt_name), config, path):
        if config.cache is not None:
            config.cache.letters |= set(found.decode())
        if meanwhile is not None and path is not None:
            path.write_bytes(meanwhile)
    return config


def test_times_of_builds_are_merged_and_none_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "times"
    timed("tensorrt", path, b"ab")
    timed("tensorrt", path, b"c", meanwhile=b"abd")
    assert path.read_bytes() == b"abcd"


def test_tensorrt_rtx_times_nothing(tmp_path: Path) -> None:
    assert timed("tensorrt_rtx", tmp_path / "times", b"a").cache is None
    assert timed("tensorrt", None, b"a").cache is None
    assert list(tmp_path.iterdir()) == []


def test_a_build_that_fails_leaves_the_times_alone(tmp_path: Path) -> None:
    path = tmp_path / "times"
    config = SimpleNamespace(create_timing_cache=Times, set_timing_cache=lambda cache, ignore: None)
    with pytest.raises(KeyboardInterrupt), module._timing(SimpleNamespace(__name__="tensorrt"), config, path):
        raise KeyboardInterrupt
    assert not path.exists()
