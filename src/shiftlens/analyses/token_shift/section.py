"""Builds the section of token shift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from shiftlens.analyses.token_shift.compute import KINDS, shift_profile
from shiftlens.analyses.token_shift.figures import shift_by_position
from shiftlens.analyses.token_shift.findings import shift_findings
from shiftlens.results.render import render
from shiftlens.results.section import Section

_LEAD = (
    "The base model reads the tuned model's response. A token is unshifted where the base would have written it "
    "too, marginal where it is the base's second or third choice, and shifted elsewhere."
)


def token_shift_section(table: pd.DataFrame, left_out: Mapping[str, Sequence[str]], seed: int = 0) -> Section:
    """Build the section with the tables ``token_shift`` and ``token_shift_profile``, the tests and the figure.

    Args:
        table: Rows from :func:`~shiftlens.analyses.token_shift.compute.shift_rows`.
        left_out: Data set -> what was left out and why; has a key for every data set.
        seed: Random seed for the bootstrap intervals.
    """
    profile = shift_profile(table)
    tested = Section(shift_findings(table, left_out, seed))
    shares = {kind: float((table["kind"] == kind).mean()) for kind in KINDS} if len(table) else {}
    return Section(
        findings=tested.findings,
        tables={"token_shift": table, "token_shift_profile": profile},
        title="Which tokens tuning shifted",
        lead=_LEAD,
        figures={"token_shift": shift_by_position(profile)} if len(profile) else {},
        html=render(
            Path(__file__).with_name("section.html.j2"), shares=shares, drawn=bool(len(profile)),
            findings=tested.findings,
        ),
        rank=60,
    )  # fmt: skip
