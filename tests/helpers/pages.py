"""Pages as a reader gets them: data embedded in them, and a browser that reports every error."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CHROMIUM = Path("/usr/bin/chromium")


def embedded(page: str, name: str) -> dict[str, Any]:
    """JSON of a script block, cut out as an HTML parser does: up to the first closing tag."""
    found = re.search(rf'<script type="application/json"[^>]* id="{name}"[^>]*>(.*?)</script', page, re.S | re.I)
    assert found is not None
    data: dict[str, Any] = json.loads(found.group(1))
    return data


@dataclass(frozen=True)
class ShownMap:
    """A saliency map as the page has it."""

    prompt_id: str
    role: str
    prompt_tokens: list[str]
    regions: list[str]
    score: np.ndarray


def maps_of(page: str) -> list[ShownMap]:
    """The saliency maps embedded in a page: base and tuned of each prompt, in the order of the page."""
    data = embedded(page, "data-maps")
    ids = [html.unescape(name) for name in re.findall(r'<div class="prompt">\s*<h3>(.*?)</h3>', page)]
    assert len(data["maps"]) == 2 * len(ids)
    return [
        ShownMap(
            ids[place // 2],
            packed["role"],
            packed["rows"],
            [data["regions"][region] for region in packed["regions"]],
            np.frombuffer(base64.b64decode(packed["score"]), np.uint8).reshape(len(packed["rows"]), -1),
        )
        for place, packed in enumerate(data["maps"])
    ]


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
