"""The page as people use it, on a real server: drawing, settings, history, keys, colours, small screens, errors."""

from __future__ import annotations

import ast
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, Route, expect

from tests.serve.page.conftest import Visit

PNG = b"\x89PNG\r\n\x1a\n"
OVERFLOW = "document.documentElement.scrollWidth - window.innerWidth"
GROUND = "getComputedStyle(document.body).backgroundColor"
ROUTE = "**/v1/images/generations"


def provenance(data: bytes) -> dict[str, Any]:
    """What the text chunk of a PNG says."""
    assert data.startswith(PNG)
    with Image.open(io.BytesIO(data)) as image:
        told: dict[str, Any] = json.loads(image.info["coolsd-rt"])
    return told


def download(page: Page, name: str) -> tuple[str, bytes]:
    with page.expect_download() as waiting:
        page.click(f"[data-lane={name}] [data-action=download]")
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def lane(page: Page, name: str) -> Locator:
    return page.locator(f"[data-lane={name}]")


def figure(page: Page, name: str, which: str) -> float:
    return float(lane(page, name).locator(f"[data-figure={which}]").inner_text())


def copied(page: Page, name: str, action: str) -> str:
    page.click(f"[data-lane={name}] [data-action={action}]")
    expect(page.locator("#status")).to_contain_text("Copied")
    text: str = page.evaluate("navigator.clipboard.readText()")
    return text


def test_the_empty_state_invites(visit: Visit) -> None:
    page = visit.open()
    assert page.locator("#empty").is_visible()
    assert page.locator("#lanes, #history, #alert, #tools").locator("visible=true").count() == 0
    sample = page.locator(".chip:not(.more)").first
    prompt = sample.inner_text()
    sample.click()
    visit.finish()
    assert page.locator("#empty").is_hidden()
    assert page.input_value("#prompt") == prompt
    assert {asked["prompt"] for asked in visit.asked} == {prompt}


def test_nothing_is_asked_without_a_prompt(visit: Visit) -> None:
    page = visit.open()
    page.click("#draw")
    expect(page.locator("#status")).to_have_text("Type a prompt first.")
    assert page.evaluate("document.activeElement.id") == "prompt"
    assert visit.asked == []


def test_both_decoders_draw_one_seed(visit: Visit) -> None:
    page = visit.open()
    visit.draw()
    plain, cool = sorted(visit.asked, key=lambda asked: "plain" not in asked)
    assert plain["plain"] is True
    assert "pacing" not in plain
    assert (cool["pacing"], "plain" in cool) == ("manual", False)
    assert plain["seed"] == cool["seed"]
    for asked in visit.asked:
        assert (asked["stream"], asked["progress"], asked["prompt"]) == (True, True, "red apple")
        assert 0 < int(str(asked["partial_images"])) <= 16
    assert page.evaluate("fetch('v1/models').then((r) => r.json())")["data"][0]["id"] == plain["model"]
    for name in ("plain", "cool"):
        image = lane(page, name).locator("img")
        assert image.evaluate("async (image) => { await image.decode(); return image.naturalWidth }") > 0
        assert "red apple" in str(image.get_attribute("alt"))
        assert lane(page, name).locator("progress").evaluate("bar => bar.value") == 1
        told = provenance(download(page, name)[1])
        assert (told["seed"], told["prompt"]) == (plain["seed"], "red apple")
        assert f"seed {plain['seed']}" in lane(page, name).inner_text()
        assert figure(page, name, "seconds") >= 0
        assert figure(page, name, "speed") > 0
    assert figure(page, "plain", "length") == 1
    assert figure(page, "plain", "steps") >= figure(page, "cool", "steps") > 0
    headline = page.inner_text(".headline")
    assert re.fullmatch(r"COOL-SD: .*(fewer|as many) steps, (and|but) .*(faster|slower|about as fast)\.", headline)


@pytest.mark.parametrize(("mode", "name"), [("COOL-SD", "cool"), ("Plain", "plain")])
def test_one_decoder_alone(visit: Visit, mode: str, name: str) -> None:
    page = visit.open()
    page.get_by_label(mode, exact=True).check()
    visit.draw()
    assert len(visit.asked) == 1
    assert page.locator(".lane").count() == 1
    assert lane(page, name).locator(".actions").is_visible()
    assert page.locator("#outcome").is_hidden()


