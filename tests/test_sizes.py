"""Files and functions stay short: 300 lines and 60. What is longer today is listed with its length, and may not grow.

ruff has no rule for either. A test that fails here prints the list as it would be; a number in it may only be lowered.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("coolsd_rt", "export", "tests", "tools")
FILE_LINES = 300
FUNCTION_LINES = 60

LONG_FILES = {
    "coolsd_rt/backends/torch/triton/kernels.py": 309,
    "coolsd_rt/files.py": 327,
    "coolsd_rt/limits.py": 329,
    "coolsd_rt/train/run.py": 315,
    "coolsd_rt/workflows/drawing.py": 310,
    "tests/checkpoints/test_convert.py": 371,
    "tests/checkpoints/test_convert_damaged.py": 357,
    "tests/metrics/test_metric.py": 308,
    "tests/mutations.py": 357,
    "tests/pretrained/test_load.py": 382,
    "tests/sweep/test_run.py": 337,
    "tests/tools/test_gpu_check.py": 360,
    "tests/workflows/test_mutated_engines.py": 356,
    "tests/workflows/test_placing.py": 357,
    "tests/workflows/test_prefixes.py": 313,
    "tests/workflows/test_streaming.py": 304,
    "tests/workflows/test_which_loop.py": 318,
    "tools/gpu/check.py": 307,
}
LONG_FUNCTIONS = {
    # Triton kernels and the operators over them: half of the lines are parameters.
    "coolsd_rt/backends/torch/triton/attention.py: attend": 126,
    "coolsd_rt/backends/torch/triton/kernels.py: gemv_rows2": 78,
    "coolsd_rt/backends/torch/triton/kernels.py: product": 74,
    "coolsd_rt/device/round_kernels.py: commit": 65,
    "coolsd_rt/device/round_kernels.py: window": 61,
    "coolsd_rt/device/round_ops.py: commit": 70,
    "coolsd_rt/device/round_ops.py: window": 61,
    "coolsd_rt/ops/gpu/kernels.py: verify": 70,
    # Verbs: most of a command is its help and its options.
    "tests/runtime/jacobi_tree.py: jacobi_leaves": 68,
    "tools/emoji/train_vq.py: train": 74,
}


def sources(root: Path) -> Iterator[tuple[str, str]]:
    """Path and text of every Python file, once: what a link leads to is read where it really is."""
    seen = set()
    for folder in FOLDERS:
        for path in sorted((root / folder).resolve().rglob("*.py")):
            if path.resolve() not in seen:
                seen.add(path.resolve())
                yield path.resolve().relative_to(root.resolve()).as_posix(), path.read_text(encoding="utf-8")


def long_files(root: Path) -> dict[str, int]:
    lines = {name: len(text.splitlines()) for name, text in sources(root)}
    return {name: count for name, count in lines.items() if count > FILE_LINES}


def long_functions(root: Path) -> dict[str, int]:
    """By file and name; from `def` to the last line, decorators apart. Of two with one name the longer counts."""
    found: dict[str, int] = {}
    for name, text in sources(root):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES:
                    key = f"{name}: {node.name}"
                    found[key] = max(lines, found.get(key, 0))
    return found


def table(found: dict[str, int]) -> str:
    return "split what has grown; what has shrunk or gone: lower the list to\n" + "".join(
        f'    "{name}": {lines},\n' for name, lines in sorted(found.items())
    )


def test_no_file_grows_too_long() -> None:
    found = long_files(ROOT)
    assert found == LONG_FILES, table(found)


def test_no_function_grows_too_long() -> None:
    found = long_functions(ROOT)
    assert found == LONG_FUNCTIONS, table(found)


@pytest.mark.parametrize(("lines", "listed"), [(FUNCTION_LINES, False), (FUNCTION_LINES + 1, True)])
def test_the_limit_is_the_last_that_passes(lines: int, listed: bool, tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    body = "\n".join(["class Room:", "    async def work(self) -> None:"] + ["        pass"] * (lines - 1))
    (tmp_path / "tools" / "one.py").write_text(body + "\n")
    assert long_functions(tmp_path) == ({"tools/one.py: work": lines} if listed else {})
    (tmp_path / "tools" / "one.py").write_text("x = 1\n" * (lines + FILE_LINES - FUNCTION_LINES))
    assert bool(long_files(tmp_path)) is listed


def test_a_linked_folder_counts_once(tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    (tmp_path / "coolsd_rt").mkdir()
    (tmp_path / "export" / "long.py").write_text("x = 1\n" * 400)
    (tmp_path / "coolsd_rt" / "export").symlink_to("../export")
    assert long_files(tmp_path) == {"export/long.py": 400}
