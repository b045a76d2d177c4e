"""Finds the Ray that runs on this machine, which `auto` means.

Ray's own search happens once Ray is imported. By then it has settled whether loopback addresses stay as they are, so
that it would ask a cluster on loopback under another address of the machine, for minutes. So a process that ends asks.

Knows Ray's search. Does not know how to connect.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

from coolsd_rt.errors import UserError
from coolsd_rt.shown import shorten

LOCAL = "local"
"""The address that stands for a Ray of our own on this machine, which ends with the command."""
AUTO = "auto"
"""The address that stands for the Ray that runs on this machine."""

_SEARCH = "from ray._private.services import get_ray_address_from_environment as f; print(f('auto', None))"
_PATIENCE = 60.0  # seconds to import Ray and look at the processes


def locate(address: str) -> str:
    """Return an address; for AUTO the one that Ray finds, by RAY_ADDRESS or among the processes of this machine.

    Without Ray AUTO is returned: to import Ray says what is missing. Raises UserError if there is no such cluster.
    """
    if address != AUTO or find_spec("ray") is None:
        return address
    try:
        search = [sys.executable, "-c", _SEARCH]
        done = subprocess.run(search, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise _nothing("no answer") from None
    found = (done.stdout.split() or [""])[-1]
    if done.returncode or ":" not in found:
        raise _nothing("none" if done.returncode else f"RAY_ADDRESS {shorten(found)}")
    return found


def _nothing(found: str) -> UserError:
    expected = "a Ray cluster that takes us, on this machine"
    return UserError("--ray auto", expected=expected, found=found, fix="start one: ray start --head")
