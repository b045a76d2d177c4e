"""Take the README's two pictures of the page: `python -m tools.page_pictures http://127.0.0.1:8000`.

The server is one that runs, with the demo engine, on a machine that does nothing else: the figures are in the pictures.
Knows the page's parts by their ids. Does not know the server.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from playwright.sync_api import Browser, Error, Page, sync_playwright

PROMPTS = ("rocket", "tropical fish", "red apple")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDE, TALL = 1240, 1060


def draw(page: Page, address: str, prompts: tuple[str, ...], seed: str) -> None:
    """Open the page and draw each prompt to the end."""
    page.goto(address)
    page.wait_for_selector("#facts:not(:empty)")
    page.locator("#field-seed").evaluate("(field, seed) => { field.value = seed; }", seed)
    for prompt in prompts:
        page.fill("#prompt", prompt)
        page.press("#prompt", "Enter")
        page.wait_for_selector("#status:has-text('Drawing')")
        page.wait_for_selector("#status:has-text('Finished')", timeout=120_000)
    page.evaluate("document.activeElement.blur()")


def take(browser: Browser, address: str, out: Path, seed: str) -> None:
    """serve-light.png: a finished comparison; serve-phone-dark.png: the map of drafts on a phone."""
    page = browser.new_page(viewport={"width": WIDE, "height": TALL}, color_scheme="light")
    draw(page, address, PROMPTS, seed)
    page.screenshot(path=out / "serve-light.png")
    page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark", device_scale_factor=2)
    draw(page, address, PROMPTS[-1:], seed)
    page.click("#heat")
    page.locator("#outcome").evaluate("block => window.scrollTo(0, block.offsetTop - 12)")
    page.screenshot(path=out / "serve-phone-dark.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="of a running server, such as http://127.0.0.1:8000")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--seed", default="7")
    given = parser.parse_args()
    path = os.environ.get("COOLSD_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        parser.error(f"no browser: none of {', '.join(BROWSERS)} is on the PATH; on Debian: apt-get install chromium")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=["--no-sandbox", "--headless"])
        try:
            take(browser, given.address, given.out, given.seed)
        except Error as error:
            parser.error(f"{given.address}: {error.message.splitlines()[0]}")
        finally:
            browser.close()


if __name__ == "__main__":
    main()