def test_the_controls_say_what_is_asked(visit: Visit) -> None:
    page = visit.open()
    assert page.locator(".verdict").inner_text().startswith("Relaxed")
    page.get_by_label("Delta").fill("1.37")
    page.get_by_label("Guidance scale").fill("2.5")
    page.get_by_label("Draft length").fill("2")
    page.get_by_label("Seed", exact=True).fill("18446744073709551615")
    visit.draw()
    plain, cool = sorted(visit.asked, key=lambda asked: "plain" not in asked)
    assert cool["schedule"] == {"kind": "exponential", "delta": 1.37, "nu": 0.7, "floor": 1}
    assert (cool["draft_length"], cool["guidance_scale"]) == (2, 2.5)
    assert {"schedule", "draft_length"} & set(plain) == set()
    assert plain["guidance_scale"] == 2.5
    assert plain["seed"] == cool["seed"] == 2**64 - 1
    assert provenance(download(page, "cool")[1])["seed"] == 2**64 - 1
    assert "delta 1.37" in lane(page, "cool").inner_text()

    visit.asked.clear()
    page.get_by_label("Schedule").select_option("none")
    assert page.locator(".verdict").inner_text().startswith("Lossless")
    assert page.get_by_label("Delta").is_hidden()
    page.get_by_label("Draft source").select_option("jacobi")
    page.get_by_label("Draft length").fill("3")
    visit.draw()
    (cool,) = (asked for asked in visit.asked if "plain" not in asked)
    assert (cool["schedule"], cool["draft"], cool["draft_length"]) == ({"kind": "none"}, "jacobi", 3)

    visit.asked.clear()
    page.get_by_text("Reset to the engine's own").click()
    visit.draw()
    (cool,) = (asked for asked in visit.asked if "plain" not in asked)
    assert set(cool) == {"model", "prompt", "pacing", "seed", "stream", "partial_images", "progress"}


@pytest.mark.parametrize(
    ("label", "value"), [("Seed", "-1"), ("Seed", "18446744073709551616"), ("Guidance scale", "0.5")]
)
def test_a_value_out_of_range_is_not_sent(visit: Visit, label: str, value: str) -> None:
    page = visit.open()
    page.get_by_label(label, exact=True).fill(value)
    page.fill("#prompt", "red apple")
    page.press("#prompt", "Enter")
    assert page.get_by_label(label, exact=True).evaluate(
        "field => field === document.activeElement && !field.validity.valid"
    )
    assert visit.asked == []


def test_the_dice_roll_a_seed(visit: Visit) -> None:
    page = visit.open()
    page.get_by_label("Roll a new seed").click()
    seed = int(page.get_by_label("Seed", exact=True).input_value())
    visit.draw()
    assert [asked["seed"] for asked in visit.asked] == [seed, seed]


def test_the_history_shows_again_and_restores(visit: Visit) -> None:
    page = visit.open()
    page.get_by_label("Delta").fill("1.25")
    visit.draw()
    first, before = visit.asked[0]["seed"], download(page, "cool")
    page.get_by_label("Delta").fill("2")
    page.get_by_label("COOL-SD", exact=True).check()
    visit.draw("blue star")
    assert page.locator("#history-list li").count() == 2
    assert page.locator("#history-list [aria-current]").inner_text().startswith("blue star")
    visit.asked.clear()
    page.locator("#history-list button").nth(1).click()
    assert visit.asked == []
    assert page.input_value("#prompt") == "red apple"
    assert page.get_by_label("Delta").input_value() == "1.25"
    assert page.get_by_label("Compare both").is_checked()
    assert int(page.get_by_label("Seed", exact=True).input_value()) == first
    assert page.locator(".lane").count() == 2
    assert page.locator(".headline").is_visible()
    assert download(page, "cool") == before
    visit.draw()
    again = download(page, "cool")
    pixels = [Image.open(io.BytesIO(data)).convert("RGB").tobytes() for _, data in (before, again)]
    assert pixels[0] == pixels[1]


def test_the_heat_map_has_the_cells_of_the_grid(visit: Visit) -> None:
    page = visit.open()
    visit.draw()
    rows, columns = page.evaluate("fetch('v1/models').then((r) => r.json())")["data"][0]["coolsd"]["grid"]
    cells = lane(page, "cool").locator(".heat rect")
    visible = "all => all.filter((cell) => getComputedStyle(cell.parentNode).display !== 'none').length"
    assert cells.evaluate_all(visible) == 0
    button = page.get_by_role("button", name="Heat map of drafts")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    for name in ("plain", "cool"):
        assert lane(page, name).locator(".heat rect").evaluate_all(visible) == rows * columns
    spots = cells.evaluate_all("all => all.map((cell) => `${cell.getAttribute('x')},${cell.getAttribute('y')}`)")
    assert set(spots) == {f"{x},{y}" for x in range(columns) for y in range(rows)}
    assert page.locator("#legend").is_visible()
    steps = int(figure(page, "cool", "steps"))
    text = str(lane(page, "cool").locator(".heat").get_attribute("aria-label"))
    drafts, rejected, bonus, rest = map(int, re.findall(r"(\d+) (?:are|were|as|without)", text))
    assert drafts + rejected + bonus + rest == rows * columns
    assert lane(page, "cool").locator(".heat circle").count() == rejected
    lane(page, "cool").locator("summary").click()
    rounds = lane(page, "cool").locator("table").first.locator("td:nth-child(2)").all_inner_texts()
    assert sum(map(int, rounds)) == steps
    by_row = lane(page, "cool").locator("table").nth(1).locator("tbody tr").all_inner_texts()
    assert [int(line.split()[-1]) for line in by_row] == [columns] * rows
    assert sum(int(line.split()[1]) for line in by_row) == drafts
    button.click()
    assert cells.evaluate_all(visible) == 0


