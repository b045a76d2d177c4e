"""What the page makes of a stream: figures and picture in the middle of it, stopping, endings of all kinds."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.serve.page.conftest import Visit
from tests.serve.page.scripted import WAIT, Scripted, completed, event, partial, progress

PLAIN = [0] * 15
COOL = [3, 0, 3, 2, 3]  # 16 tokens with the first: 1 + 4 + 1 + 4 + 3 + 4, the last one too many
PARSE = """async ({text, cut, size}) => {
    const { makeParser, eventsOf } = await import('/static/sse.js');
    const bytes = new TextEncoder().encode(text);
    const body = new ReadableStream({ start(controller) {
        const pieces = Array.from({ length: Math.ceil(bytes.length / (size || 1)) }, (_, i) => (i + 1) * size);
        const ends = size ? pieces : [cut, bytes.length];
        let from = 0;
        for (const end of ends) { controller.enqueue(bytes.slice(from, end)); from = end; }
        controller.close();
    } });
    const found = [];
    for await (const data of eventsOf(body)) found.push(data);
    return found;
}"""


def lane(page: Page, name: str, part: str) -> str:
    return page.locator(f"[data-lane={name}] {part}").inner_text()


def begin(visit: Visit) -> Page:
    page = visit.open()
    page.fill("#prompt", "red apple")
    page.press("#prompt", "Enter")
    return page


def test_events_survive_any_cut(visit: Visit) -> None:
    page = visit.open()
    lines = [
        ": comment",
        "data: {“ä”: 1}",
        "",
        "event: x",
        "data:two",
        "data: lines 🦊",
        "",
        "",
        "data: [DONE]",
        "",
        "",
    ]
    expected = ["{“ä”: 1}", "two\nlines 🦊", "[DONE]"]
    for newline in ("\n", "\r\n", "\r"):
        text = newline.join(lines)
        cuts = [(cut, 0) for cut in range(len(text.encode()) + 1)]
        for cut, size in [*cuts, (0, 1), (0, 2), (0, 3)]:
            assert page.evaluate(PARSE, {"text": text, "cut": cut, "size": size}) == expected, (newline, cut, size)


def test_the_image_grows_while_it_is_drawn(visit: Visit, scripted: Scripted) -> None:
    scripted.plain = [progress([0, 0, 0], 0, 4), WAIT, completed(PLAIN, 0, 2.0)]
    scripted.cool = [progress([3, 0, 2], 3, 9), partial(2), WAIT, completed(COOL, 3, 1.0)]
    page = begin(visit)
    expect(page.locator("[data-lane=plain] .state")).to_have_text("4 of 16 tokens")
    expect(page.locator("[data-lane=cool] img")).to_have_attribute("alt", "red apple, unfinished: 2 of 4 rows")
    assert [lane(page, "cool", f"[data-figure={name}]") for name in ("speed", "length", "steps", "seconds")] == [
        "36", "2.67", "3", "0.25",
    ]  # fmt: skip
    assert (
        page.locator("[data-lane=cool] img").evaluate("image => getComputedStyle(image).clipPath")
        == "inset(0px 0px 50%)"
    )
    uncovered = page.locator("[data-lane=cool] .heat g:not(.covered) rect")
    assert uncovered.count() == 1  # token 9, below the rows that the image shows
    assert page.inner_text("#outcome") == "The same seed, two decoders."
    assert page.locator("[data-lane=cool] .actions").is_hidden()
    scripted.go_on.set()
    visit.finish()
    assert page.inner_text(".headline") == "COOL-SD: 3.0x fewer steps, and 2.0x faster."
    assert page.locator("[data-lane=cool] img").evaluate("image => getComputedStyle(image).clipPath") == "none"


def test_the_map_shows_where_drafts_were_rejected(visit: Visit, scripted: Scripted) -> None:
    """Token 0 is the prefill's; tokens 5 and 12 were drawn after rejections, 4 and 9 as bonuses."""
    scripted.plain, scripted.cool = [completed(PLAIN, 0, 2.0)], [completed(COOL, 3, 1.0)]
    page = begin(visit)
    visit.finish()
    marks = page.locator("[data-lane=cool] .heat circle")
    assert marks.evaluate_all("all => all.map((c) => [c.getAttribute('cx'), c.getAttribute('cy')])") == [
        ["1.5", "1.5"],
        ["0.5", "3.5"],
    ]
    fills = page.locator("[data-lane=cool] .heat rect").evaluate_all("all => all.map((r) => r.getAttribute('fill'))")
    most, none, two = fills[1], fills[5], fills[10]
    assert fills == [None, *[most] * 4, none, *[most] * 4, *[two] * 3, *[most] * 3]
    assert len({most, none, two}) == 3
    assert page.locator("[data-lane=plain] .heat rect.bare").count() == 16
    assert page.locator("[data-lane=cool] .heat").get_attribute("aria-label") == (
        "Heat map of 4 rows of 4 tokens. Of 16 decided tokens 11 are accepted drafts, 2 were drawn by the large model "
        "after a rejection, 2 as a bonus where all drafts were accepted, 1 without drafts."
    )


