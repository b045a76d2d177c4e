"""What docs/python.md, the README and the notebook show of Python is run: on the demo's own engine, built once."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coolsd_rt
from coolsd_rt import FinalImage, PartialImage, Pipeline
from coolsd_rt.workflows.partial_images import BLANK

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "docs" / "pipeline.ipynb"


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def checkout(demo_checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As far as the pages need one, with the demo's engine."""
    return Path(shutil.copytree(demo_checkout, tmp_path_factory.mktemp("page") / "checkout"))


@pytest.fixture
def there(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(checkout)
    (checkout / "out").mkdir(exist_ok=True)
    return checkout


def run(code: list[str]) -> tuple[dict[str, Any], str]:
    """Blocks of a page one after another; what they left, and what they printed."""
    space: dict[str, Any] = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for block in code:
            exec(compile(block, "a block of the page", "exec"), space)
    return space, printed.getvalue()


def test_the_page_runs_and_prints_what_it_says(there: Path) -> None:
    space, printed = run(blocks("docs/python.md"))
    assert len(blocks("docs/python.md")) == 6
    assert space["built"].folder.parent == Path("engines/emoji")
    assert [record.seed for record in space["output"].records] == [0, 1, 0, 1]
    assert "denoising steps" in printed
    assert " of 16 rows" in printed
    assert {path.name for path in space["paths"]} < {path.name for path in (there / "out" / "python").iterdir()}
    assert (there / "out" / "apple.png").is_file()
    assert space["pipe"].closed


def test_every_option_is_on_the_page() -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    for name in {**coolsd_rt.CallOptions.__annotations__, **coolsd_rt.StreamOptions.__annotations__}:
        assert f"`{name}" in page, name


def test_the_readmes_block_draws_the_commands_image(there: Path, tmp_path: Path) -> None:
    """To the byte: `generate` with the same values beside it."""
    (block,) = blocks("README.md")
    assert len([line for line in block.splitlines() if line.strip()]) <= 5
    run([block])
    command = [
        sys.executable,
        "-m",
        "coolsd_rt.cli",
        "generate",
        "engines/emoji",
        "-p",
        "red apple",
        "--out",
        str(tmp_path),
    ]
    subprocess.run(command, cwd=there, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (there / "out" / "000-red-apple.png").read_bytes() == (tmp_path / "000-red-apple.png").read_bytes()


def test_a_partial_image_of_the_demo_is_near_the_final_one(there: Path) -> None:
    """Mean error under 2% of the range in the finished rows, but for two rows of codes at the seam; blank below."""
    with Pipeline.load("engines/emoji") as pipe:
        events = list(pipe.stream(["red apple", "dog face", "pizza", "yellow star"], partial_images=3))
    finals = {event.index: np.asarray(event.image, np.float64) for event in events if isinstance(event, FinalImage)}
    errors = []
    for part in (event for event in events if isinstance(event, PartialImage)):
        shown, cell = np.asarray(part.image, np.float64), part.image.height // part.total_rows
        assert (shown[part.rows * cell :] == BLANK).all()
        far = slice(0, (part.rows - 2) * cell)
        errors.append(np.abs(shown[far] - finals[part.index][far]).mean())
    assert len(errors) == 12
    assert np.mean(errors) < 0.02 * 255


def test_the_notebook_runs(there: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    client = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(there)}})
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    client.execute(env={**os.environ, "PYTHONPATH": path, "IPYTHONDIR": str(there / "ipython")})
    outputs = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    assert sum("image/png" in out.get("data", {}) for out in outputs) >= 1 + 4
    lengths = [out["data"]["text/plain"] for out in outputs if "COOL-SD" in out.get("data", {}).get("text/plain", "")]
    assert "'plain': 1.0" in lengths[0]
    assert len(list((there / "out" / "notebook").glob("*.png"))) == 5


def test_the_notebook_carries_no_outputs() -> None:
    nbformat = pytest.importorskip("nbformat")
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
