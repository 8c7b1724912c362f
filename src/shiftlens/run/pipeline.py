"""Runs a comparison from the prompts to the analysis; the formulas are in the packages that it calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from rich.console import Console

from shiftlens.analyses.crossed.section import crossed_section
from shiftlens.analyses.density.across_methods import ByMethod
from shiftlens.analyses.density.density import Density
from shiftlens.analyses.density.maps import saliency_maps
from shiftlens.analyses.shift_explained.compute import shifts
from shiftlens.analyses.shift_explained.section import shift_maps, shift_section
from shiftlens.attribution import ATTRIBUTION_VERSION, Request, Row
from shiftlens.attribution.foils import Asked
from shiftlens.attribution.methods import Method
from shiftlens.attribution.role import Role, Rows, by_method, given, in_float32
from shiftlens.callbacks import RowView, View
from shiftlens.models.identity import digest
from shiftlens.models.pair import Pair
from shiftlens.models.roles import ROLES
from shiftlens.models.sources import short_name
from shiftlens.prompts.readers import PromptSet
from shiftlens.results.analysis import Analysis
from shiftlens.results.method_agreement import Named
from shiftlens.results.provenance import provenance
from shiftlens.run.head import evidence_record, page_head
from shiftlens.run.prepare import Options, asked_of, prepare
from shiftlens.run.runner import Runner
from shiftlens.run.wanted import wanted_by_analysis
from shiftlens.scores.precision import REDUCED, agreement
from shiftlens.scores.samples import Measured, measure, profile_table, samples_table, tokens_table
from shiftlens.scores.scored import scored
from shiftlens.support.main_rank import is_main_rank


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
        pair: The two models.
        prompts: Prompts that both models answer.
        options: Options of the computation.
        ledger_root: Folder of the ledger.
        trainer: Arguments of the Lightning ``Trainer``.
        callbacks: Lightning callbacks of the prediction runs, among them the further analyses.
        console: Console for progress messages.

    Returns:
        The whole analysis; ``None`` on all but the first rank of a parallel run.

    Raises:
        SourceError: A model cannot be loaded.
        PromptError: Some prompts cannot be encoded; the message lists all of them.
    """
    roles, skipped = prepare(pair, prompts, options)
    if skipped:
        rows_out = len({problem.row for problem in skipped})
        console.print(
            f"[yellow]{prompts.where}: {rows_out} prompts left out (data.on_error=skip)[/]", soft_wrap=True
        )
    runner = Runner(
        ledger_root, pair.cache, trainer, callbacks, options.engine, options.batch_tokens, console,
        options.settings, options.methods[0], options.measure_costs,
    )  # fmt: skip
    runner.check_ranks(len(roles["base"].encoded))
    row_views = [view for view in callbacks if isinstance(view, RowView)]
    asked = asked_of(roles, options)
    rows = _gather(asked, row_views, runner, options)
    runner.release()
    main = {name: options.responses if options.responses in ROLES else name for name in ROLES}
    precision = {
        name: _precision(name, role, asked.explained(rows, name, main[name]), rows[name], runner, options)
        for name, role in roles.items()
    }
    if not is_main_rank():
        return None
    tokenizers = {name: role.tokenizer for name, role in roles.items()}
    pictured = replace(options.settings, b=options.map_b)
    explained, shift_by_method, left_out = [], {}, 0
    own: list[Measured] = []
    for method in options.methods:
        found = [m for name in ROLES for m in _measured(asked, rows, name, main[name], options, method)]
        own = own or found  # of the headline
        table = samples_table(found)
        draw: Any = partial(saliency_maps, found, tokenizers, table, pictured, method.words)
        named = Named(method.label, method.words, method.exact)
        if options.responses in ("tuned", "both") and method.logarithmic(options.engine.target):
            base, tuned = (_measured(asked, rows, name, "tuned", options, method) for name in ROLES)
            shift_by_method[named], left_out = shifts(base, tuned, tokenizers)
            draw = _both(draw, partial(shift_maps, shift_by_method[named], options.engine.target, method.words))
        tables = (table, tokens_table(found), profile_table(found))
        explained.append(ByMethod(named, scored(found, table), *tables, draw))
    density = Density(
        options.settings,
        options.seed,
        options.map_prompt,
        options.map_b,
        options.maps,
        tuple(options.controls.values()),
        over_methods=options.over_methods,
    )
    sections = density.sections(explained)
    if shift_by_method:
        without = [each.method.words for each in explained if each.method not in shift_by_method]
        section = shift_section(shift_by_method, options.engine.target, left_out, without, options.seed)
        sections.append(section)
    if options.responses == "both":
        swapped = zip(ROLES, reversed(ROLES), strict=True)
        first = options.methods[0]
        others = [m for name, other in swapped for m in _measured(asked, rows, name, other, options, first)]
        sections.append(crossed_section([*own, *others], options.seed))
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
                "methods": {
                    method.label: {"name": method.name, **method.identity()} for method in options.methods
                },
                "unit": options.unit,
                "negative": options.negative,
                "target": options.engine.target,
                **({"foil": options.foil} if options.engine.target == "logit_difference" else {}),
                "mode": options.engine.mode,
                "inputs": options.inputs,
                "include_response": options.include_response,
                "responses": options.responses,
                "version": ATTRIBUTION_VERSION,
                "costs": {name: costs.record() for name, costs in sorted(runner.costs.items())},
                "precision": {name: record for name, record in precision.items() if record},
            },
            evidence=evidence_record(list(options.controls)),
        ),
        **page_head(models),
    )


