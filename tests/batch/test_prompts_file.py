"""Rows of prompts files: four formats say the same, and a bad row is one row."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coolsd_rt.batch.part import Part, Shard, count_rows, read_parts
from coolsd_rt.batch.prompt_row import parse_row, row_id, safe_name
from coolsd_rt.batch.prompts_file import FileRow, read_rows
from coolsd_rt.errors import UserError
from tests.batch.batching import write_jsonl

ROWS: list[dict[str, Any]] = [
    {"prompt": "red apple", "id": "a", "seed": 2**64 - 1, "guidance_scale": 1.5},
    {"prompt": "ein Hund, zwei", "id": "0012", "schedule": {"kind": "uniform", "delta": 1.1}},
    {"prompt": "42", "plain": True},
]


def _as_csv(rows: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(names)
    for row in rows:
        cells = [row.get(name, "") for name in names]
        writer.writerow([cell if isinstance(cell, str) else json.dumps(cell) for cell in cells])
    return text.getvalue()


def test_jsonl_csv_and_parquet_say_the_same(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    paths = [write_jsonl(tmp_path / "p.jsonl", ROWS), tmp_path / "p.csv", tmp_path / "p.parquet"]
    paths[1].write_text(_as_csv(ROWS), newline="")
    kinds = {"prompt": pa.string(), "id": pa.string(), "seed": pa.uint64(), "guidance_scale": pa.float64()}
    schedule = pa.struct({"kind": pa.string(), "delta": pa.float64(), "nu": pa.float64()})
    schema = pa.schema({**kinds, "schedule": schedule, "plain": pa.bool_()})
    pq.write_table(pa.Table.from_pylist(ROWS, schema), paths[2])
    for path in paths:
        found = list(read_rows(path))
        assert [row.values for row in found] == ROWS, path
        assert [row.number for row in found] == [0, 1, 2]
        assert not any(row.problem for row in found)


def test_text_is_one_prompt_a_line(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes(b"\xef\xbb\xbfred apple\n\n  rocket \r\nlast")
    found = [(row.number, row.place, row.values) for row in read_rows(tmp_path / "p.txt")]
    prompts = [{"prompt": text} for text in ("red apple", "rocket", "last")]
    assert found == [(0, "line 1", prompts[0]), (1, "line 3", prompts[1]), (2, "line 4", prompts[2])]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{", "not JSON"),
        (b"[1]", "another JSON value"),
        (b'{"prompt": "a", "prompt": "b"}', "prompt"),
        (b'{"prompt": "\xff"}', "0xff"),
        (b'{"prompt": "' + b"x" * (1 << 20) + b'"}', "at most 1048576 bytes"),
        (b'{"prompt": "a", "seed": NaN}', "NaN"),
    ],
)
def test_a_bad_line_is_one_bad_row(tmp_path: Path, line: bytes, problem: str) -> None:
    good = b'{"prompt": "rocket"}\n'
    (tmp_path / "p.jsonl").write_bytes(good + line + b"\n" + good)
    first, bad, last = read_rows(tmp_path / "p.jsonl")
    assert problem in bad.problem
    assert bad.place == "line 2"
    assert (first.values, last.values) == ({"prompt": "rocket"},) * 2
    assert (last.number, last.place) == (2, "line 3")


def test_a_row_of_csv_with_other_cells_or_quotes_is_one_bad_row(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes(
        b'prompt,seed\nrocket,1\nrocket\nrocket,1,2\n"a\nb",2\nrock\xffet,1\n"x"y,1\nrocket,3\n'
    )
    found = list(read_rows(tmp_path / "p.csv"))
    good = [row.values for row in found if not row.problem]
    assert good == [{"prompt": "rocket", "seed": 1}, {"prompt": "a\nb", "seed": 2}, {"prompt": "rocket", "seed": 3}]
    assert [row.place for row in found if row.problem] == ["line 3", "line 4", "line 7", "line 8"]


def test_blank_lines_belong_to_cells_and_to_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes(b'\n  \nprompt,id\n\n   \n"red\n  \n\napple",a\n\t\nrocket,b\n')
    first, last = read_rows(tmp_path / "p.csv")
    assert first == FileRow(0, "line 9", {"prompt": "red\n  \n\napple", "id": "a"})
    assert last == FileRow(1, "line 11", {"prompt": "rocket", "id": "b"})


def test_a_header_that_is_not_utf_8_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("prompt\nrocket\n", encoding="utf-16")
    with pytest.raises(UserError) as error:
        list(read_rows(tmp_path / "p.csv"))
    assert "UTF-8" in error.value.expected
    assert "0xff" in error.value.found


def test_parquet_values_that_are_no_json_are_one_bad_row_that_goes_to_other_machines(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    odd = {"id": pa.array([0, None], pa.timestamp("ms")), "top_p": pa.array([None, b"x"]), "prompt": ["a", "b"]}
    pq.write_table(pa.table(odd), tmp_path / "p.parquet")
    (part,) = read_parts(tmp_path / "p.parquet", 10)
    assert [row.problem.partition(":")[0] for row in part.rows] == ["id", "top_p"]
    assert [row.problem.rpartition(" ")[2] for row in part.rows] == ["datetime", "bytes"]
    assert Part.of(0, part.as_json()) == part


def test_a_date_beyond_the_calendar_is_a_mistake_of_the_file(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"prompt": ["a"], "id": pa.array([1 << 55], pa.timestamp("ms"))}), tmp_path / "p.parquet")
    with pytest.raises(UserError, match="a Parquet file"):
        list(read_rows(tmp_path / "p.parquet"))


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("p.csv", "prompt,sed\nrocket,1\n", "the column 'sed'"),
        ("p.csv", "seed\n1\n", "seed"),
        ("p.csv", "prompt,prompt\na,b\n", "twice"),
        ("p.csv", "", "nothing"),
        ("p.yaml", "a", ".yaml"),
        ("prompts", "a", "no ending"),
        ("p.parquet", "PAR1 not", ""),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, name: str, text: str, found: str) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as error:
        list(read_rows(tmp_path / name))
    assert found in error.value.found
    assert name in error.value.what


@given(st.text(min_size=1, max_size=60), st.text(min_size=1, max_size=60))
def test_file_names_are_safe_and_tell_ids_apart(first: str, second: str) -> None:
    try:
        names = safe_name(first), safe_name(second)
    except (UserError, UnicodeEncodeError):
        return
    assert (names[0] == names[1]) == (first == second)
    for name in names:
        assert "/" not in name
        assert "\0" not in name
        assert not name.startswith(".")
        assert len(name.encode()) <= 200


@pytest.mark.parametrize("text", ["../../etc/passwd", "..", ".hidden", "a/b", "C:\\x", "%2E", "-rf"])
def test_an_id_is_no_path(text: str) -> None:
    assert Path(f"{safe_name(text)}.png").name == f"{safe_name(text)}.png"


def test_an_id_can_be_a_number_and_no_other_row_may_have_it(tmp_path: Path) -> None:
    ids: list[Any] = [7, "7", "x", 2.5, "x", "row-0000000", "row-0000006"]
    path = write_jsonl(tmp_path / "p.jsonl", [{"prompt": "rocket", "id": one} for one in ids])
    (part,) = read_parts(path, 10)
    assert [bool(row.problem) for row in part.rows] == [False, True, False, False, True, True, False]
    assert parse_row(part.rows[0].values).id == "7"
    with pytest.raises(UserError, match="id"):
        parse_row(part.rows[3].values)
    assert row_id(6) == "row-0000006"


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 5))
def test_shards_have_each_row_once(tmp_path_factory: pytest.TempPathFactory, rows: int, size: int, shards: int) -> None:
    path = write_jsonl(tmp_path_factory.mktemp("rows") / "p.jsonl", [{"prompt": f"{k}"} for k in range(rows)])
    every = [part for k in range(shards) for part in read_parts(path, size, Shard(k + 1, shards))]
    assert (
        sorted(row.number for part in every for row in part.rows) == list(range(rows)) == list(range(count_rows(path)))
    )
    assert sorted(part.number for part in every) == list(range(-(-rows // size)))
    for part in every:
        assert [row.number for row in part.rows] == list(range(part.number * size, min(rows, (part.number + 1) * size)))
        assert Part.of(part.number, part.as_json()) == part


def test_a_row_says_what_is_wrong_with_it() -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"prompt": "a", "seed": -1}, "seed"),
        ({"prompt": "a", "n": 2}, "n"),
        ({"prompt": "a", "id": "x" * 250}, "id"),
        ({"prompt": "a", "schedule": 3}, "schedule"),
        ({"prompt": "a", "delta": 1.1, "schedule": {"delta": 1.2}}, "delta"),
        ({"prompt": "a\0b"}, ""),
    ]
    for values, name in wrong:
        with pytest.raises(UserError) as error:
            parse_row(values)
        assert name in error.value.what, values
        assert error.value.expected, values


def test_a_row_that_failed_says_where() -> None:
    from coolsd_rt.batch.part import FailedRow

    row = FileRow(3, "line 4", {"prompt": "", "id": "x"})
    assert FailedRow.of(row, "why").as_dict() == {"row": 3, "place": "line 4", "id": "x", "problem": "why"}
    assert FailedRow.of(FileRow(3, "line 4", {"id": 7}), "why").id == "7"  # as in its file's name
