"""Who runs when: prompts, both models, ledger, tables, findings. No formula lives here."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from rich.console import Console
from torch.utils.data import DataLoader
from transformers.utils import logging as transformers_logging

from shiftlens.attribution import (
    ATTRIBUTION_VERSION,
    AttributionModule,
    Ledger,
    Request,
    Row,
)
from shiftlens.callbacks import LedgerWriter
from shiftlens.evidence.analysis import ROLES, Analysis
from shiftlens.evidence.density import density_findings
from shiftlens.evidence.maps import choose_prompts, saliency_maps
from shiftlens.evidence.measure import Measured, measure, profile_table, samples_table, tokens_table
from shiftlens.models.identity import digest
from shiftlens.models.loading import load_lm
from shiftlens.models.pair import Pair
from shiftlens.models.sources import short_name
from shiftlens.prepare import Options, Role, prepare
from shiftlens.prompts.readers import PromptSet
from shiftlens.provenance import provenance

log = logging.getLogger(__name__)


def run(
    pair: Pair,
    prompts: PromptSet,
    options: Options,
    ledger_root: Path,
    trainer: Mapping[str, Any],
    callbacks: Sequence[Callback],
    console: Console,
) -> Analysis:
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
        The whole analysis.

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
    rows: dict[str, dict[str, Row]] = {}
    for name, role in roles.items():
        rows[name] = explain(name, role, options, pair.cache, ledger_root, trainer, callbacks, console)
    measured = [
        measure(name, encoded, rows[name][request.key], options.settings)
        for name, role in roles.items()
        for encoded, request in zip(role.encoded, role.requests, strict=True)
    ]
    samples = samples_table(measured)
    chosen = choose_prompts(samples, options.map_prompt, options.maps)
    by_role: dict[str, list[Measured]] = {name: [m for m in measured if m.role == name] for name in ROLES}
    return Analysis(
        findings=density_findings(samples, options.seed),
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
            attribution={"target": "probability", "mode": options.mode, "version": ATTRIBUTION_VERSION},
        ),
    )


def _model_record(role: Role) -> dict[str, str]:
    name = short_name(role.spec.source)
    return {"name": name, **role.identity.to_dict(), "template": role.template}


def explain(
    name: str,
    role: Role,
    options: Options,
    cache: Path,
    ledger_root: Path,
    trainer: Mapping[str, Any],
    callbacks: Sequence[Callback],
    console: Console,
) -> dict[str, Row]:
    """The rows of one role: from the ledger where they are, from the model where they are missing."""
    ledger = Ledger(ledger_root, role.identity)
    requests = {request.key: request for request in role.requests}
    missing = ledger.missing(requests)
    done = len(requests) - len(missing)
    if not missing:
        console.print(f"[bold]{name}[/]: all {done} samples are in the ledger; no model work")
        return ledger.read(requests)
    console.print(
        f"[bold]{name}[/]: {len(missing)} samples to explain, {done} in the ledger; {role.spec.source}",
        soft_wrap=True,
    )
    _quiet_libraries()
    lm = load_lm(role.spec, role.layers, role.template, cache)
    module = AttributionModule(lm, options.mode, options.chunk)
    loader: DataLoader[Request] = DataLoader(
        [requests[key] for key in missing],  # type: ignore[arg-type]  # a list is a map-style data set
        batch_size=options.batch_size,
        collate_fn=list,
    )
    # Derivatives are taken inside the step, which inference mode would forbid.
    predictor = Trainer(
        **trainer,
        inference_mode=False,
        callbacks=[LedgerWriter(ledger), *callbacks],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    predictor.predict(module, loader, return_predictions=False)
    rows = ledger.read(requests)
    lost = [key for key in requests if key not in rows]
    if lost:
        raise RuntimeError(f"{name}: {len(lost)} samples did not reach the ledger in {ledger.folder}")
    return rows


def _quiet_libraries() -> None:
    """Start-up lines, hints about workers and bars of half a second say nothing about this use."""
    transformers_logging.disable_progress_bar()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    for noise in (".*is_gradient_checkpointing.*", ".*treespec, LeafSpec.*"):
        warnings.filterwarnings("ignore", message=noise)