def _both(*draws: Callable[[Sequence[str]], Sequence[Any]]) -> Callable[[Sequence[str]], list[Any]]:
    """Return a function that draws what all of some functions draw."""
    return lambda chosen: [each for draw in draws for each in draw(chosen)]


def _model_record(role: Role) -> dict[str, str]:
    name = short_name(role.spec.source)
    return {"name": name, **role.identity.to_dict(), "template": role.template}


def _gather(asked: Asked, views: Sequence[RowView], runner: Runner, options: Options) -> dict[str, dict[str, Row]]:
    """Return every row that the run and its analyses need, by role and key.

    A response can be explained only after it exists. So compute what is possible for each role, and repeat until
    nothing is missing. The tuned model comes first, because each change of the role loads a model and the base
    model explains the tuned model's responses more often than the reverse.
    """
    roles = asked.roles
    rows: dict[str, dict[str, Row]] = {name: {} for name in roles}

    def missing(name: str) -> list[Request]:
        wanted = wanted_by_analysis(name, asked, rows, views, options)
        return [request for each in wanted.values() for request in each if request.key not in rows[name]]

    while any(missing(name) for name in ROLES):
        for name in reversed(ROLES):
            while requests := missing(name):
                rows[name].update(runner.rows(name, roles[name], requests))
    return rows


def _measured(
    asked: Asked, rows: Rows, reader: str, writer: str, options: Options, method: Method
) -> list[Measured]:
    """Return the scores of `reader`'s explanations of `writer`'s responses by a method, in prompt order."""
    role, measured = asked.roles[reader], []
    written = asked.written(rows, writer)
    requests = by_method(asked.explained(rows, reader, writer), role, rows[reader], method)
    for encoded, request, own in zip(role.encoded, requests, written, strict=True):
        # Only the row that a response was generated for knows whether its model ended it.
        row = replace(rows[reader][request.key], finished=rows[writer][own.key].finished)
        text = "given" if own.response_ids is not None else writer
        measured.append(measure(reader, encoded, row, options.settings, text, options.negative))
    return measured


def _precision(
    name: str,
    role: Role,
    requests: Sequence[Request],
    rows: Mapping[str, Row],
    runner: Runner,
    options: Options,
) -> dict[str, float | int]:
    """Return how well a few samples at reduced precision agree with the same samples in float32.

    Empty for a model at full precision, or without samples to check.
    """
    if role.identity.dtype not in REDUCED or not options.check_precision:
        return {}
    shortest = sorted(requests, key=lambda request: len(rows[request.key].input_ids))
    chosen = shortest[: options.check_precision]
    exact = in_float32(role)
    again = [given(request, exact, rows[request.key], role) for request in chosen]
    # Views must not run on this float32 copy: it is not one of the two models compared.
    plain = replace(
        runner, callbacks=[callback for callback in runner.callbacks if not isinstance(callback, View)]
    )
    rows_again = plain.rows(f"{name} in float32", exact, again)
    return agreement([rows[request.key] for request in chosen], [rows_again[request.key] for request in again])
