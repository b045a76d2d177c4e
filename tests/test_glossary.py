"""docs/glossary.md names what is there, says each word once, and is found by who looks for it."""

from __future__ import annotations

import re

from tests.named import ROOT, why_missing

PAGE = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.split("|")[1:-1]]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| term")
]


def test_each_row_is_a_term_with_a_place_in_the_code() -> None:
    assert len(ROWS) > 60
    for row in ROWS:
        term, _, meaning, code, _ = row
        assert all((term, meaning)), row
        assert re.fullmatch(r"`[\w/]+\.py(: [\w.]+)?`", code), row


def test_every_class_and_file_that_it_names_is_there() -> None:
    missing = [why_missing(row[3].strip("`")) for row in ROWS]
    assert not [line for line in missing if line]


def test_no_term_is_explained_twice_or_called_unused() -> None:
    terms = [row[0].lower() for row in ROWS]
    assert len(set(terms)) == len(terms)
    unused = {word.strip().lower() for row in ROWS for word in row[4].split(",")}
    assert not unused & set(terms)


def test_who_looks_for_it_finds_it() -> None:
    assert "glossary.md" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in ("README.md", "CONTRIBUTING.md"):
        assert "(docs/glossary.md)" in (ROOT / page).read_text(encoding="utf-8"), page
