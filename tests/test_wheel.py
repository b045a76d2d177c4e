"""The wheel holds what users run and nothing else, and an engine runs from it where there is no checkout.

It is built from a copy, so that no `build/` folder of before has a part in it, with the link between `export/` and
`coolsd_rt/export` as it stands, whichever way it points.
"""

from __future__ import annotations

import ast
import base64
import csv
import hashlib
import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coolsd_rt.store import EngineFolder

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "coolsd_rt", "export", "tests", "tools")

ENTRIES = ("coolsd_rt.cli.", "coolsd_rt.pipeline")
"""What a user runs: the verbs, and the front door of a Python program."""

PROOFS = ("coolsd_rt.law.exact", "coolsd_rt.law.tree", "coolsd_rt.law.rivals", "coolsd_rt.law.comparison")
CONTINUOUS = (
    "coolsd_rt.law.continuous.",
    "coolsd_rt.models.continuous.",
    "coolsd_rt.runtime.continuous.",
    "coolsd_rt.backends.torch.continuous",
    "coolsd_rt.checkpoints.continuous",
    "coolsd_rt.runtime.gaussians",
)
LAW_PAGE = ROOT / "docs" / "api" / "law.md"
"""Where researchers find the laws that they import themselves: those to prove and compare with, and the law, the
networks and the rounds of continuous tokens, which no engine draws yet. Every other module that no entry imports
belongs in tests/ or tools/."""

RUN = """
import sys
from importlib import metadata
from pathlib import Path
place, *words = sys.argv[1:]
sys.path.insert(0, place)
import coolsd_rt
assert Path(coolsd_rt.__file__).is_relative_to(place), coolsd_rt.__file__
(script,) = metadata.Distribution.at(next(Path(place).glob("*.dist-info"))).entry_points.select(name="coolsd-rt")
sys.argv = ["coolsd-rt", *words]
script.load()()
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built without a network."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "source").mkdir()
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir() and not source.is_symlink():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / "source" / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy2(source, folder / "source" / name, follow_symlinks=False)
    words = ["pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "-w"]
    done = subprocess.run(
        [sys.executable, "-m", *words, str(folder), "."],
        cwd=folder / "source",
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files, as pip lays them into an environment."""
    place = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    return place


def checkout_modules() -> set[str]:
    """Every module of the package as files in the wheel; those of `export` once, wherever they really are."""
    inside = {p.relative_to(ROOT).as_posix() for p in (ROOT / "coolsd_rt").rglob("*.py")}
    return inside | {f"coolsd_rt/export/{p.name}" for p in (ROOT / "export").glob("*.py")}


def test_it_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    about = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    page = {p.relative_to(ROOT).as_posix() for p in (ROOT / "coolsd_rt" / "serve" / "page").iterdir()}
    assert "coolsd_rt/serve/page/index.html" in page
    assert names - about == checkout_modules() | page | {"coolsd_rt/py.typed"}
    assert {name.split("/", 1)[1] for name in about} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
        "top_level.txt",
    }
    (top,) = (zipfile.ZipFile(wheel).read(name) for name in about if name.endswith("top_level.txt"))
    assert top.decode().split() == ["coolsd_rt"]


