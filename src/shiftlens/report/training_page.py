"""The page, the tables and the log of a tuning run: before, during, after."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from lightning.pytorch.loggers import Logger, WandbLogger
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from shiftlens.analyses.density.figures import COLORS
from shiftlens.analyses.training.figures import QUIET, REGION_COLORS, training_charts
from shiftlens.analyses.training.findings import Training
from shiftlens.analyses.word_pairs.figures import MIDDLE
from shiftlens.models.sources import short_name
from shiftlens.report.log_analysis import TABLE_ROWS, table_cells
from shiftlens.report.page import flat, script_hash, script_json, templates
from shiftlens.report.write_tables import findings_frame
from shiftlens.results import sentence as sentences
from shiftlens.results.finding import Finding
from shiftlens.stats.rates import Interval
from shiftlens.support.whole_files import write_parquet, write_text

PALETTE = {
    COLORS["base"]: "--base",
    COLORS["tuned"]: "--tuned",
    **{color: f"--{region}" for region, color in REGION_COLORS.items()},
    QUIET: "--quiet",
    MIDDLE: "--hover",
}
"""Colours of the figures and the names under which the page has them, for light and dark."""
CHECKERS = 12
"""Checkers listed on the page."""
_KEY = (
    ("instruction_score", "Instruction score, own responses", ".2f"),
    ("fixed_instruction_score", "Instruction score, first responses", ".2f"),
    ("density_instruction", "Density of instruction tokens", ".3f"),
    ("density_context", "Density of context tokens", ".3f"),
)


def render_training(training: Training, command: str, examples: int = 4) -> str:
    """The report of a tuning run as HTML.

    Args:
        training: the run.
        command: what to run next.
        examples: prompts shown with their responses.

    Returns:
        A whole HTML document of about 5 MB, most of it plotly.js.
    """
    environment = templates()
    scripts = [Markup(get_plotlyjs()), Markup(environment.get_template("training.js.j2").render())]
    figures = {name: figure.to_plotly_json() for name, figure in training_charts(training.curves).items()}
    start = str(training.provenance.get("start", {}).get("source", "the start"))
    kept = training.provenance.get("shift", {}).get("kept")
    until = training.curves if kept is None else training.curves[training.curves["step"] <= kept]
    losses = until[(until["measure"] == "loss") & (until["group"] == "held_out")]
    return environment.get_template("training.html.j2").render(
        start=start,
        name=short_name(start),
        steps=sorted(training.curves.loc[training.curves["measure"] != "loss", "step"].unique().tolist()),
        kept=kept,
        change=training.change,
        percent=_percent,
        key_numbers=key_numbers(until),
        losses=[f"{value:.3f}" for value in losses.sort_values("step")["value"]],
        findings=training.findings,
        told=told(training.findings),
        sentences=sentences,
        figures={name: script_json(figure) for name, figure in figures.items()},
        checkers=by_checker(training.held_out),
        shown=CHECKERS,
        examples=choose_examples(training.probes, examples),
        seconds=_seconds(training.seconds),
        command=command,
        provenance=list(flat(dict(training.provenance))),
        colors=script_json(PALETTE),
        style=Markup(Path(__file__).with_name("report.css").read_text(encoding="utf-8")),
        scripts=scripts,
        policy=" ".join(script_hash(script) for script in scripts),
    )


def write_training(training: Training, folder: Path, command: str, examples: int = 4) -> list[Path]:
    """Write ``findings.json``, all tables and ``report.html``, each whole or not at all.

    Args:
        training: the run.
        folder: the run's folder.
        command: what to run next.
        examples: prompts shown with their responses.

    Returns:
        The files written, the report last.
    """
    record = {
        "findings": [finding.to_dict() for finding in training.findings],
        "follow_rate": None if training.change is None else training.change.to_dict(),
        "provenance": dict(training.provenance),
    }
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n"
    paths = [write_text(folder / "findings.json", text)]
    for name, frame in training_tables(training).items():
        paths.append(write_parquet(folder / "tables" / f"{name}.parquet", frame))
    return [*paths, write_text(folder / "report.html", render_training(training, command, examples))]


def training_tables(training: Training) -> dict[str, pd.DataFrame]:
    """All tables of a run, by name."""
    return {
        "curves": training.curves,
        "probes": training.probes,
        "held_out": training.held_out,
        "looks": training.seconds,
        "findings": findings_frame(training.findings),
        **training.tables,
    }


def training_scalars(training: Training) -> dict[str, float]:
    """The conclusions of a run under stable names: ``held_out/follow_rate/...`` and ``findings/...``."""
    values: dict[str, float] = {}
    if (change := training.change) is not None:
        values = {
            "held_out/follow_rate/before": change.before,
            "held_out/follow_rate/after": change.after,
            "held_out/follow_rate/difference": change.difference,
        }
    for finding in training.findings:
        for key in ("p", "effect"):
            value = finding.to_dict()[key]
            if value is not None:
                values[f"findings/{finding.name}/{finding.data}/{key}"] = float(value)
    return values


def log_training(training: Training, logger: Logger, report: Path) -> None:
    """Send the conclusions of a run to a logger; Weights & Biases gets tables, charts and the report too.

    Args:
        training: the run.
        logger: where to.
        report: the HTML report.
    """
    step = int(training.curves["step"].max())
    if isinstance(logger, WandbLogger):
        _log_media(training, logger, report)
    logger.log_metrics(training_scalars(training), step=step)
    logger.save()


def _log_media(training: Training, logger: WandbLogger, report: Path) -> None:
    import wandb

    run: Any = logger.experiment
    media: dict[str, Any] = {
        f"charts/{name}": wandb.Plotly(figure) for name, figure in training_charts(training.curves).items()
    }
    artifact = wandb.Artifact(f"report-{run.id}", type="report")
    artifact.add_file(str(report), name="report.html")
    run.log_artifact(artifact)
    with tempfile.TemporaryDirectory() as folder:
        for name, frame in training_tables(training).items():
            if len(frame) <= TABLE_ROWS:
                media[f"tables/{name}"] = wandb.Table(columns=list(frame.columns), data=table_cells(frame))
            else:
                table = wandb.Artifact(f"{name}-{run.id}", type="table")
                table.add_file(str(write_parquet(Path(folder) / f"{name}.parquet", frame)))
                run.log_artifact(table)
    run.log(media, commit=False)


def key_numbers(curves: pd.DataFrame) -> list[dict[str, str]]:
    """First and last value of the headline measures: ``label, before, after``."""
    numbers = []
    for measure, label, form in _KEY:
        rows = curves[(curves["measure"] == measure) & (curves["group"] == "all")].sort_values("step")
        if len(rows):
            before, after = (format(rows["value"].iloc[place], form) for place in (0, -1))
            numbers.append({"label": label, "before": before, "after": after})
    return numbers


def told(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Each finding that answers for a whole view in a sentence, and the word of its verdict.

    Which these are is a matter of the question asked, never of the answer; all are in the table.

    Args:
        findings: all of them.

    Returns:
        ``text``, ``verdict`` and ``quiet``, which says that nothing could be tested.
    """
    shown = [f for f in findings if f.name.endswith(("/follow_rate", "/instruction_score", "/all"))]
    return [{"text": tell(f), "verdict": f.verdict, "quiet": not f.testable} for f in shown]


