"""`coolsd-rt doctor`: what this machine can run. A missing package is listed with the command that installs it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import click

from coolsd_rt import __version__, cores
from coolsd_rt.cli.extras import EXTRAS
from coolsd_rt.cli.output import json_option, print_json, say, show_table
from coolsd_rt.cli.paths import WRITES_IN
from coolsd_rt.install import install_line
from coolsd_rt.store.atomic import free_bytes, human

_BASE = ("numpy", "array-api-compat", "pydantic", "PyYAML", "click", "rich", "pillow", "filelock")
_PURPOSE = {
    "onnxruntime": "to run an engine",
    "torch": "to build, and for parity",
    "onnx": "to build",
    "onnxscript": "to build",
    "onnx_ir": "to build",
    "safetensors": "to build",
    "fontTools": "to train the demo",
    "scipy": "to tune",
    "matplotlib": "to plot",
    "torchmetrics": "to measure the images of a sweep",
    "transformers": "for the CLIP score of a sweep",
    "accelerate": "to train a draft on several GPUs",
    "tensorboard": "to watch a training",
    "wandb": "to watch a training",
    "tokenizers": "for prompts of Lumina-mGPT, Anole and Janus-Pro",
    "huggingface_hub": "to convert checkpoints straight from the hub",
    "gguf": "to convert GGUF files",
    "triton": "for the loop's kernels on a GPU",
    "tensorrt": "to build and run TensorRT engines, on a GPU",
    "tensorrt_rtx": "to build TensorRT-RTX engines anywhere, and to run them on a GPU",
    "polygraphy": "to build engines of either TensorRT",
    "fastapi": "to serve",
    "starlette": "to serve",
    "uvicorn": "to serve",
    "h11": "to serve",
    "prometheus_client": "to serve",
    "pyarrow": "for Parquet files of prompts and images",
    "ray": "for more than one machine",
}
_CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm")


@dataclass(frozen=True)
class Finding:
    """One line of the report. `missing`: an optional component that is not installed; `bad`: a component that is
    broken."""

    what: str
    status: Literal["ok", "missing", "bad"]
    detail: str
    fix: str = ""


def _python() -> Finding:
    good = sys.version_info >= (3, 11)
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("python", "ok" if good else "bad", detail, "" if good else "Python 3.11 or later is needed")


def _version(*names: str) -> str:
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return ""


def _base() -> list[Finding]:
    versions = {name: _version(name) for name in _BASE}
    absent = [name for name, version in versions.items() if not version]
    if absent:
        return [Finding("base packages", "bad", f"missing {', '.join(absent)}", install_line())]
    return [Finding("base packages", "ok", ", ".join(f"{n} {v}" for n, v in versions.items()))]


def _package(module: str) -> Finding:
    extra, purpose = EXTRAS[module], _PURPOSE[module]
    if importlib.util.find_spec(module) is None:
        return Finding(module, "missing", f"needed {purpose}", install_line(extra))
    version = _version(module, module.replace("_", "-"), f"{module}-gpu", f"{module}_cu13") or "unknown version"
    return Finding(module, "ok", f"{version}, {purpose}")


def _providers() -> Finding | None:
    """ONNX Runtime's execution providers. Imported for real: a broken install shows here."""
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    try:
        providers = importlib.import_module("onnxruntime").get_available_providers()
    except Exception as e:  # whatever a broken native library raises is the finding
        return Finding(
            "onnxruntime providers", "bad", f"does not import: {e}", "pip install --force-reinstall onnxruntime"
        )
    return Finding("onnxruntime providers", "ok", ", ".join(providers))


def _export() -> Finding:
    if importlib.util.find_spec("coolsd_rt.export") is None:
        fix = "check out with symbolic links (git config core.symlinks true), or install the package"
        return Finding("coolsd_rt.export", "bad", "the link coolsd_rt/export -> ../export is broken", fix)
    return Finding("coolsd_rt.export", "ok", "found")


def _cpu() -> Finding:
    info = Path("/proc/cpuinfo")
    text = info.read_text(errors="replace") if info.is_file() else ""
    line = next((x for x in text.splitlines() if x.startswith(("flags", "Features"))), "")
    flags = [f for f in _CPU_FLAGS if f in line.split()]
    found = cores.here()
    threads = "1 thread" if found.threads == 1 else f"{found.threads} threads"
    detail = f"{threads} by default: {found.why}, of {os.cpu_count()}" + (f"; {' '.join(flags)}" if flags else "")
    return Finding("cpu", "ok", detail)


def _memory() -> Finding | None:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    return Finding("memory", "ok", human(total))


def _disk(folder: Path) -> Finding:
    free = free_bytes(folder)
    good = free > 1 << 30
    return Finding(
        "disk", "ok" if good else "bad", f"{human(free)} free for {folder}", "" if good else "free some space"
    )


def _gpu() -> Finding:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Finding("gpu", "missing", "no nvidia-smi; everything here runs on a CPU")
    query = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as e:
        return Finding("gpu", "bad", f"nvidia-smi does not answer: {e}")
    text = "; ".join((done.stdout or done.stderr).split("\n")).strip("; ")
    return Finding("gpu", "ok" if done.returncode == 0 else "bad", text)


def findings(folder: Path) -> list[Finding]:
    """Everything there is to say, in the order it is read."""
    everything = [
        Finding("coolsd-rt", "ok", __version__),
        _python(),
        *_base(),
        *(_package(module) for module in EXTRAS),
        _providers(),
        _export(),
        _cpu(),
        _memory(),
        _disk(folder),
        _gpu(),
    ]
    return [f for f in everything if f is not None]


@click.command()
@click.option(
    "--out", type=WRITES_IN, default=Path("engines"), help="Folder of builds, whose free disk space is reported."
)
@json_option
def command(out: Path, as_json: bool) -> None:
    """Report what this machine can run and which packages are missing, with the command that installs each one.

    \b
    Example:
      coolsd-rt doctor
    """
    found = findings(out)
    ready = all(f.status != "bad" for f in found)
    can = {f.what: f.status == "ok" for f in found}
    can_build = ready and all(can[m] for m, extra in EXTRAS.items() if extra in ("cpu", "build"))
    can_run = ready and can["onnxruntime"]
    if as_json:
        print_json({"can_run": can_run, "can_build": can_build, "findings": [asdict(f) for f in found]})
        return
    mark = {"ok": "ok", "missing": "-", "bad": "BAD"}
    show_table(("", "", "", ""), [(mark[f.status], f.what, f.detail, f.fix) for f in found])
    say(f"run engines: {'yes' if can_run else 'no'}; build engines: {'yes' if can_build else 'no'}")
