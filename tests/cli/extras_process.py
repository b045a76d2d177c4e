"""Command lines in a process that sees no package but those it is told: run by test_extras.py.

Reads JSON from stdin: {"allowed": names of distributions, "blocked": top-level modules of all others, "commands": word
lists}; writes a list of {"code", "out", "err"}.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import Distribution
from typing import Any


class Only:
    """In the place of the finder of installed packages: what is blocked is not there, for imports, for
    `importlib.util.find_spec` and for `importlib.metadata`."""

    def __init__(self, allowed: Iterable[str], blocked: Iterable[str]) -> None:
        self.allowed, self.blocked = set(allowed), set(blocked)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return None if name.split(".")[0] in self.blocked else PathFinder.find_spec(name, path, target)

    def find_distributions(self, *context: Any) -> Iterable[Distribution]:
        found: Iterable[Any] = PathFinder.find_distributions(*context)
        return [d for d in found if re.sub(r"[-_.]+", "-", str(d.metadata["Name"])).lower() in self.allowed]


def end_when_ready(out: io.StringIO) -> None:
    """End a server as its supervisor does, once it has said its address."""
    while not out.getvalue():
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    task = json.load(sys.stdin)
    loaded = sorted({name.split(".")[0] for name in sys.modules} & set(task["blocked"]))
    for name in list(sys.modules):  # what a .pth file has imported (coverage)
        if name.split(".")[0] in loaded:
            del sys.modules[name]
    only = Only(task["allowed"], task["blocked"])
    sys.meta_path[:] = [only if finder is PathFinder else finder for finder in sys.meta_path]
    from coolsd_rt.cli.main import run

    done = []
    for words in task["commands"]:
        out, err = io.StringIO(), io.StringIO()
        if words[0] == "serve":
            threading.Thread(target=end_when_ready, args=(out,), daemon=True).start()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code: object = run(words)
            except BaseException:
                code = traceback.format_exc()
        done.append({"code": code, "out": out.getvalue(), "err": err.getvalue()})
    json.dump(done, sys.stdout)


if __name__ == "__main__":
    main()
