"""Every shipped spec is one of today's: its keys, its family, and a page that says where its files come from."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from coolsd_rt.models.families import FAMILIES
from coolsd_rt.spec import load_spec

ROOT = Path(__file__).resolve().parents[2]
SPECS = sorted(p for p in (ROOT / "pipelines").glob("*.yaml") if "draft" in yaml.safe_load(p.read_text()))
REAL = [p for p in SPECS if p.stem != "emoji"]


def test_each_published_family_has_one() -> None:
    shipped = {load_spec(p, check_files=False).spec.target.model for p in SPECS}
    assert shipped == set(FAMILIES)


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_it_is_valid(path: Path) -> None:
    spec = load_spec(path, check_files=False).spec
    assert spec.name == path.stem
    assert all(name.split("/")[0] == path.stem for name in spec.file_names().values())


@pytest.mark.parametrize("path", REAL, ids=lambda p: p.stem)
def test_its_page_makes_each_of_its_files(path: Path) -> None:
    page = (ROOT / "docs" / "real-models.md").read_text(encoding="utf-8")
    assert f"pipelines/{path.name}" in page
    for name in load_spec(path, check_files=False).spec.file_names().values():
        assert f"pipelines/{name}" in page, name
