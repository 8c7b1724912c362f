"""Templates of pages and sections: everything put in is escaped.

Tokens, prompts and responses are untrusted text. They reach a page in two ways only: through jinja2 with
autoescape on, or as JSON with every character that could end a script escaped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def render(template: Path, **values: Any) -> Markup:
    """Render a jinja2 template file with autoescape; what it yields may stand in a page as it is.

    Templates can import the macros ``figure`` and ``sentences`` from ``macros.html.j2``, and call ``script_json``
    and ``sentence``.

    Args:
        template: Path of the template.
        **values: What the template shows.

    Raises:
        jinja2.UndefinedError: The template uses a value that was not given.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "mine.html.j2"
        >>> _ = path.write_text("<p>{{ text }}</p>")
        >>> print(render(path, text="<script>"))
        <p>&lt;script&gt;</p>
    """
    # Imported here: a sentence needs findings, and findings need no templates.
    from shiftlens.results import sentence

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"script_json": script_json, "sentences": sentence}
    return Markup(environment.get_template(template.name).render(**values))


def script_json(value: Any) -> Markup:
    r"""``value`` as JSON that is safe inside ``<script>``: no markup can begin or end in it.

    Example:
        >>> print(script_json(["</script>"]))
        ["\u003c/script\u003e"]
    """
    return Markup(json.dumps(value, allow_nan=False, ensure_ascii=False).translate(_ESCAPES))
