"""The Inception-v3 that defines FID, up to its 2,048 pooled features: the network of `inception-2015-12-05`.

It is not torchvision's ImageNet network. It differs from the paper's Inception-v3 in three ways, as the TensorFlow
graph does: average pooling over 3 x 3 does not count the padding, the last block uses max pooling where the others use
average pooling, and the weights are different (1,008 classes). Tensor names are those of
`pt_inception-2015-12-05-6726825d.pth`.

Knows the network and its safetensors file. Does not know how an image is resized, nor how features are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional

from coolsd_rt.errors import UserError
from coolsd_rt.store.weights import check_safetensors

FAMILY = "fid-inception"
SIDE = 299  # pixels along a side of the network's input
WIDTH = 2048  # features
HOW = (
    "convert the published weights once: coolsd-rt convert pt_inception-2015-12-05-6726825d.pth "
    f"--family {FAMILY} --to inception.safetensors"
)
_EPS = 1e-3
_FLOATS = ("F16", "BF16", "F32")


class FrozenBatchNorm(nn.Module):
    """Batch norm with fixed statistics: nn.BatchNorm2d without its counter of training steps."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x [B, C, H, W] with the fixed statistics."""
        mean, var = self.get_buffer("running_mean"), self.get_buffer("running_var")
        return functional.batch_norm(x, mean, var, self.weight, self.bias, eps=_EPS)


class Conv(nn.Module):
    """A convolution without bias, batch norm and ReLU. [B, I, H, W] -> [B, O, H', W'].

    Padding keeps the size at stride 1 unless `pad` is False, and is 0 at stride 2.
    """

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int], stride: int = 1, pad: bool = True) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if pad and stride == 1 else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = FrozenBatchNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Apply convolution, batch norm and ReLU to x [B, I, H, W]."""
        return functional.relu(self.bn(self.conv(x)))


Pool = Literal[
    "mean", "max", "halve"
]  # all 3 x 3; mean and max at stride 1 with padding, halve is a maximum at stride 2 without
Layer = tuple[str, int, tuple[int, int], int]  # name, channels out, kernel, stride
Step = Pool | Layer | tuple[Layer, Layer]  # two layers share one input; their outputs are concatenated


def _pool(x: Tensor, kind: Pool) -> Tensor:
    if kind == "mean":
        return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    return functional.max_pool2d(x, 3, 1, 1) if kind == "max" else functional.max_pool2d(x, 3, 2)


class Mixed(nn.Module):
    """Branches over one input, whose outputs are concatenated over channels. outputs: number of channels."""

    def __init__(self, inputs: int, branches: Sequence[Sequence[Step]]) -> None:
        super().__init__()
        self.branches, self.outputs = branches, 0
        for branch in branches:
            width = inputs
            for step in branch:
                if isinstance(step, str):
                    continue
                layers = _layers(step)
                for name, outputs, kernel, stride in layers:
                    self.add_module(name, Conv(width, outputs, kernel, stride))
                width = sum(layer[1] for layer in layers)
            self.outputs += width

    def forward(self, x: Tensor) -> Tensor:
        """Apply all branches to x [B, C, H, W] and concatenate their channels in order."""
        return torch.cat([self._branch(x, branch) for branch in self.branches], 1)

    def _branch(self, x: Tensor, branch: Sequence[Step]) -> Tensor:
        for step in branch:
            if isinstance(step, str):
                x = _pool(x, step)
            else:
                x = torch.cat([self.get_submodule(layer[0])(x) for layer in _layers(step)], 1)
        return x


def _layers(step: Layer | tuple[Layer, Layer]) -> tuple[Layer, ...]:
    """Return a step's layers: a layer is a tuple that begins with its name, a pair is a tuple of two layers."""
    return (step,) if isinstance(step[0], str) else step


def _conv(name: str, outputs: int, height: int = 1, width: int = 0, stride: int = 1) -> Layer:
    return name, outputs, (height, width or height), stride


def _fine(pooled: int) -> list[list[Step]]:
    """Return the branches of a block of 35 x 35 cells."""
    return [
        [_conv("branch1x1", 64)],
        [_conv("branch5x5_1", 48), _conv("branch5x5_2", 64, 5)],
        [_conv("branch3x3dbl_1", 64), _conv("branch3x3dbl_2", 96, 3), _conv("branch3x3dbl_3", 96, 3)],
        ["mean", _conv("branch_pool", pooled)],
    ]


def _to_middle() -> list[list[Step]]:
    """Return the branches of the block from 35 x 35 to 17 x 17 cells."""
    double = [_conv("branch3x3dbl_1", 64), _conv("branch3x3dbl_2", 96, 3), _conv("branch3x3dbl_3", 96, 3, stride=2)]
    return [[_conv("branch3x3", 384, 3, stride=2)], [*double], ["halve"]]


