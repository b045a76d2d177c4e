"""What the tests of the page look at: its lanes and their figures, files that are downloaded, texts that are copied."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Locator, Page, expect

PNG = b"\x89PNG\r\n\x1a\n"


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
