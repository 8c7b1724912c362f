"""Who runs when: prompts, both models, ledger, tables, findings. No formula lives here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from rich.console import Console

from shiftlens.analyses.crossed.section import crossed_section
from shiftlens.analyses.density.density import Density
from shiftlens.analyses.density.maps import saliency_maps
from shiftlens.attribution import ATTRIBUTION_VERSION, Request, Row
from shiftlens.attribution.role import Role, Rows, given, in_float32, reading
from shiftlens.callbacks import RowView, View
from shiftlens.models.identity import digest
from shiftlens.models.pair import Pair
from shiftlens.models.roles import ROLES
from shiftlens.models.sources import short_name
from shiftlens.prompts.readers import PromptSet
from shiftlens.results.analysis import Analysis
from shiftlens.results.provenance import provenance
from shiftlens.run.head import evidence_record, page_head
from shiftlens.run.prepare import Options, prepare
from shiftlens.run.runner import Runner
from shiftlens.scores.precision import REDUCED, agreement
from shiftlens.scores.samples import Measured, measure, samples_table
from shiftlens.scores.scored import scored
from shiftlens.support.ranks import is_main_rank


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
    runner = Runner(
        ledger_root, pair.cache, trainer, callbacks, options.engine, options.batch_tokens, console,
        options.settings, options.method,
    )  # fmt: skip
    runner.check_ranks(len(roles["base"].encoded))
    row_views = [view for view in callbacks if isinstance(view, RowView)]
    rows = _gather(roles, row_views, runner, options.responses)
    runner.release()
    main = {name: options.responses if options.responses in ROLES else name for name in ROLES}
    precision = {
        name: _precision(name, role, reading(roles, rows, name, main[name]), rows[name], runner, options)
        for name, role in roles.items()
    }
    if not is_main_rank():
        return None
    measured = [m for name in ROLES for m in _measured(roles, rows, name, main[name], options)]
    by_role: dict[str, list[Measured]] = {name: [m for m in measured if m.role == name] for name in ROLES}
    tokenizers = {name: role.tokenizer for name, role in roles.items()}
    samples = samples_table(measured)
    density = Density(
        options.settings,
        options.seed,
        options.map_prompt,
        options.map_b,
        options.maps,
        tuple(options.controls.values()),
    )
    pictured = replace(options.settings, b=options.map_b)
    sections = density.sections(
        scored(measured, samples),
        measured,
        samples,
        lambda chosen: saliency_maps(chosen, by_role, tokenizers, samples, pictured),
    )
    if options.responses == "both":
        swapped = zip(ROLES, reversed(ROLES), strict=True)
        others = [m for name, other in swapped for m in _measured(roles, rows, name, other, options)]
        sections.append(crossed_section([*measured, *others], options.seed))
    identities = {name: role.identity for name, role in roles.items()}
    sections += [view.section(identities) for view in callbacks if isinstance(view, View)]
    sections += [view.section(roles, rows) for view in row_views]
    models = {name: _model_record(role) for name, role in roles.items()}
    return Analysis(
        sections=sections,
        provenance=provenance(
            models=models,
            data={
                "name": prompts.where,
                "n": len(roles["tuned"].encoded),
                "hash": digest([[p.id, p.text, p.instruction, p.context] for p in prompts.prompts]),
                "skipped": [str(problem) for problem in skipped],
            },
            settings={**vars(options.settings), "picture_b": options.map_b},
            attribution={
                "method": {"name": options.method.name, **options.method.identity()},
                "target": options.engine.target,
                "mode": options.engine.mode,
                "include_response": options.include_response,
                "responses": options.responses,
                "version": ATTRIBUTION_VERSION,
                "precision": {name: record for name, record in precision.items() if record},
            },
            evidence=evidence_record(list(options.controls)),
        ),
        **page_head(models),
    )


def _model_record(role: Role) -> dict[str, str]:
    name = short_name(role.spec.source)
    return {"name": name, **role.identity.to_dict(), "template": role.template}


def _gather(
    roles: Mapping[str, Role], views: Sequence[RowView], runner: Runner, responses: str
) -> dict[str, dict[str, Row]]:
    """Every row that the run and its views want, by role and key.

    A role can be asked to read a response only once it is written, so each is asked for all that can be asked
    already, and again until nothing is missing. The tuned model goes first: its responses are those that
    the other reads most often, and each turn loads a model.
    """
    rows: dict[str, dict[str, Row]] = {name: {} for name in roles}

    def missing(name: str) -> list[Request]:
        texts = {"own": [name], "given": [name], "both": ROLES}.get(responses, [responses])
        wanted = [request for text in texts for request in reading(roles, rows, name, text)]
        wanted += [request for view in views for request in view.requests(name, roles, rows)]
        return [request for request in wanted if request.key not in rows[name]]

    while any(missing(name) for name in ROLES):
        for name in reversed(ROLES):
            while requests := missing(name):
                rows[name].update(runner.rows(name, roles[name], requests))
    return rows


def _measured(roles: Mapping[str, Role], rows: Rows, reader: str, writer: str, options: Options) -> list[Measured]:
    """The scores of a role's explanations of the responses of a role."""
    role, found = roles[reader], []
    written = reading(roles, rows, writer, writer)
    for encoded, request, own in zip(role.encoded, reading(roles, rows, reader, writer), written, strict=True):
        row = rows[reader][request.key]
        if reader != writer:  # whether a response was ended is for its writer to say
            row = replace(row, finished=rows[writer][own.key].finished)
        text = "given" if own.response_ids is not None else writer
        found.append(measure(reader, encoded, row, options.settings, text))
    return found


def _precision(
    name: str,
    role: Role,
    requests: Sequence[Request],
    rows: Mapping[str, Row],
    runner: Runner,
    options: Options,
) -> dict[str, float | int]:
    """Where the precision is reduced, explain a few samples in float32 too and say how well they agree."""
    if role.identity.dtype not in REDUCED or not options.check_precision:
        return {}
    shortest = sorted(requests, key=lambda request: len(rows[request.key].input_ids))
    chosen = shortest[: options.check_precision]
    exact = in_float32(role)
    again = [given(request, exact, rows[request.key], role) for request in chosen]
    # The float32 twin is no model of the pair: the views have no look at it.
    plain = replace(
        runner, callbacks=[callback for callback in runner.callbacks if not isinstance(callback, View)]
    )
    found = plain.rows(f"{name} in float32", exact, again)
    return agreement([rows[request.key] for request in chosen], [found[request.key] for request in again])