def _middle(inner: int) -> list[list[Step]]:
    """Return the branches of a block of 17 x 17 cells; 7 x 7 kernels are split into rows and columns."""
    name = "branch7x7dbl"
    double: list[Step] = [_conv(f"{name}_1", inner), _conv(f"{name}_2", inner, 7, 1), _conv(f"{name}_3", inner, 1, 7)]
    return [
        [_conv("branch1x1", 192)],
        [_conv("branch7x7_1", inner), _conv("branch7x7_2", inner, 1, 7), _conv("branch7x7_3", 192, 7, 1)],
        [*double, _conv(f"{name}_4", inner, 7, 1), _conv(f"{name}_5", 192, 1, 7)],
        ["mean", _conv("branch_pool", 192)],
    ]


def _to_coarse() -> list[list[Step]]:
    """Return the branches of the block from 17 x 17 to 8 x 8 cells."""
    name = "branch7x7x3"
    long: list[Step] = [_conv(f"{name}_1", 192), _conv(f"{name}_2", 192, 1, 7), _conv(f"{name}_3", 192, 7, 1)]
    return [
        [_conv("branch3x3_1", 192), _conv("branch3x3_2", 320, 3, stride=2)],
        [*long, _conv(f"{name}_4", 192, 3, stride=2)],
        ["halve"],
    ]


def _coarse(pool: Pool) -> list[list[Step]]:
    """Return the branches of a block of 8 x 8 cells."""

    def split(name: str) -> tuple[Layer, Layer]:
        return _conv(f"{name}a", 384, 1, 3), _conv(f"{name}b", 384, 3, 1)

    return [
        [_conv("branch1x1", 320)],
        [_conv("branch3x3_1", 384), split("branch3x3_2")],
        [_conv("branch3x3dbl_1", 448), _conv("branch3x3dbl_2", 384, 3), split("branch3x3dbl_3")],
        [pool, _conv("branch_pool", 192)],
    ]


_BLOCKS: dict[str, list[list[Step]]] = {
    "Mixed_5b": _fine(32), "Mixed_5c": _fine(64), "Mixed_5d": _fine(64), "Mixed_6a": _to_middle(),
    "Mixed_6b": _middle(128), "Mixed_6c": _middle(160), "Mixed_6d": _middle(160), "Mixed_6e": _middle(192),
    "Mixed_7a": _to_coarse(), "Mixed_7b": _coarse("mean"), "Mixed_7c": _coarse("max"),
}  # fmt: skip


class Inception(nn.Module):
    """RGB images float32 [B, 3, 299, 299] from 0 to 255 -> features float32 [B, 2048]."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, (3, 3), stride=2)
        self.Conv2d_2a_3x3 = Conv(32, 32, (3, 3), pad=False)
        self.Conv2d_2b_3x3 = Conv(32, 64, (3, 3))
        self.Conv2d_3b_1x1 = Conv(64, 80, (1, 1))
        self.Conv2d_4a_3x3 = Conv(80, 192, (3, 3), pad=False)
        width = 192
        for name, branches in _BLOCKS.items():
            block = Mixed(width, branches)
            self.add_module(name, block)
            width = block.outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return the features of RGB images x float32 [B, 3, 299, 299], from 0 to 255: float32 [B, 2048]."""
        x = (x - 128) / 128  # as in the TensorFlow graph; others use (x - 127.5) / 127.5
        x = _pool(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))), "halve")
        x = _pool(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), "halve")
        for name in _BLOCKS:
            x = self.get_submodule(name)(x)
        return x.mean((2, 3))


def shapes() -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the file's tensors, without allocating them."""
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in Inception().state_dict().items()}


def load_inception(path: Path) -> Inception:
    """Load the network in float32 and evaluation mode.

    Raises UserError: not a complete safetensors file; a tensor that is missing, unknown or not finite, or has another
    shape or dtype.
    """
    wanted, found = shapes(), check_safetensors(path).tensors
    for name in (*wanted, *found):
        if name in wanted and name in found and wanted[name] == found[name].shape and found[name].dtype in _FLOATS:
            continue
        expected = f"{list(wanted[name])} of {', '.join(_FLOATS)}" if name in wanted else "no such tensor"
        there = f"{found[name].dtype} {list(found[name].shape)}" if name in found else "none"
        raise UserError(f"{path}: {name}", expected=f"{expected} in {FAMILY}", found=there, fix=HOW)
    state = {}
    with safe_open(str(path), framework="pt") as file:
        for name in wanted:
            value = file.get_tensor(name).to(
                torch.float32, copy=True
            )  # copy: the tensor read is mapped, and the file may change
            if not bool(torch.isfinite(value).all()):
                raise UserError(f"{path}: {name}", expected="finite numbers", found="NaN or infinite ones", fix=HOW)
            state[name] = value
    with torch.device("meta"):
        network = Inception()
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)
