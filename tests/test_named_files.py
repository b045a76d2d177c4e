"""Every file that a folder of ours or of a user holds is opened by `coolsd_rt.files`: no pipe is waited for."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import coolsd_rt
from coolsd_rt.errors import CoolsdError
from coolsd_rt.spec import load_spec
from coolsd_rt.store import CachedStage, Stage, Store
from tests.at_once import at_once

ROOM = Path(coolsd_rt.__file__).parent
OPENS = re.compile(
    r"\.read_text\(|\.read_bytes\("
    r"|(?<![\w.`])(?<!def )open\(|\.open\(\"|Image\.open\((?!file)|np\.load\((?!whole|io\.)|safe_open\("
    r"|load_file\(|torch\.load\(|onnx\.load\(|json\.load\("
)
ALLOWED = {
    "files.py": "the place itself",
    "models/": "through check_safetensors and open_plain first; tests/models",
    "checkpoints/": "through check_safetensors and open_plain first; tests/checkpoints",
    "pretrained/": "through check_safetensors and open_plain first; tests/pretrained",
    "prompts/": "through check_safetensors and open_plain first; tests/prompts",
    "export/": "graphs that this build has just written",
    "workflows/build/smoke.py": "a graph that this build has just written",
    "workflows/build/compile.py": "a graph that this build has just written",
    "store/manifest.py": "tests/store",
    "store/weights.py": "tests/store",
    "store/atomic.py": "a new file, made to be written (xb)",
    "train/sinks.py": "appends, after check_target",
    "train/checkpoint.py": "after why_unusable and check_safetensors",
    "metrics/reward.py": "other people's loaders",
    "machine.py": "/proc/cpuinfo",
    "serve/memory.py": "/proc/meminfo",
    "workflows/build/processor.py": "/proc/cpuinfo",
    "cli/main.py": "/dev/null",
    "cores.py": "/proc and /sys/fs/cgroup, some bytes of them",
    "install.py": "this installation's own pyproject.toml and direct_url.json",
    "train/run.py": "appends, after check_target",
    "batch/failed_file.py": "appends, after check_target",
    "cli/doctor.py": "/proc/cpuinfo",
}
"""Modules that open files by themselves, and why that can neither hang nor flood."""


def test_no_other_module_opens_files() -> None:
    found = {
        f"{path.relative_to(ROOM)}:{number}"
        for path in ROOM.rglob("*.py")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if OPENS.search(line) and not str(path.relative_to(ROOM)).startswith(tuple(ALLOWED))
    }
    assert not found, "open it with coolsd_rt.files, or say in ALLOWED why not"


@pytest.fixture(autouse=True)
def _in_time() -> Iterator[None]:
    with at_once("a reader"):
        yield


def _head(folder: Path) -> None:
    from coolsd_rt.store.results import claim

    os.mkfifo(folder / "quality.json")
    claim(folder, "quality.json", {}, "a run")


def _batch(folder: Path) -> None:
    from coolsd_rt.store.results import Batches

    os.mkfifo(folder / "00000.npz")
    Batches(folder, ("a",), "a batch").get(0, dict)


def _point(folder: Path) -> None:
    from coolsd_rt.sweep.results import read_point

    os.mkfifo(folder / "a.json")
    read_point(folder / "a.json")


def _index(folder: Path) -> None:
    from coolsd_rt.metrics.references import read_folder

    os.mkfifo(folder / "references.json")
    read_folder(folder)


def _reference(folder: Path) -> None:
    from coolsd_rt.metrics.references import read_folder

    os.mkfifo(folder / "red-apple.png")
    read_folder(folder)


def _gallery(folder: Path) -> None:
    from coolsd_rt.metrics.gallery import Gallery

    os.mkfifo(folder / "1.png")
    Gallery({"1": folder / "1.png"}).read("1")


def _provenance(folder: Path) -> None:
    from coolsd_rt.workflows.png import read_provenance

    os.mkfifo(folder / "1.png")
    read_provenance(folder / "1.png")


def _prompts_of_a_sweep(folder: Path) -> None:
    from coolsd_rt.sweep.spec import load_sweep

    os.mkfifo(folder / "p.txt")
    (folder / "sweep.yaml").write_text("version: 1\nimages: 2\nprompts: p.txt\npoints: {a: {}}\n")
    load_sweep(folder / "sweep.yaml").prompts()


def _captions(folder: Path) -> None:
    from coolsd_rt.train.images import read_folder

    os.mkfifo(folder / "metadata.jsonl")
    read_folder(folder)


def _caption(folder: Path) -> None:
    from coolsd_rt.train.images import read_folder

    (folder / "a.png").touch()
    os.mkfifo(folder / "a.txt")
    read_folder(folder)


def _image(folder: Path) -> None:
    from coolsd_rt.train.images import CaptionedImage, load_pixels

    os.mkfifo(folder / "a.png")
    load_pixels([CaptionedImage(folder / "a.png", "a")], 8)


def _codes(folder: Path) -> None:
    from coolsd_rt.train.codes import CodeStore

    store = CodeStore(folder, "self", {}, 1, 4)
    store.folder.mkdir()
    os.mkfifo(store._path(range(1)))
    store.load()


def _checkpoint(folder: Path) -> None:
    from coolsd_rt.train.checkpoint import load_tree

    os.mkfifo(folder / "checkpoint.safetensors")
    load_tree(folder / "checkpoint.safetensors")


def _log(folder: Path) -> None:
    from coolsd_rt.train.sinks import LinesSink

    os.mkfifo(folder / "log.jsonl")
    LinesSink(folder / "log.jsonl").write(1, {})


READERS = (
    _head, _batch, _point, _index, _reference, _gallery, _provenance, _prompts_of_a_sweep, _captions, _caption,
    _image, _codes, _checkpoint, _log,
)  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
def test_a_pipe_in_a_folder_is_one_line(reader: Callable[[Path], None], tmp_path: Path) -> None:
    if reader.__name__ in ("_captions", "_caption", "_image", "_codes", "_checkpoint", "_log"):
        pytest.importorskip("torch")
    with pytest.raises(CoolsdError, match="a named pipe") as caught:
        reader(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["target.safetensors", "draft.safetensors", "vq.safetensors", "vocab.json"])
def test_a_pipe_that_a_spec_names(tiny_spec: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(tiny_spec.parent, tmp_path / "spec")
    (tmp_path / "spec" / name).unlink()
    os.mkfifo(tmp_path / "spec" / name)
    with pytest.raises(CoolsdError, match=f"expected a file at .*{name}, found a named pipe"):
        load_spec(tmp_path / "spec" / tiny_spec.name)


def test_a_pipe_in_the_cache_of_stages_counts_as_a_stage_that_is_not_there(tmp_path: Path) -> None:
    store, stage = Store(tmp_path), Stage("toy")

    def produce(folder: Path) -> None:
        (folder / "a").write_bytes(b"a")

    def make() -> CachedStage:
        return store.stage(stage, produce)

    for name in ("stage.json", "a"):
        done = make()
        (done.folder / name).unlink()
        os.mkfifo(done.folder / name)
        assert store.cached(stage) is None
        assert make().fresh
