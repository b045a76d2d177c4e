"""The pages of the documentation site that are made and not written: a hook of mkdocs (`mkdocs.yml`, hooks).

    commands.md     every verb, its options and its examples, from the click commands
    spec-keys.md    every key of a spec with type, range and default, from the pydantic models' JSON Schema
    index.md, ...   README and the other pages that stand outside docs/, with their links led to the site's pages

The commands' page is not made by mkdocs-click: that sorts the verbs by name, joins the lines of an example, escapes
nothing, and says of a required option and of one without a default that it is `Sentinel.UNSET`.

Nothing is written into docs/: the pages exist in the site alone. Knows click, JSON Schema and Markdown. Does not know
what a verb does or what a key means.
"""

from __future__ import annotations

import html
import inspect
import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[1]

MIRRORED = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "pipelines/emoji/README.md": "model-card.md",
}
"""Pages outside docs/, by their path in the repository, to their page of the site."""

COMMANDS = "commands.md"
SPEC_KEYS = "spec-keys.md"

LONG_DEFAULT = 30
"""Characters of a default that do not fit into its column."""

_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:)([^)#\s]*)(#[^)\s]*)?\)")
_FENCE = re.compile(r"^(```.*?^```$)", re.DOTALL | re.MULTILINE)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table. Cells may hold any text: what would end a cell is escaped."""
    names = [*head]
    lines = [names, ["---"] * len(names), *([_cell(text) for text in row] for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _cell(text: str) -> str:
    """Neither a line break nor a bar. A bar in code becomes an entity, and the code HTML: Markdown would show both."""
    text = text.replace("\n", " ")
    text = re.sub(r"`([^`]*\|[^`]*)`", lambda code: f"<code>{html.escape(code[1])}</code>", text)
    return text.replace("|", "&#124;")


# Commands.


def prose(text: str) -> str:
    """A help text of click as Markdown: paragraphs, and what follows a `\\b` line by line as code."""
    parts: list[str] = []
    for paragraph in text.replace("\f", "").split("\n\n"):
        if not paragraph.lstrip().startswith("\b"):
            parts.append(escaped(" ".join(paragraph.split())))
            continue
        lines = inspect.cleandoc(paragraph.replace("\b", "")).splitlines()
        code = lines[1:] if lines[0] == "Example:" else lines
        parts.append("```\n" + inspect.cleandoc("\n".join(["", *code])) + "\n```")
    return "\n\n".join(parts)


def escaped(text: str) -> str:
    """Text whose characters mean nothing in Markdown, but for the backticks it has itself."""
    pieces = text.split("`")
    if len(pieces) % 2 == 0:  # a lone backtick: no code in it
        return _special(text)
    return "`".join(piece if k % 2 else _special(piece) for k, piece in enumerate(pieces))


def _special(text: str) -> str:
    return re.sub(r"([\\<>*_`\[\]])", r"\\\1", text)


def verbs(group: click.Group) -> Iterator[tuple[str, click.Command]]:
    """Names and commands of a group, in its own order."""
    context = click.Context(group, info_name="coolsd-rt")
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None and not command.hidden:
            yield name, command


def commands_page(group: click.Group) -> str:
    """Markdown of every verb of `group`: its help, its usage and its options, in the words of `--help`."""
    parts = ["# Commands\n", "What `coolsd-rt VERB --help` prints. `make docs` makes this page of the commands.\n"]
    for name, command in verbs(group):
        context = click.Context(command, info_name=f"coolsd-rt {name}")
        usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        parts.append(f"## {name}\n\n```\n{usage}\n```\n\n{prose(command.help or '')}\n")
        records = [p.get_help_record(context) for p in command.get_params(context) if isinstance(p, click.Option)]
        rows = [(f"`{names}`", escaped(text)) for names, text in filter(None, records)]
        parts.append(table(("option", "meaning"), rows))
    return "\n".join(parts)


# Keys of a spec.


def kind_of(schema: Mapping[str, Any]) -> str:
    """What a value is, in a word or two."""
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(kind_of(part) for part in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {kind_of(schema['items'])}"
    names = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true, false", "null": "null"}
    return names.get(schema.get("type", ""), "section")


def range_of(schema: Mapping[str, Any]) -> str:
    """Both ends of a number, of a list's numbers, or of the number in `number or null`; empty without one."""
    if "minimum" in schema:
        return f"{schema['minimum']:g} to {schema['maximum']:.12g}"
    parts = [*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else ())]
    return next(filter(None, map(range_of, parts)), "")