def tell(finding: Finding) -> str:
    """A finding of a tuning run in one sentence; it claims a change only where the corrected p allows it.

    Example:
        >>> from shiftlens.stats.rates import rate_change
        >>> from shiftlens.analyses.training.findings import follow_finding
        >>> tell(follow_finding(rate_change([False] * 9, [False] * 9), "mine"))
        'Follow rate on held-out prompts: no clear change, 0% before and 0% after; difference of rates 0.00 \
[-0.25, 0.25], p > 0.99, n = 9.'
    """
    if finding.view != "tuning" or not finding.testable:
        return sentences.sentence(finding)
    p = finding.p if finding.p_corrected is None else finding.p_corrected
    clear = p is not None and p <= 0.05 and finding.effect is not None
    corrected = "corrected p" if finding.p_corrected is not None else "p"
    numbers = f"{sentences.effect(finding)}, {corrected} {sentences.p_value(p)}, n = {finding.n}."
    text, measure = finding.name.split("/")[1:3] if finding.name.count("/") == 2 else ("", "follow_rate")
    about = _ABOUT[measure] + _TEXTS[text]
    if measure == "trend":
        way = ("rises" if (finding.effect or 0) > 0 else "falls") if clear else "has no clear trend"
        return f"{about} {way} over the looks: {numbers}"
    before, after = finding.groups["before"].mean, finding.groups["after"].mean
    # The test of the score asks in one direction only, so without a clear rise nothing is said of a fall.
    unclear = "no clear rise" if measure == "instruction_score" else "no clear change"
    claim = ("rose" if after > before else "fell") if clear else unclear
    form = ".0%" if measure == "follow_rate" else ".2f"
    return f"{about}: {claim}, {before:{form}} before and {after:{form}} after; {numbers}"


