"""Names, chunks and the sheet; a file is whole or absent."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coolsd_rt.errors import CoolsdError
from coolsd_rt.workflows import png

RED = np.full((8, 8, 3), (250, 10, 20), np.uint8)


@pytest.mark.parametrize(
    ("index", "count", "prompt", "name"),
    [
        (0, 1, "red apple", "000-red-apple.png"),
        (7, 1000, "  A  Red/Apple!? ", "007-a-red-apple.png"),
        (7, 1001, "../../etc", "0007-etc.png"),
        (1, 2, "Äpfel", "001-äpfel.png"),
        (1, 2, "?", "001-image.png"),
    ],
)
def test_names(index: int, count: int, prompt: str, name: str) -> None:
    assert png.file_name(index, count, prompt) == name


def test_a_long_prompt_still_makes_a_file_name() -> None:
    for prompt in ("word " * 200, "ü" * 500):
        name = png.file_name(0, 1, prompt)
        assert len(f".{name}.12345678.tmp".encode()) < 255
        assert not name.endswith("-.png")


def test_pixels_and_provenance_come_back(tmp_path: Path) -> None:
    said = {"prompt": "Äpfel 🍎", "seed": 2**64 - 1, "law": {"omegas": [1.5, 1.0]}}
    path = png.write_png(tmp_path / "new", "000-x.png", RED, said)
    assert png.read_provenance(path) == said
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), RED)
    chunk = b"tEXtcoolsd-rt\0"
    assert chunk in path.read_bytes()  # an ordinary text chunk, for readers that know no other
    assert [p.name for p in path.parent.iterdir()] == ["000-x.png"]


def test_a_foreign_png_has_no_provenance(tmp_path: Path) -> None:
    Image.fromarray(RED).save(tmp_path / "a.png")
    assert png.read_provenance(tmp_path / "a.png") is None


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = png.write_png(tmp_path, "a.png", RED)
    old = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("coolsd_rt.store.atomic.os.fsync", full)
    with pytest.raises(CoolsdError, match="no space left") as caught:
        png.write_png(tmp_path, "a.png", 255 - RED)
    assert caught.value.exit_code == 1
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_the_sheet_shows_every_image_in_its_place() -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)]
    page = png.sheet([np.full((64, 64, 3), c, np.uint8) for c in colours], ["a caption " * 20] * 5)
    step_x, step_y = 128 + 8, 128 + 16 + 8
    assert page.shape == (2 * step_y + 8, 3 * step_x + 8, 3)  # 5 images: 3 columns, 2 rows
    for k, colour in enumerate(colours):
        x, y = 8 + k % 3 * step_x, 8 + k // 3 * step_y
        assert (page[y : y + 128, x : x + 128] == colour).all()
        assert (page[y : y + 128, x + 128 : x + step_x] == 255).all()  # a long caption stays in its column
        assert (page[y + 129 : y + step_y, x + 128 : x + step_x] == 255).all()
        assert (page[y + 129 : y + step_y, x : x + 128] < 128).any()
    assert png.sheet([RED] * 4, ["a"] * 4, columns=4).shape[0] == step_y + 8
