"""The image decoder's form for a CPU computes what eager PyTorch computes, with none of the slow operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper
from torch import Tensor, nn

from coolsd_rt.backends.onnxruntime.graph import OrtGraph
from coolsd_rt.backends.registry import LoadOptions
from coolsd_rt.contract import GraphContract, TensorSpec
from coolsd_rt.export.check import check_graph
from coolsd_rt.export.external import Outline
from coolsd_rt.export.graphs import ImageGraph
from coolsd_rt.export.image import FEW_CHANNELS, rewrite_decoder
from coolsd_rt.export.torch_onnx import to_onnx, to_outline
from coolsd_rt.models.vq import Upsample, VQConfig, VQTokenizer

CONFIG = VQConfig(
    codebook_size=64, codebook_dim=4, channels=16, multipliers=(1, 1, 2), z_channels=8, res_blocks=1, norm_groups=8
)
GRID, SIDE = 3, 12


def contract(x: Sequence[int], y: Sequence[int]) -> GraphContract:
    """Of a graph of one input and one output, float32; M stands for the images."""
    return GraphContract((TensorSpec("x", "float32", ("M", *x)),), (TensorSpec("y", "float32", ("M", *y)),))


def rewritten(module: nn.Module, of: GraphContract) -> tuple[onnx.ModelProto, Counter[str]]:
    model = to_onnx(module, of)
    forms = rewrite_decoder(model)
    onnx.checker.check_model(model, full_check=True)
    check_graph(model, of)
    return model, forms


def run(model: onnx.ModelProto, of: GraphContract, **inputs: Tensor) -> np.ndarray:
    graph = OrtGraph("graph", model.SerializeToString(), of, LoadOptions(threads=1, spinning=False))
    return next(iter(graph.call(**{name: x.numpy() for name, x in inputs.items()}).values()))


def operators(model: onnx.ModelProto) -> set[str]:
    return {n.op_type for n in model.graph.node}


def eager(module: nn.Module, x: Tensor) -> np.ndarray:
    with torch.inference_mode():
        y: np.ndarray = module(x).numpy()
    return y


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 1, 1), (3, 2, 5), (8, 5, 3), (24, 8, 8), (32, 7, 16)])
def test_upsampling_at_the_low_resolution_is_upsampling(channels: int, height: int, width: int) -> None:
    """Every pixel, the border's too. Cells differ, and so do taps: a wrong phase or padding changes the result."""
    torch.manual_seed(channels)
    module, x = Upsample(channels), torch.randn(2, channels, height, width)
    of = contract((channels, height, width), (channels, 2 * height, 2 * width))
    model, forms = rewritten(module, of)
    assert forms == {"upsampling": 1}
    assert "Resize" not in operators(model)
    np.testing.assert_allclose(run(model, of, x=x), eager(module, x), atol=2e-6)


def test_an_upsampling_whose_output_is_read_twice_keeps_it() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = Upsample(6)

        def forward(self, x: Tensor) -> Tensor:
            return torch.add(self.up(x), F.interpolate(x, scale_factor=2.0, mode="nearest"))

    of, x = contract((6, 4, 4), (6, 8, 8)), torch.randn(1, 6, 4, 4)
    module = Twice()
    model, forms = rewritten(module, of)
    assert forms == {"upsampling": 1}
    assert "Resize" in operators(model)
    np.testing.assert_allclose(run(model, of, x=x), eager(module, x), atol=2e-6)


def norm(groups: int, channels: int) -> nn.GroupNorm:
    torch.manual_seed(0)
    made = nn.GroupNorm(groups, channels, eps=1e-6)
    nn.init.uniform_(made.weight, 0.5, 1.5)
    nn.init.normal_(made.bias)
    return made


@pytest.mark.parametrize(("groups", "channels", "side"), [(1, 3, 5), (4, 4, 3), (8, 32, 9), (32, 128, 4)])
def test_norms_are_of_each_image_and_group(groups: int, channels: int, side: int) -> None:
    module, of = norm(groups, channels), contract((channels, side, side), (channels, side, side))
    scales = torch.tensor([0.1, 1.0, 30.0]).reshape(3, 1, 1, 1)  # images and channels differ in mean and size
    x = torch.randn(3, channels, side, side) * scales + torch.arange(channels).reshape(1, -1, 1, 1) / channels
    model, forms = rewritten(module, of)
    assert forms == {"norm": 1}
    np.testing.assert_allclose(run(model, of, x=x), eager(module, x), atol=2e-5, rtol=2e-5)


def test_a_norm_loses_digits_as_its_docstring_says_and_no_more() -> None:
    """A mean of 30 standard deviations; float64 is the truth, from which eager PyTorch differs too."""
    module, of = norm(8, 32), contract((32, 16, 16), (32, 16, 16))
    x = torch.randn(1, 32, 16, 16) + 30
    truth = eager(norm(8, 32).double(), x.double())
    assert np.abs(run(rewritten(module, of)[0], of, x=x) - truth).max() < 1e-3


def test_a_group_of_equal_values_is_finite() -> None:
    """Its variance is a difference of two equal numbers, which rounding can make negative."""
    module, of = norm(2, 4), contract((4, 7, 7), (4, 7, 7))
    x = torch.tensor([0.1, 7.7, -300.3, 1e4]).reshape(4, 1, 1, 1).expand(4, 4, 7, 7).contiguous()
    assert np.isfinite(run(rewritten(module, of)[0], of, x=x)).all()


