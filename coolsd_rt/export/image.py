"""The image decoder as ONNX Runtime's CPU provider runs it fastest: the same function by fewer operations.

    exported                            becomes
    Resize by 2 (nearest), 3x3 Conv     one 2x2 Conv to four phases at the low resolution, DepthToSpace, Slice: 4/9 of
                                        the products, since the 9 taps see 4 different cells
    GroupNormalization                  BatchNormalization by the mean and variance of each image's groups: the
                                        provider runs the former as nine operations on whole tensors
    3x3 Conv to a few channels (RGB)    ConvTranspose, the products of each tap shifted and added: the provider's kernel
                                        of Conv makes 8 or 16 channels at least

All operators are the standard's. Results differ from the exported graph's by rounding alone (1e-5 of the largest).
Other providers have kernels for what is replaced here, so that their engines keep the exported form.

Knows graphs and their weights. Does not know which graph is an image decoder, how large its images are, nor how fast a
form is. What does not look like the left column is left alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from coolsd_rt.export.external import Outline, read

FEW_CHANNELS = 4
"""Outputs of a convolution up to which it is made tap by tap."""
_PREFIX = "coolsd_image"
_KERNEL = [3, 3]
Floats = NDArray[np.float32]


def rewrite_decoder(model: onnx.ModelProto | Outline) -> Counter[str]:
    """Rewrite a float32 graph in place. Returns how many places got each form: `upsampling`, `norm`, `narrow`.

    Weights that no node reads any more are removed.
    """
    outline = model if isinstance(model, Outline) else Outline(model)
    rewriter, nodes, forms = _Rewriter(outline), list[onnx.NodeProto](), Counter[str]()
    for node in outline.model.graph.node:
        kind, made = rewriter.form(node)
        nodes += made or [node]
        forms.update([kind] if made else [])
    if forms:
        _exchange(outline, nodes, rewriter.made)
    return forms


def _exchange(outline: Outline, nodes: list[onnx.NodeProto], made: Mapping[str, NDArray[Any]]) -> None:
    """Put these nodes in place of the graph's, with new initializers, and drop what nothing reads."""
    graph = outline.model.graph
    kept = {o.name for o in graph.output}
    read_by = Counter(name for node in nodes for name in node.input)
    nodes = [n for n in nodes if any(read_by[o] or o in kept for o in n.output)]  # a Resize that was its Conv's alone
    used = {name for node in nodes for name in node.input} | kept
    tensors = [t for t in graph.initializer if t.name in used]
    tensors += [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in made.items()]
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(copies)
    graph.initializer.extend(tensors)
    for name in set(outline.weights) - used:
        del outline.weights[name]


def phase_taps(kernel: Floats, axis: int, phase: int) -> Floats:
    """Return the 2 taps, along `axis`, of a kernel of 3 taps over an input whose cells were doubled.

    The even output (phase 0) of cell i sees cells i - 1, i, i; the odd one (phase 1) sees i, i, i + 1.
    """
    a, b, c = (kernel.take([at], axis) for at in range(3))
    return np.concatenate([a, b + c] if phase == 0 else [a + b, c], axis)


def sub_pixel_kernel(kernel: Floats) -> Floats:
    """[N, C, 3, 3] over a doubled input -> [4 N, C, 2, 2] over the input itself, in the order of DepthToSpace (CRD).

    With a border of one cell there are H + 1 by W + 1 places. Place j holds the odd phase of cell j - 1, then the even
    phase of cell j, so that the shuffled places begin one pixel before the image and end one after it.
    """
    phases = [phase_taps(phase_taps(kernel, 2, row), 3, column) for row in (1, 0) for column in (1, 0)]
    n, c = kernel.shape[:2]
    return np.stack(phases, 1).reshape(4 * n, c, 2, 2)