def test_it_says_so_when_drafts_do_not_pay(visit: Visit, scripted: Scripted) -> None:
    scripted.plain = [completed(PLAIN, 0, 2.0)]
    page = visit.open()
    for accepted, seconds, said in (
        (COOL, 2.4, "COOL-SD: 3.0x fewer steps, but 1.2x slower."),
        (COOL, 2.01, "COOL-SD: 3.0x fewer steps, and about as fast."),
        (PLAIN, 4.0, "COOL-SD: as many steps, and 2.0x slower."),
    ):
        scripted.cool = [completed(accepted, 3, seconds, ["A warning."])]
        visit.draw()
        assert page.inner_text(".headline") == said
        assert "A warning." in lane(page, "cool", ".state")


def test_stop_closes_the_connection(visit: Visit, scripted: Scripted) -> None:
    scripted.plain = [progress([0, 0, 0], 0, 4), WAIT]
    scripted.cool = [progress([3, 0, 2], 3, 9), WAIT]
    page = visit.open()
    page.fill("#prompt", "red apple")
    for by in ("Escape", "Stop"):
        page.press("#prompt", "Enter")
        expect(page.locator("[data-lane=cool] .state")).to_have_text("9 of 16 tokens")
        expect(page.locator("[data-lane=plain] .state")).to_have_text("4 of 16 tokens")
        if by == "Escape":
            page.keyboard.press("Escape")
        else:
            page.click("#stop")
        assert scripted.gone()
        assert scripted.gone()
        expect(page.locator("#status")).to_have_text("Stopped.")
        assert lane(page, "cool", ".state") == "Stopped at 9 of 16 tokens"
        assert page.locator("#stop").is_disabled()
        assert page.evaluate("document.activeElement.id") == "prompt"
        assert page.locator("#alert").is_hidden()
        assert page.locator("#history").is_hidden()


def test_a_new_draw_takes_the_place_of_the_old(visit: Visit, scripted: Scripted) -> None:
    scripted.plain = scripted.cool = [progress([0, 0, 0], 0, 4), WAIT]
    page = begin(visit)
    expect(page.locator("[data-lane=cool] .state")).to_have_text("4 of 16 tokens")
    scripted.plain, scripted.cool = [completed(PLAIN, 0, 2.0)], [completed(COOL, 3, 1.0)]
    page.press("#prompt", "Enter")
    assert scripted.gone()
    assert scripted.gone()
    visit.finish()
    assert page.locator("#history-list li").count() == 1


def test_a_stream_that_ends_badly(visit: Visit, scripted: Scripted) -> None:
    page = visit.open()
    page.fill("#prompt", "red apple")
    scripted.plain = [completed(PLAIN, 0, 2.0)]
    for last, said in (
        (event(error={"message": "The engine failed", "type": "server_error"}), "The engine failed. Try again"),
        (b": nothing\n\n", "The server ended before the image was finished. Draw it again."),
        (b"data: {broken\n\n", "The server sent what this page cannot read."),
    ):
        scripted.cool = [progress([3, 0, 2], 3, 9), last]
        page.press("#prompt", "Enter")
        page.wait_for_selector("#alert:not([hidden])")
        assert said in page.inner_text("#alert")
        assert "Not finished." in lane(page, "cool", ".state")
        assert page.locator("#history-list li").first.locator("img").count() == 1  # what was finished is kept
        scripted.cool = [completed(COOL, 3, 1.0)]
        page.click("#alert button")
        visit.finish()
        assert page.locator("#alert").is_hidden()
        assert page.locator("#history-list li").first.locator("img").count() == 2


def test_one_after_the_other(visit: Visit, scripted: Scripted) -> None:
    scripted.plain = [progress([0, 0, 0], 0, 4), WAIT, completed(PLAIN, 0, 2.0)]
    scripted.cool = [completed(COOL, 3, 1.0)]
    page = visit.open()
    page.check("#turns")
    page.fill("#prompt", "red apple")
    page.click("#draw")
    expect(page.locator("[data-lane=plain] .state")).to_have_text("4 of 16 tokens")
    assert lane(page, "cool", ".state") == "Waiting for its turn"
    assert len(visit.asked) == 1
    scripted.go_on.set()
    visit.finish()
    assert "One ran after the other" in page.inner_text("#outcome")