@pytest.mark.parametrize(("inside", "outside", "side"), [(1, 1, 1), (16, 3, 5), (128, FEW_CHANNELS, 8)])
def test_a_convolution_to_a_few_channels_is_made_tap_by_tap(inside: int, outside: int, side: int) -> None:
    torch.manual_seed(0)
    module, x = nn.Conv2d(inside, outside, 3, padding=1), torch.randn(2, inside, side, side + 1)
    of = contract((inside, side, side + 1), (outside, side, side + 1))
    model, forms = rewritten(module, of)
    assert forms == {"narrow": 1}
    assert operators(model) == {"ConvTranspose"}
    np.testing.assert_allclose(run(model, of, x=x), eager(module, x), atol=1e-5)


class Decode(nn.Module):
    """Pixels before they are rounded."""

    def __init__(self, tokenizer: VQTokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, codes: Tensor) -> Tensor:
        z = self.tokenizer.quantize.lookup(codes).reshape(-1, GRID, GRID, CONFIG.codebook_dim)
        return self.tokenizer.decode_latents(z)


@pytest.fixture(scope="module")
def tokenizer() -> VQTokenizer:
    torch.manual_seed(0)
    made = VQTokenizer(CONFIG)
    for name, weight in made.named_parameters():
        if "norm" in name or name.endswith("bias"):
            nn.init.uniform_(weight.detach(), 0.2, 1.2)
    return made.eval()


def test_a_whole_decoder_is_eager_pytorch(tokenizer: VQTokenizer) -> None:
    module, codes = Decode(tokenizer), torch.randint(0, CONFIG.codebook_size, (2, GRID * GRID))
    of = GraphContract(
        (TensorSpec("codes", "int64", ("M", GRID * GRID)),), (TensorSpec("y", "float32", ("M", 3, SIDE, SIDE)),)
    )
    model, forms = rewritten(module, of)
    norms = sum(isinstance(m, nn.GroupNorm) for m in tokenizer.decoder.modules())
    assert forms == {"upsampling": 2, "norm": norms, "narrow": 1}
    assert not operators(model) & {"Resize", "GroupNormalization", "InstanceNormalization"}
    found, wanted = run(model, of, codes=codes), eager(module, codes)
    assert np.abs(wanted).max() > 0.5
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_weights_that_nobody_reads_are_gone_and_pixels_stay_within_a_level(tokenizer: VQTokenizer) -> None:
    codes = torch.randint(0, CONFIG.codebook_size, (3, GRID * GRID))
    of = GraphContract(
        (TensorSpec("codes", "int64", ("M", GRID * GRID)),), (TensorSpec("pixels", "uint8", ("M", SIDE, SIDE, 3)),)
    )
    outline = to_outline(ImageGraph(tokenizer), of)
    rewrite_decoder(outline)
    model = outline.model
    read = {name for n in model.graph.node for name in n.input}
    assert {t.name for t in model.graph.initializer} <= read
    gap = run(model, of, codes=codes).astype(int) - eager(ImageGraph(tokenizer), codes)
    assert np.abs(gap).max() <= 1


def other(node: onnx.NodeProto, **weights: Sequence[int]) -> onnx.ModelProto:
    values = [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in weights.items()]
    sides = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("x", "y")]
    return helper.make_model(helper.make_graph([node], "other", sides[:1], sides[1:], values))


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("Conv", ["x", "k"], ["y"], pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Conv", ["x", "k"], ["y"], pads=[1] * 4, dilations=[2, 2]),
        helper.make_node("Conv", ["x", "k"], ["y"], pads=[0, 0, 1, 1]),
        helper.make_node("Conv", ["x", "k"], ["y"]),
        helper.make_node("Conv", ["x", "k"], ["y"], pads=[1] * 4, group=2),
        helper.make_node("Conv", ["x", "k"], ["y"], pads=[1] * 4, auto_pad="SAME_UPPER"),
        helper.make_node("Conv", ["x", "x"], ["y"], pads=[1] * 4),
        helper.make_node("GroupNormalization", ["x", "x", "x"], ["y"], num_groups=2),
    ],
)
def test_what_means_something_else_is_left_alone(node: onnx.NodeProto) -> None:
    model = other(node, k=(2, 2, 3, 3))
    before = model.SerializeToString()
    assert not rewrite_decoder(Outline(model))
    assert model.SerializeToString() == before


@pytest.mark.parametrize(
    ("how", "scales"),
    [
        ({"mode": "linear", "coordinate_transformation_mode": "asymmetric"}, [1, 1, 2, 2]),
        ({"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, [1, 1, 3, 3]),
        ({"mode": "nearest", "coordinate_transformation_mode": "half_pixel", "nearest_mode": "ceil"}, [1, 1, 2, 2]),
    ],
)
def test_another_resize_is_left_alone(how: dict[str, str], scales: list[int]) -> None:
    model = other(helper.make_node("Conv", ["u", "k"], ["y"], pads=[1] * 4), k=(8, 2, 3, 3))
    model.graph.initializer.append(numpy_helper.from_array(np.array(scales, np.float32), "scales"))
    model.graph.node.insert(0, helper.make_node("Resize", ["x", "", "scales"], ["u"], **how))
    before = model.SerializeToString()
    assert not rewrite_decoder(model)
    assert model.SerializeToString() == before
