"""Libraries' warnings, log records and native words never stand before an error of ours; ours always do."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from coolsd_rt.captured import kept_words, native_words
from coolsd_rt.cli.terminal import note
from tests.cli.terminal.conftest import ROOT


def test_everything_is_as_before_afterwards() -> None:
    before = warnings.showwarning, logging.StreamHandler.emit
    with pytest.raises(KeyboardInterrupt), kept_words():
        raise KeyboardInterrupt
    assert (warnings.showwarning, logging.StreamHandler.emit) == before


def test_a_handler_with_a_file_of_its_own_keeps_it(tmp_path: Path) -> None:
    logger = logging.getLogger("to a file")
    logger.addHandler(logging.FileHandler(tmp_path / "log"))
    with kept_words() as kept:
        logger.warning("kept in the file")
    assert (tmp_path / "log").read_text() == "kept in the file\n"
    assert "kept in the file" not in "".join(kept.lines)


def test_what_is_kept_has_an_end() -> None:
    with kept_words() as kept:
        for step in range(1000):
            warnings.warn(f"step {step}", UserWarning, stacklevel=1)
    assert len(kept.lines) <= 50


def test_native_words_are_kept_and_pythons_are_not(capfd: pytest.CaptureFixture[str]) -> None:
    said: list[str] = ["before"]

    def fail() -> None:
        with native_words(said):
            os.write(2, b"native\n")
            note("ours")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert said == ["before", "native"]
    assert capfd.readouterr().err == "ours\n"


def test_onnxruntime_says_nothing_beside_its_error() -> None:
    """It writes a failing run to the standard error in red, and raises the same."""
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    helper, floats, ints = onnx.helper, onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    sides = [helper.make_tensor_value_info("x", floats, ["n"]), helper.make_tensor_value_info("s", ints, [1])]
    out = [helper.make_tensor_value_info("y", floats, ["m"])]
    graph = helper.make_graph([helper.make_node("Reshape", ["x", "s"], ["y"])], "g", sides, out)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    code = f"""
import numpy as np
from coolsd_rt.backends.onnxruntime.graph import OrtGraph
from coolsd_rt.backends.registry import LoadOptions
from coolsd_rt.contract import GraphContract, TensorSpec
from coolsd_rt.errors import CoolsdError
contract = GraphContract((TensorSpec("x", "float32", ("n",)), TensorSpec("s", "int64", (1,))),
                         (TensorSpec("y", "float32", ("m",)),))
graph = OrtGraph("g", {model.SerializeToString()!r}, contract, LoadOptions())
try:
    graph.call(x=np.zeros(3, np.float32), s=np.array([7]))
except CoolsdError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "graph g: expected a successful run, found" in done.stdout, done.stderr
    assert done.stderr == ""
