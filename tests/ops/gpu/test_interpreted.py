"""The kernels in Triton's interpreter, each file in a process of its own.

The interpreter is chosen when triton is imported, and other tests import it compiled, through torch.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interpreting import run_interpreted

FILES = sorted(Path(__file__).parent.glob("interpreted_*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_interpreted(file: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("triton")
    run_interpreted(file)