@dataclass
class _Rewriter:
    """Forms of the nodes of one graph. made: initializers of the new nodes, by name."""

    outline: Outline
    made: dict[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        graph = self.outline.model.graph
        self._constants = {t.name: t for t in graph.initializer}
        self._producers = {o: node for node in graph.node for o in node.output}

    def form(self, node: onnx.NodeProto) -> tuple[str, list[onnx.NodeProto]]:
        """Return the kind of a node's new form and its nodes; none for a node that stays."""
        for kind in (self.upsampling, self.norm, self.narrow):
            if made := kind(node):
                return kind.__name__, made
        return "", []

    def upsampling(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Return the nodes in place of a Conv that reads a Resize; none for any other node."""
        resize = self._producers.get(node.input[0]) if node.input and self._is_conv(node) else None
        if resize is None or not self._doubles(resize):
            return []
        y = node.output[0]
        p = f"{_PREFIX}_{y}"
        self.made[f"{p}_kernel"] = sub_pixel_kernel(self._value(node.input[1]))
        inputs = [resize.input[0], f"{p}_kernel"]
        if len(node.input) > 2:
            self.made[f"{p}_bias"] = self._value(node.input[2]).repeat(4)
            inputs.append(f"{p}_bias")
        crop = {"first": np.array([1, 1]), "last": np.array([-1, -1]), "axes": np.array([2, 3])}
        return [
            helper.make_node("Conv", inputs, [f"{p}_phases"], kernel_shape=[2, 2], pads=[1] * 4),
            helper.make_node("DepthToSpace", [f"{p}_phases"], [f"{p}_pixels"], blocksize=2, mode="CRD"),
            helper.make_node("Slice", [f"{p}_pixels", *self._shared(crop)], [y]),
        ]

    def norm(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Return the nodes in place of a GroupNormalization; none for any other node."""
        if node.op_type != "GroupNormalization" or not all(name in self._constants for name in node.input[1:]):
            return []
        attributes, (x, scale, shift), y = _attributes(node), node.input, node.output[0]
        groups, channels = attributes["num_groups"], self._constants[scale].dims[0]
        p = f"{_PREFIX}_{y}"
        nodes = self._statistics(x, p, groups)
        # The channels of all images lie side by side, each with a scale, a shift, a mean and a variance of its own.
        wide, flat, one_image, back = self._shared(
            {
                f"wide_{groups}_{channels}": np.array([1, groups, channels // groups]),
                "flat": np.array([-1]),
                "one_image": np.array([1, -1, 0, 0]),
                f"back_{channels}": np.array([-1, channels, 0, 0]),
            }
        )
        shapes = {"scale": f"{p}_shape", "shift": f"{p}_shape", "mean": wide, "variance": wide}
        for part, name in (("scale", scale), ("shift", shift)):
            self.made[f"{p}_{part}"] = self._value(name).reshape(groups, -1)
        for part, shape in shapes.items():
            nodes.append(helper.make_node("Expand", [f"{p}_{part}", shape], [f"{p}_{part}_wide"]))
            nodes.append(helper.make_node("Reshape", [f"{p}_{part}_wide", flat], [f"{p}_{part}_flat"]))
        inputs = [f"{p}_one", *(f"{p}_{part}_flat" for part in shapes)]
        return [
            *nodes,
            helper.make_node("Reshape", [x, one_image], [f"{p}_one"]),
            helper.make_node("BatchNormalization", inputs, [f"{p}_normal"], epsilon=attributes.get("epsilon", 1e-5)),
            helper.make_node("Reshape", [f"{p}_normal", back], [y]),
        ]

    def _statistics(self, x: str, p: str, groups: int) -> list[onnx.NodeProto]:
        """Return nodes that compute P_mean and P_variance [M, groups, 1] of x [M, C, H, W], and their shape.

        The variance is the mean square less the squared mean, as the provider's own GroupNormalization has it. It loses
        digits where a mean is many standard deviations: at 30 of them, three of float32's seven.
        """
        by_group, axis, zero = self._shared(
            {f"groups_{groups}": np.array([0, groups, -1]), "axis": np.array([-1]), "zero": np.float32(0)}
        )
        return [
            helper.make_node("Reshape", [x, by_group], [f"{p}_groups"]),
            helper.make_node("ReduceMean", [f"{p}_groups", axis], [f"{p}_mean"], keepdims=1),
            helper.make_node("Mul", [f"{p}_groups", f"{p}_groups"], [f"{p}_squares"]),
            helper.make_node("ReduceMean", [f"{p}_squares", axis], [f"{p}_power"], keepdims=1),
            helper.make_node("Mul", [f"{p}_mean", f"{p}_mean"], [f"{p}_square"]),
            helper.make_node("Sub", [f"{p}_power", f"{p}_square"], [f"{p}_difference"]),
            helper.make_node("Max", [f"{p}_difference", zero], [f"{p}_variance"]),  # rounding can make it negative
            helper.make_node("Shape", [f"{p}_mean"], [f"{p}_shape"]),
        ]

    def narrow(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Return the node in place of a Conv to a few channels; none for any other node."""
        if not self._is_conv(node) or self._constants[node.input[1]].dims[0] > FEW_CHANNELS:
            return []
        name = f"{_PREFIX}_{node.output[0]}_kernel"
        self.made[name] = self._value(node.input[1])[:, :, ::-1, ::-1].swapaxes(0, 1)
        inputs = [node.input[0], name, *node.input[2:]]
        return [helper.make_node("ConvTranspose", inputs, list(node.output), kernel_shape=_KERNEL, pads=[1] * 4)]

    def _is_conv(self, node: onnx.NodeProto) -> bool:
        """Whether a node is a 3x3 convolution with constant weights that keeps the image's size."""
        if node.op_type != "Conv" or not all(name in self._constants for name in node.input[1:]):
            return False
        a = _attributes(node)
        ones = all(value == 1 for key in ("strides", "dilations") for value in a.get(key, []))
        same_size = list(self._constants[node.input[1]].dims[2:]) == _KERNEL and a.get("pads") == [1] * 4
        return ones and same_size and a.get("group", 1) == 1 and a.get("auto_pad", b"NOTSET") == b"NOTSET"

    def _doubles(self, node: onnx.NodeProto) -> bool:
        """Whether a node repeats each cell of [B, C, H, W] twice in both directions."""
        if node.op_type != "Resize" or len(node.input) != 3 or node.input[2] not in self._constants:
            return False
        a = _attributes(node)
        how = (a.get("mode", b"nearest"), a.get("coordinate_transformation_mode"), a.get("nearest_mode"))
        return how == (b"nearest", b"asymmetric", b"floor") and self._value(node.input[2]).tolist() == [1, 1, 2, 2]

    def _value(self, name: str) -> Floats:
        value: Floats = read(self.outline, self._constants[name])
        return value

    def _shared(self, values: Mapping[str, Any]) -> list[str]:
        """Return the names of constants that several nodes read."""
        names = [f"{_PREFIX}_{name}" for name in values]
        self.made |= dict(zip(names, (np.asarray(value) for value in values.values()), strict=True))
        return names


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}
