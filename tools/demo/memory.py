"""The most memory a command takes, from start to end. Knows processes; does not know what the command does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

from coolsd_rt.errors import CoolsdError

# A process counts what its parent held when it was started, so a fat parent would be measured instead of the command.
# This small one stands between.
_LAUNCHER = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps([done.returncode, peak, done.stderr.decode(errors="replace")[-2000:]]))
"""
_UNIT = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB on Linux


def peak_memory(command: Sequence[str]) -> int:
    """Peak resident memory of a command in bytes. Raises CoolsdError if it cannot be run or fails."""
    launch = [sys.executable, "-c", _LAUNCHER, *command]
    done = subprocess.run(launch, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["nothing"]
        raise CoolsdError("measuring memory", expected="a system with process accounting", found=lines[-1])
    code, peak, said = json.loads(done.stdout)
    if code != 0:
        lines = said.strip().splitlines() or [f"exit code {code}"]
        raise CoolsdError(f"measuring memory of {' '.join(command)}", expected="it to succeed", found=lines[-1])
    return int(peak) * _UNIT
