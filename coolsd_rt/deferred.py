"""Names of a package that are imported when they are first used (PEP 562).

A package gathers the names of its modules, but who uses one of them should not pay for the imports of all the others:
`coolsd-rt generate` needs a fraction of each room before its first token. Knows import names. Does not know what any
module is for, or which of them are expensive.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def deferred(package: str, homes: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package, which imports the module of a name and keeps the name's value.

    homes: modules, relative to the package, to the names that they define. The function raises AttributeError for
    any other name.
    """
    modules = {name: f"{package}.{module}" for module, names in homes.items() for name in names}

    def find(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(modules[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return find
