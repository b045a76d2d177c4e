"""What the README shows is run: its spec is the demo's, its commands work as they stand."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from coolsd_rt.spec import load_spec
from tests.serve.serving import opened, serving

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return [text for name, text in found if name == language]


def commands() -> list[str]:
    """Lines of the README's code blocks that call `coolsd-rt` with the demo and end by themselves."""
    lines = [line for block in blocks("") for line in block.splitlines()]
    return [line for line in lines if line.startswith("coolsd-rt ") and "emoji" in line and " serve " not in line]


def run_in(folder: Path, command: str, *more: str) -> None:
    """Assert that a line of the README works there, as it stands but for `more`."""
    words = [sys.executable, "-m", "coolsd_rt.cli", *re.findall(r'"[^"]*"|\S+', command)[1:]]
    words = [*(w.strip('"') for w in words), *more]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="module")
def folder(demo_checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first command was run."""
    return Path(shutil.copytree(demo_checkout, tmp_path_factory.mktemp("readme") / "checkout"))


def test_the_spec_is_the_demos(tmp_path: Path) -> None:
    (block,) = blocks("yaml")
    shown = tmp_path / "pipelines"
    shutil.copytree(ROOT / "pipelines", shown)
    (shown / "readme.yaml").write_text(block, encoding="utf-8")
    assert load_spec(shown / "readme.yaml").spec == load_spec(ROOT / "pipelines" / "emoji.yaml").spec
    assert yaml.safe_load(block)["name"] == "emoji"


def test_commands_are_found() -> None:
    assert [c.split()[1] for c in commands()] == ["build", "generate", "parity"]
    assert commands()[0] == "coolsd-rt build pipelines/emoji.yaml"  # as `demo_checkout` is built


def test_commands_run_in_order(folder: Path) -> None:
    """The first of them built `folder`."""
    for command in commands()[1:]:
        # As shown, parity compares 32 images; two prove that the command works.
        run_in(folder, command, *(["--images", "2"] if "parity" in command else []))
    assert {p.name for p in (folder / "out").glob("*.png")} == {"000-red-apple.png", "001-dog-face.png", "sheet.png"}
    engine = folder / "engines" / "emoji"
    manifest = json.loads((engine / (engine / "current").read_text().strip() / "manifest.json").read_text())
    assert manifest["parity"]["passed"] is True


def test_the_server_draws_what_the_curl_line_asks_for(folder: Path) -> None:
    """The block as it stands, but on a free port."""
    pytest.importorskip("fastapi")
    (block,) = [block for block in blocks("") if "coolsd-rt serve" in block]
    install, serve, curl = block.splitlines()
    assert install.endswith("'.[cpu,serve]'")
    assert serve == "coolsd-rt serve engines/emoji"
    words = shlex.split(curl)
    assert words[:3] == ["curl", "http://127.0.0.1:8000/v1/images/generations", "-H"]
    name, _, value = words[3].partition(": ")
    assert words[4] == "-d"
    with serving(folder / "engines" / "emoji") as server:
        answer = server.http.post("/v1/images/generations", content=words[5], headers={name: value})
    assert answer.status_code == 200, answer.text
    (image,) = answer.json()["data"]
    assert opened(image["b64_json"]).size == (64, 64)


@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_knows_the_commands(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert f"make {target}" in README


def test_every_link_leads_somewhere() -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
