"""Measures of images against their definitions: the front, Fréchet's formula, retrieval, the CLIP score."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import linalg

from coolsd_rt.errors import UserError
from coolsd_rt.metrics.frechet import FrechetDistance, VqFeatures, distance, features, with_jackknife
from coolsd_rt.metrics.metric import Figure, front
from coolsd_rt.metrics.references import INDEX, References, by_caption, read_folder
from coolsd_rt.metrics.retrieval import RetrievalAccuracy, nearest, share
from coolsd_rt.workflows.png import png_bytes, write_png
from tests.tiny import IMAGE, networks, write_weights

SMALL = st.integers(0, 4).map(float)


@given(st.lists(st.tuples(SMALL, SMALL), min_size=1, max_size=12), st.booleans())
def test_the_front_is_what_no_point_beats(points: list[tuple[float, float]], lower: bool) -> None:
    sign = -1 if lower else 1

    def beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
        at_least = a[0] >= b[0] and sign * a[1] >= sign * b[1]
        return at_least and a != b

    wanted = {i for i, p in enumerate(points) if not any(beats(other, p) for other in points)}
    found = front([p[0] for p in points], [p[1] for p in points], lower)
    assert set(found) == wanted
    assert len(found) == len(wanted)
    assert [points[i][0] for i in found] == sorted(points[i][0] for i in found)


def closed_formula(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """|mu - mu'|^2 + tr(S + S' - 2 (S S')^(1/2)), with scipy's root of a matrix."""
    s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = linalg.sqrtm(s @ t)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s + t - 2 * np.real(root)))


@pytest.mark.parametrize(("count", "width"), [(200, 6), (500, 24)])
def test_the_distance_is_the_closed_formula(count: int, width: int) -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((count, width)) @ rng.standard_normal((width, width))
    b = 1.3 * rng.standard_normal((count + 7, width)) + rng.standard_normal(width)
    found = distance(torch.from_numpy(a), torch.from_numpy(b))
    assert found == pytest.approx(closed_formula(a, b), rel=1e-6)
    assert distance(torch.from_numpy(a), torch.from_numpy(a)) == pytest.approx(0, abs=1e-6)


def test_fewer_images_than_features_is_stable() -> None:
    """Covariances without full rank: the root in float32 would be noise."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((8, 32)), rng.standard_normal((8, 32))
    found = distance(torch.from_numpy(a), torch.from_numpy(b))
    # By definition too, from the eigenvalues of S^(1/2) S' S^(1/2), which are real and never negative.
    s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    half = np.real(linalg.sqrtm(s + 1e-12 * np.eye(32)))
    root = np.sqrt(np.maximum(np.linalg.eigvalsh(half @ t @ half), 0)).sum()
    wanted = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s) + np.trace(t) - 2 * root
    assert found == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("paired", [False, True])
def test_the_jackknife_is_the_spread_of_the_distance(paired: bool) -> None:
    """Images of the same prompts differ less than images of others: the pairing must see that."""
    rng = np.random.default_rng(0)

    def sample() -> tuple[torch.Tensor, torch.Tensor]:
        prompts = 5 * rng.standard_normal((60, 3))
        drawn = prompts + 0.7 * rng.standard_normal((60, 3)) + 0.5
        real = np.concatenate([prompts] * 2) if paired else fixed
        return torch.from_numpy(real + 0.1 * rng.standard_normal(real.shape)), torch.from_numpy(drawn)

    fixed = 5 * rng.standard_normal((400, 3))
    figures = [with_jackknife(*sample(), paired) for _ in range(60)]
    spread = float(np.std([f.value for f in figures]))
    errors = [(f.high - f.value) / 1.96 for f in figures if f.high is not None]
    assert float(np.mean(errors)) == pytest.approx(spread, rel=0.35)
    assert all(f.low is not None and f.low >= 0 for f in figures)
    if paired:
        assert spread < 0.2 * float(np.mean([f.high - f.value for f in (with_jackknife(*sample(), False),) if f.high]))


def images(count: int, seed: int = 0, side: int = 8) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def write_folder(folder: Path, names: list[str], seed: int = 0, side: int = 8) -> Path:
    for name, image in zip(names, images(len(names), seed, side), strict=True):
        write_png(folder, f"{name}.png", image)
    return folder


