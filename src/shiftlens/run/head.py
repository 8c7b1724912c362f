"""What the reports of all comparisons say of themselves: title, models, rules of evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from shiftlens.models.roles import ROLES
from shiftlens.results.analysis import Subject
from shiftlens.results.verdict import EVIDENCE_VERSION


def page_head(models: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Title and subjects of the page that compares two models.

    Args:
        models: Role -> ``name`` and ``source``.

    Example:
        >>> base, tuned = {"name": "a", "source": "x"}, {"name": "<b>", "source": "y"}
        >>> print(page_head({"base": base, "tuned": tuned})["title"])
        What changed between <em>a</em> and <em>&lt;b&gt;</em>
    """
    subjects = [Subject(role, models[role]["source"]) for role in ROLES]
    title = Markup("What changed between <em>{}</em> and <em>{}</em>")
    return {"title": title.format(*(models[role]["name"] for role in ROLES)), "subjects": subjects}


def evidence_record(controls: Sequence[str]) -> dict[str, Any]:
    """The rules by which findings were judged, for the provenance.

    Args:
        controls: Names of controls beyond the usual ones.

    Example:
        >>> evidence_record([])["further_controls"]
        []
    """
    return {"version": EVIDENCE_VERSION, "further_controls": list(controls)}
