"""Builds the section of the shift explained, and its maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from shiftlens.analyses.density.maps import ShiftMap
from shiftlens.analyses.shift_explained.compute import Shift, shift_table, tokens_of_shift
from shiftlens.analyses.shift_explained.figures import net_by_region
from shiftlens.analyses.shift_explained.findings import Wording, region_findings
from shiftlens.results.method_agreement import Named
from shiftlens.results.render import render
from shiftlens.results.section import Section

_LEAD = (
    "On the tuned model's responses: the importance of a prompt token for {target} in the tuned model minus that "
    "in the base model, which is its importance for the difference of the two. Shares are of the sum of the "
    "absolute values over prompt and response tokens."
)
_TARGETS = {"logit_difference": ("logit difference", "logits")}
_LOG = ("log p(y)", "nats")


def shift_section(
    found: Mapping[Named, Sequence[Shift]],
    target: str,
    left_out: int = 0,
    without: Sequence[str] = (),
    seed: int = 0,
) -> Section:
    """Build the section with the tables ``shift`` and ``shift_tokens``, the tests and the figure.

    Args:
        found: Method -> shifts by it; the first is the headline.
        target: What was explained, one of :data:`~shiftlens.attribution.targets.TARGETS`.
        left_out: Number of prompts left out because the two models read other tokens.
        without: What findings call the methods whose numbers cannot be subtracted.
        seed: Random seed for the bootstrap intervals.
    """
    of, unit = _TARGETS.get(target, _LOG)
    by_label = {method.label: each for method, each in found.items()}
    table = shift_table(by_label)
    notes = [f"left out: {left_out} that the two tokenizers cut differently"] if left_out else []
    findings = region_findings(table, list(found), Wording("shift", "the shift", "both"), notes, seed)
    figures = {"shift_by_region": net_by_region(table, f"net shift, {unit}")} if len(table) else {}
    return Section(
        findings=findings,
        tables={"shift": table, "shift_tokens": tokens_of_shift(by_label)},
        title="Which parts of the prompt carry the shift",
        lead=_LEAD.format(target=of),
        figures=figures,
        html=render(
            Path(__file__).with_name("section.html.j2"), findings=findings, drawn=bool(figures), unit=unit,
            without=without, left_out=left_out,
        ),
        rank=44,
    )  # fmt: skip


def shift_maps(found: Sequence[Shift], target: str, method: str, chosen: Sequence[str]) -> list[ShiftMap]:
    """Build the shift maps of the chosen prompts; a prompt that was left out has none.

    Args:
        found: Shifts by one method.
        target: What was explained.
        method: What findings call the method.
        chosen: Prompt ids.
    """
    by_id = {shift.encoded.prompt.id: shift for shift in found}
    return [
        ShiftMap(
            prompt_id=prompt,
            prompt_tokens=by_id[prompt].encoded.tokens,
            response_tokens=by_id[prompt].response_tokens,
            regions=by_id[prompt].encoded.regions,
            shift=by_id[prompt].values,
            unit=_TARGETS.get(target, _LOG)[1],
            method=method,
        )
        for prompt in chosen
        if prompt in by_id
    ]
