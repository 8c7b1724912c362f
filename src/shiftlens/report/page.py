"""The report: one self-contained HTML file that opens from disk, without a network.

A content security policy allows the page's own scripts by hash and nothing else, so markup that slipped through
the escaping of :mod:`shiftlens.results.render` still could not run.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from plotly.offline import get_plotlyjs

from shiftlens.results.analysis import Analysis
from shiftlens.results.look import PALETTE
from shiftlens.results.render import render
from shiftlens.support.whole_files import write_text

_HERE = Path(__file__).parent


def write_report(analysis: Analysis, path: Path | str) -> Path:
    """Write the report of a run, whole or not at all.

    Args:
        analysis: The run.
        path: The HTML file.

    Returns:
        The file written.
    """
    return write_text(path, render_report(analysis))


def render_report(analysis: Analysis) -> str:
    """The report of a run as HTML: its tiles and findings, then its sections by rank.

    Args:
        analysis: The run.

    Returns:
        A whole HTML document of about 5 MB, most of it plotly.js.

    Example:
        >>> from shiftlens.results.section import Section
        >>> page = render_report(Analysis([Section(title="a<b", html="x<y")], {"seed": 0}, title="What changed"))
        >>> "<h1>What changed</h1>" in page, ">a&lt;b</h2>" in page, "x&lt;y" in page
        (True, True, True)
    """
    sections = analysis.page_order
    own = dict.fromkeys(section.script for section in sections if section.script)
    page_script = (_HERE / "page.js").read_text(encoding="utf-8")
    scripts = [Markup(script) for script in (get_plotlyjs(), page_script, *own)]
    return render(
        _HERE / "page.html.j2",
        eyebrow=analysis.eyebrow,
        title=analysis.title,
        subjects=analysis.subjects,
        tiles=[tile for section in analysis.sections for tile in section.tiles],
        findings=analysis.findings,
        sections=sections,
        provenance=list(flat(analysis.provenance)),
        colors=PALETTE,
        style=style(),
        scripts=scripts,
        policy=" ".join(script_hash(script) for script in scripts),
    )


def style() -> Markup:
    """The style sheet of every page."""
    return Markup((_HERE / "page.css").read_text(encoding="utf-8"))


def script_hash(script: str) -> Markup:
    """What the content security policy names a script by."""
    return Markup("'sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() + "'")


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested values as lines of text, each under its path.

    Example:
        >>> list(flat({"a": {"b": 1, "c": [2, 3]}}))
        [('a.b', '1'), ('a.c', '2, 3')]
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from flat(item, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        yield prefix, ", ".join(str(item) for item in value)
    else:
        yield prefix, "–" if value is None else str(value)
