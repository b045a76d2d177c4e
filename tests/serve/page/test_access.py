"""The page for everyone: by keyboard, in the dark, on a small screen, without motion."""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.serve.page.conftest import Visit
from tests.serve.page.looking import lane

OVERFLOW = "document.documentElement.scrollWidth - window.innerWidth"
BEYOND = """[...document.querySelectorAll('main *')]
    .filter((e) => !e.closest('.chips, #history-list, .hidden, svg'))
    .filter((e) => e.getBoundingClientRect().right > window.innerWidth + 1).map((e) => e.outerHTML.slice(0, 80))"""
GROUND = "getComputedStyle(document.body).backgroundColor"


def test_all_of_it_by_keyboard(visit: Visit) -> None:
    """Tab reaches everything that is there, always with a visible focus; Enter and the space bar do the rest."""
    page = visit.open()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab") if page.evaluate("document.activeElement.id") != "prompt" else None
    page.keyboard.type("red apple")
    page.keyboard.press("Enter")
    visit.finish()
    code = """() => {
        const at = document.activeElement;
        const shown = at.matches('.segments input') ? at.nextElementSibling : at;
        return [at.id || at.name || at.dataset.action || at.tagName, getComputedStyle(shown).outlineStyle !== 'none'];
    }"""
    reached = {}
    for _ in range(60):
        page.keyboard.press("Tab")
        name, visible = page.evaluate(code)
        if name == "heat" and name not in reached:
            page.keyboard.press("Space")
        reached[name] = visible
    assert {"draw", "mode", "turns", "download", "curl", "python", "heat", "theme", "field-seed", "field-delta"} <= set(
        reached
    )
    assert [name for name, visible in reached.items() if not visible and name != "BODY"] == []
    assert page.locator("#legend").is_visible()


@pytest.mark.parametrize("visit", [{"color_scheme": "dark"}, {"color_scheme": "light"}], indirect=True)
def test_colours_follow_the_system_until_told(visit: Visit) -> None:
    page = visit.open()
    at_first = page.evaluate(GROUND)
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert (sum(map(int, re.findall(r"\d+", at_first))) < 128) == dark
    page.click("#theme")
    assert page.evaluate(GROUND) != at_first
    page.reload()
    assert page.evaluate(GROUND) != at_first
    page.click("#theme")
    assert page.evaluate(GROUND) == at_first


@pytest.mark.parametrize(
    "visit", [{"viewport": {"width": 360, "height": 700}, "device_scale_factor": 3}], indirect=True
)
def test_a_small_screen_needs_no_scrolling_sideways(visit: Visit) -> None:
    page = visit.open()
    assert page.evaluate(OVERFLOW) <= 0
    assert page.locator("#controls").is_hidden()
    visit.draw()
    page.click("#heat")
    page.click("#law summary")
    lane(page, "cool").locator("summary").click()
    assert page.locator("#controls").is_visible()
    assert page.evaluate(OVERFLOW) <= 0
    wide = page.evaluate(BEYOND)
    assert wide == []
    width = lane(page, "cool").locator(".frame").evaluate("frame => frame.getBoundingClientRect().width")
    side = lane(page, "cool").locator("img").evaluate("image => image.naturalWidth")
    factor = width * 3 / side  # pixels of the screen for one of the image; a layout's steps are 1/64
    assert factor == pytest.approx(round(factor), abs=0.02)


@pytest.mark.parametrize("visit", [{"reduced_motion": "reduce"}], indirect=True)
def test_nothing_moves_for_who_wants_that(visit: Visit) -> None:
    page = visit.open()
    assert page.locator("#draw").evaluate("button => getComputedStyle(button).transitionDuration") == "0s"


@pytest.mark.parametrize("visit", [{"color_scheme": "dark"}, {"color_scheme": "light"}], indirect=True)
def test_axe_finds_nothing(visit: Visit) -> None:
    """Contrast, names, roles, headings: in the empty state, with everything open, and with an error."""
    page = visit.open()
    found = [*Axe().run(page).response["violations"]]
    visit.draw()
    page.click("#heat")
    lane(page, "cool").locator("summary").click()
    found += Axe().run(page).response["violations"]
    visit.expected = ["401"]
    page.route("**/v1/images/generations", lambda route: route.fulfill(status=401, json={"error": {"message": "no"}}))
    page.press("#prompt", "Enter")
    page.wait_for_selector("#key-form:not([hidden])")
    found += Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
