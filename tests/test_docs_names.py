"""Every path, module, verb and option that a page names is there today. Commands themselves are not run here."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import click
import pytest

from coolsd_rt.cli.main import VERBS, group
from tests.named import PACKAGE, ROOT, names_of

PAGES = [
    path
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "pipelines/emoji/README.md"])
    if path.name not in ("CHANGELOG.md", "modules.md")  # the one names what was, the other is made of the modules
]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
END = ("|", "&&", ";", ">", "#")
FILES = {path.name for folder in ("coolsd_rt", "tests", "tools") for path in (ROOT / folder).rglob("*.py")}


def code(text: str) -> Iterator[str]:
    """Lines of the fenced blocks, joined where they go on, and the pieces of code in the text."""
    for _, language, block in FENCE.findall(text):
        if language in ("", "sh", "bash", "console"):
            yield from block.replace("\\\n", " ").splitlines()
    yield from (" ".join(piece.split()) for piece in re.findall(r"`([^`]+)`", FENCE.sub("", text)))


def words(line: str) -> list[str]:
    """A command's words, up to where another command begins."""
    try:
        found = shlex.split(line)
    except ValueError:  # a piece of prose with an apostrophe
        found = line.split()
    return found[: next((k for k, word in enumerate(found) if word in END), len(found))]


@cache
def options(verb: str) -> frozenset[str]:
    """The options of a verb."""
    command = group.get_command(click.Context(group), verb)
    assert command is not None
    names = [name for param in command.params for name in (*param.opts, *param.secondary_opts)]
    return frozenset(name for name in names if name.startswith("-")) | {"--help", "-h"}


@cache
def options_of_tools() -> frozenset[str]:
    """What the tools' own command lines take."""
    texts = (path.read_text("utf-8") for path in (ROOT / "tools").rglob("*.py"))
    return frozenset(name for text in texts for name in re.findall(r'"(--[a-z0-9-]+)"', text))


def of_a_verb(line: str) -> Iterator[str]:
    """What is wrong with the commands `coolsd-rt VERB ...` of a line."""
    for start in re.finditer(r"(?:coolsd-rt|-m coolsd_rt\.cli) ", line):
        verb, *rest = words(line[start.end() :]) or [""]
        if verb in ("", "--version", "--help") or verb.isupper():
            continue
        if verb not in VERBS:
            yield f"{line}: no verb {verb}"
            continue
        for word in rest:
            if word.startswith("--") and word.split("=")[0] not in options(verb):
                yield f"{line}: {verb} has no {word}"


def of_python(line: str) -> Iterator[str]:
    """What is wrong with the commands `python FILE`, `python -m MODULE` and `pytest PATHS` of a line."""
    for start in re.finditer(r"(?:^|[ /`])python3? ", line):
        target, *rest = words(line[start.end() :]) or [""]
        if target.endswith(".py") and not (ROOT / target).is_file():
            yield f"{line}: no file {target}"
        module = rest[0] if target == "-m" and rest else ""
        if module.startswith(("coolsd_rt", "tools")):
            path = ROOT / module.replace(".", "/")
            path = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
            if not path.is_file() or '__name__ == "__main__"' not in path.read_text("utf-8"):
                yield f"{line}: {module} cannot be run"
        elif module and module not in ("pip", "venv") and find_spec(module) is None:
            yield f"{line}: no module {module}"
        for word in rest:
            if word.startswith("tests/") and not (ROOT / word).exists():
                yield f"{line}: no {word}"


def of_paths(piece: str, folder: Path) -> Iterator[str]:
    """What is wrong with a piece of code that is a path or a dotted name of the package. folder: the page's."""
    if re.fullmatch(r"(coolsd_rt|tools)(\.\w+)+", piece):
        if not _is_there(piece):
            yield f"no {piece}"
        return
    path, _, test = piece.split(": ")[0].partition("::")
    if re.fullmatch(r"test_\w+", test or path) and not any(_has_test(file, test or path) for file in _tests(path)):
        yield f"no test {piece}"
    if not re.fullmatch(r"[\w.*-]+(/[\w.*-]*)*", path) or not ("/" in path or path.endswith(".py")):
        return
    path = path.replace("VERB", "*")  # one file per verb
    first = path.split("/")[0]
    if "/" not in path:
        if not any(Path(name).match(path) for name in FILES):
            yield f"no file {path}"
    elif first in ("coolsd_rt", "tests", "tools", "docs", "pipelines", "export"):
        spec = ROOT / f"{path.rstrip('/')}.yaml"  # the folder of a spec's weights, which a user makes
        if not list(ROOT.glob(path.rstrip("/"))) and not spec.is_file():
            yield f"no {path}"
    elif (PACKAGE / first).is_dir() and not list(PACKAGE.glob(path.rstrip("/"))) and not (folder / path).exists():
        yield f"no coolsd_rt/{path}"


def _tests(path: str) -> list[Path]:
    """The file of tests that is meant; all of them if none is named."""
    named = ROOT / path
    return [named] if named.is_file() else [*(ROOT / "tests").rglob("*.py")]


def _has_test(file: Path, name: str) -> bool:
    return file.stem == name or any(each.split(".")[-1] == name for each in names_of(file))


def _is_there(dotted: str) -> bool:
    """Whether a dotted name is a module, a name in one, or a member of a class in one."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:end])
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if path.is_dir() or file.is_file():
            rest = ".".join(parts[end:])
            text = file.read_text("utf-8") if file.is_file() else ""
            return not rest or rest in names_of(file) or re.search(rf"\b{re.escape(rest)}\b", text) is not None
    return False


def of_lone_options(piece: str) -> Iterator[str]:
    """What is wrong with a piece of code that begins with an option: some verb or tool has to have it."""
    if name := re.match(r"--[a-z][a-z0-9-]*", piece):
        known = options_of_tools().union(*(options(verb) for verb in VERBS))
        if name[0] not in known:
            yield f"nothing has {name[0]}"


def faults(text: str, folder: Path = ROOT) -> list[str]:
    """What a page names that is not there."""
    found: list[str] = []
    for line in code(text):
        found += [*of_a_verb(line), *of_python(line)]
    for piece in re.findall(r"`([^`\n]+)`", FENCE.sub("", text)):
        found += [*of_paths(piece, folder), *of_lone_options(piece)]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    assert not faults(page.read_text(encoding="utf-8"), page.parent)


GONE = (
    "`coolsd-rt paint x`",
    "```\ncoolsd-rt build x \\\n  --fast\n```",
    "`coolsd-rt bench x --pictures 3`",
    "`python tools/gone.py`",
    "```\npython -m coolsd_rt.measure.demo\n```",
    "`python -m pytest tests/gone`",
    "`python -m coolsd_rt.law.acceptance`",
    "`coolsd_rt/measure/`",
    "`backends/fused/`",
    "`foreign_json.py`",
    "`test_it_is_gone`",
    "`tests/test_limits.py::test_it_is_gone`",
    "`coolsd_rt/models/convert_*.py`",
    "`coolsd_rt.measure`",
    "`coolsd_rt.law.accept`",
    "`--pictures 3`",
)


@pytest.mark.parametrize("text", GONE)
def test_what_is_gone_is_seen(text: str) -> None:
    assert faults(text)


def test_what_is_there_is_let_through() -> None:
    text = "`coolsd-rt build pipelines/emoji.yaml --dry-run`, `coolsd-rt`, `coolsd-rt VERB`, `law/`, `round.py`\n"
    assert not faults(text + "```\npython -m pip install x --no-index && coolsd-rt doctor  # --what\n```\n")
