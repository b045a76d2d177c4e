"""The kernels launched as on a GPU, by triton's own way to a launch, with a driver that takes them and does nothing.

A script: it replaces triton's driver for the whole process. Compiles for sm_90. What it prints is read by
`test_launching`.
"""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from coolsd_rt.device import round_ops
from coolsd_rt.ops.gpu import ops
from tests.device.rounds import Sizes, commit_of, drafts_of, window_of

launched: list[dict[str, Any]] = []


class Launcher:
    """What triton makes of a kernel's signature, once a kernel."""

    def __init__(self, source: Any, metadata: Any) -> None:
        self._signature, self._metadata = source.signature, metadata

    def __call__(self, *args: Any) -> None:
        kinds = {str(name): str(kind) for name, kind in self._signature.items()}
        made = self._metadata
        launched.append(
            {
                "name": made.name,
                "grid": list(args[:3]),
                "kinds": kinds,
                "warps": made.num_warps,
                "pdl": made.launch_pdl,
            }
        )


class Driver:
    """A GPU of compute capability 9.0 in triton's eyes."""

    launcher_cls = Launcher
    utils = SimpleNamespace(
        load_binary=lambda name, kernel, shared, device: (1, 1, 32, 0, 1024),
        unload_module=lambda module: None,
        get_device_properties=lambda device: {"max_shared_mem": 232448, "multiprocessor_count": 132},
    )

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def set_current_device(self, device: int) -> None:
        pass

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


def launch_all(vocab: int) -> None:
    """Each kernel, twice, as a round of one image has it: the second time triton finds it compiled."""
    for _ in range(2):
        logits, scale, u = torch.zeros(2, 3, vocab), torch.ones(1, 3), torch.rand(1, 3)
        rules: dict[str, Any] = {"temperature": 1.0, "top_k": 5, "top_p": 1.0}
        ops.process_logits(logits, scale, forced=torch.zeros(1, 3, dtype=torch.int64), **rules)
        ops.draft_sample(logits[:, :1].bfloat16(), scale[:, 1:2], u[:, 1:2], **rules)
        ids, one = torch.zeros(1, 2, dtype=torch.int64), torch.ones(1, dtype=torch.int64)
        omegas = torch.ones(2, dtype=torch.float64)
        ops.verify(logits[:1], logits[1:, :2], ids, one, omegas, u[:, :2], u, ids > 0, omegas, "target")
        ops.verify(
            logits[:1, :1], logits[1:, :0], ids[:, :0], one, omegas[:0], u[:, :0], u[:, :1], None, None, "optimal"
        )
        ops.sample(logits, torch.rand(2, 3))
        rng, sizes = torch.Generator(), Sizes(2, 3, True, True)
        round_ops.window(**window_of(rng, sizes))
        for step in drafts_of(rng, sizes, vocab, 0.2, 0.9):
            round_ops.draft_token(**step)
        round_ops.commit(**commit_of(rng, sizes, vocab, 0.2))
        round_ops.commit(**commit_of(rng, Sizes(2, 0, False, False), vocab, 0.0))


if __name__ == "__main__":
    driver.set_active(Driver())
    for module in (ops, round_ops):
        vars(module)["by_kernel"] = lambda tensor: True
    launch_all(int(sys.argv[1]))
    print(json.dumps({"triton": triton.__version__, "launched": launched}))
