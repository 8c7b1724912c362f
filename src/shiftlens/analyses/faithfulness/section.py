"""Builds the section of faithfulness."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from shiftlens.analyses.faithfulness.compute import CERTAIN, certainty
from shiftlens.analyses.faithfulness.figures import faithfulness_boxes
from shiftlens.analyses.faithfulness.findings import faithfulness_findings
from shiftlens.models.roles import ROLES
from shiftlens.results.render import render
from shiftlens.results.section import Section

_LEAD = (
    "Importance is a linear estimate of what a response token loses without a prompt token. It is right for a "
    "small change of an embedding; on a sample of prompts the loss without it was computed exactly, by "
    "replacing one embedding at a time with zero or with the mean embedding. Each point is a prompt: the rank "
    "correlation of estimate and exact loss over its tokens, averaged over the response. How far the two "
    "ablations agree with each other is the yardstick. Where the estimate stays well below it, read the maps "
    "as sensitivity to small changes, not as what the response would lose without a token; and if base and "
    "tuned differ here, a difference in their scores may be one of the estimate alone."
)


def faithfulness_section(table: pd.DataFrame, seed: int = 0) -> Section:
    """Build the section with the table ``faithfulness``, its tests and its figure.

    Args:
        table: Rows from :func:`~shiftlens.analyses.faithfulness.compute.faithfulness_rows`.
        seed: Random seed for the bootstrap intervals.
    """
    tested = Section(faithfulness_findings(table, seed))
    means = certainty(table).set_index(["role", "certain"])["spearman"].to_dict()
    both = {
        role: (means[role, True], means[role, False])
        for role in ROLES
        if {(role, True), (role, False)} <= means.keys()
    }
    return Section(
        findings=tested.findings,
        tables={"faithfulness": table},
        title="How far the importance can be trusted",
        lead=_LEAD,
        figures={"faithfulness": faithfulness_boxes(table)},
        html=render(
            Path(__file__).with_name("section.html.j2"), certainty=both, certain=CERTAIN, findings=tested.findings
        ),
        rank=70,
    )