def test_features_are_the_encoders_and_the_distance_sees_a_change(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    path = tmp_path / "vq.safetensors"
    write_weights(path, networks()[2], IMAGE)
    network = VqFeatures.load(path)
    x = images(20)
    found = features(network, x)
    assert found.shape == (20, network.num_features) == (20, 64)
    assert found.dtype == torch.float64
    # The part in row 1, column 2 of image 17 holds the latents of its cell there (4 x 4 cells in all).
    alone = network.tokenizer.latents(torch.from_numpy(x[17:18]).permute(0, 3, 1, 2).float() / 127.5 - 1)
    assert torch.allclose(found[17].reshape(4, 4, 4)[:, 1, 2], alone[0, 1, 2].double(), atol=1e-5)

    measure = FrechetDistance(network, None)
    assert measure.plain_images
    measure.refer(x)
    same, other = measure.measure(x, [""] * 20), measure.measure(x // 2, [""] * 20)
    assert same.value == pytest.approx(0, abs=1e-6)
    assert other.value > 10 * abs(same.value) + 1e-3
    measure.check(8, [])
    with pytest.raises(UserError, match="multiple of 2 pixels, found 7"):
        measure.check(7, [])


def test_references_of_a_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "refs", ["000-red-apple", "blue-star", "100-green-leaf"])
    write_png(folder, "sheet.png", images(1, side=30)[0])
    found = read_folder(folder)
    assert found.captions == ("red-apple", "green-leaf", "blue-star")
    assert (found.side, found.shift) == (8, 0)
    assert not found.flips.any()
    assert by_caption(found) == {"red-apple": 0, "green-leaf": 1, "blue-star": 2}
    network = VqFeatures.load(_weights(tmp_path))
    measure = FrechetDistance(network, found)
    assert not measure.plain_images
    assert measure.identity()["references"] == found.digest
    with pytest.raises(UserError, match="expected images of 16 x 16, as the engine draws, found 8"):
        measure.check(16, [])


def _weights(folder: Path) -> Path:
    path = folder / "vq.safetensors"
    write_weights(path, networks()[2], IMAGE)
    return path


def test_an_index_names_files_captions_and_flips(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "refs", ["a", "b"])
    index = {"version": 1, "shift": 1, "images": [{"file": "b.png", "caption": "Red apple!", "flip": True}]}
    (folder / INDEX).write_text(json.dumps(index))
    found = read_folder(folder)
    assert (found.captions, found.shift, found.flips.tolist()) == (("Red apple!",), 1, [True])
    assert by_caption(found) == {"red-apple": 0}
    assert np.array_equal(found.images[0], images(2)[1])
    before = found.digest
    write_png(folder, "b.png", images(1, 5)[0])
    assert read_folder(folder).digest != before


def write_index(folder: Path, name: str) -> None:
    (folder / INDEX).write_text(json.dumps({"images": [{"file": name, "caption": ""}]}))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda f: None, "expected PNG files, found none"),
        (lambda f: (f / "a.png").write_bytes(b"GIF89a"), r"a\.png: expected a PNG file"),
        (lambda f: [write_folder(f, ["a"]), write_folder(f, ["b"], side=16)], "of one size, found 16 x 16 and 8 x 8"),
        (lambda f: write_png(f, "a.png", np.zeros((8, 4, 3), np.uint8)), "square images of one size, found 4 x 8"),
        (lambda f: write_index(f, "../a.png"), r"images\[0\].file: expected a file's name, without a folder"),
        (lambda f: write_index(f, "a.png"), r"a\.png: expected the image that the index names, found nothing"),
        (lambda f: (f / INDEX).write_text("{"), "an index of reference images"),
        (
            lambda f: (f / "a.png").write_bytes(png_bytes(images(1)[0], {"law": {"rule": "synthetic"}})),
            "expected an image of the model, found one drawn under synthetic acceptance",
        ),
    ],
)
def test_folders_that_are_no_references(tmp_path: Path, make: Any, said: str) -> None:
    folder = tmp_path / "refs"
    folder.mkdir()
    make(folder)
    with pytest.raises(UserError, match=said):
        read_folder(folder)


def references(count: int, flips: bool, shift: int) -> References:
    rng = np.random.default_rng(3)
    return References(images(count, 3), tuple(f"p{i}" for i in range(count)), rng.random(count) < flips, shift, "")


def test_retrieval_is_the_nearest_of_all_shifted_and_mirrored_references() -> None:
    found = references(9, flips=True, shift=1)
    found.flips[:4] = False
    x = images(40, 4)
    wanted = []
    for image in x.astype(int):
        best = (math.inf, -1)
        for i, reference in enumerate(found.images.astype(int)):
            for base in (reference, reference[:, ::-1]) if found.flips[i] else (reference,):
                for dy in (-1, 0, 1):
                    for dx in (-1, 0, 1):
                        moved = np.roll(base, (dy, dx), (0, 1))
                        best = min(best, (int(((image - moved) ** 2).sum()), i))
        wanted.append(best[1])
    assert nearest(x, found).tolist() == wanted


