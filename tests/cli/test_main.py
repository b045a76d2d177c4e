"""One place turns every failure into one line and the right exit code."""

# ruff: noqa: E501 (the table of failures reads best with one line a case)

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from coolsd_rt import __version__
from coolsd_rt.cli.interrupts import hold_back_during_imports
from coolsd_rt.cli.main import VERBS, wants_json
from coolsd_rt.errors import CoolsdError, MissingExtra, UserError
from coolsd_rt.install import install_line
from tests.cli.conftest import Cli, Verb

FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", [["schedule", "--delta", "1.1", "--json"], ["schedule", "--delta", "-1", "--json"]])
def test_a_full_stdout_is_one_line(words: list[str]) -> None:
    with FULL.open("w") as full:
        command = [sys.executable, "-m", "coolsd_rt.cli", *words]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode in (1, 2)
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")


def fail(error: BaseException) -> None:
    raise error


FAILURES: dict[str, tuple[BaseException, int, str]] = {
    "user": (UserError("prompt", expected="words", found="nothing", fix="type some"), 2, "error: prompt: expected words, found nothing; type some"),
    "ours": (CoolsdError("engine broken"), 1, "error: engine broken"),
    "extra": (MissingExtra("torch", "build", "parity"), 2, f"error: torch is not installed, but parity needs it; run: {install_line('build')}"),
    "module": (ModuleNotFoundError("No module named 'onnxruntime.capi'", name="onnxruntime.capi"), 2, f"error: onnxruntime is not installed, but this command needs it; run: {install_line('cpu')}"),
    "unknown module": (ModuleNotFoundError("No module named 'x'", name="x"), 1, "error: unexpected ModuleNotFoundError: No module named 'x'; set COOLSD_TRACEBACK=1 for the traceback"),
    "memory": (MemoryError(), 1, "error: out of memory; draw fewer images at once, or use a smaller model"),
    "disk": (OSError(errno.ENOSPC, "No space left on device", "a.png"), 1, "error: no space left on the disk (a.png); free some space, or choose another disk"),
    "quota": (OSError(errno.EDQUOT, "quota"), 1, "error: no space left on the disk; free some space, or choose another disk"),
    "file": (PermissionError(errno.EACCES, "Permission denied", "a.png"), 1, "error: a.png: expected a readable and writable path, found Permission denied"),
    "bug": (ZeroDivisionError("division\nby zero"), 1, "error: unexpected ZeroDivisionError: division by zero; set COOLSD_TRACEBACK=1 for the traceback"),
    "ctrl-c": (KeyboardInterrupt(), 130, "interrupted"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILURES)
def test_failures(cli: Cli, verb: Verb, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COOLSD_TRACEBACK", raising=False)
    error, code, line = FAILURES[case]
    verb(lambda: fail(error))
    result = cli("build")
    assert (result.code, result.err, result.out) == (code, line + "\n", "")
    result = cli("build", "--json")
    assert (result.code, result.err) == (code, line + "\n")
    assert result.json["exit_code"] == code
    assert result.json["error"]


def test_what_fails_because_of_ctrl_c_is_no_bug(cli: Cli, verb: Verb) -> None:
    """torch's clean-up can fail after an interrupt: the error that arrives is another one."""

    def body() -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("trying to pop from empty mode stack")

    verb(body)
    result = cli("build")
    assert (result.code, result.err) == (130, "interrupted\n")


def test_json_failure_has_its_sides(cli: Cli, verb: Verb) -> None:
    verb(lambda: fail(UserError("delta", expected=">= 0", found="-1", fix="raise it")))
    assert cli("build", "--json").json == {
        "error": "delta",
        "expected": ">= 0",
        "found": "-1",
        "fix": "raise it",
        "exit_code": 2,
    }


def test_traceback_when_asked(cli: Cli, verb: Verb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COOLSD_TRACEBACK", "1")
    verb(lambda: fail(ZeroDivisionError("x")))
    result = cli("build")
    assert "Traceback" in result.err
    assert result.code == 1


USAGE = {
    ("bild",): "error: no verb 'bild', did you mean 'build'?; try 'coolsd-rt --help'",
    ("zzz",): "error: No such command 'zzz'; try 'coolsd-rt --help'",
    ("validate",): "error: Missing argument 'FILE'; try 'coolsd-rt validate --help'",
    ("schema", "--chck"): "'--chck'",
    ("--nope",): "'--nope'",
}


@pytest.mark.parametrize("args", USAGE)
def test_usage(cli: Cli, args: tuple[str, ...]) -> None:
    result = cli(*args)
    assert result.code == 2
    assert USAGE[args].lower() in result.err.lower()
    assert len(result.err.splitlines()) == 1
    assert result.out == ""


def test_success_and_nothing(cli: Cli, verb: Verb) -> None:
    verb(lambda: None)
    assert cli("build").code == 0
    bare = cli()
    assert bare.code == 2
    assert bare.err.startswith("Usage:")
    assert cli("--version").out == f"coolsd-rt, version {__version__}\n"


def test_exit_code_of_a_verb(cli: Cli, verb: Verb) -> None:
    import click

    verb(lambda: click.get_current_context().exit(3))
    assert cli("build").code == 3


def test_help_lists_every_verb_without_loading_one(cli: Cli) -> None:
    text = cli("--help").out
    for name, line in VERBS.items():
        assert name in text
        assert line in text
    code = "import sys; from coolsd_rt.cli.main import run; run(['--help']); print([m for m in sys.modules if m in {}])"
    heavy = {"torch", "onnx", "onnxruntime", "numpy", "pydantic", "rich", "yaml", "PIL"}
    done = subprocess.run([sys.executable, "-c", code.format(heavy)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", ["inspect", "validate", "doctor", "schema"])
def test_help_has_an_example(cli: Cli, name: str) -> None:
    result = cli(name, "--help")
    assert result.code == 0
    assert f"Example:\n    coolsd-rt {name}" in result.out
    assert "--json" in result.out


def test_json_is_seen_before_words_are_parsed() -> None:
    assert wants_json(["x", "--json"])
    assert not wants_json(["x", "--", "--json"])
    assert not wants_json([])


def child(code: str) -> subprocess.Popen[str]:
    """A `coolsd-rt build` with this body, as a process."""
    text = (
        "import sys, types, click\n"
        "from coolsd_rt.cli.main import main\n"
        "m = types.ModuleType('coolsd_rt.cli.build'); sys.modules[m.__name__] = m\n"
        f"@click.command()\ndef command():\n    {code}\n"
        "m.command = command; sys.argv = ['coolsd-rt', 'build']; main()\n"
    )
    return subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def interrupted(process: subprocess.Popen[str], ready: str) -> tuple[int, str, str]:
    """Press Ctrl-C once the process has written the line `ready`: its exit code, and what it writes from then on."""
    assert process.stdout is not None
    assert process.stdout.readline() == f"{ready}\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def test_ctrl_c_on_a_real_process() -> None:
    process = child("import time; print('ready', flush=True); time.sleep(60)")
    assert interrupted(process, "ready") == (130, "", "interrupted\n")


def test_ctrl_c_waits_for_an_import(tmp_path: Path) -> None:
    """A native module that is interrupted halfway can end the process with a segmentation fault."""
    body = "import time\nprint('begun', flush=True)\ntime.sleep(0.5)\nprint('done', flush=True)\n"
    (tmp_path / "slow_module.py").write_text(body)
    entry = "from coolsd_rt.cli.interrupts import hold_back_during_imports; hold_back_during_imports()"
    imports = f"sys.path.insert(0, {str(tmp_path)!r}); import slow_module; time.sleep(60)"
    process = child(f"import time; exec({f'{entry}; {imports}'!r})")
    assert interrupted(process, "begun") == (130, "done\n", "interrupted\n")


def test_ctrl_c_in_a_finalizer_is_not_lost() -> None:
    """Python ignores what a finalizer raises; the interrupt would be lost and a traceback shown."""
    entry = "from coolsd_rt.cli.interrupts import hold_back_during_imports; hold_back_during_imports()"
    body = "class Slow:\n def __del__(self): print('ready', flush=True); time.sleep(60)\nSlow(); time.sleep(60)"
    code = f"{entry}\n{body}"
    process = child(f"import time; exec({code!r}, {{'time': time}})")
    assert interrupted(process, "ready") == (130, "", "interrupted\n")


def test_a_signal_that_others_handle_is_left_to_them() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        hold_back_during_imports()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("flush", [True, False])
def test_a_reader_that_left(flush: bool) -> None:
    process = child(f"[print('x' * 100, flush={flush}) for _ in range(100_000)]")
    assert process.stdout is not None
    os.close(process.stdout.fileno())
    process.stdout = None
    _, err = process.communicate(timeout=300)
    assert err == ""
    assert process.returncode == 1


def test_a_closed_stdout_is_no_failure_of_ours() -> None:
    """`coolsd-rt … >&-`: Python has no stdout then."""
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m coolsd_rt.cli schedule --delta 1.1 >&-"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "AttributeError" not in done.stderr


def test_ctrl_c_while_imports_run_is_a_word() -> None:
    code = (
        "import sys, builtins; real = builtins.__import__\n"
        "def planted(name, *a, **k):\n"
        "    if name == 'coolsd_rt.cli.main': raise KeyboardInterrupt\n"
        "    return real(name, *a, **k)\n"
        "builtins.__import__ = planted\n"
        "from coolsd_rt.cli.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
