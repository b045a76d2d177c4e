"""Reckoning for many machines: each result by hand on round figures, and the page shows what the tool prints."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import coolsd_rt
from tools.scale.__main__ import BEGIN, END, replaced, tables
from tools.scale.processes import cpu_seconds, memory, part_of, tree
from tools.scale.reckoning import BUSY, FRONT_CORES, Assumed, Measured, full_at, reckon

ROOT = Path(coolsd_rt.__file__).parents[1]
PAGE, COSTS = ROOT / "docs/scale.md", ROOT / "docs/scale/costs.json"
MEASURED = Measured(
    front=0.01, proxy=0.005, encode=0.4, hash_rate=1e9, replica_start=10.0, replica_bytes=2e8, node_bytes=1e9
)
ASSUMED = Assumed(
    images_per_second=2.0, gpus_per_node=4, slots=3, engine_gb=2.0, side=500, bytes_per_pixel=1.2, gbit=8.0,
    gpu_hours_per_failure=1000.0, files_per_second=500.0,
)  # fmt: skip


def test_each_result_by_hand() -> None:
    found = reckon(10, MEASURED, ASSUMED)
    assert found.nodes == 3
    assert found.images_per_second == 20.0
    assert found.images_per_day == 1_728_000
    assert found.front_cores == pytest.approx(20 * (0.01 + 0.4 * 0.25) / BUSY)
    assert found.answers_gbit == pytest.approx(20 * 400_000 * 8 / 1e9)
    assert found.store_once_seconds == pytest.approx(3 * 2.0)  # 2 GB over 1 GB/s, to each of three machines
    assert found.copied_on_seconds == pytest.approx(2 * 2.0)  # one has it, then two more
    assert found.verify_seconds == pytest.approx(2.0)
    assert found.node_memory_gb == pytest.approx(1.0 + 4 * 0.2 + 2.0)
    assert found.failures_per_day == pytest.approx(0.24)
    assert found.images_again_per_day == pytest.approx(0.72)
    assert found.lost_share == pytest.approx(0.24 * 12.0 / (10 * 86400))


def test_the_first_part_that_is_full_stands_first_and_is_full_there() -> None:
    found = full_at(MEASURED, ASSUMED)
    assert list(found.values()) == sorted(found.values())
    assert found["the one front: its event loop"] == pytest.approx(BUSY / 0.01 / 2)
    encoding = f"the one front: encoding, on {FRONT_CORES} cores"
    gpus = found[encoding]
    exact = dataclasses.replace(ASSUMED, images_per_second=ASSUMED.images_per_second * gpus)
    assert reckon(1, MEASURED, exact).front_cores == pytest.approx(FRONT_CORES)
    twice = full_at(MEASURED, dataclasses.replace(ASSUMED, images_per_second=4.0))
    assert all(twice[name] == pytest.approx(found[name] / 2) for name in found)


def test_the_page_shows_what_the_tool_prints() -> None:
    costs: dict[str, Any] = json.loads(COSTS.read_text())
    page = PAGE.read_text(encoding="utf-8")
    assert replaced(page, tables(costs, Assumed())) == page
    assert BEGIN in page
    assert END in page


def test_the_command(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "tools.scale", str(COSTS), "--images-per-second", "3", "--json"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    document = json.loads(done.stdout)
    assert [one["gpus"] for one in document["reckoned"]] == [10, 100, 1000]
    assert document["reckoned"][1]["images_per_second"] == 300
    (tmp_path / "other.json").write_text("{}")
    words[3] = str(tmp_path / "other.json")
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "tools.scale.measure" in done.stderr


def test_a_process_and_what_is_below_it_are_counted() -> None:
    work = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'x = bytearray(60 << 20); input()'])"
    with subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            while sum(memory(process.pid, False).values()) < 60 << 20:
                assert process.poll() is None
            assert len(list(tree(process.pid))) == 2
            assert part_of(process.pid, process.pid, False) == "front"
            assert part_of(process.pid, process.pid, True) == "command"
            assert sum(cpu_seconds(process.pid, False).values()) > 0
            assert os.getpid() not in set(tree(process.pid))
        finally:
            process.kill()
