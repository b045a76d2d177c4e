"""Determines the number of threads for this machine: the cores that the process may use, limited by its cgroup quota.

More threads than cores wait for each other at every product: with 64 threads on two cores an image takes more than a
minute. So every session and thread pool takes its number from here. A larger requested number is reduced to the usable
cores, with a warning.

Reads Linux system files under a root that a test can replace; other systems provide only the count of cores. Knows
cores and quotas. Does not know what the threads compute.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from coolsd_rt.limits import THREADS

_MOST = 1 << 16  # most bytes read of a kernel file


@dataclass(frozen=True)
class Cores:
    """The cores of a process.

    Attributes:
        allowed: logical cores that the process may run on.
        quota: CPU quota of its cgroup, in cores; None: unlimited.
        physical: physical cores of the allowed ones (two logical cores may be hyperthreads of one); None: unknown.
    """

    allowed: int
    quota: float | None = None
    physical: int | None = None

    @property
    def usable(self) -> int:
        """The most threads that can run at once."""
        return self._paid(self.allowed)

    @property
    def threads(self) -> int:
        """Default number of threads: one per physical core, since hyperthreads share the units that products need."""
        return self._paid(self.physical or self.allowed)

    @property
    def why(self) -> str:
        """The reasons for the number, in a few words."""
        parts = [f"{self.allowed} {'core' if self.allowed == 1 else 'cores'} allowed"]
        if self.physical is not None and self.physical < self.allowed:
            parts.append(f"{self.physical} physical")
        if self.quota is not None:
            parts.append(f"a cgroup quota of {self.quota:g}")
        return ", ".join(parts)

    def _paid(self, cores: int) -> int:
        """Limit a number of cores by the quota, rounded up: a fraction of a core also runs a thread."""
        return cores if self.quota is None else max(1, min(cores, math.ceil(self.quota)))


@cache
def here() -> Cores:
    """Return the cores of this process at the first call."""
    return find()


def find(root: Path = Path("/"), allowed: Sequence[int] | None = None) -> Cores:
    """Read the cores from the system.

    root: folder with `proc` and `sys`. allowed: core numbers; None asks the system.
    """
    if allowed is None:
        known = hasattr(os, "sched_getaffinity")
        allowed = sorted(os.sched_getaffinity(0)) if known else range(os.cpu_count() or 1)
    quotas = [*_quotas_v2(root), *_quotas_v1(root)]
    return Cores(len(allowed), min(quotas, default=None), _physical(root, allowed))


def threads_for(asked: int | None) -> int:
    """Return the number of threads of an operation. asked: None is the default of this machine.

    A number above the usable cores is reduced to them, with a warning. Raises UserError if it is out of range.
    """
    if asked is None:
        return here().threads
    count = int(THREADS.check("threads", asked))
    if line := too_many(count):
        warnings.warn(f"threads: {line}", RuntimeWarning, stacklevel=2)
    return min(count, here().usable)


def too_many(asked: int) -> str:
    """Return a warning if `asked` exceeds the usable cores; else empty."""
    found = here()
    if asked <= found.usable:
        return ""
    cores = "1 usable core" if found.usable == 1 else f"{found.usable} usable cores"
    return f"{asked} threads on {cores} ({found.why}) would wait for each other; using {found.usable}"


def limit_torch(asked: int | None = None) -> int:
    """Set the size of torch's thread pool for the whole process. Returns the size.

    asked: None keeps torch's number (OMP_NUM_THREADS, or its default, which ignores quotas), up to the default of this
    machine. Eager code never starts the inter-op pool. Raises UserError if the number is out of range.
    """
    import torch

    count = threads_for(asked) if asked is not None else min(torch.get_num_threads(), here().threads)
    if count != torch.get_num_threads():
        torch.set_num_threads(count)
    return count


def _text(path: Path) -> str:
    """Return the text of a kernel file; empty if it does not exist."""
    try:
        with path.open("rb") as file:
            return file.read(_MOST).decode("ascii", "replace")
    except (OSError, ValueError):
        return ""


def _groups(root: Path) -> Iterator[tuple[str, str]]:
    """Yield controllers (empty for version 2) and path of each cgroup of this process."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if colon:
            yield controllers, path


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """Yield a cgroup's folder and all its parents, each of which can have a quota.

    In a container the mount is the cgroup.
    """
    parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
    for count in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:count])


def _share(quota: str, period: str) -> Iterator[float]:
    """Yield a quota in cores (quota / period); nothing if it is unlimited ("max", -1) or not a number."""
    if quota.isdecimal() and period.isdecimal() and len(quota + period) < 40 and int(quota) > 0 < int(period):
        yield int(quota) / int(period)


def _quotas_v2(root: Path) -> Iterator[float]:
    for path in (path for controllers, path in _groups(root) if not controllers):
        for mount in ("sys/fs/cgroup", "sys/fs/cgroup/unified"):
            for folder in _upwards(root / mount, path):
                words = _text(folder / "cpu.max").split()
                if len(words) == 2:
                    yield from _share(words[0], words[1])


def _quotas_v1(root: Path) -> Iterator[float]:
    for controllers, path in _groups(root):
        if "cpu" in controllers.split(","):
            for mount in (controllers, "cpu"):
                for folder in _upwards(root / "sys/fs/cgroup" / mount, path):
                    quota, period = (_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
                    yield from _share(quota, period)


def _physical(root: Path, allowed: Sequence[int]) -> int | None:
    """Return the number of different sets of siblings among the allowed cores; None if any is unknown."""
    cpus = root / "sys/devices/system/cpu"
    siblings = {_text(cpus / f"cpu{number}/topology/thread_siblings_list").strip() for number in allowed}
    return None if "" in siblings else len(siblings)
