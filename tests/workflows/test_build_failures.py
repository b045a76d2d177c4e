"""A build that cannot be, fails, is killed, or is not alone: what is said, and what is left."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from coolsd_rt.errors import CoolsdError, MissingExtra, UserError
from coolsd_rt.models.header import read_config
from coolsd_rt.spec import SpecError, load_spec
from coolsd_rt.store import open_engine
from coolsd_rt.workflows.build.run import build, plan, with_engine
from tests.stages import take
from tests.tiny import write_weights
from tests.workflows.building import edit, flip, left


class TestTheFilesDoNotFit:
    """Found before anything runs, at the spec's line where it has one."""

    def reweigh(self, spec: Path, name: str, **config: object) -> None:
        path = spec.parent / f"{name}.safetensors"
        tensors = load_file(str(path))
        holder = torch.nn.Module()
        holder.state_dict = lambda: tensors  # type: ignore[method-assign,assignment]
        write_weights(path, holder, read_config(path) | config)

    def refused(self, spec: Path, out: Path, *words: str) -> None:
        with pytest.raises(UserError) as caught:
            build(plan(load_spec(spec), out))
        for word in words:
            assert word in str(caught.value)
        assert "\n" not in str(caught.value)
        assert left(out) == []

    def test_a_draft_above_the_image(self, copy: Path, tmp_path: Path) -> None:
        edit(copy, "length: 3", "length: 17")
        self.refused(copy, tmp_path / "o", "tiny.yaml:4: draft.length", "at most the image's 16 tokens", "found 17")

    def test_a_draft_of_none(self, copy: Path, tmp_path: Path) -> None:
        edit(copy, "length: 3", "length: 0")
        with pytest.raises(SpecError, match=r"draft\.length"):
            plan(load_spec(copy), tmp_path / "o")

    @pytest.mark.parametrize("number", [float("nan"), float("inf")])
    def test_weights_that_are_no_numbers(self, copy: Path, tmp_path: Path, number: float) -> None:
        path = copy.parent / "target.safetensors"
        tensors = load_file(str(path))
        tensors["output.weight"][1, 2:4] = number
        holder = torch.nn.Module()
        holder.state_dict = lambda: tensors  # type: ignore[method-assign,assignment]
        write_weights(path, holder, read_config(path))
        self.refused(copy, tmp_path / "o", "target.safetensors: output.weight", "found 2 of 2048 NaN or infinite")

    def test_another_vocabulary(self, copy: Path, tmp_path: Path) -> None:
        edit(copy.parent / "vocab.json", '"apple",', "")
        self.refused(copy, tmp_path / "o", "tiny.yaml:6: condition.vocab", "words 9", "found 8")

    def test_another_prefix(self, copy: Path, tmp_path: Path) -> None:
        edit(copy.parent / "vocab.json", '"prefix": 3', '"prefix": 4')
        self.refused(copy, tmp_path / "o", "condition.vocab", "prefix 3", "found 4")

    def test_another_codebook(self, copy: Path, tmp_path: Path) -> None:
        self.reweigh(copy, "vq", codebook_size=64)
        self.refused(copy, tmp_path / "o", "tiny.yaml:5: image.weights", "codebook_size 32", "found 64")

    def test_another_width(self, copy: Path, tmp_path: Path) -> None:
        self.reweigh(copy, "draft", dim=128)
        self.refused(copy, tmp_path / "o", "tiny.yaml:4: draft.weights", "dim 64", "found 128")

    def test_a_config_of_nothing(self, copy: Path, tmp_path: Path) -> None:
        self.reweigh(copy, "target", grid=None)
        self.refused(copy, tmp_path / "o", "target.safetensors: config: grid", "found null")
        self.reweigh(copy, "target", grid=4, heads=0)
        self.refused(copy, tmp_path / "o", "config: heads", "found 0")

    def test_weights_that_are_not(self, copy: Path, tmp_path: Path) -> None:
        path = copy.parent / "target.safetensors"
        whole = path.read_bytes()
        path.write_bytes(whole[:-10])
        self.refused(copy, tmp_path / "o", "target.safetensors", "truncated")
        torch.save({"a": torch.zeros(1)}, path)
        self.refused(copy, tmp_path / "o", "target.safetensors", "torch.save")
        path.unlink()
        with pytest.raises(UserError, match=r"tiny.yaml:3: target.weights.*found nothing"):
            load_spec(copy)

    def test_a_wrong_shape(self, copy: Path, warm: Path) -> None:
        """Shapes are compared when the stage runs; nothing is left of it."""
        path = copy.parent / "vq.safetensors"
        config, tensors = read_config(path), load_file(str(path))
        tensors["post_quant_conv.bias"] = torch.zeros(9)
        holder = torch.nn.Module()
        holder.state_dict = lambda: tensors  # type: ignore[method-assign,assignment]
        write_weights(path, holder, config)
        self.refused(copy, warm, "post_quant_conv.bias", "shape [8]", "found [9]")


