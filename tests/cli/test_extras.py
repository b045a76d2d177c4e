"""Every verb runs with the extras it is said to need, and says which it needs without them.

A process per set of extras sees the packages that pip would install for these, and no other: the closure of their
requirements, computed from pyproject.toml and the metadata of what is installed. Nothing is downloaded.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from coolsd_rt.cli.extras import _SHARED, EXTRAS, NEEDS
from coolsd_rt.cli.main import VERBS
from coolsd_rt.store import EngineFolder

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OPTIONAL: dict[str, list[str]] = PROJECT["optional-dependencies"]
SETS = sorted(set(NEEDS.values()))
PROMPTS = ["red apple", "blue star", "green leaf"]
SWEEP = """\
version: 1
images: 4
prompts: prompts.txt
points:
  plain: {plain: true}
  cool: {set: {schedule.delta: 1.1}}
quality:
  frechet: {network: spec/vq.safetensors}
  retrieval: {references: refs}
"""
# Real work, on the tiny pipeline: engine/ was built from spec/.
COMMANDS: dict[str, list[list[str]]] = {
    "build": [["build", "spec/tiny.yaml", "--out", "engines"]],
    "generate": [["generate", "engines/tiny", "-p", "red apple", "-p", "blue star"]],
    "batch": [["batch", "engines/tiny", "prompts.txt", "--out", "job"]],
    "serve": [["serve", "engines/tiny", "--port", "0"]],
    "parity": [["parity", "engines/tiny", "-n", "1", "--spec", "spec/tiny.yaml"]],
    "inspect": [["inspect", "engines/tiny", "--verify"]],
    "validate": [["validate", "spec/tiny.yaml"]],
    "convert": [["convert", "vq.pt", "--to", "converted.safetensors"]],
    "doctor": [["doctor"], ["doctor", "--json"]],
    "bench": [["bench", "engines/tiny", "--runs", "1", "--ways", "cool", "--ways", "jacobi", "--html", "bench.html",
               "-p", "red apple", "--out", "bench.json"]],
    "analyze": [["analyze", "engines/tiny", "-n", "2", "-p", "red apple", "--recording", "recording"]],
    "sweep": [["sweep", "engines/tiny", "sweep.yaml", "--engine-spec", "spec/tiny.yaml", "--out", "sweep"]],
    "train-draft": [["train-draft", "spec/tiny.yaml", "--data", "self:4", "--prompts", "prompts.txt", "--out",
                     "draft.safetensors", "--steps", "1", "--batch", "2", "--every", "1", "--held-out", "2",
                     "--device", "cpu", "--tensorboard", "events"]],
    "quality": [["quality", "engines/tiny", "--prompts", "captions.json", "--reference", "real", "--out", "quality",
                 "--inception", "inception.safetensors"]],
    "tune": [["tune", "engines/tiny", "--kl", "0.5", "-n", "24", "-p", "red apple", "--spec", "spec/tiny.yaml",
              "--write", "spec/tuned.yaml", "--plot", "tuned.png"]],
    "precompute": [["precompute", "t5/toy.yaml", "-p", "star", "--out", "t5/features.safetensors"]],
    "schedule": [["schedule", "--delta", "1.1"]],
    "schema": [["schema", "--out", "schema.json"]],
}  # fmt: skip


def lines_of(extra: str) -> list[str]:
    """Requirements of one extra. Where it names another of coolsd-rt's own (`coolsd-rt[torch]`), that one's instead."""
    lines: list[str] = []
    for line in OPTIONAL[extra]:
        requirement = Requirement(line)
        if canonicalize_name(requirement.name) == PROJECT["name"]:
            assert requirement.extras, f"{extra} requires {line}"
            lines += [inner for named in sorted(requirement.extras) for inner in lines_of(named)]
        else:
            lines.append(line)
    return lines


def closure(extras: tuple[str, ...]) -> set[str]:
    """Canonical names of the distributions that pip installs for coolsd-rt with these extras."""
    seen: set[tuple[str, frozenset[str]]] = set()

    def add(lines: list[str], wanted: frozenset[str]) -> None:
        for requirement in map(Requirement, lines):
            contexts = [{"extra": extra} for extra in (wanted or {""})]
            if requirement.marker is not None and not any(requirement.marker.evaluate(c) for c in contexts):
                continue
            key = canonicalize_name(requirement.name), frozenset(requirement.extras)
            if key not in seen:
                seen.add(key)
                add(metadata.requires(key[0]) or [], key[1])

    try:
        add([*PROJECT["dependencies"], *(line for extra in extras for line in lines_of(extra))], frozenset())
    except metadata.PackageNotFoundError as absent:
        pytest.skip(f"{absent.name} is not installed")
    return {name for name, _ in seen}


def run(extras: tuple[str, ...], commands: list[list[str]], folder: Path) -> list[dict[str, Any]]:
    allowed = closure(extras)
    owners = metadata.packages_distributions()
    blocked = sorted(top for top, names in owners.items() if not {canonicalize_name(n) for n in names} & allowed)
    task = {"allowed": sorted({*allowed, "coolsd-rt"}), "blocked": [b for b in blocked if b not in ("coolsd_rt",)]}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("extras_process.py"))],
        input=json.dumps(task | {"commands": commands}),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(folder), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    results: list[dict[str, Any]] = json.loads(done.stdout)
    return results


@pytest.fixture(scope="module")
def workplace(
    tiny_spec: Path, tiny_engine: EngineFolder, tiny_out: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with all that the commands name. The image's stage is still to be built."""
    import torch
    from PIL import Image

    from coolsd_rt.models.vq import VQConfig, VQTokenizer
    from tests.prompts.encoders import write_encoder
    from tests.prompts.test_features import SPEC as T5_SPEC
    from tests.quality.qualities import write_captions, write_inception
    from tests.tiny import SIDE

    folder = tmp_path_factory.mktemp("extras")
    shutil.copytree(tiny_spec.parent, folder / "spec")
    shutil.copytree(tiny_out, folder / "engines", symlinks=True)
    for stage in (folder / "engines" / ".cache").glob("image-*"):
        shutil.rmtree(stage)
    (folder / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")
    (folder / "sweep.yaml").write_text(SWEEP)
    write_captions(folder / "captions.json", {str(k): prompt for k, prompt in enumerate(PROMPTS)})
    for k, prompt in enumerate(PROMPTS):
        pixels = np.random.default_rng(k).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        for path in (folder / "refs" / f"{prompt.replace(' ', '-')}.png", folder / "real" / f"{k:012d}.png"):
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(path)
    write_inception(folder / "inception.safetensors")
    write_encoder(folder / "t5" / "t5")
    (folder / "t5" / "toy.yaml").write_text(T5_SPEC.replace("PRECISION", "fp32"))
    torch.save({"model": VQTokenizer(VQConfig(16, 4, 32, (1, 2), 32, 1)).state_dict()}, folder / "vq.pt")
    return folder


def test_every_verb_is_in_the_tables() -> None:
    assert set(NEEDS) == set(COMMANDS) == set(VERBS)


@pytest.mark.parametrize("extras", SETS, ids=lambda extras: ",".join(extras) or "base")
def test_verbs_run_with_their_extras_alone(extras: tuple[str, ...], workplace: Path) -> None:
    commands = [words for verb, needed in NEEDS.items() if needed == extras for words in COMMANDS[verb]]
    for words, done in zip(commands, run(extras, commands, workplace), strict=True):
        assert done["code"] == 0, f"coolsd-rt {' '.join(words)}\n{done['code']}\n{done['err']}"


def test_verbs_without_their_extras_name_one_of_them(workplace: Path) -> None:
    verbs = [verb for verb, needed in NEEDS.items() if needed]
    before = sorted(workplace.iterdir())
    commands = [COMMANDS[verb][0] + (["--overwrite"] if verb == "generate" else []) for verb in verbs]
    for verb, done in zip(verbs, run((), commands, workplace), strict=True):
        assert done["code"] == 2, f"{verb}: {done}"
        named = re.findall(r"\[([a-z,-]+)\]'", done["err"])
        assert len(named) == len(done["err"].splitlines()) == 1, done["err"]
        assert set(named) <= set(NEEDS[verb]), done["err"]
    assert sorted(workplace.iterdir()) == before


def test_a_gguf_file_needs_its_extra(workplace: Path) -> None:
    """`build` alone names it in one line; with it the file is read: its header is cut, which is said."""
    (workplace / "a.gguf").write_bytes(b"GGUF\3\0\0\0")
    for extras, words in ((("build",), "gguf is not installed"), (("build", "gguf"), "a truncated or damaged file")):
        (done,) = run(extras, [["convert", "a.gguf", "--to", "x.safetensors"]], workplace)
        assert done["code"] == 2
        assert words in done["err"]
    (workplace / "a.gguf").unlink()


def test_the_process_sees_what_the_extras_bring_and_nothing_else() -> None:
    """The test of the tests: torch is hidden where it is not required, and seen where it is."""
    assert "torch" not in closure(("cpu", "measure"))
    assert {"torch", "numpy", "jinja2"} <= closure(("build",))
    assert {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]} <= closure(())