def default_of(name: str, schema: Mapping[str, Any], required: Iterable[str]) -> str:
    """What a key is where it is left out; a long section's values stand in its own table."""
    if name in required:
        return "required"
    text = json.dumps(schema.get("default"))
    return f"`{text}`" if len(text) < LONG_DEFAULT else "the defaults below"


def keys_table(model: Mapping[str, Any]) -> str:
    """The keys of one section."""
    required = model.get("required", ())
    rows = [
        (f"`{name}`", _value(schema), default_of(name, schema, required), escaped(schema["description"]))
        for name, schema in model["properties"].items()
    ]
    return table(("key", "value", "default", "meaning"), rows)


def _value(schema: Mapping[str, Any]) -> str:
    return ", ".join(filter(None, (kind_of(schema), range_of(schema))))


def _variants(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The models that a section's value may be: one, or one a kind."""
    if "$ref" in schema:
        yield definitions[schema["$ref"].rpartition("/")[2]]
    for part in (*schema.get("oneOf", ()), *schema.get("anyOf", ())):
        yield from _variants(part, definitions)


def _heading(model: Mapping[str, Any]) -> str:
    """`kind: uniform` for one of several, by the first key that may have one value alone or a few."""
    name, schema = next(iter(model["properties"].items()))
    values = [schema["const"]] if "const" in schema else schema.get("enum", [])
    return f"`{name}: {' | '.join(values)}`"


def spec_page(schema: Mapping[str, Any]) -> str:
    """Markdown of every key of a spec, from its JSON Schema, a section after the other."""
    definitions = schema["$defs"]
    sections = {
        name: [*_variants(value, definitions)]
        for name, value in schema["properties"].items()
        if any(_variants(value, definitions))
    }
    parts = [
        "# Keys of a spec\n",
        "Every key, with both ends of its range. What the values do and promise: [The spec's values](spec.md). "
        "`make docs` makes this page of the models in `coolsd_rt/spec/`.\n",
        keys_table(schema),
    ]
    for name, models in sections.items():
        parts.append(f"## {name}\n")
        for model in models:
            if len(models) > 1:
                parts.append(f"### {_heading(model)}\n")
            parts.append(f"{escaped(model['description'])}\n")
            parts.append(keys_table(model))
            parts += _inner(model, definitions)
    return "\n".join(parts)


def _inner(model: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[str]:
    """Sections of a section, each once."""
    seen: list[Mapping[str, Any]] = []
    for name, schema in model["properties"].items():
        for inner in _variants(schema, definitions):
            if inner in seen:
                continue
            seen.append(inner)
            users = [
                key for key, value in model["properties"].items() if json.dumps(value).count(f'/{inner["title"]}"')
            ]
            parts = ", ".join(f"`{key}`" for key in users or [name])
            yield f"### {parts}\n\n{escaped(inner['description'])}\n\n{keys_table(inner)}"


# Pages from outside docs/, and links to them.


def led(markdown: str, source: str) -> str:
    """A page's links, from paths in the repository to the site's pages. source: the page's path in the repository.

    A link to a file that the site does not hold becomes its text alone. Code is left as it is.
    """
    here = MIRRORED.get(source, source.removeprefix("docs/"))

    def one(match: re.Match[str]) -> str:
        image, text, path, anchor = match[1], match[2], match[3], match[4] or ""
        if not path:
            return match[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if target in MIRRORED:
            page = MIRRORED[target]
        elif target.startswith("docs/"):
            page = target.removeprefix("docs/")
        else:
            return text
        return f"{image}[{text}]({posixpath.relpath(page, posixpath.dirname(here) or '.')}{anchor})"

    return "".join(p if k % 2 else _LINK.sub(one, p) for k, p in enumerate(_FENCE.split(markdown)))


def pages() -> dict[str, str]:
    """All made pages: path in the site to Markdown."""
    from coolsd_rt.cli.main import group
    from coolsd_rt.spec.schema import schema_text

    outside = {page: led((ROOT / path).read_text(encoding="utf-8"), path) for path, page in MIRRORED.items()}
    return outside | {COMMANDS: commands_page(group), SPEC_KEYS: spec_page(json.loads(schema_text()))}


# What mkdocs calls.


def on_files(files: Any, config: Any) -> Any:
    """Add the made pages."""
    from mkdocs.structure.files import File

    for path, content in pages().items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Lead the links of a page that stands in docs/."""
    return markdown if page.file.generated_by else led(markdown, f"docs/{page.file.src_uri}")
