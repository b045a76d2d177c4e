"""What the page says when a server refuses, asks for a key or is gone, and that it shows text as text."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Route, expect

from tests.serve.page.conftest import Visit
from tests.serve.page.looking import copied

ROUTE = "**/v1/images/generations"


def test_a_key_is_asked_for(visit: Visit) -> None:
    visit.expected = ["401"]
    keys: list[str | None] = []

    def guard(route: Route) -> None:
        keys.append(route.request.headers.get("authorization"))
        if keys[-1] != "Bearer sesame":
            return route.fulfill(status=401, json={"error": {"message": "no", "code": "invalid_api_key"}})
        return route.fallback(headers={k: v for k, v in route.request.headers.items() if k != "authorization"})

    visit.page.route("**/v1/**", guard)
    visit.page.goto(visit.address)
    page = visit.page
    expect(page.locator("#alert")).to_contain_text("asks for a key")
    assert page.evaluate("document.activeElement.id") == "key"
    assert page.get_attribute("#key", "type") == "password"
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#alert")).to_contain_text("refused this key")
    page.keyboard.type("sesame")
    page.keyboard.press("Enter")
    page.wait_for_selector("#facts:not(:empty)")
    assert page.locator("#alert").is_hidden()
    visit.draw()
    assert keys[:2] == [None, "Bearer wrong"]
    assert set(keys[2:]) == {"Bearer sesame"}
    assert "sesame" not in copied(page, "cool", "python") + copied(page, "cool", "curl")
    page.reload()
    page.wait_for_selector("#facts:not(:empty)")  # this tab still has it
    assert page.evaluate("JSON.stringify(localStorage)").find("sesame") == -1


ERRORS: list[tuple[int, dict[str, str], str]] = [
    (429, {"Retry-After": "7"}, r"The server is busy.* Try again in 7 seconds \(at .*\d\d.*\)\."),
    (429, {}, r"The server is busy.* Try again in a few seconds\."),
    (503, {}, r"<i>What the server said</i>\. It is starting.* wait a few seconds, then try again\."),
    (504, {}, r"The image took longer than the server allows\..*"),
    (500, {}, r"<i>What the server said</i>\. Try again.*"),
    (400, {}, r"<i>What the server said</i>\. Change it and draw again\."),
]


def refusal(status: int, headers: dict[str, str]) -> Callable[[Route], None]:
    body = {"error": {"message": "<i>What the server said</i>"}}
    return lambda route: route.fulfill(status=status, headers=headers, json=body)


def test_errors_say_what_to_do(visit: Visit) -> None:
    visit.expected = [str(status) for status, _, _ in ERRORS]
    page = visit.open()
    page.fill("#prompt", "red apple")
    for status, headers, said in ERRORS:
        page.route(ROUTE, refusal(status, headers))
        page.press("#prompt", "Enter")
        page.wait_for_selector("#alert:not([hidden])")
        assert re.fullmatch(said, page.locator("#alert p").inner_text()), status
        assert page.locator("#alert").get_attribute("role") == "alert"
        assert page.locator("#alert i, .state i").count() == 0
        page.unroute(ROUTE)
        page.click("#alert button" if status != 400 else "#draw")
        visit.finish()
        assert page.locator("#alert").is_hidden()


def test_a_network_that_is_gone(visit: Visit) -> None:
    visit.expected = ["ERR_CONNECTION_REFUSED"]
    page = visit.open()
    page.route(ROUTE, lambda route: route.abort("connectionrefused"))
    page.fill("#prompt", "red apple")
    page.press("#prompt", "Enter")
    expect(page.locator("#alert")).to_contain_text("The server does not answer. Check that coolsd-rt serve is running")
    assert page.locator("#stop").is_disabled()


def test_a_prompt_is_only_text(visit: Visit) -> None:
    """Whether the engine knows the words or not, they never become elements."""
    visit.expected = ["400"]
    page = visit.open()
    page.fill("#prompt", "<img src=x onerror=alert(1)> red apple")
    page.press("#prompt", "Enter")
    page.wait_for_selector("#stop:disabled", state="attached")
    page.wait_for_selector("#history-list li, #alert:not([hidden])")
    assert page.locator("img[src=x]").count() == 0
