"""What libraries say while a verb runs: nothing of it stands before an error of ours."""

from __future__ import annotations

import logging
import warnings

import pytest

from coolsd_rt.cli.terminal import note
from coolsd_rt.errors import UserError
from tests.cli.conftest import Cli, Verb


def chatter() -> None:
    """What torch, transformers and others do; and a note of ours in the middle."""
    warnings.warn("old\nthing", FutureWarning, stacklevel=1)
    own = logging.getLogger("library")
    own.propagate = False
    own.handlers[:] = [logging.StreamHandler()]
    own.warning("weights %s", "fell\x1b out")
    note("ours")


@pytest.fixture
def no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COOLSD_TRACEBACK", raising=False)


@pytest.mark.usefixtures("no_traceback")
def test_before_an_error_stands_nothing_but_ours(cli: Cli, verb: Verb) -> None:
    def body() -> None:
        chatter()
        raise UserError("the prompt", expected="words")

    verb(body)
    done = cli("build")
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines() == ["ours", "error: the prompt: expected words"]


@pytest.mark.usefixtures("no_traceback")
def test_after_success_they_are_told_once_each(cli: Cli, verb: Verb) -> None:
    def body() -> None:
        chatter()
        chatter()

    verb(body)
    done = cli("build")
    assert done.code == 0
    assert done.err.splitlines()[:2] == ["ours", "ours"]
    assert done.err.splitlines()[2:] == [
        "warning: FutureWarning: old thing",
        "warning: library: weights fell\\x1b out",
    ]


def test_a_traceback_is_with_all_of_it(cli: Cli, verb: Verb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COOLSD_TRACEBACK", "1")

    def body() -> None:
        chatter()
        raise UserError("x\x1b")

    verb(body)
    err = cli("build").err
    assert "fell\x1b out" in err  # the library's own line, as it writes it
    assert "UserError: x\\x1b" in err
