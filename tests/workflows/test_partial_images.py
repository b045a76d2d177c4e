"""Rows of an unfinished image: which are finished, what stands in the others' place, and when one is shown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coolsd_rt.backends import Description
from coolsd_rt.models.layout import Layout, find_layout
from coolsd_rt.workflows.partial_images import BLANK, CodeGrid, PartialImages
from tests.workflows.fakes import DIMS

LAYOUTS = [Layout(9, 3, 3), Layout(9, 3, 5, 9), Layout(9, 4, 4, None, 10), Layout(9, 4, 2, 9, 10), Layout(9, 1, 1)]


def description(layout: Layout) -> Description:
    forced = None if layout.plain else tuple(layout.forced.tolist())
    return Description(replace(DIMS, tokens=layout.tokens), 3, 12, forced=forced)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_row_is_finished_with_its_last_code(layout: Layout) -> None:
    grid = CodeGrid(description(layout))
    assert grid.rows == layout.rows
    for decided in range(layout.tokens + 1):
        codes = np.count_nonzero(layout.code_positions < decided)
        assert grid.finished(np.array([decided])).tolist() == [codes // layout.columns]


@pytest.mark.parametrize("layout", [one for one in LAYOUTS if one.rows > 1])
def test_what_is_not_decided_is_filled_with_codes_of_finished_rows(layout: Layout) -> None:
    """What is decided stays, forced tokens stand in their places, and whatever stood elsewhere is gone."""
    grid, rng = CodeGrid(description(layout)), np.random.default_rng(0)
    for decided in range(layout.stride, layout.tokens + 1):
        final = np.where(layout.forced >= 0, layout.forced, rng.integers(0, layout.codes, layout.tokens))
        given = np.where(np.arange(layout.tokens) < decided, final, -99)
        (filled,) = grid.filled(given[None], np.array([decided]))
        assert np.array_equal(filled[:decided], final[:decided])
        assert np.array_equal(filled[layout.forced >= 0], layout.forced[layout.forced >= 0])
        codes = filled[layout.code_positions].reshape(layout.rows, layout.columns)
        done = int(grid.finished(np.array([decided]))[0])
        if done < layout.rows:
            assert codes.min() >= 0
            began = np.count_nonzero(layout.code_positions < decided) % layout.columns
            assert np.array_equal(codes[done, began:], codes[done - 1, began:])  # mirrored at the seam


def test_images_are_filled_each_by_its_own_rows() -> None:
    grid = CodeGrid(description(Layout(9, 3, 3)))
    codes = np.array([[1] * 3 + [-1] * 6, [2] * 6 + [-1] * 3])
    assert grid.filled(codes, np.array([3, 6])).tolist() == [[1] * 9, [2] * 9]


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_below_the_finished_rows_all_is_blank(rows: int) -> None:
    grid = CodeGrid(description(Layout(9, 3, 3)))
    pixels = np.zeros((12, 12, 3), np.uint8)
    shown = grid.blanked(pixels, rows)
    assert (shown[: rows * 4] == 0).all()
    assert (shown[rows * 4 :] == BLANK).all()
    assert not pixels.any()  # a copy


@pytest.mark.parametrize(("count", "steps"), [(0, []), (1, [2]), (2, [2, 3]), (3, [1, 2, 3]), (9, [1, 2, 3])])
def test_each_image_is_due_once_a_step(count: int, steps: list[int]) -> None:
    grid = CodeGrid(description(Layout(9, 4, 4)))
    due, shown = PartialImages(grid, count), dict[int, list[int]]()
    for decided in range(17):
        at = np.array([decided, max(0, decided - 5)])  # of images 7 and 3
        for place in due.due([7, 3], at).tolist():
            shown.setdefault([7, 3][place], []).append(int(grid.finished(at)[place]))
    assert shown.get(7, []) == steps
    assert shown.get(3, []) == [step for step in steps if step * 4 + 5 <= 16]


def test_a_round_that_passes_two_steps_shows_one_image() -> None:
    due = PartialImages(CodeGrid(description(Layout(9, 4, 4))), 3)
    assert due.due([0], np.array([12])).tolist() == [0]
    assert due.due([0], np.array([13])).tolist() == []
    assert due.due([1], np.array([16])).tolist() == []  # finished: the final image follows


@pytest.mark.parametrize("layout", [one for one in LAYOUTS if not one.plain])
def test_a_table_of_forced_tokens_is_found_to_be_its_layout(layout: Layout) -> None:
    found = find_layout(layout.forced.tolist())
    assert found is not None
    assert np.array_equal(found.forced, layout.forced)
    if layout.line_end is not None:
        assert found == replace(layout, codes=0)