class TestABuildThatFails:
    """Finished stages stay for the next time; nothing looks like an engine."""

    def test_a_full_disk(self, copy: Path, nearly: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write = Path.write_bytes

        def full(path: Path, data: bytes) -> int:
            if path.name != "condition.onnx":
                return write(path, data)
            write(path, data[:1000])
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(CoolsdError, match="no space left on the disk"):
            build(plan(load_spec(copy), nearly))
        assert left(nearly) == []
        monkeypatch.undo()
        assert build(plan(load_spec(copy), nearly)).fresh == ("condition",)

    def test_a_graph_that_is_wrong(self, copy: Path, warm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The short run beside torch sees a graph that computes something else."""
        from coolsd_rt.export.graphs import ImageGraph
        from coolsd_rt.workflows.build import stages

        class Darker(ImageGraph):
            def forward(self, codes: torch.Tensor) -> torch.Tensor:
                return super().forward(codes) // (1 + int(torch.compiler.is_exporting()))

        monkeypatch.setattr(stages, "ImageGraph", Darker)
        with pytest.raises(CoolsdError, match=r"graph image: pixels.*torch's values within 1"):
            build(plan(load_spec(copy), warm))
        assert left(warm) == []

    @pytest.mark.usefixtures("tiny_engine_int8")  # the same build with the right scales, which has passed
    def test_int8_codes_that_are_wrong(
        self, copy: Path, tiny_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The short run takes the inputs of a first step there, and sees scales that are off."""
        from coolsd_rt.export import quantize

        right = quantize.quantize_matrix

        def wrong(weight: np.ndarray[Any, Any], block: int) -> tuple[Any, Any]:
            codes, scales = right(weight, block)
            return codes, scales * (1.5 if weight.shape == (64, 32) else 1.0)  # the output head

        loaded = with_engine(load_spec(copy), precision="int8")
        assert all(planned.cached for planned in plan(loaded, tiny_out).stages)
        take(loaded, tmp_path / "wrong", "condition")
        monkeypatch.setattr(quantize, "quantize_matrix", wrong)
        with pytest.raises(CoolsdError, match=r"graph target: logits: expected torch's values within 0.25"):
            build(plan(loaded, tmp_path / "wrong"))
        assert left(tmp_path / "wrong") == []

    def test_weights_that_change_meanwhile(self, copy: Path, warm: Path) -> None:
        planned = plan(load_spec(copy), warm)
        flip(copy.parent / "vq.safetensors")
        with pytest.raises(CoolsdError, match=r"image.weights.*as when the build began"):
            build(planned)
        assert left(warm) == []

    def test_a_missing_extra(self, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Said before anything is written; and not at all when every stage is cached."""
        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else find(name))
        with pytest.raises(MissingExtra, match=r"onnx.*pip install .*\[build\]"):
            build(plan(load_spec(copy), tmp_path / "o"))
        assert left(tmp_path / "o") == []

    def test_an_interrupted_one(self, copy: Path, nearly: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from coolsd_rt.workflows.build import stages

        def interrupt(*args: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(stages, "smoke", interrupt)
        with pytest.raises(KeyboardInterrupt):
            build(plan(load_spec(copy), nearly))
        assert left(nearly) == []


class TestProcesses:
    """The command itself, several at once, and killed."""

    def start(self, spec: Path, out: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "coolsd_rt.cli", "build", str(spec), "--out", str(out), "--json"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def working(self, out: Path) -> None:
        """Wait until a stage's temporary folder is there."""
        while not (out / ".tmp").is_dir() or not list((out / ".tmp").iterdir()):
            time.sleep(0.01)

    def test_two_at_once_end_as_one(self, copy: Path, nearly: Path) -> None:
        both = [self.start(copy, nearly), self.start(copy, nearly)]
        documents = []
        for process in both:
            out, err = process.communicate()
            assert process.returncode == 0, err
            documents.append(json.loads(out))
        assert documents[0]["folder"] == documents[1]["folder"]
        assert sorted(d["stages"]["condition"] for d in documents) == ["cached", "run"]
        open_engine(nearly / "tiny").verified()
        assert left(nearly) == ["tiny"]

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
    def test_a_killed_one_leaves_nothing_whole(self, copy: Path, nearly: Path, number: int, code: int) -> None:
        process = self.start(copy, nearly)
        self.working(nearly)
        os.kill(process.pid, number)
        _, err = process.communicate()
        assert process.returncode == code, err
        assert not (nearly / "tiny").exists()
        if number == signal.SIGINT:
            assert left(nearly) == []
            assert "Traceback" not in err
        with pytest.raises(UserError):
            open_engine(nearly / "tiny")
        assert build(plan(load_spec(copy), nearly)).fresh == ("condition",)
        assert left(nearly) == ["tiny"]
        open_engine(nearly / "tiny").verified()
