"""ImageReward and HPSv2: how their packages are called, with packages of the same shape in their place.

The packages' own networks are not run: what stands here is that each image meets its own prompt, that files are local
and that whatever a package raises is one line.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from coolsd_rt.errors import UserError
from coolsd_rt.metrics.reward import HpsV2, ImageReward, mean
from tests.quality.qualities import image

PROMPTS = ["a", "bb", "ccc"]


def files(folder: Path) -> Path:
    save_file({"mlp.layers.0.weight": torch.ones(1, 2)}, folder / "ImageReward.safetensors")
    (folder / "med_config.json").write_text("{}")
    return folder


def test_image_reward_scores_each_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    given: list[Any] = []

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mlp = torch.nn.ModuleDict({"layers": torch.nn.ModuleList([torch.nn.Linear(2, 1, bias=False)])})

        def score(self, prompt: str, image: Any) -> float:
            return len(prompt) + float(np.asarray(image)[0, 0, 0]) / 1000

    def load(name: str, device: str, med_config: str) -> Model:
        print("load checkpoint from somewhere")
        asked.extend((name, device, med_config, os.environ["HF_HUB_OFFLINE"]))
        state, model = torch.load(name, map_location=device), Model()
        given.append([value.tolist() for value in state.values()])
        model.load_state_dict(state, strict=False)  # as the package does
        return model

    package: Any = ModuleType("ImageReward")
    package.load = load
    monkeypatch.setitem(sys.modules, "ImageReward", package)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    pickles = torch.load
    measure = ImageReward(files(tmp_path))
    assert asked == [str(tmp_path / "ImageReward.safetensors"), "cpu", str(tmp_path / "med_config.json"), "1"]
    assert "HF_HUB_OFFLINE" not in os.environ
    assert torch.load is pickles
    assert given == [[[[1, 1]]]]  # the package read what was converted
    assert capsys.readouterr().out == ""  # stdout is the result's
    images = [image(k) for k in range(3)]
    wanted = [len(p) + x[0, 0, 0] / 1000 for p, x in zip(PROMPTS, images, strict=True)]
    assert measure.scores(images, PROMPTS).tolist() == pytest.approx(wanted)
    before = measure.identity()
    save_file({"mlp.layers.0.weight": torch.zeros(1, 2)}, tmp_path / "ImageReward.safetensors")
    assert ImageReward(tmp_path).identity() != before
    save_file({"mlp.other": torch.zeros(1, 2)}, tmp_path / "ImageReward.safetensors")
    with pytest.raises(UserError, match=r"found no tensor mlp\.layers\.0\.weight; convert the published"):
        ImageReward(tmp_path)  # the package would score with random numbers


def test_hpsv2_is_the_cosine_in_its_own_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.zeros(()))

        def forward(self, images: torch.Tensor, texts: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"image_features": self.scale * images, "text_features": texts}

    def create(name: str, pretrained: None, **options: Any) -> Any:
        assert (name, options["output_dict"], options["precision"]) == ("ViT-H-14", True, "fp32")
        return Model(), None, lambda image: torch.tensor(np.asarray(image)[0, 0, :2] / 255.0).float()

    clip: Any = ModuleType("hpsv2.src.open_clip")
    clip.create_model_and_transforms = create
    clip.get_tokenizer = lambda name: lambda texts: torch.tensor([[len(t), 1.0] for t in texts])
    for name in ("hpsv2", "hpsv2.src"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "hpsv2.src.open_clip", clip)
    path = tmp_path / "hpsv2.safetensors"
    save_file({"scale": torch.tensor(2.0)}, path)
    images = [image(k) for k in range(3)]
    found = HpsV2(path).scores(images, PROMPTS)
    wanted = [2 * (len(t) * int(x[0, 0, 0]) + int(x[0, 0, 1])) / 255 for t, x in zip(PROMPTS, images, strict=True)]
    assert found.tolist() == pytest.approx(wanted, rel=1e-6)
    save_file({"other": torch.tensor(2.0)}, path)
    with pytest.raises(UserError, match="expected all tensors of the network, found no tensor scale; convert"):
        HpsV2(path)
    save_file({"scale": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="the package hpsv2: expected its network to load, found RuntimeError"):
        HpsV2(path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(UserError, match="found a Git LFS pointer"):
        HpsV2(path)


def test_absent_packages_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file({"scale": torch.tensor(2.0)}, tmp_path / "hps.pt")
    for name in ("ImageReward", "hpsv2", "hpsv2.src", "hpsv2.src.open_clip"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"ImageReward is not installed; pip install image-reward") as e:
        ImageReward(files(tmp_path))
    assert e.value.exit_code == 2
    with pytest.raises(UserError, match=r"the package hpsv2: expected an import, found .*; pip install git\+https"):
        HpsV2(tmp_path / "hps.pt")


def test_a_mean_with_its_standard_error() -> None:
    scores = np.array([1.0, 2.0, 4.0])
    figure, error = mean(scores), scores.std(ddof=1) / 3**0.5
    assert (figure.value, figure.low, figure.high) == pytest.approx(
        (7 / 3, 7 / 3 - 1.96 * error, 7 / 3 + 1.96 * error), 1e-4
    )
    assert mean(scores[:1]).low is None
