"""Builds the section of the tokens at which the two models' responses part ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from shiftlens.analyses.parting.compute import Parting, parting_regions, parting_table
from shiftlens.analyses.shift_explained.figures import net_by_region
from shiftlens.analyses.shift_explained.findings import Wording, region_findings
from shiftlens.results.method_agreement import Named
from shiftlens.results.render import render
from shiftlens.results.section import Section

MAX_ROWS = 60
"""Prompts listed on the page; it says so when there are more."""
_LEAD = (
    "After the prompt and what both greedy responses have in common: how strongly each model prefers the tuned "
    "model's next token to the base model's (difference of logits), and which prompt tokens push towards it."
)


def parting_section(
    found: Mapping[str, Sequence[Parting]], methods: Sequence[Named], left_out: Mapping[str, int], seed: int = 0
) -> Section:
    """Build the section with the tables ``parting`` and ``parting_regions``, the tests and the figure.

    Args:
        found: Role -> partings as this model is explained, in the same order for both.
        methods: Methods of the rows; the first is the headline.
        left_out: Why prompts are left out -> how many.
        seed: Random seed for the bootstrap intervals.
    """
    labels = [method.label for method in methods]
    table, regions = parting_table(found, labels), parting_regions(found, labels)
    tuned = regions[regions["role"] == "tuned"]
    notes = [f"left out: {count} {why}" for why, count in left_out.items()]
    wording = Wording("parting", "the push towards the tuned model's token", "tuned")
    findings = region_findings(tuned, methods, wording, notes, seed)
    figures = {"parting_by_region": net_by_region(tuned, "net push, logits")} if len(tuned) else {}
    return Section(
        findings=findings,
        tables={"parting": table, "parting_regions": regions},
        title="Where the responses part ways",
        lead=_LEAD,
        figures=figures,
        html=render(
            Path(__file__).with_name("section.html.j2"), findings=findings, notes=notes, method=methods[0].words,
            rows=table[table["method"] == labels[0]].to_dict("records"), max_rows=MAX_ROWS,
        ),
        rank=48,
    )  # fmt: skip
