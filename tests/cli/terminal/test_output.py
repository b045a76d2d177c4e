"""Whatever is said, on whatever stream: control characters are visible, markup is not read, one room prints."""

from __future__ import annotations

import ast
import io
import json
import re
import sys
from pathlib import Path

import pytest

from coolsd_rt.cli import terminal
from coolsd_rt.errors import CoolsdError, UserError
from tests.cli.terminal.conftest import ROOT, OnTerminal, frames

EVIL = "a\x1b]0;x\x07\x1b[31mb\r\x9bc\u202ed\u2028e\x7f\nf\udcff[bold]g[/bold] :cat:"
SHOWN = r"a\x1b]0;x\x07\x1b[31mb\r\x9bc\u202ed\u2028e\x7f\nf\udcff[bold]g[/bold] :cat:"


def test_lines_tables_errors(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say(EVIL)
    terminal.note(EVIL)
    terminal.complain(UserError(EVIL, expected=EVIL, found=EVIL, fix=EVIL))
    out, err = capsys.readouterr()
    assert out == SHOWN + "\n"
    assert err == f"{SHOWN}\nerror: {SHOWN}: expected {SHOWN}, found {SHOWN}; {SHOWN}\n"
    terminal.show_table((EVIL, EVIL), [(EVIL, EVIL)], EVIL)
    assert capsys.readouterr().out == f"{SHOWN}\n" + f"{SHOWN}  {SHOWN}\n" * 2
    terminal.say_lines("a\nb\x1b")
    assert capsys.readouterr().out == "a\nb\\x1b\n"


def test_an_error_with_problems_has_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    class Several(UserError):
        problems = (UserError("a\nb"), UserError("c"))

    terminal.complain(Several("x"))
    assert capsys.readouterr().err == "error: a\\nb\nerror: c\n"
    terminal.complain(CoolsdError(""))
    assert capsys.readouterr().err == "error: CoolsdError\n"


def test_json_is_ascii_without_controls(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_json({EVIL: [EVIL, float("nan"), Path(EVIL)]})
    out = capsys.readouterr().out
    assert out.isascii()
    assert all(line.isprintable() for line in out.splitlines())
    assert json.loads(out) == {EVIL: [EVIL, None, EVIL]}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_stream_that_cannot_say_it_says_it_in_escapes(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding))
    terminal.say("żółw 🐢")
    assert raw.getvalue().endswith(b"\\U0001f422\n")


def test_a_closed_stream_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    terminal.say("x")
    terminal.note("x")
    terminal.show_fields({"a": 1})


def test_a_table_on_a_terminal_reads_no_markup(on_terminal: OnTerminal) -> None:
    code = (
        f"from coolsd_rt.cli.terminal import show_table; show_table(('a', '[red]b'), [({EVIL!r}, '[bold]1')], {EVIL!r})"
    )
    said = on_terminal(code, 160)
    assert "│" in said
    assert said.count(SHOWN) == 2
    assert "[red]b" in said
    assert "[bold]1" in said


@pytest.mark.parametrize("width", [40, 80])
def test_a_table_never_cuts_a_cell(on_terminal: OnTerminal, width: int) -> None:
    path = "/a/folder/with/a/name/that/is/long/000-red-apple.png"
    code = f"from coolsd_rt.cli.terminal import show_fields; show_fields({{'sheet': {path!r}, 'images': 3}})"
    said = on_terminal(code, width)
    assert path in said
    assert ("│" in said) is (width == 80)
    assert all(len(line) <= width or path in line for line in frames(said))


PRINTERS = {"print", "echo", "secho", "style", "print_exc", "Console"}
"""Names of functions that write to a terminal."""

ALLOWED = {
    "coolsd_rt/cli/__main__.py": "Ctrl-C before anything is imported",
    "tools/gpu_check.py": "the package itself is missing",
    "coolsd_rt/tools/demo/memory.py": "the program of a child process, in a string",
}


def printing(path: Path) -> list[int]:
    """Lines that write to the standard streams by themselves."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called.split(".")[-1] in PRINTERS or re.search(r"std(out|err)(\.buffer)?\.write", called):
            found.append(node.lineno)
    return found


def test_one_room_prints() -> None:
    """Also what ruff's T20 and banned names do not see. export/ stands at the top, coolsd_rt/export is a link to it."""
    for top in ("coolsd_rt", "export", "tools"):
        for path in (ROOT / top).rglob("*.py"):
            name = str(path.relative_to(ROOT))
            if not name.startswith("coolsd_rt/cli/terminal/") and name not in ALLOWED:
                assert printing(path) == [], name
