"""FID's Inception against torch-fidelity's features of the same weights, its file, and its conversion."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from coolsd_rt.checkpoints.formats.inception import convert_inception
from coolsd_rt.errors import UserError
from coolsd_rt.models.inception import Inception, load_inception, shapes
from tests.quality.qualities import inception_state, write_inception

State = dict[str, torch.Tensor]
# torch-fidelity 0.4.0's features (float32, "2048") of the weights in `qualities` and the images below: the largest
# of each branch of the last block in the first image, and both images' value there.
GOLDEN = {
    231: (42.46229553222656, 42.53802490234375),
    566: (50.5691032409668, 49.9029426574707),
    1034: (42.69157409667969, 42.589420318603516),
    1237: (98.16790771484375, 97.85990905761719),
    1677: (70.2377700805664, 70.50999450683594),
    1893: (62.39529037475586, 63.78978729248047),
}
MEANS = (
    6.480525970458984,
    6.81753396987915,
    6.214239597320557,
    8.808655738830566,
    7.909182071685791,
    8.716072082519531,
)
EDGES = (0, 320, 704, 1088, 1472, 1856, 2048)  # of the branches


def images() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, 3, 299, 299), dtype=np.uint8))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inception(tmp_path_factory.mktemp("inception") / "inception.safetensors")


def test_features_are_torch_fidelitys(file: Path) -> None:
    found = load_inception(file)(images().float())
    assert found.shape == (2, 2048)
    for index, wanted in GOLDEN.items():
        assert found[:, index].tolist() == pytest.approx(wanted, rel=1e-4)
    for low, high, mean in zip(EDGES, EDGES[1:], MEANS, strict=False):
        assert float(found[:, low:high].mean()) == pytest.approx(mean, rel=1e-4)


def test_features_are_those_of_an_installed_torch_fidelity(tmp_path: Path) -> None:
    library = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3", exc_type=ImportError)
    head = {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    torch.save(inception_state() | head, tmp_path / "weights.pth")
    theirs = library.FeatureExtractorInceptionV3("x", ["2048"], str(tmp_path / "weights.pth"))
    ours = Inception().eval()
    ours.load_state_dict(inception_state())
    with torch.no_grad():
        assert torch.allclose(ours(images().float()), theirs(images())[0], atol=1e-4)


def published(extra: State | None = None) -> State:
    """As the .pth has it: with the classifier, and counters of training."""
    counters = {
        f"{name.removesuffix('.weight')}.num_batches_tracked": torch.tensor(0)
        for name in shapes()
        if name.endswith("bn.weight")
    }
    head = {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    return inception_state() | counters | head | (extra or {})


def test_the_published_pickle_converts_once(tmp_path: Path) -> None:
    source, to = tmp_path / "pt_inception-2015-12-05-6726825d.pth", tmp_path / "inception.safetensors"
    torch.save(published(), source)
    done = convert_inception(source, to)
    assert (done.family, done.tensors, done.dropped) == ("fid-inception", 470, 94 + 2)
    assert done.bytes == to.stat().st_size
    with safe_open(str(to), framework="pt") as file:
        assert json.loads(file.metadata()["config"]) == {"family": "fid-inception"}
        for name, value in inception_state().items():
            assert torch.equal(file.get_tensor(name), value)
    with pytest.raises(UserError, match=r"expected a file to write, found the checkpoint itself"):
        convert_inception(to, to)


def without(name: str) -> Callable[[State], State]:
    return lambda state: {k: v for k, v in state.items() if k != name}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s | {"fc.weight": torch.zeros(1000, 2048)}, r"\[1000, 2048\], as torchvision's ImageNet network"),
        (lambda s: s | {"AuxLogits.fc.bias": torch.zeros(3)}, r"AuxLogits\.fc\.bias: expected no such tensor"),
        (without("Mixed_7c.branch_pool.bn.bias"), r"branch_pool\.bn\.bias: expected floats \[192\], found none"),
        (lambda s: s | {"Conv2d_1a_3x3.bn.bias": torch.zeros(3)}, r"expected floats \[32\], found F32 \[3\]"),
        (lambda s: s | {"Conv2d_1a_3x3.bn.bias": torch.full((32,), torch.nan)}, "expected finite numbers"),
    ],
)
def test_another_network_is_refused(tmp_path: Path, change: Callable[[State], State], said: str) -> None:
    source = tmp_path / "weights.safetensors"
    save_file(change(published()), str(source))
    with pytest.raises(UserError, match=said):
        convert_inception(source, tmp_path / "to.safetensors")
    assert not list(tmp_path.glob("*to.safetensors*"))


def test_a_file_of_something_else_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "inception.safetensors"
    save_file({"a": torch.zeros(2)}, str(path))
    with pytest.raises(UserError, match=r"expected \[.*found none; convert the published weights once: coolsd-rt conv"):
        load_inception(path)
    torch.save(inception_state()["Conv2d_1a_3x3.bn.bias"], tmp_path / "weights.pth")
    with pytest.raises(UserError, match="expected a whole safetensors file, found a zip archive"):
        load_inception(tmp_path / "weights.pth")
