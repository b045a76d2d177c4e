"""No library that we load reports home: by the files it would leave, the sockets it would open, and the source."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

import pytest

import coolsd_rt
from coolsd_rt.store import EngineFolder
from coolsd_rt.telemetry import LIBRARIES, OFF, switch_off
from tests.no_internet import KILLED, SUPPORTED

ROOT = Path(__file__).resolve().parents[1]

REPORTS = ("Microsoft", "onnxruntime")
"""Parts of paths that ONNX Runtime's reports are kept in."""

IMPORTS = {
    "package": "import coolsd_rt; import onnxruntime",
    "demo": "import tools.demo.benchmark, coolsd_rt.backends.onnxruntime.engine",
    "tools": "import tools.emoji_quality, onnxruntime",
}


def run(words: Sequence[str], home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """A Python of its own with this home, and nothing about reports in its environment but `more`."""
    kept = {k: v for k, v in os.environ.items() if k not in OFF and not k.startswith("XDG_")}
    environment = kept | {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"} | more
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def files(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir()
    return path


def drawing(engine: EngineFolder, out: Path) -> list[str]:
    return ["coolsd_rt.cli", "generate", str(engine.folder), "-p", "red apple", "--out", str(out)]


@pytest.mark.parametrize("case", IMPORTS)
def test_no_import_leaves_a_report(case: str, home: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("torch")
    done = run(["-c", IMPORTS[case]], home)
    assert done.returncode == 0, done.stderr
    assert [name for name in files(home) if any(part in name for part in REPORTS)] == []
    assert done.stderr == ""


@pytest.mark.skipif(not SUPPORTED, reason="needs seccomp of Linux")
def test_drawing_opens_no_socket_and_leaves_no_file(tiny_engine: EngineFolder, home: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    done = run(["-m", "tests.no_internet", "kill", *drawing(tiny_engine, tmp_path / "out")], home)
    assert done.returncode == 0, done.stderr
    assert files(home) == []
    assert files(tmp_path / "out")


def test_a_home_that_cannot_be_written_is_no_warning(tiny_engine: EngineFolder, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    home = tmp_path / "home"
    home.write_text("a file: not even root can write in it")
    done = run(["-m", *drawing(tiny_engine, tmp_path / "out")], home)
    assert (done.returncode, done.stderr.splitlines()) == (0, [str(tmp_path / "out" / "000-red-apple.png")])


@pytest.mark.skipif(not SUPPORTED, reason="needs seccomp of Linux")
def test_what_the_user_has_set_stays(home: Path) -> None:
    """The user may want the reports. It also shows that the tests above see them. No network: nothing is sent."""
    pytest.importorskip("onnxruntime")
    if tuple(map(int, metadata.version("onnxruntime").split(".")[:2])) < (1, 32):
        pytest.skip("this ONNX Runtime reports nothing")
    code = "from tests.no_internet import forbid, _REFUSE; forbid(_REFUSE); import coolsd_rt.backends.onnxruntime.graph"
    done = run(["-c", code], home, ORT_DISABLE_TELEMETRY="0")
    assert done.returncode == 0, done.stderr
    if not any("onnxruntime" in name for name in files(home)):  # reports go out when the library likes
        pytest.skip("no report was written in time")


@pytest.mark.skipif(not SUPPORTED, reason="needs seccomp of Linux")
@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6"])
def test_the_kernel_sees_a_socket(family: str, home: Path) -> None:
    code = "import socket; from tests.no_internet import forbid; socket.socket().close(); forbid(); "
    assert run(["-c", code + "socket.socketpair()"], home).returncode == 0
    assert run(["-c", code + f"socket.socket(socket.{family})"], home).returncode == KILLED


def test_libraries_believe_the_variables(home: Path) -> None:
    pytest.importorskip("huggingface_hub")
    code = "import coolsd_rt; from huggingface_hub import constants; print(constants.HF_HUB_DISABLE_TELEMETRY)"
    assert run(["-c", code], home).stdout == "True\n"


def test_each_variable_is_set_unless_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OFF:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DO_NOT_TRACK", "0")
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "")  # nothing that anybody means by it
    switch_off()
    assert {name: os.environ[name] for name in OFF} == OFF | {"DO_NOT_TRACK": "0"}


def imports(body: Sequence[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """Packages that these statements import, in their order, with the statements."""
    for node in (found for top in body for found in ast.walk(top)):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0], node


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_the_package_begins_with_it() -> None:
    """Whatever is imported of a package, its `__init__` runs first; so nothing in there may come before."""
    body = [node for node in parsed(Path(coolsd_rt.__file__)).body if not isinstance(node, ast.Expr) or node.lineno > 1]
    assert [ast.unparse(node) for node in body[:2]] == [
        "from coolsd_rt.telemetry import switch_off",
        "switch_off()",
    ]
    telemetry = parsed(Path(coolsd_rt.__file__).with_name("telemetry.py"))
    assert {name for name, _ in imports(telemetry.body)} == {"__future__", "os"}


@pytest.mark.parametrize("top", ["tools", "tests", "pipelines", "docs", "export"])
def test_nothing_outside_the_package_imports_a_library_before_it(top: str) -> None:
    """Files of tests have it from their conftest, which pytest imports first; export/ is the package's by a link."""
    begun = top in ("tests", "export")
    for path in (ROOT / top).rglob("*.py"):
        seen = begun
        for name, node in imports(parsed(path).body):
            seen = seen or name == "coolsd_rt"
            assert seen or name not in LIBRARIES, f"{path}:{node.lineno} imports {name} before coolsd_rt"


def test_the_conftest_imports_the_package() -> None:
    assert "coolsd_rt" in {name for name, _ in imports(parsed(ROOT / "tests" / "conftest.py").body)}