def test_what_is_copied_draws_the_same(visit: Visit, tmp_path: Path) -> None:
    page = visit.open()
    page.get_by_label("Delta").fill("1.3")
    visit.draw()
    name, shown = download(page, "cool")
    assert name == f"red-apple-cool-{visit.asked[0]['seed']}.png"
    python, curl = copied(page, "cool", "python"), copied(page, "cool", "curl")
    ast.parse(python)
    sent = json.loads(re.search(r"-d '(.*)'", curl)[1])  # type: ignore[index]
    (asked,) = (dict(asked) for asked in visit.asked if "plain" not in asked)
    assert sent == {key: value for key, value in asked.items() if key not in ("stream", "partial_images", "progress")}
    pytest.importorskip("openai")
    subprocess.run([sys.executable, "-c", python], cwd=tmp_path, check=True, timeout=60)
    assert provenance((tmp_path / "red-apple.png").read_bytes()) == provenance(shown)
    if shutil.which("curl"):
        (tmp_path / "red-apple.png").unlink()
        subprocess.run(["bash", "-c", curl], cwd=tmp_path, check=True, timeout=60)
        assert provenance((tmp_path / "red-apple.png").read_bytes()) == provenance(shown)


def test_quotes_survive_the_copying(visit: Visit) -> None:
    page = visit.open()
    prompt = 'it\'s a "$HOME" \\ `tick` \u2028 <b>'
    code = "import('/static/snippets.js').then((m) => [m.asCurl(%s, 'http://h/', true), m.asPython(%s, 'http://h/v1', true)])"
    request = json.dumps({"prompt": prompt, "plain": True, "seed": 7})
    curl, python = page.evaluate(code % (request, request))
    told = "curl() { printf '%s\\0' \"$@\"; }\n" + curl.split(" \\\n  |")[0]
    shown = subprocess.run(["bash", "-c", told], capture_output=True, text=True, check=True, timeout=60).stdout.split(
        "\0"
    )
    assert json.loads(shown[shown.index("-d") + 1]) == json.loads(request)
    (call,) = (
        node
        for node in ast.walk(ast.parse(python))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("generate")
    )
    given = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    assert given == {"prompt": prompt, "extra_body": {"plain": True, "seed": 7}}


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
    wide = page.evaluate("[...document.querySelectorAll('main *')].filter((e) => !e.closest('.chips, #history-list, .hidden, svg')"
                         " && e.getBoundingClientRect().right > window.innerWidth + 1).map((e) => e.outerHTML.slice(0, 80))")  # fmt: skip
    assert wide == []
    width = lane(page, "cool").locator(".frame").evaluate("frame => frame.getBoundingClientRect().width")
    side = lane(page, "cool").locator("img").evaluate("image => image.naturalWidth")
    factor = width * 3 / side  # pixels of the screen for one of the image; a layout's steps are 1/64
    assert factor == pytest.approx(round(factor), abs=0.02)


@pytest.mark.parametrize("visit", [{"reduced_motion": "reduce"}], indirect=True)
def test_nothing_moves_for_who_wants_that(visit: Visit) -> None:
    page = visit.open()
    assert page.locator("#draw").evaluate("button => getComputedStyle(button).transitionDuration") == "0s"


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


@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [
        (429, {"Retry-After": "7"}, r"The server is busy.* Try again in 7 seconds \(at .*\d\d.*\)\."),
        (429, {}, r"The server is busy.* Try again in a few seconds\."),
        (503, {}, r"<i>What the server said</i>\. It is starting.* wait a few seconds, then try again\."),
        (504, {}, r"The image took longer than the server allows\..*"),
        (500, {}, r"<i>What the server said</i>\. Try again.*"),
        (400, {}, r"<i>What the server said</i>\. Change it and draw again\."),
    ],
)
def test_errors_say_what_to_do(visit: Visit, status: int, headers: dict[str, str], said: str) -> None:
    visit.expected = [str(status)]
    page = visit.open()
    body = {"error": {"message": "<i>What the server said</i>"}}
    page.route(ROUTE, lambda route: route.fulfill(status=status, headers=headers, json=body))
    page.fill("#prompt", "red apple")
    page.press("#prompt", "Enter")
    page.wait_for_selector("#alert:not([hidden])")
    assert re.fullmatch(said, page.locator("#alert p").inner_text())
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


def test_several_models(visit: Visit) -> None:
    def two(route: Route) -> None:
        answer = route.fetch()
        data = answer.json()
        other = json.loads(json.dumps(data["data"][0]))
        other["id"], other["coolsd"]["defaults"]["schedule"] = "other", {"kind": "none"}
        data["data"].append(other)
        route.fulfill(response=answer, json=data)

    visit.page.route("**/v1/models", two)
    page = visit.open()
    page.get_by_label("Model").select_option("other")
    expect(page.locator("#facts")).to_contain_text("other")
    assert page.get_by_label("Schedule").input_value() == "none"
    page.route(ROUTE, lambda route: route.abort())
    visit.expected = ["ERR_FAILED"]
    page.fill("#prompt", "red apple")
    page.press("#prompt", "Enter")
    page.wait_for_selector("#alert:not([hidden])")
    assert {asked["model"] for asked in visit.asked} == {"other"}