def test_each_file_is_the_checkouts(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        record = next(name for name in archive.namelist() if name.endswith("/RECORD"))
        rows = list(csv.reader(io.StringIO(archive.read(record).decode())))
    for name, digest, _ in rows:
        if name.startswith("coolsd_rt/"):
            source = ROOT / name
            here = hashlib.sha256(source.read_bytes()).digest()
            assert digest == "sha256=" + base64.urlsafe_b64encode(here).decode().rstrip("="), name


def imports(path: Path, package: str) -> Iterator[str]:
    """Names that a file imports, at any depth, and modules of ours that it names in a text (the registry does)."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: 1 - node.level or None]) if node.level else ""
            start = ".".join(part for part in (base, node.module or "") if part)
            yield start
            yield from (f"{start}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("coolsd_rt."):
            yield node.value


def reached(place: Path, entries: tuple[str, ...]) -> tuple[set[str], set[str]]:
    """All modules below `place`, and those of them that the entries import, by whatever way."""
    files = {}
    for path in (place / "coolsd_rt").rglob("*.py"):
        parts = path.relative_to(place).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    seen: set[str] = set()
    todo = [name for name in files if name.startswith(entries)]
    while todo:
        name = todo.pop()
        if name in files and name not in seen:
            seen.add(name)
            package = name if files[name].name == "__init__.py" else name.rpartition(".")[0]
            todo += [package, *imports(files[name], package)]
    return set(files), seen


def test_every_module_is_there_for_a_user(unpacked: Path) -> None:
    """What only tests or tools import has no place in it."""
    modules, seen = reached(unpacked, ENTRIES)
    alone = {name for name in modules if name in PROOFS or name.startswith(CONTINUOUS)}
    rooms = {f"coolsd_rt.{room}.continuous" for room in ("law", "models", "runtime")}
    assert modules - seen == {*alone, *rooms}, (
        "import it from what a user runs, move it to tests/ or tools/, or trim the list"
    )
    page = LAW_PAGE.read_text(encoding="utf-8").splitlines()
    assert {f"::: {name}" for name in alone} <= set(page)


def test_an_unused_module_is_found(tmp_path: Path) -> None:
    """The test of the test."""
    room = tmp_path / "coolsd_rt" / "cli"
    room.mkdir(parents=True)
    (tmp_path / "coolsd_rt" / "__init__.py").touch()
    (room / "__init__.py").touch()
    (room / "draw.py").write_text("def f():\n    from coolsd_rt import used\n    from . import beside\n")
    (room / "beside.py").write_text("NAME = 'coolsd_rt.named'\n")
    for name in ("used", "named", "unused"):
        (tmp_path / "coolsd_rt" / f"{name}.py").touch()
    modules, seen = reached(tmp_path, ("coolsd_rt.cli.draw",))
    assert modules - seen == {"coolsd_rt.unused"}


def test_the_extras_name_themselves_and_resolve(unpacked: Path) -> None:
    """An extra that refers to another (`coolsd-rt[torch]`) refers to one that is there."""
    from packaging.requirements import Requirement

    about = metadata.Distribution.at(next(unpacked.glob("*.dist-info")))
    provided = set(about.metadata.get_all("Provides-Extra") or [])
    own = [r for r in map(Requirement, about.requires or []) if r.name == about.metadata["Name"]]
    assert own
    assert {extra for r in own for extra in r.extras} <= provided


def run(place: Path, words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """`coolsd-rt WORDS` in `folder`, from the wheel's files. -I: neither PYTHONPATH nor the working folder counts."""
    return subprocess.run(
        [sys.executable, "-I", "-c", RUN, str(place), *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_it_draws_what_the_checkout_draws(unpacked: Path, tiny_engine: EngineFolder, tmp_path: Path) -> None:
    engine = tmp_path / "elsewhere" / "a copy"
    shutil.copytree(tiny_engine.folder, engine, symlinks=True)
    words = ["generate", str(engine), "-p", "red apple", "-p", "blue star", "--seed", "7", "--json", "--out"]
    done = run(unpacked, [*words, "wheel"], tmp_path)
    assert done.returncode == 0, done.stderr
    names = [Path(image["path"]).name for image in json.loads(done.stdout)["images"]]
    assert len(names) == 2
    checkout = [sys.executable, "-m", "coolsd_rt.cli", *words, str(tmp_path / "checkout")]
    again = subprocess.run(checkout, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert again.returncode == 0, again.stderr
    for name in names:
        ours, theirs = (np.asarray(Image.open(tmp_path / folder / name)) for folder in ("wheel", "checkout"))
        np.testing.assert_array_equal(ours, theirs)


def test_it_builds(unpacked: Path, tiny_spec: Path, tiny_engine: EngineFolder, tmp_path: Path) -> None:
    """With the wheel's exporter. Its code has the hash of the checkout's, so the stages built there are current."""
    pytest.importorskip("onnxscript")
    shutil.copytree(tiny_spec.parent, tmp_path / "spec")
    shutil.copytree(tiny_engine.folder.parents[1] / ".cache", tmp_path / "engines" / ".cache")
    for stage in (tmp_path / "engines" / ".cache").glob("image-*"):  # one stage is left to do
        shutil.rmtree(stage)
    done = run(unpacked, ["build", "spec/tiny.yaml", "--json"], tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["fingerprint"] == tiny_engine.manifest.fingerprint


def test_help_needs_no_checkout(unpacked: Path, tmp_path: Path) -> None:
    done = run(unpacked, ["--help"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "generate" in done.stdout
