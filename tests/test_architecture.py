"""docs/architecture.md names what is there: each function of it, each room, and the layers that imports keep to."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.named import PACKAGE, ROOT, why_missing

PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
TABLES_AND_WAYS = PAGE[PAGE.index("\n## ") :]
REFERENCES = sorted(set(re.findall(r"`([\w/]+\.py(?:: [\w.]+)?)`", TABLES_AND_WAYS)) - {"cli/VERB.py"})
FIVE = (  # what someone who has never seen the code should find at once, and the file that is the answer
    ("acceptance decided", "law/acceptance.py"),
    ("spec key become a default", "spec/model.py"),
    ("cache row overwritten", "runtime/decoding_loop.py"),
    ("partial image decoded", "workflows/partial_images.py"),
    ("hash checked", "store/engine.py"),
)


def section(title: str) -> str:
    """The text below a heading of the page."""
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rooms() -> set[str]:
    """What stands in the package, as the page writes it, but for the dunder files."""
    folders = {f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}
    return folders | {path.name for path in PACKAGE.glob("*.py") if path.name != "__init__.py"} | {"tools/"}


def layers(lines: list[str]) -> list[set[str]]:
    """Each layer's rooms."""
    return [set(re.findall(r"\w+", line)) for line in lines]


def test_every_function_that_the_page_names_is_there() -> None:
    assert len(REFERENCES) > 80
    missing = [why_missing(name, ROOT if name.startswith("tests/") else PACKAGE) for name in REFERENCES]
    assert not [line for line in missing if line]


def test_a_name_that_is_gone_is_seen() -> None:
    assert not why_missing("law/acceptance.py: accepts")
    assert not why_missing("runtime/state.py: State.commit")
    gone = (
        "law/accept.py",
        "law/acceptance.py: accept",
        "runtime/state.py: commit",
        "runtime/state.py: State.rollback",
    )
    assert all(why_missing(name) for name in gone)


def test_every_room_is_in_the_table_with_what_it_never_knows() -> None:
    rows = [line.split("|")[1:-1] for line in section("The rooms").splitlines() if line.startswith("| `")]
    assert all(len(row) == 3 and row[1].strip() and row[2].strip() for row in rows)
    named = [name for row in rows for name in re.findall(r"`([^`]+)`", row[0])]
    assert sorted(named) == sorted(rooms())


def test_the_picture_has_the_layers_of_import_linter() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    (wanted,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    picture = section("The rooms").split("```text\n")[1].split("```")[0].splitlines()
    drawn = [line.split("  ")[0] for line in picture]
    assert layers(drawn) == layers(wanted)
    for line, layer in zip(drawn, wanted, strict=True):
        assert ("|" in line) == ("|" in layer), "`|` parts rooms that do not import each other"


@pytest.mark.parametrize(("question", "answer"), FIVE)
def test_a_newcomer_finds_it_in_the_first_table(question: str, answer: str) -> None:
    (row,) = (line for line in section("Where is ...").splitlines() if question in line)
    assert answer in row


def test_the_table_comes_first_and_answers_thirty_questions() -> None:
    assert PAGE.index("\n## ") == PAGE.index("\n## Where is ...")
    assert len([line for line in section("Where is ...").splitlines() if line.startswith("| Where ")]) >= 30
    assert len(PAGE.splitlines()) < 250


@pytest.mark.parametrize("way", ["a spec", "a prompt", "a token", "a checkpoint"])
def test_each_way_names_its_steps(way: str) -> None:
    steps = re.split(r"^\d+\. ", section(f"The way of {way}"), flags=re.MULTILINE)[1:]
    assert len(steps) >= 5
    assert all(re.search(r"`[\w/]+\.py: [\w.]+`|drafter|Format", step) for step in steps)
