"""Threads follow the cores that a process may use: affinity, hyperthreads, quotas of either kind of cgroup."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from coolsd_rt import cores
from coolsd_rt.cores import Cores, find, limit_torch, threads_for, too_many
from coolsd_rt.errors import UserError

ROOT = Path(cores.__file__).parents[1]


def machine(
    root: Path, group: str = "0::/\n", files: dict[str, str] | None = None, siblings: dict[int, str] | None = None
) -> Path:
    """A root with `proc` and `sys`; files by their path under sys/fs/cgroup, with __ for /."""
    everything = {"proc/self/cgroup": group}
    everything |= {f"sys/fs/cgroup/{name.replace('__', '/')}": text for name, text in (files or {}).items()}
    for number, text in (siblings or {}).items():
        everything[f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list"] = text
    for name, text in everything.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("group", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 0.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {}, None),
        ("0::/a/b\n", {"a__b__cpu.max": "max 100000\n", "a__cpu.max": "150000 100000\n"}, 1.5),  # of a parent
        ("0::/a/b\n", {"a__b__cpu.max": "300000 100000\n", "a__cpu.max": "200000 100000\n"}, 2.0),
        ("0::/../../outside\n", {"cpu.max": "200000 100000\n"}, 2.0),  # a namespace that began further down
        ("0::/docker/ab12\n", {"cpu.max": "250000 100000\n"}, 2.5),  # the host's path, the container's mount
        ("1:name=systemd:/\n0::/x\n", {"unified__x__cpu.max": "100000 100000\n"}, 1.0),
        ("4:cpu,cpuacct:/k\n0::/\n",
         {"cpu,cpuacct__k__cpu.cfs_quota_us": "70000\n", "cpu,cpuacct__k__cpu.cfs_period_us": "100000\n"}, 0.7),
        ("4:cpuacct,cpu:/k\n", {"cpu__cpu.cfs_quota_us": "300000\n", "cpu__cpu.cfs_period_us": "100000\n"}, 3.0),
        ("1:cpu:/\n", {"cpu__cpu.cfs_quota_us": "-1\n", "cpu__cpu.cfs_period_us": "100000\n"}, None),
        ("1:cpu:/\n", {"cpu__cpu.cfs_quota_us": "5\n"}, None),
        ("0::/\n", {"cpu.max": "lots 0\n"}, None),
        ("0::/\n", {"cpu.max": f"{10**50} 1\n"}, None),
        ("rubbish\n:\n", {"cpu.max": "50000 100000\n"}, None),
        ("5:cpuset:/\n", {"cpuset__cpu.max": "50000 100000\n"}, None),
    ],
)  # fmt: skip
def test_quotas_of_both_kinds_of_cgroup(tmp_path: Path, group: str, files: dict[str, str], quota: float | None) -> None:
    assert find(machine(tmp_path, group, files), range(8)).quota == quota


@pytest.mark.parametrize(
    ("found", "usable", "threads"),
    [
        (Cores(8), 8, 8),
        (Cores(8, 0.5), 1, 1),
        (Cores(8, 2.5), 3, 3),
        (Cores(8, 64.0), 8, 8),
        (Cores(8, physical=4), 8, 4),
        (Cores(8, 3.0, 4), 3, 3),
        (Cores(1), 1, 1),
    ],
)
def test_what_is_usable(found: Cores, usable: int, threads: int) -> None:
    assert (found.usable, found.threads) == (usable, threads)


def test_hyperthreads_of_the_allowed_cores_are_one_core(tmp_path: Path) -> None:
    told = {0: "0,2\n", 1: "1,3\n", 2: "0,2\n", 3: "1,3\n"}
    root = machine(tmp_path, siblings=told)
    assert [find(root, allowed).physical for allowed in ([0, 1, 2, 3], [0, 2], [0, 1])] == [2, 1, 2]
    assert find(root, [0, 9]).physical is None


def test_a_system_without_such_files(tmp_path: Path) -> None:
    assert find(tmp_path, range(3)) == Cores(3)
    assert find().usable >= 1


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "here", lambda: Cores(2, 1.5))


@pytest.mark.usefixtures("two")
def test_more_than_there_are_is_said_and_brought_down() -> None:
    assert (threads_for(None), threads_for(1), threads_for(2), too_many(2)) == (2, 1, 2, "")
    with pytest.warns(RuntimeWarning, match=r"^threads: 64 threads on 2 usable cores .*quota of 1.5.*; using 2$"):
        assert threads_for(64) == 2
    for wrong in (0, -1, 5000, 1.5, True, "2"):
        with pytest.raises(UserError, match=r"^threads: expected a whole number from 1 to 4096, found "):
            threads_for(wrong)  # type: ignore[arg-type]


def test_sessions_never_take_the_runtimes_own_number(monkeypatch: pytest.MonkeyPatch) -> None:
    from coolsd_rt.backends.onnxruntime.graph import session_options
    from coolsd_rt.backends.registry import LoadOptions

    for here, asked, wanted in ((Cores(8, 0.5), None, 1), (Cores(8, 3.0), None, 3), (Cores(8), 5, 5)):
        monkeypatch.setattr(cores, "here", lambda here=here: here)
        made = session_options(LoadOptions(threads=asked))
        assert (made.intra_op_num_threads, made.inter_op_num_threads) == (wanted, 1)


def test_torch_keeps_a_smaller_number_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        monkeypatch.setattr(cores, "here", lambda: Cores(8))
        assert (limit_torch(), limit_torch(4), torch.get_num_threads()) == (3, 4, 4)
        monkeypatch.setattr(cores, "here", lambda: Cores(8, 1.5))
        assert (limit_torch(), torch.get_num_threads()) == (2, 2)
        with pytest.warns(RuntimeWarning, match="64 threads on 2"):
            limit_torch(64)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


ALLOWED = {
    "set_num_threads": {"coolsd_rt/cores.py", "tools/performance/floor.py"},
    "set_num_interop_threads": set[str](),
    "SessionOptions": {"coolsd_rt/backends/onnxruntime/graph.py", "tools/graph_start.py"},
    "InferenceSession": {  # with the options of graph.py, and one thread where one product is run
        "coolsd_rt/backends/onnxruntime/graph.py",
        "coolsd_rt/backends/onnxruntime/saturation.py",
        "coolsd_rt/workflows/build/product_times.py",
        "tools/graph_start.py",
    },
    "cpu_count": {"coolsd_rt/cores.py", "coolsd_rt/cli/doctor.py"},
    "sched_getaffinity": {"coolsd_rt/cores.py"},
}
"""Names of what makes a pool of threads, or counts cores, to the files that may."""


def test_nothing_else_makes_a_pool_or_counts_cores() -> None:
    found: dict[str, set[str]] = {name: set() for name in ALLOWED}
    for top in ("coolsd_rt", "export", "tools"):
        for path in sorted((ROOT / top).rglob("*.py")):
            if path.is_relative_to(ROOT / "coolsd_rt" / "export"):  # the link to export/
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute | ast.Name):
                    name = node.attr if isinstance(node, ast.Attribute) else node.id
                    if name in found:
                        found[name].add(str(path.relative_to(ROOT)))
    assert found == ALLOWED
