"""The image decoder's two forms beside each other: as exported, and as engines for a CPU have it (`export/image.py`).

    python -m tools.image_decoder pipelines/emoji/vq.safetensors --grid 16 --images 4

Both graphs decode the same random codes in turns, in one process: CPU time of the process with one thread, which other
work on the machine changes least, and wall time with `--threads`. PSNR is to the pixels of eager PyTorch in float32,
both before they are clamped and rounded. Weights are those of any image tokenizer, random ones too
(`tools/random_model.py`): the times do not depend on them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from coolsd_rt import cores, limits
from coolsd_rt.backends.onnxruntime.graph import OrtGraph
from coolsd_rt.backends.registry import LoadOptions
from coolsd_rt.checkpoints.load import load_tokenizer
from coolsd_rt.cli.entry import enter, overwrite_option
from coolsd_rt.cli.numbers import number, threads_option
from coolsd_rt.cli.output import say, show_table
from coolsd_rt.cli.paths import READS, WRITES
from coolsd_rt.contract import GraphContract, TensorSpec
from coolsd_rt.export.image import rewrite_decoder
from coolsd_rt.export.torch_onnx import to_onnx
from coolsd_rt.machine import machine
from coolsd_rt.models.vq import VQTokenizer
from coolsd_rt.store.outputs import check_output, write_output

EXPORTED, REWRITTEN = "as exported", "rewritten"
Pixels = NDArray[np.float32]


class Decode(nn.Module):
    """Codes int64 [M, grid * grid] -> pixels float32 [M, 3, F, F], neither clamped nor rounded."""

    def __init__(self, tokenizer: VQTokenizer, grid: int) -> None:
        super().__init__()
        self.tokenizer, self.grid = tokenizer, grid

    def forward(self, codes: Tensor) -> Tensor:
        """Decode codes."""
        z = self.tokenizer.quantize.lookup(codes).unflatten(1, (self.grid, self.grid))
        return self.tokenizer.decode_latents(z)


def forms_of(module: Decode) -> tuple[GraphContract, dict[str, onnx.ModelProto]]:
    """Return the graph's contract, and both forms by name."""
    cells, side = module.grid**2, module.grid * module.tokenizer.cfg.downsampling
    inputs = (TensorSpec("codes", "int64", ("M", cells)),)
    contract = GraphContract(inputs, (TensorSpec("pixels", "float32", ("M", 3, side, side)),))
    exported = to_onnx(module, contract)
    rewritten = onnx.ModelProto.FromString(exported.SerializeToString())
    rewrite_decoder(rewritten)
    return contract, {EXPORTED: exported, REWRITTEN: rewritten}


def psnr(found: Pixels, wanted: Pixels) -> float:
    """Return the PSNR in dB of pixels whose range is [-1, 1]; infinite if all are equal."""
    error = float(np.square(found.astype(np.float64) - wanted).mean())
    return float("inf") if error == 0 else float(10 * np.log10(4 / error))


def in_turns(
    graphs: Mapping[str, OrtGraph], codes: NDArray[np.int64], runs: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Return seconds of decoding all images, one at a time as engines do, by form: one number a turn."""
    seconds: dict[str, list[float]] = {name: [] for name in graphs}
    for turn in range(-1, runs):
        for name, graph in graphs.items():
            start = clock()
            for image in codes:
                graph.call(codes=image[None])
            if turn >= 0:  # memory is allocated in the first turn
                seconds[name].append(clock() - start)
    return seconds


def measure(weights: Path, grid: int, images: int, runs: int, threads: int) -> dict[str, Any]:
    """Return the figures as JSON data. Raises UserError: a file without a tokenizer."""
    module = Decode(load_tokenizer(weights).eval(), grid)
    codes = np.random.default_rng(0).integers(0, module.tokenizer.cfg.codebook_size, (images, grid * grid))
    contract, models = forms_of(module)
    out: dict[str, Any] = {"machine": machine(threads), "grid": grid, "images": images, "runs": runs, "forms": {}}
    with torch.inference_mode():
        wanted = np.concatenate([module(torch.from_numpy(image[None])).numpy() for image in codes])
    clocks = (("cpu_ms", 1, time.process_time), ("wall_ms", threads, time.perf_counter))
    for label, count, clock in clocks:
        options = LoadOptions(threads=count, spinning=False)
        graphs = {n: OrtGraph(n, m.SerializeToString(), contract, options) for n, m in models.items()}
        seconds = in_turns(graphs, codes, runs, clock)
        for name, graph in graphs.items():
            pixels = np.concatenate([graph.call(codes=image[None])["pixels"] for image in codes])
            ratios = [a / b for a, b in zip(seconds[name], seconds[EXPORTED], strict=True)]
            found = {
                label: 1000 * median(seconds[name]),
                f"{label}_ratio": median(ratios),
                "psnr": psnr(pixels, wanted),
            }
            out["forms"].setdefault(name, {}).update(found)
    return out


@click.command()
@click.argument("weights", type=READS)
@click.option("--grid", type=number(limits.GRID), default=16, show_default=True, help="Codes along one side.")
@click.option("--images", type=number(limits.IMAGES), default=1, show_default=True, help="Images decoded in a turn.")
@click.option("--runs", type=number(limits.RUNS), default=7, show_default=True, help="Turns.")
@threads_option()
@click.option("--json", "json_file", type=WRITES, help="Write the figures as JSON to this file.")
@overwrite_option
def main(
    weights: Path, grid: int, images: int, runs: int, threads: int | None, json_file: Path | None, overwrite: bool
) -> None:
    """Time both forms of the decoder of WEIGHTS, an image tokenizer's file, and compare their pixels."""
    if json_file is not None:
        check_output(json_file, "--json", overwrite=overwrite)
    count = threads or cores.here().threads
    found = measure(weights, grid, images, runs, count)
    load = found["machine"]["load_average"]
    say(f"{images} images of {grid} x {grid} codes, medians of {runs} turns, load {load:.1f}")
    rows = [
        (
            name,
            f"{form['cpu_ms']:.0f} ({form['cpu_ms_ratio']:.2f})",
            f"{form['wall_ms']:.0f} ({form['wall_ms_ratio']:.2f})",
            f"{form['psnr']:.0f}",
        )
        for name, form in found["forms"].items()
    ]
    show_table(("", "CPU ms, 1 thread", f"wall ms, {count} threads", "PSNR, dB"), rows)
    if json_file is not None:
        write_output(json_file, (json.dumps(found, indent=2) + "\n").encode(), overwrite=overwrite)


if __name__ == "__main__":
    enter(main)
