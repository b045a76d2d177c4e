"""What stands about the project outside its code agrees with it: changelog, citation, metadata, hooks, workflow."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from coolsd_rt import __version__

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
"""Headings of Keep a Changelog, in its order."""

HYGIENE = ("end-of-file-fixer", "trailing-whitespace-fixer", "check-merge-conflict", "check-added-large-files")
"""Programs of the package pre-commit-hooks."""


def changelog_problems(text: str) -> list[str]:
    """What is not in the form of Keep a Changelog, a line each."""
    title, *releases = re.split(r"^## ", text, flags=re.MULTILINE)
    found = [] if title.startswith("# Changelog\n") else ["no title"]
    for release in releases:
        name, *parts = re.split(r"^### ", release, flags=re.MULTILINE)
        if not re.fullmatch(r"\d+\.\d+\.\d+ \((unreleased|\d{4}-\d\d-\d\d)\)\s*", name):
            found.append(f"a release of another form, or entries under no heading: {name[:60]!r}")
        kinds = [part.splitlines()[0].strip() for part in parts]
        if kinds != [kind for kind in KINDS if kind in kinds]:
            found.append(f"headings {kinds}: each of {KINDS} at most once, in this order")
        for kind, part in zip(kinds, parts, strict=True):
            entries = [line for line in part.splitlines()[1:] if line]
            if not entries or not all(line.startswith(("- ", "  ")) for line in entries):
                found.append(f"{kind}: a list of entries, and nothing else")
    return found


def test_the_changelog_is_in_its_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert changelog_problems(text) == []
    assert re.findall(r"^## (\S+)", text, re.MULTILINE)[0] == __version__


@pytest.mark.parametrize(
    "body",
    [
        "## 1.0.0 (unreleased)\n\n- An entry under no heading.\n",
        "## 1.0.0 (unreleased)\n\n### Improved\n\n- A heading of ours.\n",
        "## 1.0.0 (unreleased)\n\n### Fixed\n\n- One.\n\n### Added\n\n- Two.\n",
        "## 1.0.0 (unreleased)\n\n### Fixed\n\n- One.\n\n### Fixed\n\n- Two.\n",
        "## 1.0.0 (unreleased)\n\n### Fixed\n\nNo list.\n",
        "## 1.0.0 (unreleased)\n\n### Fixed\n",
        "## Next\n\n### Fixed\n\n- One.\n",
    ],
)
def test_another_form_is_found(body: str) -> None:
    assert len(changelog_problems("# Changelog\n\n" + body)) == 1


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    assert citation["title"] == PROJECT["name"]
    assert citation["license"] == PROJECT["license"]
    (paper,) = citation["references"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert paper["title"] in readme
    assert paper["url"].rpartition("/")[2] in readme


def test_the_python_of_the_workflow_is_the_projects() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8"))
    oldest = PROJECT["requires-python"].removeprefix(">=")
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == [oldest, "3.x"]
    assert workflow["jobs"]["wheel"]["steps"][1]["with"]["python-version"] == oldest
    steps = [step.get("run", "") for step in workflow["jobs"]["test"]["steps"]]
    assert any(step.startswith("make test") for step in steps)
    assert f"Programming Language :: Python :: {oldest}" in PROJECT["classifiers"]


def test_hooks_run_what_the_extra_dev_installs() -> None:
    """`repo: local` and `language: system` alone: nothing is fetched, and no version differs from `make test`'s."""
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    for hook in config["repos"][0]["hooks"]:
        assert hook["language"] == "system"
        program = hook["entry"].split()[0]
        brought = [re.match(r"[\w-]+", line)[0] for line in PROJECT["optional-dependencies"]["dev"]]  # type: ignore[index]
        assert program in {*brought, *PROJECT["scripts"], "python", *HYGIENE}
        assert program not in HYGIENE or "pre-commit-hooks" in brought


def test_security_names_files_that_are_there() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    paths = set(re.findall(r"`((?:[\w]+/)*[\w]+\.py)`", text))
    assert len(paths) > 15
    package = [path.relative_to(ROOT).as_posix() for path in (ROOT / "coolsd_rt").rglob("*.py")]
    for path in paths:
        wanted = path.removeprefix("coolsd_rt/")
        there = (ROOT / path).is_file() or any(name.endswith(f"/{wanted}") for name in package)
        assert there, path
