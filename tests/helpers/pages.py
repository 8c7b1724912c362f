"""Pages as a reader gets them: data embedded in them, and a browser that reports every error."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")


def embedded(page: str, name: str) -> dict[str, Any]:
    """JSON of a script block, cut out as an HTML parser does: up to the first closing tag."""
    found = re.search(rf'<script type="application/json"[^>]* id="{name}"[^>]*>(.*?)</script', page, re.S | re.I)
    assert found is not None
    data: dict[str, Any] = json.loads(found.group(1))
    return data


@contextmanager
def browser_page(path: Path) -> Iterator[tuple[Any, list[str], list[str]]]:
    """A page opened in Chromium, its errors, and the addresses it asked for; skips where there is no Chromium."""
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(90_000)  # plotly alone takes long where several share a core
        errors: list[str] = []
        requests: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        yield page, errors, requests
        browser.close()
