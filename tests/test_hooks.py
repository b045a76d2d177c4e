"""The hooks of hygiene find what they are there for, offline, and the repository passes them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
pytestmark = pytest.mark.skipif(shutil.which("end-of-file-fixer", path=PATH) is None, reason="no pre-commit-hooks")

LARGE = b"x" * (1 << 20) + b"\n"


def hygiene(folder: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """The hooks on all files that git knows in a folder, with the project's configuration."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment |= {"PATH": PATH, "PRE_COMMIT_HOME": str(home)}
    words = ["pre-commit", "run", "hygiene", "--all-files", "-c", str(ROOT / ".pre-commit-config.yaml")]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)


def failed(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Hooks that found something."""
    return [line.removeprefix("- hook id: ") for line in done.stdout.splitlines() if line.startswith("- hook id: ")]


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("f.py", b"", []),
        ("f.py", b"a\n\nb\n", []),
        ("f.py", b"a", ["end-of-file"]),
        ("f.py", b"a\n\n", ["end-of-file"]),
        ("f.py", b"a\nb \n", ["trailing-space"]),
        ("f.md", b"a  \nb\n", ["trailing-space"]),
        ("f.py", b"<<<<<<< here\n", ["conflict-marks"]),
        ("f.md", b"Title\n=======\n", ["conflict-marks"]),
        ("f.py", LARGE, ["large-files"]),
        ("docs/a.svg", b"a \n\n", []),  # made by a program: its size alone counts
        ("docs/a.svg", LARGE, ["large-files"]),
        ("pipelines/emoji/a.bin", LARGE, []),
    ],
)
def test_what_is_wrong_is_found(name: str, content: bytes, found: list[str], tmp_path: Path) -> None:
    file = tmp_path / "here" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path / "here", check=True)
    subprocess.run(["git", "add", name], cwd=tmp_path / "here", check=True)
    done = hygiene(tmp_path / "here", tmp_path / "home")
    assert failed(done) == found, done.stdout + done.stderr
    assert bool(done.returncode) == bool(found)


def test_the_repository_passes(tmp_path: Path) -> None:
    """In a copy: some of the hooks mend what they find."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("no git checkout")
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tmp_path / "copy" / name, follow_symlinks=False)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path / "copy", check=True)
    subprocess.run(["git", "add", "-A", "-f"], cwd=tmp_path / "copy", check=True)
    done = hygiene(tmp_path / "copy", tmp_path / "home")
    assert done.returncode == 0, done.stdout + done.stderr