def test_the_tables_of_packages_are_pyprojects() -> None:
    brings = {extra: {canonicalize_name(Requirement(line).name) for line in lines_of(extra)} for extra in OPTIONAL}
    for package, extra in [*EXTRAS.items(), *((p, extra) for extra, packages in _SHARED.items() for p in packages)]:
        assert any(name.startswith(canonicalize_name(package)) for name in brings[extra]), (package, extra)
    assert {extra for needed in NEEDS.values() for extra in needed} <= set(brings)


def test_one_extra_states_the_version_of_torch() -> None:
    """Two pins could differ, and pip would then refuse one pair of extras."""
    stated = [extra for extra, lines in OPTIONAL.items() for line in lines if Requirement(line).name == "torch"]
    assert stated == ["torch"]
    assert {"build", "gpu", "train", "quality"} <= {extra for extra in OPTIONAL if "torch==2.13.0" in lines_of(extra)}


def test_the_readme_says_the_same() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (paragraph,) = re.findall(r"Extras per verb: (.*?)\.\s", text, re.DOTALL)
    parts = [re.match(r"\s*(none|`\.\[([a-z,-]+)\]`) for (.*)", part, re.DOTALL) for part in paragraph.split(";")]
    said = {
        verb: tuple(part[2].split(",")) if part[2] else ()
        for part in parts
        if part is not None
        for verb in re.findall(r"`([a-z-]+)`", part[3])
    }
    assert said == NEEDS
