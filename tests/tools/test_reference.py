"""The made pages of the documentation site say all that the code has: every verb, option and key."""

from __future__ import annotations

import json
import re
from typing import Any

import click
import pytest

from coolsd_rt.cli.main import VERBS, group
from coolsd_rt.spec.schema import schema_text
from tools.reference import MIRRORED, ROOT, commands_page, escaped, led, pages, prose, range_of, spec_page, table, verbs

SCHEMA: dict[str, Any] = json.loads(schema_text())


def sections() -> list[tuple[str, dict[str, Any]]]:
    return [("Spec", SCHEMA), *SCHEMA["$defs"].items()]


@pytest.mark.parametrize(("name", "model"), sections(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_key_and_section_has_a_description(name: str, model: dict[str, Any]) -> None:
    assert model["description"].strip()
    for key, schema in model["properties"].items():
        assert schema.get("description", "").strip().endswith((".", ")")), f"{name}.{key}"


def test_every_number_has_both_ends() -> None:
    """What the page's column is made of."""
    for name, model in sections():
        for key, schema in model["properties"].items():
            kinds = {part.get("type") for part in (schema, *schema.get("anyOf", ()), schema.get("items", {}))}
            if kinds & {"integer", "number"} and "enum" not in json.dumps(schema) and "const" not in schema:
                assert range_of(schema), f"{name}.{key}"


def test_the_page_has_every_key_of_every_section() -> None:
    page = spec_page(SCHEMA)
    rows = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert sorted(rows) == sorted(key for _, model in sections() for key in model["properties"])
    assert [line[3:] for line in page.splitlines() if line.startswith("## ")] == list(SCHEMA["properties"])[2:]
    assert "| `length` | whole number, 1 to 65536 | required |" in page
    assert "| `floor` | number or null, 0 to 1000000 | `1.0` |" in page


def test_the_page_has_every_verb_and_option() -> None:
    page = commands_page(group)
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == list(VERBS)
    for (name, command), text in zip(verbs(group), page.split("\n## ")[1:], strict=True):
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert all(option in text for option in parameter.opts), (name, parameter.opts)


def test_every_option_has_help() -> None:
    for name, command in verbs(group):
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert (parameter.help or "").strip().endswith((".", ")", "]")), (name, parameter.opts)


def test_help_becomes_paragraphs_and_code() -> None:
    text = "One *line*\nand its second.\n\n\b\nExample:\n  a | b\n    c\n"
    assert prose(text) == "One \\*line\\* and its second.\n\n```\na | b\n  c\n```"


def test_what_has_a_meaning_in_markdown_is_escaped_outside_code() -> None:
    assert escaped("P_x < [a] `b_c` *") == "P\\_x \\< \\[a\\] `b_c` \\*"
    assert escaped("a ` b") == "a \\` b"


def test_a_cell_cannot_end_its_row() -> None:
    assert table(["a"], [["x | y\nz"]]).splitlines()[-1].count(" | ") == 0
    assert table(["a", "b"], [["`x|y`", "z"]]).splitlines()[-1] == "| <code>x&#124;y</code> | z |"


@pytest.mark.parametrize(
    ("source", "markdown", "expected"),
    [
        ("README.md", "[a](docs/theory.md#x)", "[a](theory.md#x)"),
        ("README.md", "![a](docs/emoji.png)", "![a](emoji.png)"),
        ("README.md", "[a](pipelines/emoji/README.md)", "[a](model-card.md)"),
        ("README.md", "[a](pipelines/emoji.yaml)", "a"),
        ("README.md", "[a](https://x.org/y.md) [b](#c)", "[a](https://x.org/y.md) [b](#c)"),
        ("README.md", "```\n[a](docs/theory.md)\n```", "```\n[a](docs/theory.md)\n```"),
        ("docs/figures.md", "[a](../README.md#figures)", "[a](index.md#figures)"),
        ("docs/api/law.md", "[a](../../README.md) [b](../theory.md)", "[a](../index.md) [b](../theory.md)"),
        ("pipelines/emoji/README.md", "[a](../../docs/experiments.md)", "[a](experiments.md)"),
    ],
)
def test_links_lead_to_the_sites_pages(source: str, markdown: str, expected: str) -> None:
    assert led(markdown, source) == expected


def test_every_made_page_is_in_the_nav() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in pages():
        assert f": {page}\n" in nav, page
    assert set(MIRRORED.values()) < set(pages())
