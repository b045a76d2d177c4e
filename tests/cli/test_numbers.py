"""Numbers on a command line: every option has two ends; the ends run, and one beyond is a line and exit code 2."""

from __future__ import annotations

import importlib
import math
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from coolsd_rt import cores, limits
from coolsd_rt.cli import generate, schedule
from coolsd_rt.cli.decoding_options import KEYS
from coolsd_rt.cli.numbers import Numbers, Real, ShardNumber, Whole, number
from coolsd_rt.cores import Cores
from coolsd_rt.spec import Spec
from coolsd_rt.store import EngineFolder, open_engine
from coolsd_rt.workflows import opening
from tests.cli.conftest import Cli
from tests.workflows.fakes import FakeEngine

ROOT = Path(limits.__file__).parents[1]
PLAIN = (click.types.StringParamType, click.Path, click.Choice, click.types.BoolParamType)


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command of the package and of the tools, found by what is written in their files."""
    for top in ("coolsd_rt", "tools"):
        for path in sorted((ROOT / top).rglob("*.py")):
            if path.is_relative_to(ROOT / "coolsd_rt" / "export"):
                continue
            if re.search(r"^@(click|main)\.(command|group)\(", path.read_text(encoding="utf-8"), re.MULTILINE):
                module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
                for value in vars(module).values():
                    if (
                        isinstance(value, click.Command)
                        and getattr(value.callback, "__module__", "") == module.__name__
                    ):
                        yield str(path.relative_to(ROOT)), value


def unbounded(command: click.Command) -> list[str]:
    """Options of numbers without both ends, and of types that this test does not know."""
    found = []
    for param in command.params:
        kind = param.type
        ranged = isinstance(kind, click.IntRange | click.FloatRange) and None not in (kind.min, kind.max)
        if not (ranged or isinstance(kind, (Numbers, ShardNumber, *PLAIN))):
            found.append(f"{param.name}: {kind}")
    return found


def test_every_option_of_every_command_has_both_ends() -> None:
    everything = list(commands())
    names = {where for where, _ in everything}
    assert {"coolsd_rt/cli/generate.py", "tools/demo/benchmark.py", "tools/random_model.py"} <= names
    assert len(names) >= 20
    for where, command in everything:
        assert unbounded(command) == [], where


def test_an_option_without_an_end_is_found() -> None:
    @click.command()
    @click.option("--good", type=number(limits.SEED))
    @click.option("--plain", type=int)
    @click.option("--by-default", default=3)
    @click.option("--half", type=click.FloatRange(min=0))
    @click.option("--pair", type=(str, int))
    def planted(**_: Any) -> None: ...

    assert [line.split(":")[0] for line in unbounded(planted)] == ["plain", "by_default", "half", "pair"]


def test_options_have_the_ends_of_the_spec() -> None:
    defs = Spec.model_json_schema()["$defs"]
    sections = {
        "schedule": ("Exponential", "Excess", "Custom"),
        "acceptance": ("Lantern", "LanternPP"),
        "sampling": ("SamplingSection",),
        "pacing": ("Pacing",),
    }
    options = {p.name: p.type for p in generate.command.params}
    compared = 0
    for name, key in KEYS.items():
        section, _, field = key.partition(".")
        kind = options[name]
        if not isinstance(kind, Whole | Real):
            continue
        nodes = [defs[part]["properties"][field] for part in sections[section] if field in defs[part]["properties"]]
        for node in nodes:
            node = next((n for n in node.get("anyOf", [node]) if "minimum" in n), node)
            assert (node["minimum"], node["maximum"]) == (kind.min, kind.max), key
            compared += 1
    assert compared >= 13


CONTEXT: dict[str, list[object]] = {
    "nu": ["--schedule", "exponential", "--delta", 1.1],
    "delta": ["--schedule", "exponential"],
    "beta": ["--schedule", "excess"],
    "floor": ["--schedule", "uniform", "--delta", 1.1],
    "bound": ["--rule", "lantern", "--neighbours", 3],
    "factor": ["--rule", "lantern_pp", "--neighbours", 3],
    "neighbours": ["--rule", "lantern", "--bound", 0.1],
    "refinements": ["--rule", "per_position"],
}
"""What an option of `generate` needs beside it."""

OTHERS = {"max_tokens": "this engine draws images", "refinements": "this engine has no row head"}
SLOW = {"variants": "100000 images are a day's work"}


def ends_of(command: click.Command) -> list[tuple[str, Whole | Real]]:
    """Options of one number, by their longer names."""
    return [(p.name or "", p.type) for p in command.params if isinstance(p.type, Whole | Real)]


def beyond(kind: Whole | Real) -> list[str]:
    """Values one beyond each end, and none at all."""
    step = 1 if isinstance(kind, Whole) else max(1e-9, abs(kind.ends.high) * 1e-9)
    outside = [f"{kind.ends.low - step:.17g}" if step != 1 else str(int(kind.ends.low) - 1)]
    outside += [f"{kind.ends.high + step:.17g}" if step != 1 else str(int(kind.ends.high) + 1)]
    return [*outside, "1e308", "9" * 5000, "nan", "inf", "-inf", "x", "", "0x10"]


@pytest.mark.parametrize(("name", "kind"), ends_of(generate.command))
def test_the_ends_of_generate_run_or_are_refused(
    cli: Cli, tiny_engine: EngineFolder, tmp_path: Path, name: str, kind: Whole | Real
) -> None:
    flag = "--images" if name == "variants" else f"--{name.replace('_', '-')}"
    context = CONTEXT.get(name, [])
    words = ["generate", tiny_engine.folder, "-p", "red apple", *context]
    for value in (kind.ends.low, *([] if name in SLOW else [kind.ends.high])):
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            done = cli(*words, "--out", tmp_path / f"out{value}", f"{flag}={value}")
        assert done.code in (0, 2), done.err
        if done.code == 2:  # this engine has fewer tokens, or neighbours
            assert len(done.err.splitlines()) == 1
            assert "at most" in done.err or name in OTHERS
    for wrong in beyond(kind):
        done = cli(*words, "--out", tmp_path / "none", f"{flag}={wrong}")
        assert done.code == 2
        assert re.fullmatch(rf"error: {flag}: expected {re.escape(kind.ends.said)}, found .{{1,70}}(; .*)?\n", done.err)


@pytest.mark.parametrize("kind", [k for k in schedule._TAKES if k != "custom"])
@pytest.mark.parametrize("length", [1, 2, 65536])
def test_the_ends_of_schedule_are_finite(cli: Cli, kind: str, length: int) -> None:
    types = dict(ends_of(schedule.command))
    for at in ("low", "high"):
        given = [f"--{name}={getattr(types[name].ends, at)}" for name in (*schedule._TAKES[kind], "floor")]
        done = cli("schedule", "--json", "--kind", kind, "--length", length, *given)
        assert done.code == 0, done.err
        assert all(math.isfinite(omega) and omega in limits.LAW_OMEGA for omega in done.json["omegas"])


@pytest.mark.parametrize(("name", "kind"), ends_of(schedule.command))
def test_beyond_the_ends_of_schedule(cli: Cli, name: str, kind: Whole | Real) -> None:
    for value in beyond(kind):
        done = cli("schedule", f"--{name}={value}")
        assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1)
        assert f"--{name}: expected {kind.ends.said}, found " in done.err


def test_a_list_of_numbers_has_ends_too(cli: Cli) -> None:
    for values, said in (
        ("1,1e308", "--values: expected a number from 0 to 1e6, found 1e+308"),
        ("1,nan", "--values: expected a number from 0 to 1e6, found nan"),
        (",".join("1" * 65537), "--values: expected at most 65536 numbers, found 65537"),
    ):
        done = cli("schedule", "--kind", "custom", "--values", values)
        assert (done.code, done.err) == (2, f"error: {said}\n")


def test_threads_beyond_the_cores_are_said_once_and_brought_down(
    cli: Cli, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int | None] = []

    def load(verified: object, threads: int | None = None, *_: object) -> FakeEngine:
        asked.append(threads)
        return FakeEngine()

    monkeypatch.setattr(opening, "load_engine", load)
    monkeypatch.setattr(cores, "here", lambda: Cores(2, 1.0))
    done = cli("generate", engine, "-p", "red apple", "--threads", 64)
    assert done.code == 0
    warned = [line for line in done.err.splitlines() if "warning" in line]
    assert len(warned) == 1
    assert warned[0].startswith(
        "warning: --threads: 64 threads on 1 usable core (2 cores allowed, a cgroup quota of 1)"
    )
    assert cli("generate", engine, "-p", "red apple", "--threads", 1, "--out", "other").code == 0
    assert asked == [1, 1]


def test_a_hint_stays(cli: Cli, engine: Path) -> None:
    done = cli("generate", engine, "-p", "red apple", "--draft-length", "0")
    assert done.err.endswith("found 0; use --plain to decode without a draft\n")


@pytest.mark.parametrize("value", [str(10**21), "9" * 5000, "0x" + "f" * 5000, "1e400", "-1", "1.5"])
def test_a_spec_with_a_number_beyond(cli: Cli, tiny_spec: Path, tmp_path: Path, value: str) -> None:
    text = tiny_spec.read_text(encoding="utf-8")
    (tmp_path / "s.yaml").write_text(text.replace("cfg_scale: 2.0", f"top_k: {value}"))
    assert "top_k" in (tmp_path / "s.yaml").read_text(encoding="utf-8")
    done = cli("validate", tmp_path / "s.yaml")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert re.search(r"sampling.top_k: expected a whole number from 0 to 1048576, found|a value of type int", done.err)


def test_a_manifest_with_a_number_beyond(cli: Cli, engine: Path) -> None:
    folder = open_engine(engine)
    sampling = {**folder.manifest.spec["sampling"], "top_k": 10**21}
    folder.with_manifest(spec={**folder.manifest.spec, "sampling": sampling})
    done = cli("generate", engine, "-p", "red apple")
    assert (done.code, len(done.err.splitlines())) == (1, 1)
    assert "sampling.top_k: expected a whole number from 0 to 1048576, found 1000000000000000000000" in done.err
