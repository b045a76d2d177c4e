"""Every shipped spec is one of today's: its keys, its family, and a page that says where its files come from."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from coolsd_rt.models.families import FAMILIES
from coolsd_rt.spec import load_spec
from coolsd_rt.spec.origins import FILES, on_hub

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
def test_one_command_makes_each_of_its_files(path: Path) -> None:
    spec = load_spec(path, check_files=False).spec
    origins = {FILES[name]: origin for name in FILES if (origin := getattr(spec.sources, name)) is not None}
    ships = {
        key for key, name in spec.file_names().items() if key not in origins and (ROOT / "pipelines" / name).is_file()
    }
    assert {*origins, *ships} == set(spec.file_names())
    assert ships == ({"draft.weights"} if path.stem == "smollm2-135m" else set())  # a head of ours
    page = (ROOT / "docs" / "real-models.md").read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if f"`pipelines/{path.name}`" in line)
    hub = [match for origin in origins.values() if (match := on_hub(origin.at))]
    assert ("commit" in row) == any(match["commit"] is None for match in hub)  # the page says what is not pinned
