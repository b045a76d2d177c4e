"""What a conversion takes of memory, measured from outside."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from coolsd_rt.checkpoints.format import shapes_of
from coolsd_rt.models.families.llamagen import ClassConfig
from tools.demo.memory import peak_memory

RUN = """
import sys
from pathlib import Path
from coolsd_rt.checkpoints.convert import convert
from coolsd_rt.checkpoints.format import ConvertOptions
convert(Path(sys.argv[1]), Path(sys.argv[2]), options=ConvertOptions(256, 4))
"""


def thirds(folder: Path, dim: int) -> Path:
    """A checkpoint in three shards, of 49 MiB each where dim is 256."""
    folder.mkdir()
    cfg = ClassConfig(vocab=64 * dim, dim=dim, layers=24, heads=4, ffn=4 * dim, grid=16)
    shapes = sorted(shapes_of(cfg).items())
    table: dict[str, str] = {}
    for i in range(3):
        part = dict(shapes[i::3])
        save_file({k: torch.full(v, 0.1) for k, v in part.items()}, str(folder / f"{i}.safetensors"))
        table |= dict.fromkeys(part, f"{i}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    return folder


def test_memory_is_of_less_than_a_shard(tmp_path: Path) -> None:
    """What converting three shards takes over converting three tiny ones is under 1.2 of the largest."""
    large, small = thirds(tmp_path / "large", 256), thirds(tmp_path / "small", 16)
    run = [sys.executable, "-c", RUN]
    peaks = [peak_memory([*run, str(folder), str(tmp_path / f"ours-{folder.name}")]) for folder in (small, large)]
    largest = max(p.stat().st_size for p in large.glob("*.safetensors"))
    assert largest > 40 << 20
    assert peaks[1] - peaks[0] < 1.2 * largest
    assert (tmp_path / "ours-large").stat().st_size > 2 * largest
