"""The check of text files finds what it names, and the repository passes it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools.hygiene import LARGE, problems

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", []),
        (b"a\n\nb\n", []),
        (b"a", ["f.py: expected one line break at the end"]),
        (b"a\n\n", ["f.py: expected one line break at the end"]),
        (b"a\nb \n", ["f.py:2: expected no space at the end of a line"]),
        (b"a\r\n", ["f.py:1: expected no space at the end of a line"]),
        (b"<<<<<<< here\n", ["f.py:1: expected no conflict marks"]),
        (b"Title\n=======\n", ["f.py:2: expected no conflict marks"]),
        (b"x" * LARGE + b"\n", [f"f.py: expected at most {LARGE} bytes, found {LARGE + 1}"]),
    ],
)
def test_what_is_wrong_is_named(content: bytes, found: list[str]) -> None:
    assert problems("f.py", content) == found


def test_a_made_file_counts_by_its_size_alone() -> None:
    assert problems("docs/a.svg", b"a \n\n") == []
    assert problems("docs/a.png", bytes(LARGE + 1))


def test_the_repository_passes() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("no git checkout")
    names = [name for name in listed.stdout.decode().split("\0") if name]
    done = subprocess.run([sys.executable, "tools/hygiene.py", *names], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
