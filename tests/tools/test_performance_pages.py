"""The tables of docs/performance.md and of the README are exactly what results.json gives, and the command's errors."""

from __future__ import annotations

import copy
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from coolsd_rt.errors import CoolsdError
from tools.performance import __main__ as command
from tools.performance.pages import PAGES, RESULTS, ROOT, filled, publish
from tools.performance.tables import NOT_YET, TABLES

FILE = ROOT / RESULTS
PUBLISHED = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else None
MARK = re.compile(r"<!-- table: ([\w-]+) -->")


def row(engine: str, name: str, images: int, ms: float, **more: Any) -> dict[str, Any]:
    return {
        "engine": engine, "name": name, "images": images, "turns": 3, "ms": {"median": ms, "min": ms, "max": 2 * ms},
        "tokens_per_second": 1e3 / ms, "accept_length": 1.0, "phases": {}, "note": "plain", **more,
    }  # fmt: skip


def results() -> dict[str, Any]:
    """Figures as a run gives them."""
    rows = [
        row("torch", "eager reference", 1, 8.0, versus_eager=1.0, versus_compiled=0.5, over_floor=8.0),
        row("torch", "torch.compile", 1, 4.0, versus_eager=2.0, versus_compiled=1.0, over_floor=4.0),
        row("fp32", "plain", 1, 2.0, versus_eager=4.0, versus_compiled=2.0, versus_plain=1.0, over_floor=2.0),
        row("fp32", "auto", 1, 1.6, versus_eager=5.0, versus_compiled=2.5, versus_plain=1.25, over_floor=1.6),
        row("fp32", "plain", 2, 1.0, versus_plain=1.0),
        row("fp32", "auto", 2, 2.0, versus_plain=0.5),
    ]
    parts = {"start": 1.0, "target": 0.5, "draft": 0.0, "law": 0.1, "decoder": 0.2, "rest": 0.2}
    demo = {
        "title": "The demo", "real": True, "tokens": 256, "left_out": {}, "rows": rows, "first_image_seconds": 60.0,
        "bandwidth": {"median": 2e10, "min": 1e10, "max": 3e10},
        "floors": {"fp32": {"bytes": 20_000_000, "matrices": 19_000_000, "ms": 1.0}},
        "splits": [{"engine": "fp32", "way": "plain", "runs": 3, "wall": 2.0, "parts": parts}],
    }  # fmt: skip
    goal = {"what": "demo: fp32, plain", "goal": 1.3, "found": 2.0, "unit": "x", "reached": True}
    here = {"cpu": "A processor", "threads": 2, "load_average": 0.1, "versions": {"torch": "2.13.0"}}
    return {
        "version": 1, "created": "2026-01-02T03:04:05", "machine": here, "seconds": 600.0, "models": {"demo": demo},
        "goals": [goal], "left_out": {"xl": "6 GiB of memory are needed, 2.0 GiB are free"},
    }  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_page_is_what_the_results_give(page: Path) -> None:
    """Where nothing was published yet, every table says so."""
    text = (ROOT / page).read_text(encoding="utf-8")
    assert filled(text, PUBLISHED) == text, "run: python -m tools.performance --publish"


def test_every_table_has_a_place() -> None:
    places = [name for page in PAGES for name in MARK.findall((ROOT / page).read_text(encoding="utf-8"))]
    assert set(places) == set(TABLES)


def test_the_readme_stays_short() -> None:
    whole = results()
    names = ("eager reference", "torch.compile", "official loop")
    ours = ("plain", "speculation, lossless", "COOL-SD, delta 1.1", "COOL-SD, delta 1.1, Jacobi drafts", "auto")
    rows = [row("torch", name, 1, 1.0) for name in names]
    rows += [row(engine, name, 1, 1.0) for engine in ("fp32", "int8") for name in ours]
    whole["models"] = {name: {**whole["models"]["demo"], "rows": rows} for name in ("demo", "b")}
    assert len(filled((ROOT / "README.md").read_text(encoding="utf-8"), whole).splitlines()) < 150


def test_figures_reach_the_tables() -> None:
    """Each figure, moved, changes a table that shows it."""
    before = {name: make(results()) for name, make in TABLES.items()}
    moves: list[tuple[tuple[Any, ...], Any, set[str]]] = [
        (("machine", "cpu"), "Another", {"machine"}),
        (("goals", 0, "found"), 1.0, {"goals"}),
        (("goals", 0, "reached"), False, {"goals"}),
        (("models", "demo", "rows", 2, "ms", "median"), 3.0, {"demo-one", "overview"}),
        (("models", "demo", "rows", 2, "ms", "max"), 9.0, {"demo-one"}),
        (("models", "demo", "rows", 2, "versus_compiled"), 9.0, {"demo-one", "overview"}),
        (("models", "demo", "rows", 2, "over_floor"), 9.0, {"demo-one"}),
        (("models", "demo", "rows", 5, "versus_plain"), 9.0, {"demo-at-once"}),
        (("models", "demo", "rows", 5, "tokens_per_second"), 7.0, {"demo-at-once", "overview"}),
        (("models", "demo", "floors", "fp32", "ms"), 9.0, {"demo-one"}),
        (("models", "demo", "splits", 0, "parts", "law"), 9.0, {"demo-split"}),
        (("models", "demo", "real"), False, {"demo-one"}),
        (("left_out", "xl"), "no time", {"xl-one", "xl-split"}),
    ]
    for path, value, changed in moves:
        moved = copy.deepcopy(results())
        inner: Any = moved
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        assert {name for name, make in TABLES.items() if make(moved) != before[name]} == changed, path


def test_nothing_is_claimed_without_its_row() -> None:
    without = results()
    without["models"]["demo"]["rows"] = [r for r in without["models"]["demo"]["rows"] if r["engine"] != "torch"]
    for one in without["models"]["demo"]["rows"]:
        one.pop("versus_eager", None), one.pop("versus_compiled", None)
    assert "torch.compile of it" in TABLES["overview"](results())
    assert "torch.compile of it" not in TABLES["overview"](without)


def test_publishing(tmp_path: Path) -> None:
    for page in PAGES:
        (tmp_path / page).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / page, tmp_path / page)
    publish(results(), tmp_path)
    assert json.loads((tmp_path / RESULTS).read_text(encoding="utf-8")) == results()
    for page in PAGES:
        text = (tmp_path / page).read_text(encoding="utf-8")
        assert NOT_YET.strip() not in text
        assert filled(text, results()) == text
        assert filled(text, None) == filled((ROOT / page).read_text(encoding="utf-8"), None)  # only tables moved


def test_a_table_that_nobody_makes_is_refused() -> None:
    with pytest.raises(CoolsdError, match="fastest"):
        filled("<!-- table: fastest -->\n\nx\n\n<!-- end of table -->", results())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "demo,c"], "--only: expected some of demo, b, xl, found c"),
        (["--only", "demo", "--publish"], "--publish: expected all models, found --only demo"),
        (["--turns", "0"], "--turns"),
        (["--out", str(FILE.parent.parent / "spec.md")], "--out"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["performance", *words])
    with pytest.raises(SystemExit) as stopped:
        command.main()
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert said in err
