"""Triton's interpreter, quicker: its language is replaced once a process. A plugin of pytest, and who runs it.

Before each call of a kernel, and of each function in it, the interpreter replaces some hundred functions of
`triton.language`, which takes a third of its time; behind a function in a kernel it never puts them back. Here it does
so once a module of kernels. A table of types, and a type's checked shape, which it makes anew at every operation, are
kept. What the replaced functions compute is triton's own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def run(*command: str, **env: str) -> str:
    """A process of its own: triton is told who it is when it is imported."""
    plain = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    whole = {**plain, "PYTHONPATH": str(ROOT), **env}
    done = subprocess.run([sys.executable, *command], env=whole, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def run_interpreted(file: Path) -> None:
    """Assert that the file's tests pass, with every kernel in the interpreter."""
    command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.interpreting", str(file))
    # Other plugins that are installed are not needed there, and take seconds to import.
    assert " passed" in run(*command, TRITON_INTERPRET="1", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")


def once(patch: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`patch` of a function's module, at the module's first function; what it would put back stays."""
    modules: set[int] = set()
    stays = SimpleNamespace(restore=lambda: None)

    def patched(fn: Any) -> Any:
        if id(fn.__globals__) not in modules:
            modules.add(id(fn.__globals__))
            patch(fn)
        return stays

    return patched


def by_name(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`make` of a type, once for each name; blocks cannot be keys themselves."""
    made: dict[str, Any] = {}

    def found(kind: Any) -> Any:
        if kind.name not in made:
            made[kind.name] = make(kind)
        return made[kind.name]

    return found


def once_a_shape(make: Callable[[Any, Any, Any], None]) -> Callable[[Any, Any, Any], None]:
    """`make` of a block's type, once for each type of element and shape of plain numbers."""
    made: dict[Any, dict[str, Any]] = {}

    def init(self: Any, element: Any, shape: Any) -> None:
        if not all(type(size) is int for size in shape):
            make(self, element, shape)
            return
        key = (element.name, *shape)
        if key not in made:
            make(self, element, shape)
            made[key] = vars(self).copy()
        vars(self).update(made[key])

    return init


def pytest_configure() -> None:
    """In the process that interprets."""
    from triton.runtime import interpreter  # type: ignore[import-not-found, import-untyped, unused-ignore]

    interpreter._patch_lang = once(interpreter._patch_lang)
    interpreter._get_np_dtype = by_name(interpreter._get_np_dtype)
    block = interpreter.tl.core.block_type
    block.__init__ = once_a_shape(block.__init__)
