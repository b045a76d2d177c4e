"""A browser for the page, and a watch over it: no error in its console, no request to another host.

Debian's chromium or Google's; without one the tests are skipped with a reason, but fail where `CI` is set.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")
from playwright.sync_api import Browser, Page, sync_playwright  # noqa: E402 - what it is skipped for

from tests.serve.page.scripted import Scripted  # noqa: E402
from tests.serve.serving import RunningServer  # noqa: E402

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 20_000.0
"""Milliseconds that a test waits for the page: far more than it takes, since the machine may be busy."""


def chromium() -> str:
    """The path of a browser. Skips the test without one; fails it in CI."""
    found = os.environ.get("COOLSD_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is not None:
        return found
    reason = f"no browser: none of {', '.join(NAMES)} is on the PATH; on Debian: apt-get install chromium"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")  # its event loop runs until the end, and would be in the way of other modules
def browser() -> Iterator[Browser]:
    path = chromium()
    with sync_playwright() as play:
        one = play.chromium.launch(executable_path=path, args=["--no-sandbox", "--headless"])
        yield one
        one.close()


@pytest.fixture
def address(server: RunningServer) -> str:
    return f"{server.url}/"


@dataclass
class Visit:
    """A page of the server, and what went wrong on it. expected: parts of console errors that a test provokes."""

    page: Page
    address: str
    expected: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    asked: list[dict[str, object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(PATIENCE)
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self._note(request.url, request.method, request.post_data_json))

    def _note(self, url: str, method: str, body: object) -> None:
        here = urlsplit(self.address).netloc
        if urlsplit(url).scheme not in ("data", "blob") and urlsplit(url).netloc != here:
            self.elsewhere.append(url)
        if method == "POST" and isinstance(body, dict):
            self.asked.append(body)

    def open(self) -> Page:
        self.page.goto(self.address)
        self.page.wait_for_selector("#facts:not(:empty)")
        return self.page

    def draw(self, prompt: str = "red apple") -> None:
        """Draw to the end."""
        self.page.fill("#prompt", prompt)
        self.page.press("#prompt", "Enter")
        self.finish()

    def finish(self) -> None:
        self.page.wait_for_selector("#stop:disabled", state="attached")
        self.page.wait_for_selector("#status:has-text('Finished')")

    def check(self) -> None:
        unexpected = [text for text in self.errors if not any(part in text for part in self.expected)]
        assert unexpected == []
        assert self.elsewhere == []


@pytest.fixture
def visit(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """A page in a browser without a past. A parameter is given to the browser's context, such as the colour scheme."""
    options = {"viewport": {"width": 1280, "height": 900}, **getattr(request, "param", {})}
    context = browser.new_context(**options, permissions=["clipboard-read", "clipboard-write"])
    one = Visit(context.new_page(), address)
    yield one
    one.check()
    context.close()


@pytest.fixture
def scripted(visit: Visit) -> Iterator[Scripted]:
    """Answers the page's requests for images with what a test scripts, in the place of the engine."""
    with Scripted() as server:
        visit.page.route("**/v1/images/generations", lambda route: route.continue_(url=server.address))
        yield server
