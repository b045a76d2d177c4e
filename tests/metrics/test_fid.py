"""FID against its definition: the resize, Fréchet's formula by scipy and torchmetrics, and what is kept of features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.metrics.fid import few, fid, frechet, resized
from coolsd_rt.metrics.frechet import distance
from coolsd_rt.metrics.gallery import BATCH, Gallery, values_of
from coolsd_rt.quality.captions import read_references
from tests.metrics.test_metric import closed_formula
from tests.quality.qualities import CAPTIONS, image, write_references


def weights(size: int) -> NDArray[np.float64]:
    """Bicubic (a = -1/2) from `size` samples to 299, widened where it takes fewer: [299, size], rows summing to 1."""
    scale = max(size / 299, 1.0)
    centres = (np.arange(299) + 0.5) * size / 299
    x = np.abs(np.arange(size) + 0.5 - centres[:, None]) / scale
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    rows = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    return np.asarray(rows / rows.sum(1, keepdims=True))


@pytest.mark.parametrize(("height", "width"), [(8, 8), (64, 40), (480, 640), (299, 299), (768, 512)])
def test_the_resize_is_an_antialiased_bicubic_in_float(height: int, width: int) -> None:
    """By definition, channel by channel; clean-fid 0.1.35's own resizer gives the same floats to the last bit."""
    x = image(0, height, width)
    wanted = np.einsum("yh,hwc,xw->yxc", weights(height), x.astype(float), weights(width), optimize=True)
    found = resized(x)
    assert found.shape == (299, 299, 3)
    assert found.dtype == np.float32
    assert np.abs(found - wanted.clip(0, 255)).max() < 2e-3
    assert (found != found.round()).any() or (height, width) == (299, 299)


@pytest.mark.parametrize(("count", "width"), [(200, 6), (60, 24), (25, 24)])
def test_the_distance_is_the_formula_and_torchmetrics(count: int, width: int) -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((count, width)) @ rng.standard_normal((width, width))
    b = 1.3 * rng.standard_normal((count + 7, width)) + rng.standard_normal(width)
    x, y = torch.from_numpy(a), torch.from_numpy(b)
    assert frechet(x, y) == pytest.approx(closed_formula(a, b), rel=1e-6)
    assert frechet(x, y) == pytest.approx(distance(x, y), rel=1e-6)
    assert frechet(x, x) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("n", "m"), [(8, 9), (8, 60), (60, 8), (32, 33)])
def test_the_distance_without_full_rank(n: int, m: int) -> None:
    rng = np.random.default_rng(0)
    x, y = torch.from_numpy(rng.standard_normal((n, 32))), torch.from_numpy(rng.standard_normal((m, 32)) + 0.2)
    assert frechet(x, y) == pytest.approx(distance(x, y), rel=1e-4)
    assert frechet(x, y) == pytest.approx(frechet(y, x), rel=1e-9)


def test_more_images_than_their_rank() -> None:
    """A feature that never changes: Cholesky cannot, the eigenvalues can."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 60, 8))
    a[:, 3] = b[:, 3] = 1.0
    b[:, 5] = b[:, 4]
    found = frechet(torch.from_numpy(a), torch.from_numpy(b))
    assert found == pytest.approx(distance(torch.from_numpy(a), torch.from_numpy(b)), rel=1e-4)


def test_order_changes_nothing_and_few_images_are_said() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 30, 5)).astype(np.float32)
    figure, turn = fid(a, b), rng.permutation(30)
    assert figure.interval == "95%, jackknife over the prompts"
    assert figure.low is not None
    assert figure.high is not None
    assert figure.low < figure.value < figure.high
    assert fid(a[turn], b[turn]).value == pytest.approx(figure.value, rel=1e-9)
    assert "30 images is dominated by its bias" in few(30)
    assert few(5000) == ""


class _Brightness:
    """Mean colour of each image: values that tell images apart."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, ...]] = []

    def __call__(self, images: list[NDArray[np.uint8]], ids: tuple[str, ...]) -> NDArray[np.float64]:
        self.seen.append(ids)
        return np.array([p.mean((0, 1)) for p in images])


def test_values_by_id_are_kept_and_shuffled_files_change_nothing(tmp_path: Path) -> None:
    names = [str(n) for n in range(1, BATCH + 6)]
    folder = write_references(tmp_path / "refs", names)
    gallery, compute = Gallery(read_references(folder, names)), _Brightness()
    found = values_of(gallery, tmp_path / "kept", "x", compute)
    assert [len(ids) for ids in compute.seen] == [BATCH, 5]
    assert np.allclose(found, [image(int(name)).mean((0, 1)) for name in names])
    assert np.array_equal(values_of(gallery, tmp_path / "kept", "x", compute), found)
    assert len(compute.seen) == 2  # nothing was computed again
    # Other names in another order on the disk, ids asked for in another order: the same rows.
    for k, path in enumerate(sorted(folder.iterdir(), reverse=True)):
        path.rename(folder / (f"COCO_val2014_{path.name}" if k % 2 else path.name.lstrip("0")))
    again = Gallery(read_references(folder, names[::-1]))
    assert again.digest == gallery.digest
    assert np.array_equal(values_of(again, tmp_path / "other", "x", compute), found)


def test_another_image_identity_or_crop_is_computed_anew(tmp_path: Path) -> None:
    folder, compute = write_references(tmp_path / "refs"), _Brightness()
    gallery = Gallery(read_references(folder, CAPTIONS))
    values_of(gallery, tmp_path / "kept", "x", compute)
    values_of(gallery, tmp_path / "kept", "y", compute)
    cropped = Gallery(gallery.paths, crop=True)
    assert cropped.read("139").shape == (12, 12, 3)
    assert np.array_equal(cropped.read("139"), image(139)[:, 2:14])
    values_of(cropped, tmp_path / "kept", "x", compute)
    (folder / "000000000139.png").write_bytes((folder / "000000000285.png").read_bytes())
    values_of(Gallery(gallery.paths), tmp_path / "kept", "x", compute)
    assert len(compute.seen) == 4


def test_kept_values_that_were_touched_are_refused(tmp_path: Path) -> None:
    gallery = Gallery(read_references(write_references(tmp_path / "refs"), CAPTIONS))
    values_of(gallery, tmp_path / "kept", "x", _Brightness())
    (path,) = (tmp_path / "kept").rglob("*.npz")
    with np.load(path) as file:
        good: dict[str, Any] = dict(file)

    for change in ({"values": good["values"] + 1}, {"ids": np.roll(good["ids"], 1)}):
        np.savez(path, allow_pickle=False, **(good | change))
        with pytest.raises(CoolsdError, match=r"expected values of 139 to 1000 with their checksum.*remove it"):
            values_of(gallery, tmp_path / "kept", "x", _Brightness())
    path.write_bytes(b"no zip")
    with pytest.raises(CoolsdError, match="remove it"):
        values_of(gallery, tmp_path / "kept", "x", _Brightness())


def test_a_reference_that_is_no_image(tmp_path: Path) -> None:
    folder = write_references(tmp_path / "refs")
    (folder / "000000000139.png").write_bytes(b"<html>")
    with pytest.raises(UserError, match=r"139\.png: expected an image in PNG or JPEG"):
        Gallery(read_references(folder, CAPTIONS)).read("139")
