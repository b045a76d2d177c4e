"""How many threads pay on this machine: cores that the process may run on, and no more than its cgroup pays for.

More threads than cores wait for each other at every product: 64 on two cores do not finish an image in a minute. So
every session and every pool of threads takes its number from here; a larger one that was asked for is brought down to
the usable cores, and that is said.

Reads Linux's own files under a root that a test can put elsewhere; another system has only its count of cores. Does not
know what the threads work on.
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

_MOST = 1 << 16  # bytes of one of the kernel's files


@dataclass(frozen=True)
class Cores:
    """allowed: logical cores that the process may be put on. quota: cores' worth of time, of its cgroup; None: all.

    physical: cores behind the allowed ones, two of which may be one core's hyperthreads; None: not known.
    """

    allowed: int
    quota: float | None = None
    physical: int | None = None

    @property
    def usable(self) -> int:
        """Most threads that can run at once."""
        return self._paid(self.allowed)

    @property
    def threads(self) -> int:
        """Threads where nothing else is asked for: hyperthreads share the units that products need."""
        return self._paid(self.physical or self.allowed)

    @property
    def why(self) -> str:
        """The reasons, in a few words."""
        parts = [f"{self.allowed} {'core' if self.allowed == 1 else 'cores'} allowed"]
        if self.physical is not None and self.physical < self.allowed:
            parts.append(f"{self.physical} physical")
        if self.quota is not None:
            parts.append(f"a cgroup quota of {self.quota:g}")
        return ", ".join(parts)

    def _paid(self, cores: int) -> int:
        """A part of a core runs a thread too, if not all the time."""
        return cores if self.quota is None else max(1, min(cores, math.ceil(self.quota)))


@cache
def here() -> Cores:
    """This process's, as it was when first asked."""
    return find()


def find(root: Path = Path("/"), allowed: Sequence[int] | None = None) -> Cores:
    """Read what the system says. root: where `proc` and `sys` are. allowed: numbers of cores; None asks the system."""
    if allowed is None:
        known = hasattr(os, "sched_getaffinity")
        allowed = sorted(os.sched_getaffinity(0)) if known else range(os.cpu_count() or 1)
    quotas = [*_quotas_v2(root), *_quotas_v1(root)]
    return Cores(len(allowed), min(quotas, default=None), _physical(root, allowed))


def threads_for(asked: int | None) -> int:
    """Threads of an operation. asked: None is the default of this machine.

    More than the usable cores are brought down to them, with a warning. Raises UserError: a number out of range.
    """
    if asked is None:
        return here().threads
    count = int(THREADS.check("threads", asked))
    if line := too_many(count):
        warnings.warn(f"threads: {line}", RuntimeWarning, stacklevel=2)
    return min(count, here().usable)


def too_many(asked: int) -> str:
    """What to tell who asked for more threads than there are cores; empty if there are enough."""
    found = here()
    if asked <= found.usable:
        return ""
    cores = "1 usable core" if found.usable == 1 else f"{found.usable} usable cores"
    return f"{asked} threads on {cores} ({found.why}) would wait for each other; using {found.usable}"


def limit_torch(asked: int | None = None) -> int:
    """Set torch's pool of threads, for the whole process; returns how many there are.

    asked: None leaves what torch has (OMP_NUM_THREADS, or its own number, which knows no quota), up to the default of
    this machine. The pool between operations is never started by eager code. Raises UserError: a number out of range.
    """
    import torch

    count = threads_for(asked) if asked is not None else min(torch.get_num_threads(), here().threads)
    if count != torch.get_num_threads():
        torch.set_num_threads(count)
    return count


def _text(path: Path) -> str:
    """A file of the kernel; empty where there is none."""
    try:
        with path.open("rb") as file:
            return file.read(_MOST).decode("ascii", "replace")
    except (OSError, ValueError):
        return ""


def _groups(root: Path) -> Iterator[tuple[str, str]]:
    """Controllers (none: version 2) and path of each cgroup of this process."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if colon:
            yield controllers, path


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """A cgroup's folder and those above it: each has a quota that counts. In a container the mount is the cgroup."""
    parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
    for count in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:count])


def _share(quota: str, period: str) -> Iterator[float]:
    """Microseconds a period as cores; nothing if there is no limit ("max", -1) or no such number."""
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
    """Different sets of siblings among the allowed cores; None if any of them is not told."""
    cpus = root / "sys/devices/system/cpu"
    siblings = {_text(cpus / f"cpu{number}/topology/thread_siblings_list").strip() for number in allowed}
    return None if "" in siblings else len(siblings)
