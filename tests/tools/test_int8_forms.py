"""The table of int8 forms: what it times, in turns, and what it makes of the times. No time is judged."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from coolsd_rt.store import EngineFolder
from tests.tiny import LENGTH
from tools.int8_forms import in_turns, main, summary


def test_engines_take_turns_and_the_first_turn_does_not_count() -> None:
    calls: list[tuple[str, str, int]] = []
    engines = {
        engine: {name: lambda turn, e=engine, n=name: calls.append((e, n, turn)) for name in ("step of 1", "x")}
        for engine in ("a", "b")
    }
    ticks = iter(range(1000))
    found = in_turns(engines, 2, lambda: float(next(ticks)))
    once = [("a", "step of 1"), ("b", "step of 1"), ("a", "x"), ("b", "x")]
    assert calls == [(e, n, turn) for turn in range(3) for e, n in once]
    assert found == {"step of 1": {"a": [1.0, 1.0], "b": [1.0, 1.0]}, "x": {"a": [1.0, 1.0], "b": [1.0, 1.0]}}


def test_ratios_are_of_one_turn_and_to_the_first_engine() -> None:
    found = summary(
        {
            "step of 1": {"a": [0.8, 8.0, 0.8], "b": [0.4, 4.0, 0.8]},
            "image, plain": {"a": [1.0, 10.0, 1.0], "b": [1.0, 10.0, 2.0]},
            "image, lossless": {"a": [0.5, 5.0, 2.0], "b": [0.5, 5.0, 1.0]},
        }
    )
    assert found["step of 1"]["a"] == {"milliseconds": 100.0, "faster": 1.0}
    assert found["step of 1"]["b"] == {"milliseconds": 100.0, "faster": 2.0}
    assert found["image, lossless"]["b"]["over_plain"] == 2.0
    assert found["image, lossless"]["b"]["faster"] == 1.0


def test_it_runs_on_real_engines(tiny_engine: EngineFolder, tiny_engine_int8: EngineFolder, tmp_path: Path) -> None:
    words = [
        str(tiny_engine.folder),
        str(tiny_engine_int8.folder),
        "--runs",
        "2",
        "--images",
        "1",
        "--threads",
        "1",
        "-p",
        "red apple",
    ]
    done = CliRunner().invoke(main, [*words, "--json", str(tmp_path / "f.json")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    figures = json.loads((tmp_path / "f.json").read_text())
    assert set(figures["clocks"]) == {"CPU time, 1 thread", "wall time, 1 threads"}
    rows = figures["clocks"]["CPU time, 1 thread"]
    assert {"step of 1", f"step of {LENGTH + 1}", "image, plain", "image, lossless, Jacobi"} < set(rows)
    assert all(set(row) == {tiny_engine.folder.name, tiny_engine_int8.folder.name} for row in rows.values())