_ABOUT = {
    "follow_rate": "Follow rate on held-out prompts",
    "instruction_score": "Instruction score",
    "density_instruction": "Density of instruction tokens",
    "density_context": "Density of context tokens",
    "density_other": "Density of other tokens",
    "trend": "Instruction score",
}
_TEXTS = {"": "", "own": " on its own responses", "fixed": " on the responses of the first look"}


def by_checker(held_out: pd.DataFrame) -> list[dict[str, Any]]:
    """Followed before and after by checker, most prompts first: ``checker, n, before, after``."""
    rows = [
        {
            "checker": str(name),
            "n": len(part),
            "before": int(part["before"].sum()),
            "after": int(part["after"].sum()),
        }
        for name, part in held_out.groupby("checker", sort=True)
    ]
    return sorted(rows, key=lambda row: (-row["n"], row["checker"]))


def choose_examples(probes: pd.DataFrame, count: int) -> list[dict[str, Any]]:
    """Probes with their own responses before, in the middle and after: of each outcome the first, in turn.

    Args:
        probes: of :class:`~shiftlens.analyses.training.findings.Training`.
        count: most of them.

    Returns:
        ``id, prompt, outcome, responses`` with ``when, step, text, followed, score`` each.
    """
    own = probes[probes["text"] == "own"]
    steps = sorted(own["step"].unique().tolist())
    if not steps or not count:
        return []
    looks = dict.fromkeys([steps[0], steps[len(steps) // 2], steps[-1]])
    groups: dict[str, list[str]] = {name: [] for name in _OUTCOMES.values()}
    first, last = (own[own["step"] == step].set_index("id")["followed"] for step in (steps[0], steps[-1]))
    for name in first.index:
        groups[_OUTCOMES.get((first[name], last.get(name)), "not judged")].append(str(name))
    order = [name for turn in range(count) for part in groups.values() for name in part[turn : turn + 1]]
    outcome = {name: kind for kind, part in groups.items() for name in part}
    found = []
    for name in order[:count]:
        rows = own[own["id"].astype(str) == name].set_index("step")
        responses = [
            {"when": _when(step, steps), "step": step, "text": str(rows.loc[step, "response"]),
             "followed": None if pd.isna(rows.loc[step, "followed"]) else bool(rows.loc[step, "followed"]),
             "score": float(rows.loc[step, "instruction_score"])}
            for step in looks if step in rows.index
        ]  # fmt: skip
        prompt = str(rows["prompt"].iloc[0])
        found.append({"id": name, "prompt": prompt, "outcome": outcome[name], "responses": responses})
    return found


_OUTCOMES: Mapping[Any, str] = {
    (False, True): "followed only after",
    (True, False): "followed only before",
    (True, True): "followed before and after",
    (False, False): "not followed before or after",
    None: "not judged",
}


def _when(step: int, steps: Sequence[int]) -> str:
    return "before" if step == steps[0] else "after" if step == steps[-1] else "during"


def _percent(rate: float, interval: Interval) -> str:
    return f"{rate:.0%} [{interval[0]:.0%}, {interval[1]:.0%}]"


def _seconds(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Seconds of each look: ``step, total, parts``."""
    return [
        {
            "step": step, "total": float(rows["seconds"].sum()),
            "parts": ", ".join(f"{r.part} {r.seconds:.1f}" for r in rows.itertuples()),
        }
        for step, rows in table.groupby("step")
    ]  # fmt: skip
