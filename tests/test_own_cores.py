"""Workers of the tests share the cores out: each has some, and no two the same where there are enough."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests import own_cores


@pytest.mark.parametrize(("cores", "workers"), [(2, 2), (4, 2), (5, 2), (3, 3), (64, 7)])
def test_every_core_is_of_one_worker(monkeypatch: pytest.MonkeyPatch, cores: int, workers: int) -> None:
    monkeypatch.setattr(own_cores, "ALL", frozenset(range(10, 10 + cores)))
    parts = [own_cores.share(own, workers) for own in range(workers)]
    assert all(parts)
    assert sorted(core for part in parts for core in part) == list(range(10, 10 + cores))


def test_more_workers_than_cores_have_one_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_cores, "ALL", frozenset({3, 8}))
    assert [own_cores.share(own, 5) for own in range(5)] == [{3}, {8}, {3}, {8}, {3}]


@pytest.mark.skipif(not own_cores.ALL, reason="this system has no such share")
def test_what_is_started_has_the_share_and_a_cluster_has_all() -> None:
    code = """
import os
from tests import own_cores
own_cores.take_share(0, len(own_cores.ALL))
assert len(os.sched_getaffinity(0)) == 1
with own_cores.all_cores():
    assert os.sched_getaffinity(0) == own_cores.ALL
print(len(os.sched_getaffinity(0)))
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
