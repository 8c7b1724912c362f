"""Builds the report of a tuning run: the model before, during and after tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from shiftlens.analyses.training.figures import density, follow, loss, pairs, profile, rotation, scores
from shiftlens.analyses.training.findings import Training
from shiftlens.analyses.training.shown_examples import by_checker, choose_examples
from shiftlens.models.sources import short_name
from shiftlens.results.analysis import Analysis, Subject
from shiftlens.results.render import render
from shiftlens.results.section import Section, Tile
from shiftlens.stats.rates import Interval

CHECKERS = 12
"""Number of checkers listed in the report."""
_HERE = Path(__file__).parent
_FIGURES = (
    (
        "loss",
        loss,
        "Loss",
        "Cross-entropy per response token, of the dialogues learned from and of the held-out ones.",
    ),
    (
        "follow",
        follow,
        "Instructions followed",
        "Responses of the probes that pass their check at each look, with 95 % Wilson intervals.",
    ),
    (
        "scores",
        scores,
        "Instruction score",
        "Weight of the instruction's tokens in what drives a response. Solid: the responses that the model gives "
        "at that step. Dotted: always the responses of the first look, so that only the model differs. Bands: "
        "95 % intervals of the mean over prompts.",
    ),
    (
        "density",
        density,
        "Importance density by region",
        "A density of 1 marks the heaviest token of its prompt. Bands: 95 % intervals of the mean over prompts.",
    ),
    (
        "during_profile",
        profile,
        "Importance density over the prompt",
        "Mean density in ten bins of relative prompt position, on the model's own responses.",
    ),
    (
        "during_rotation",
        rotation,
        "Feed-forward layers: how far their concepts turned",
        "Mean principal angle between the subspaces of the first principal components of a layer before tuning "
        "and at each look. 0 where the weights did not change; unrelated subspaces are close to 90 degrees apart.",
    ),
    (
        "during_pairs",
        pairs,
        "Attention heads: word pairs with verbs",
        "Net share of heads: those that gained word pairs with a verb less those that lost some, of all heads "
        "looked at; mean over verbs at the last look. Whiskers: 95 % intervals over verbs.",
    ),
)
"""Name, drawing function, heading and lead of each figure, in the order of the report."""
_TILES = (
    ("instruction_score", "Instruction score, own responses", ".2f"),
    ("fixed_instruction_score", "Instruction score, first responses", ".2f"),
    ("density_instruction", "Density of instruction tokens", ".3f"),
    ("density_context", "Density of context tokens", ".3f"),
)


def training_analysis(training: Training, command: str, examples: int = 4) -> Analysis:
    """Convert the results of a measured tuning run to an analysis with sections.

    Args:
        training: Results of the run.
        command: Command that the report gives as the next step.
        examples: Number of prompts shown with their responses.
    """
    start = str(training.provenance.get("start", {}).get("source", "the start"))
    kept = training.provenance.get("shift", {}).get("kept")
    curves = training.curves
    until = curves if kept is None else curves[curves["step"] <= kept]
    steps = sorted(curves.loc[curves["measure"] != "loss", "step"].unique().tolist())
    looks = f"{len(steps)} looks, at steps {', '.join(map(str, steps))}"
    sections = [
        Section(
            findings=training.findings,
            tables={
                "curves": curves,
                "probes": training.probes,
                "held_out": training.held_out,
                "looks": training.seconds,
                **training.tables,
            },
            tiles=training_tiles(training, until),
            scalars=_scalars(training),
        )
    ]
    for rank, (name, draw, title, lead) in enumerate(_FIGURES, start=10):
        figure = draw(curves)
        if figure.data:
            sections.append(Section(title=title, lead=lead, figures={name: figure}, rank=rank))
    checkers = by_checker(training.held_out)
    if checkers:
        html = render(_HERE / "checkers.html.j2", checkers=checkers, shown=CHECKERS)
        sections.append(Section(title="Held-out instructions by check", html=html, rank=60))
    chosen = choose_examples(training.probes, examples)
    if chosen:
        html = render(_HERE / "examples.html.j2", examples=chosen)
        sections.append(Section(title="Responses before, during and after", html=html, rank=70))
    html = render(_HERE / "next.html.j2", command=command)
    sections.append(Section(title="Next", html=html, rank=95))
    html = render(_HERE / "looks.html.j2", looks=_looks(training.seconds))
    sections.append(Section(title="Time of each look", html=html, rank=96))
    return Analysis(
        sections=sections,
        provenance=training.provenance,
        eyebrow="ShiftLens tuning report",
        title=Markup("How <em>{}</em> changed while it was tuned").format(short_name(start)),
        subjects=[
            Subject("before", f"{start}, step {steps[0] if steps else 0}"),
            Subject("after", f"step {'–' if kept is None else kept}; {looks}"),
        ],
        record={"follow_rate": None if training.change is None else training.change.to_dict()},
    )


def training_tiles(training: Training, curves: pd.DataFrame) -> list[Tile]:
    """Return the headline numbers before and after tuning.

    Args:
        training: Results of the run.
        curves: Curves of the run up to the step whose weights were kept.
    """
    tiles = []
    if (change := training.change) is not None:
        detail = f"{_percent(change.before, change.before_ci)} → {_percent(change.after, change.after_ci)}"
        label = f"Held-out instructions followed, n = {change.n}"
        tiles.append(Tile(label, f"{change.before:.0%}", f"{change.after:.0%}", detail))
    for measure, label, form in _TILES:
        values = _values(curves, measure, "all")
        if len(values):
            tiles.append(Tile(label, format(values.iloc[0], form), format(values.iloc[-1], form)))
    losses = _values(curves, "loss", "held_out")
    if len(losses):
        tiles.append(Tile("Held-out loss, nats per token", f"{losses.iloc[0]:.3f}", f"{losses.iloc[-1]:.3f}"))
    return tiles


def _values(curves: pd.DataFrame, measure: str, group: str) -> pd.Series:
    rows = curves[(curves["measure"] == measure) & (curves["group"] == group)]
    return rows.sort_values("step")["value"]


def _scalars(training: Training) -> dict[str, float]:
    if (change := training.change) is None:
        return {}
    return {
        "held_out/follow_rate/before": change.before,
        "held_out/follow_rate/after": change.after,
        "held_out/follow_rate/difference": change.difference,
    }


def _percent(rate: float, interval: Interval) -> str:
    return f"{rate:.0%} [{interval[0]:.0%}, {interval[1]:.0%}]"


def _looks(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the seconds of each look: ``step, total, parts``."""
    return [
        {
            "step": step, "total": float(rows["seconds"].sum()),
            "parts": ", ".join(f"{r.part} {r.seconds:.1f}" for r in rows.itertuples()),
        }
        for step, rows in table.groupby("step")
    ]  # fmt: skip
