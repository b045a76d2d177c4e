"""docs/modules.md is what the modules say of themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import modules


def test_the_page_is_current() -> None:
    assert modules.text() == modules.PAGE.read_text(encoding="utf-8"), "run: python tools/modules.py"


def test_every_module_has_its_line() -> None:
    page = modules.PAGE.read_text(encoding="utf-8")
    for path in (modules.ROOT / "coolsd_rt").rglob("*.py"):
        if "export" not in path.parts and path.name != "__init__.py":
            assert f"`{path.name}`: " in page, path


def test_an_old_page_fails_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "PAGE", tmp_path / "modules.md")
    monkeypatch.setattr("sys.argv", ["modules.py", "--check"])
    with pytest.raises(SystemExit, match=r"run: python tools/modules\.py"):
        modules.main()
    monkeypatch.setattr("sys.argv", ["modules.py"])
    modules.main()
    assert (tmp_path / "modules.md").read_text(encoding="utf-8") == modules.text()
