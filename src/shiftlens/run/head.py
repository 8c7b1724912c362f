"""Makes the parts that the reports of all comparisons share: title, models, and rules of evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from shiftlens.models.roles import ROLES
from shiftlens.results.analysis import Subject
from shiftlens.results.verdict import EVIDENCE_VERSION


def page_head(models: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Return the title and the subjects of the report that compares two models.

    Args:
        models: ``name`` and ``source`` of the model of each role.

    Returns:
        Keyword arguments ``title`` and ``subjects`` of :class:`~shiftlens.results.analysis.Analysis`.

    Example:
        >>> base, tuned = {"name": "a", "source": "x"}, {"name": "<b>", "source": "y"}
        >>> print(page_head({"base": base, "tuned": tuned})["title"])
        What changed between <em>a</em> and <em>&lt;b&gt;</em>
    """
    subjects = [Subject(role, models[role]["source"]) for role in ROLES]
    title = Markup("What changed between <em>{}</em> and <em>{}</em>")
    return {"title": title.format(*(models[role]["name"] for role in ROLES)), "subjects": subjects}


def evidence_record(controls: Sequence[str]) -> dict[str, Any]:
    """Return the version of the rules of evidence and the further controls, for the provenance.

    Args:
        controls: Names of the controls in addition to the usual ones.

    Example:
        >>> evidence_record([])["further_controls"]
        []
    """
    return {"version": EVIDENCE_VERSION, "further_controls": list(controls)}
