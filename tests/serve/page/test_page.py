"""The page as people use it, on a real server: drawing, settings, history, the map of drafts, what is copied."""

from __future__ import annotations

import ast
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Route, expect

from tests.serve.page.conftest import Visit
from tests.serve.page.looking import copied, download, figure, lane, provenance

ROUTE = "**/v1/images/generations"


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


def test_one_decoder_alone(visit: Visit) -> None:
    page = visit.open()
    for mode, name in (("COOL-SD", "cool"), ("Plain", "plain")):
        visit.asked.clear()
        page.get_by_label(mode, exact=True).check()
        visit.draw()
        assert len(visit.asked) == 1
        assert page.locator(".lane").count() == 1
        assert lane(page, name).locator(".actions").is_visible()
        assert page.locator("#outcome").is_hidden()
        assert page.locator("#turns").is_hidden()


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


def test_a_value_out_of_range_is_not_sent(visit: Visit) -> None:
    page = visit.open()
    page.fill("#prompt", "red apple")
    for label, value in (("Seed", "-1"), ("Seed", "18446744073709551616"), ("Guidance scale", "0.5"), ("Top-k", "1.5")):
        field = page.get_by_label(label, exact=True)
        before = field.input_value()
        field.fill(value)
        page.press("#prompt", "Enter")
        assert field.evaluate("field => field === document.activeElement && !field.validity.valid"), (label, value)
        field.fill(before)
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
    both = "[m.asCurl(%s, 'http://h/', true), m.asPython(%s, 'http://h/v1', true)]"
    code = f"import('/static/snippets.js').then((m) => {both})"
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
