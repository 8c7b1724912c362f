"""Who runs when: prompts, both models, ledger, tables, findings. No formula lives here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from rich.console import Console

from shiftlens.attribution import ATTRIBUTION_VERSION, Row
from shiftlens.attribution.precision import REDUCED, agreement
from shiftlens.callbacks import View
from shiftlens.evidence.analysis import ROLES, Analysis
from shiftlens.evidence.density import density_findings
from shiftlens.evidence.maps import choose_prompts, saliency_maps
from shiftlens.evidence.measure import Measured, measure, profile_table, samples_table, tokens_table
from shiftlens.models.identity import digest
from shiftlens.models.pair import Pair
from shiftlens.models.sources import short_name
from shiftlens.prepare import Options, Role, given, in_float32, prepare
from shiftlens.prompts.readers import PromptSet
from shiftlens.provenance import provenance
from shiftlens.runner import Runner, is_main_rank


def run(
    pair: Pair,
    prompts: PromptSet,
    options: Options,
    ledger_root: Path,
    trainer: Mapping[str, Any],
    callbacks: Sequence[Callback],
    console: Console,
) -> Analysis | None:
    """Compare a pair on a set of prompts.

    Args:
        pair: the two models.
        prompts: the prompts.
        options: what to compute.
        ledger_root: folder of the ledger.
        trainer: arguments of the Lightning ``Trainer``.
        callbacks: further Lightning callbacks of the prediction runs.
        console: where progress is told.

    Returns:
        The whole analysis; ``None`` on all but the first rank of a parallel run.

    Raises:
        SourceError: a model cannot be loaded.
        PromptError: prompts that cannot be encoded, all at once.
    """
    roles, skipped = prepare(pair, prompts, options)
    if skipped:
        rows_out = len({problem.row for problem in skipped})
        console.print(
            f"[yellow]{prompts.where}: {rows_out} prompts left out (data.on_error=skip)[/]", soft_wrap=True
        )
    runner = Runner(ledger_root, pair.cache, trainer, callbacks, options.engine, options.batch_tokens, console)
    rows = {name: runner.rows(name, role, role.requests) for name, role in roles.items()}
    precision = {name: _precision(name, role, rows[name], runner, options) for name, role in roles.items()}
    if not is_main_rank():
        return None
    measured = [
        measure(name, encoded, rows[name][request.key], options.settings)
        for name, role in roles.items()
        for encoded, request in zip(role.encoded, role.requests, strict=True)
    ]
    identities = {name: role.identity for name, role in roles.items()}
    sections = [view.section(identities) for view in callbacks if isinstance(view, View)]
    samples = samples_table(measured)
    chosen = choose_prompts(samples, options.map_prompt, options.maps)
    by_role: dict[str, list[Measured]] = {name: [m for m in measured if m.role == name] for name in ROLES}
    return Analysis(
        findings=[*density_findings(samples, options.seed), *(f for section in sections for f in section.findings)],
        samples=samples,
        tokens=tokens_table(measured),
        profile=profile_table(measured),
        maps=saliency_maps(
            chosen,
            by_role,
            {name: role.tokenizer for name, role in roles.items()},
            samples,
            replace(options.settings, b=options.map_b),
        ),
        provenance=provenance(
            models={name: _model_record(role) for name, role in roles.items()},
            data={
                "name": prompts.where,
                "n": len(roles["tuned"].encoded),
                "hash": digest([[p.id, p.text, p.instruction, p.context] for p in prompts.prompts]),
                "skipped": [str(problem) for problem in skipped],
            },
            settings={**vars(options.settings), "picture_b": options.map_b},
            attribution={
                "target": options.engine.target,
                "mode": options.engine.mode,
                "include_response": options.include_response,
                "version": ATTRIBUTION_VERSION,
                "precision": {name: record for name, record in precision.items() if record},
            },
        ),
        tables={name: table for section in sections for name, table in section.tables.items()},
    )


def _model_record(role: Role) -> dict[str, str]:
    name = short_name(role.spec.source)
    return {"name": name, **role.identity.to_dict(), "template": role.template}


def _precision(
    name: str, role: Role, rows: Mapping[str, Row], runner: Runner, options: Options
) -> dict[str, float | int]:
    """Where the precision is reduced, explain a few samples in float32 too and say how well they agree."""
    if role.identity.dtype not in REDUCED or not options.check_precision:
        return {}
    shortest = sorted(role.requests, key=lambda request: len(rows[request.key].input_ids))
    chosen = shortest[: options.check_precision]
    exact = in_float32(role)
    again = [given(request, exact.identity, rows[request.key], options) for request in chosen]
    found = runner.rows(f"{name} in float32", exact, again)
    return agreement([rows[request.key] for request in chosen], [found[request.key] for request in again])
