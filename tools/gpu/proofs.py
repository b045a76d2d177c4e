"""What proves a backend on this machine: the demo built for it, its parity, and its rounds beside the host's loop.

And the GPU's own tests. Knows the demo. Does not know the clock, nor what is proven before what.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from coolsd_rt.device.engine import DeviceEngine
from coolsd_rt.prompts import Conditioner
from coolsd_rt.runtime.interface import Engine
from coolsd_rt.runtime.randomness import uniform_table
from coolsd_rt.runtime.round import decode
from coolsd_rt.spec import LoadedSpec, load_spec
from coolsd_rt.spec.model import Spec
from coolsd_rt.store import EngineFolder
from coolsd_rt.workflows import drawing, opening
from coolsd_rt.workflows.build.run import build, plan
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.parity.run import parity
from tools.gpu.ties import HostLoop

ROOT = Path(__file__).resolve().parents[2]
_LEAST, _LAST_WORDS = 10.0, 10.0  # seconds
_KEPT = ("passed", "max_logit_error", "images", "identical", "failures")


def prove(name: str, precision: str, device: str, images: int) -> dict[str, Any]:
    """A row of the report. Raises what breaks."""
    loaded = _demo(name, precision, device)
    with tempfile.TemporaryDirectory() as folder:
        engine = build(plan(loaded, Path(folder))).engine
        receipt = parity(engine.folder, images=images, spec_file=loaded.path).receipt()
        rounds = _rounds(engine, loaded, precision, min(4, images))
    row: dict[str, Any] = {"backend": name, "precision": precision, **{key: receipt[key] for key in _KEPT}}
    if rounds is not None:
        row["rounds"] = rounds
        if rounds["unexplained"]:
            row["passed"] = False
            row["failures"] = [*row["failures"], f"{rounds['unexplained']} images of the device's rounds are others"]
    return row


def _demo(name: str, precision: str, device: str) -> LoadedSpec:
    loaded = load_spec(ROOT / "pipelines" / "emoji.yaml")
    data = loaded.spec.resolved()
    data["engine"] |= {"backend": name, "precision": precision, "device": device}
    return replace(loaded, spec=Spec.model_validate(data))


def _rounds(folder: EngineFolder, loaded: LoadedSpec, precision: str, images: int) -> dict[str, Any] | None:
    """Whole images of the device's own rounds beside the host's loop, on one engine; None without such rounds.

    In half precision a step over more positions rounds too differently for tokens to be compared: they are counted.
    """
    opened = OpenedEngine(folder)
    engine: Engine = opened.engine
    if not isinstance(engine, DeviceEngine):
        return None
    conditioner: Conditioner = opened.conditioner
    settings = opened.settings()
    jobs = drawing.spread_jobs(opening.default_prompts(loaded, conditioner), images, 0, conditioner)
    law, sampling, forced, drafter = settings.law, settings.sampling, settings.forced, settings.drafter
    table = uniform_table([job.seed for job in jobs], engine.dims.tokens, law.length)
    sessions = [drawing.open_session(engine, jobs, conditioner, settings) for _ in range(2)]
    host = HostLoop(sessions[0], law, sampling, table, forced, drafter)
    found = host.partings(decode(sessions[1], law, sampling, table, forced, drafter=drafter, loop="device").codes)
    near = sum(parting.near for parting in found)
    return {
        "images": images, "identical": images - len(found), "near_ties": near,
        "graph_fallback_reason": engine.graph_fallback_reason,
        "unexplained": len(found) - near if precision == "fp32" else 0,
    }  # fmt: skip


def gpu_tests(seconds: float) -> dict[str, Any]:
    """`pytest -m gpu` in a process of its own, and the end of what it said; stopped when the time is over."""
    files = sorted((ROOT / "tests" / "gpu").glob("test_*.py"), reverse=True)  # the law before the networks
    command = [
        sys.executable, "-m", "pytest", "-m", "gpu", "-q", "--maxfail=8", "--durations=5", "-p", "no:cacheprovider",
        *map(str, files),
    ]  # fmt: skip
    note: list[str] = []
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT)
        try:
            process.wait(max(_LEAST, seconds))
        except subprocess.TimeoutExpired:
            note.append(f"did not end within {seconds:.0f} s")
            _end(process)
        said.seek(0)
        lines = said.read().strip().splitlines()
    return {"passed": process.returncode == 0 and not note, "lines": lines[-60:] + note}


def _end(process: subprocess.Popen[bytes]) -> None:
    """As Ctrl-C, so that pytest says what it found; and for good if that takes long."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_LAST_WORDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
