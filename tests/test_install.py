"""The line that installs an extra: it names what this installation came from, since no index has the package."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from coolsd_rt import install
from coolsd_rt.errors import MissingExtra
from coolsd_rt.install import install_line, origin

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    origin.cache_clear()
    yield
    origin.cache_clear()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """installed(about): the code lies in a site-packages, and pip has written this down; None: nothing."""

    def pretend(about: object) -> None:
        monkeypatch.setattr(install, "__file__", str(tmp_path / "site-packages" / "coolsd_rt" / "install.py"))
        text = about if isinstance(about, str) or about is None else json.dumps(about)
        monkeypatch.setattr(metadata, "distribution", lambda name: Distribution(text))

    return pretend


class Distribution:
    def __init__(self, text: str | None) -> None:
        self.text = text

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return self.text


def test_a_checkout_names_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert install_line("train") == f"pip install -e '{ROOT}[train]'"
    monkeypatch.chdir(ROOT)
    assert install_line("train") == "pip install -e '.[train]'"
    assert install_line() == "pip install -e '.'"


def test_what_pip_knows(installed: Any, tmp_path: Path) -> None:
    wheel = tmp_path / "it's a wheel" / "coolsd_rt-0.1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    wheel.touch()
    cases: list[tuple[dict[str, object], list[str]]] = [
        ({"url": wheel.as_uri(), "archive_info": {}}, [f"{wheel}[cpu]"]),
        ({"url": tmp_path.as_uri(), "dir_info": {}}, [f"{tmp_path}[cpu]"]),
        ({"url": tmp_path.as_uri(), "dir_info": {"editable": True}}, ["-e", f"{tmp_path}[cpu]"]),
        (
            {"url": "https://host/c.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            ["coolsd-rt[cpu] @ git+https://host/c.git@abc"],
        ),
        ({"url": "https://host/c.whl", "archive_info": {}}, ["coolsd-rt[cpu] @ https://host/c.whl"]),
    ]
    for about, words in cases:
        installed(about)
        origin.cache_clear()
        assert shlex.split(install_line("cpu")) == ["pip", "install", *words]


@pytest.mark.parametrize("about", [None, "", "{", "[]", "{}", '{"url": 3}', '{"url": "file:///gone/away"}'])
def test_where_nobody_knows_it_says_what_to_put_there(installed: Any, about: str | None) -> None:
    installed(about)
    assert install_line("cpu") == "pip install 'PATH[cpu]', where PATH is the checkout or the wheel of coolsd-rt"


def test_not_installed_at_all(installed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(None)

    def absent(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", absent)
    assert "PATH[cpu]" in install_line("cpu")


def test_a_working_folder_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "samefile", lambda a, b: (_ for _ in ()).throw(FileNotFoundError(b)))
    assert install_line("cpu") == f"pip install -e '{ROOT}[cpu]'"


def test_the_error_has_it() -> None:
    assert str(MissingExtra("torch", "build", "parity")).endswith(f"run: {install_line('build')}")


def test_no_page_and_no_message_installs_from_an_index() -> None:
    """`pip install coolsd-rt` finds nothing, or a stranger's package of that name."""
    pattern = re.compile(r"pip3? install( -\S+)* ['\"]?coolsd-rt\b(?!\S* @)")
    assert pattern.search("pip install 'coolsd-rt[train]'")
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "pipelines").rglob("*.md")]
    sources = [*(ROOT / "coolsd_rt").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]
    for path in (*pages, *sources):
        if path.name != "CHANGELOG.md":
            assert not pattern.search(path.read_text(encoding="utf-8")), path
