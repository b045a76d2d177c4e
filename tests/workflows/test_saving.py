"""`PipelineOutput.save`: the command's files, names that are taken, and names that can be no folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coolsd_rt import CoolsdError, Pipeline, UserError
from coolsd_rt.workflows import png


@pytest.fixture
def pipe(engine: Path) -> Pipeline:
    return Pipeline.load(engine)


def test_saving_again_is_the_commands_too(pipe: Pipeline, tmp_path: Path) -> None:
    """An image that is there is left, another one of its name is refused, unless overwrite is on."""
    first, other = pipe("red apple"), pipe("red apple", seed=1)
    assert first.save(tmp_path) == first.save(str(tmp_path))
    with pytest.raises(UserError, match="another seed; give another folder, or overwrite=True to replace"):
        other.save(tmp_path)
    (path,) = other.save(tmp_path, overwrite=True)
    assert np.array_equal(png.read_pixels(path), np.asarray(other.images[0]))


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        (5, "folder: expected a path: str or pathlib.Path, found 5"),
        ("", "folder: expected a folder, or a path for a new folder, found an empty name"),
        ("a\0b", "folder: expected a folder, or a path for a new folder, found a name with a NUL character"),
        ("a/" + "b" * 300, "folder: expected a folder, or a path for a new folder, found a name that is too long"),
        ("\udc80", "folder: expected a folder, or a path for a new folder, found a name that is not UTF-8"),
        ("a file", "a file: expected a folder, or a path for a new folder, found the file "),
        ("a file/below", "a file/below: expected a folder, or a path for a new folder, found the file "),
        ("taken", "000-red-apple.png: expected a place for a file, found a folder; give another folder"),
    ],
)
def test_a_folder_that_can_be_none_is_one_line(
    pipe: Pipeline, folder: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a file").touch()
    Path("taken/000-red-apple.png").mkdir(parents=True)
    with pytest.raises(UserError) as caught:
        pipe("red apple").save(folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "--" not in str(caught.value)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc")
def test_a_folder_that_cannot_be_made_is_an_error_of_ours(pipe: Pipeline) -> None:
    """Below /proc nobody can make one, the superuser neither."""
    with pytest.raises(CoolsdError, match=r"^/proc/nowhere: expected a folder that can be (made|written), found "):
        pipe("red apple").save("/proc/nowhere")
