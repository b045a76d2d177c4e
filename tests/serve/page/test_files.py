"""The page's files: short, from this host alone, and nothing that the content security policy would refuse."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import coolsd_rt

FOLDER = Path(coolsd_rt.__file__).parent / "serve" / "page"
FILES = sorted(FOLDER.iterdir())
LINES = 300
NAMESPACE = re.compile(r"http://www\.w3\.org/2000/svg")


def test_there_are_files() -> None:
    assert {"index.html", "app.js", "style.css"} <= {path.name for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_is_short_and_of_this_host(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LINES
    assert re.findall(r"(?:https?:)?//[a-z][\w.-]*\.\w+", NAMESPACE.sub("", text)) == []


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".js"], ids=lambda path: path.name)
def test_a_script_makes_no_markup_of_text(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser", text)
    assert found == []


def test_nothing_is_inline() -> None:
    text = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<style|\sstyle=|\son\w+=|javascript:", text) == []
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text))
    named = re.findall(r'(?:src|href)="static/([^"]+)"', text)
    assert len(named) == 3
    assert set(named) <= {path.name for path in FILES}


def test_modules_name_files_that_are_there() -> None:
    for path in FILES:
        for name in re.findall(r'from "\./([^"]+)"', path.read_text(encoding="utf-8")):
            assert (FOLDER / name).is_file(), f"{path.name}: {name}"