def test_large_sets_of_references_go_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    found, x = references(9, flips=True, shift=1), images(20, 4)
    whole = nearest(x, found)
    monkeypatch.setattr("coolsd_rt.metrics.retrieval._CHUNK_BYTES", 2 * 4 * 8 * 8 * 3)
    assert np.array_equal(nearest(x, found), whole)


def test_retrieval_accuracy_and_its_interval(tmp_path: Path) -> None:
    found = read_folder(write_folder(tmp_path, ["red-apple", "blue-star", "green-leaf"]))
    measure = RetrievalAccuracy(found, tmp_path)
    prompts = ["Red apple", "green leaf", "blue star", "red apple"]
    own = np.array([found.captions.index(p.lower().replace(" ", "-")) for p in prompts])
    x = found.images[own].copy()
    measure.check(8, prompts)
    assert measure.measure(x, prompts).value == 1.0
    x[3] = found.images[found.captions.index("blue-star")]
    assert measure.measure(x, prompts).value == 0.75
    with pytest.raises(UserError, match=r"none of 'old shoe' and 1 more; add old-shoe\.png"):
        measure.check(8, ["old shoe", "red apple", "hat"])
    with pytest.raises(UserError, match="expected images of 16 x 16"):
        measure.check(16, prompts)
    twice = References(found.images, ("a b", "A-b", "c"), found.flips, 0, "")
    with pytest.raises(UserError, match="one of each caption"):
        RetrievalAccuracy(twice, tmp_path)
    # Wilson's own formula.
    k, n, z = 17, 20, 1.959963984540054
    centre, half = (k + z * z / 2) / (n + z * z), z / (n + z * z) * math.sqrt(k * (n - k) / n + z * z / 4)
    figure = share(np.arange(n) < k)
    assert (figure.value, figure.low, figure.high) == pytest.approx((k / n, centre - half, centre + half))


def test_a_figure_without_an_interval() -> None:
    assert str(Figure.around(1.5, math.nan, "none")) == "1.5"
    assert str(Figure.around(1.5, 0.1, "95%")) == "1.5 (1.3 to 1.7)"


def tiny_clip(folder: Path) -> Path:
    """A random CLIP model with a tokenizer of whole words, saved as safetensors."""
    transformers = pytest.importorskip("transformers", reason="the extra clip is not installed")
    words = [
        "<|startoftext|>",
        "<|endoftext|>",
        *(c + end for c in "abcdefghijklmnopqrstuvwxyz" for end in ("", "</w>")),
    ]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    text = {"vocab_size": len(words), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "max_position_embeddings": 20, "bos_token_id": 0, "eos_token_id": 1}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 16, "patch_size": 8}
    torch.manual_seed(0)
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    transformers.CLIPModel(config).save_pretrained(folder)
    size = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    tokenizer = transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    transformers.CLIPProcessor(transformers.CLIPImageProcessor(**size), tokenizer).save_pretrained(folder)
    return folder


def test_the_clip_score_is_a_hundred_cosines(tmp_path: Path) -> None:
    folder = tiny_clip(tmp_path / "clip")
    from coolsd_rt.metrics.clip import ClipScore

    measure, x = ClipScore(folder), images(20)
    from transformers import CLIPModel, CLIPProcessor

    network: Any = CLIPModel.from_pretrained(folder)  # the library's own way, of a folder that is whole
    processor: Any = CLIPProcessor.from_pretrained(folder)
    prompts = [f"{'abcdefghij'[k % 10]} apple" for k in range(20)]
    scores = measure.scores(x, prompts)
    for k in (0, 7, 19):  # one at a time: no padding, no batch
        inputs = processor(text=[prompts[k]], images=[x[k]], return_tensors="pt")
        with torch.no_grad():
            image = network.visual_projection(network.vision_model(inputs["pixel_values"]).pooler_output)
            text = network.text_projection(network.text_model(inputs["input_ids"]).pooler_output)
        assert scores[k] == pytest.approx(100 * float(torch.cosine_similarity(image, text)), abs=1e-3)
    figure = measure.measure(x, prompts)
    assert figure.value == pytest.approx(float(scores.mean()))
    assert figure.low is not None
    assert figure.low < figure.value
    assert measure.identity() == ClipScore(folder).identity()
    measure.measure(x[:1], ["a b c d e f g h i j k l m n o p q r s t u v w x y z"])  # cut, not refused


def test_a_folder_without_clip_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the extra clip is not installed")
    from coolsd_rt.metrics.clip import ClipScore

    with pytest.raises(UserError, match=r"config\.json: expected the config of a CLIP model, found no such file"):
        ClipScore(tmp_path)
    folder = tiny_clip(tmp_path / "clip")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="expected a CLIP model in safetensors"):
        ClipScore(folder)
