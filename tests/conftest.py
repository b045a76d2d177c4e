"""For all tests: property tests without deadlines, and a tiny pipeline that is built once.

torch is imported when a fixture is used: tests of the base install run without it. With pytest-xdist each worker has
folders and cores of its own, and the tiny pipeline's stages are built by the first that needs them.
"""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock
from hypothesis import settings

from coolsd_rt.spec import load_spec
from coolsd_rt.store import EngineFolder
from tests.exporter import unburden
from tests.own_cores import take_share

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts background jobs so, and children inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Before torch is imported. Tiny networks are fastest on one thread, and threads of two processes wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Round costs are measured for the tests alone, once for all workers, and not recorded in the home of who runs them.
if "COOLSD_CACHE" not in os.environ:
    os.environ["COOLSD_CACHE"] = tempfile.mkdtemp(prefix="coolsd-costs-")
    atexit.register(shutil.rmtree, os.environ["COOLSD_CACHE"], ignore_errors=True)
# Stages of builds, of all workers: see tests/stages.py.
if "TEST_STAGES" not in os.environ:
    os.environ["TEST_STAGES"] = tempfile.mkdtemp(prefix="coolsd-stages-")
    atexit.register(shutil.rmtree, os.environ["TEST_STAGES"], ignore_errors=True)

if TYPE_CHECKING:
    from coolsd_rt.backends.torch.eager import TorchEngine

settings.register_profile("shared", deadline=None)  # a shared machine may be slow at any moment
settings.load_profile("shared")

# With pytest-xdist these begin first, slowest first, so that no worker is left alone with one of them at the end.
SLOWEST = (
    "cluster/serving/test_requests.py",
    "workflows/test_families.py",
    "test_python_page.py",
    "backends/torch_triton/test_fused.py",
    "workflows/test_batch_invariance.py",
    "workflows/test_quantization.py",
    "test_readme.py",
    "runtime/test_monte_carlo.py",
    "workflows/test_build_failures.py",
    "cli/test_extras.py",
    "workflows/test_large_graphs.py",
    "cluster/test_ray_batch.py",
    "cluster/serving/test_trouble.py",
    "backends/torch_triton/test_fused_offline.py",
    "serve/test_lifecycle.py",
    "tools/test_performance.py",
    "export/test_family_graphs.py",
    "workflows/test_build.py",
    "backends/tensorrt/test_build.py",
    "device/test_launching.py",
    "ops/gpu/test_interpreted.py",
    "batch/test_batch.py",
    "runtime/test_pacing.py",
    "runtime/test_exact_random.py",
    "runtime/test_slots.py",
    "tools/test_text_served.py",
    "workflows/test_tree_builds.py",
    "workflows/test_tree_drafts.py",
    "workflows/test_draft_kinds.py",
    "workflows/test_tensorrt_build.py",
    "sweep/test_run.py",
    "runtime/test_exact_round.py",
    "export/test_trees.py",
    "workflows/test_real_engine.py",
    "workflows/test_origins.py",
    "workflows/test_which_loop.py",
    "quality/test_run.py",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        root = Path(__file__).parent
        rank = {root / name: place for place, name in enumerate(SLOWEST)}
        items.sort(key=lambda item: rank.get(item.path, len(rank)))


def pytest_configure(config: pytest.Config) -> None:
    """A worker of pytest-xdist has cores of its own."""
    if worker := getattr(config, "workerinput", None):
        take_share(int(worker["workerid"].removeprefix("gw")), worker["workercount"])


def pytest_collection_finish() -> None:
    """Fewer collections of garbage, and a quicker exporter, where there is one."""
    gc.collect()
    gc.freeze()  # what was imported stays, and is not looked through again
    gc.set_threshold(20_000, 20, 20)
    if "torch" in sys.modules:
        unburden()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # or modules in C++ report at the end of the process what was not let go


@pytest.fixture(autouse=True)
def _no_line_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress says a line when enough time has passed. A test that looks at lines must not depend on that."""
    monkeypatch.setattr("coolsd_rt.cli.terminal.progress.EVERY", float("inf"))


@pytest.fixture(scope="session")
def tiny_spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spec with its files. Read only: copy its folder to change something."""
    pytest.importorskip("torch")
    from tests.tiny import write_spec

    return write_spec(tmp_path_factory.mktemp("tiny") / "spec")


@pytest.fixture(scope="session")
def tiny_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder that `tiny_engine` and `tiny_engine_int8` are built into. Read only."""
    return tmp_path_factory.mktemp("tiny") / "engines"


@pytest.fixture(scope="session")
def tiny_engine(tiny_spec: Path, tiny_out: Path) -> EngineFolder:
    """The spec in fp32. Read only."""
    from tests.stages import built

    return built(load_spec(tiny_spec), tiny_out)


@pytest.fixture(scope="session")
def tiny_engine_int8(tiny_spec: Path, tiny_out: Path, tiny_engine: EngineFolder) -> EngineFolder:
    """The same in int8, beside it."""
    from coolsd_rt.workflows.build.run import with_precision
    from tests.stages import built

    return built(with_precision(load_spec(tiny_spec), "int8"), tiny_out)


@pytest.fixture(scope="session")
def text_spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spec that writes texts, without guidance, with four end tokens. Its engines are in `engines` beside it."""
    pytest.importorskip("tokenizers")
    pytest.importorskip("jinja2")
    from tests.workflows.building import edit
    from tests.workflows.family_pipelines import write_pipeline

    path = write_pipeline(tmp_path_factory.mktemp("text"), "llama")
    edit(path, "cfg_scale: 2.0, top_k: 12", "top_k: 12")
    edit(path, 'end: ["<pad>"]', 'end: ["<pad>", "<s>", "red", "of"]')
    return path


@pytest.fixture(scope="session")
def text_engine(text_spec: Path) -> EngineFolder:
    """The engine of `text_spec`. Read only."""
    from tests.stages import built

    return built(load_spec(text_spec), text_spec.parent / "engines")


@pytest.fixture(scope="session")
def demo_checkout(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """A checkout as far as the README's commands need one, behind the first of them: with the demo's engine.

    Built by the worker that needs it first. Read only: copy it to run something in it.
    """
    pytest.importorskip("torch")
    from tests.test_readme import run_in

    shared = hasattr(pytestconfig, "workerinput")
    path = tmp_path_factory.getbasetemp().parent / "demo" if shared else tmp_path_factory.mktemp("demo") / "checkout"
    with FileLock(path.with_suffix(".lock")):
        if not (path / "engines").is_dir():
            shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(Path(__file__).resolve().parent.parent / "pipelines", path / "pipelines")
            run_in(path, "coolsd-rt build pipelines/emoji.yaml")
    return path


@pytest.fixture(scope="session")
def tiny_reference(tiny_spec: Path) -> TorchEngine:
    """The eager networks with the spec's weights."""
    from coolsd_rt.backends.torch.eager import load

    files = load_spec(tiny_spec).files
    return load(files["target.weights"], files["draft.weights"], files["image.weights"])
