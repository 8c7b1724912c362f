"""Runs the analysis on scores computed elsewhere (``data=scores``); loads no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from shiftlens.analyses.density.controls import ControlTest
from shiftlens.analyses.density.density import Density
from shiftlens.analyses.density.grid import LEVELS, all_settings
from shiftlens.analyses.imported import Source, match, read_pickles, read_table
from shiftlens.analyses.imported.to_samples import imported_maps, imported_table, measure_imported
from shiftlens.errors import ConfigError, Problem
from shiftlens.models.identity import digest
from shiftlens.models.roles import ROLES
from shiftlens.prompts.readers import read_prompts
from shiftlens.prompts.schema import Prompt
from shiftlens.results.analysis import Analysis
from shiftlens.results.provenance import provenance
from shiftlens.run.head import evidence_record, page_head
from shiftlens.scores.settings import Settings
from shiftlens.stats.permutation import PERMUTATIONS

_READERS = {".jsonl": "jsonl", ".parquet": "parquet"}
_TOLD = 20  # problems printed; the record of the run has all


@dataclass(frozen=True)
class ScoresOptions:
    """Options of an analysis of imported scores.

    Args:
        base: Scores of the base model: a Parquet file or a folder of pickles.
        tuned: Scores of the tuned model.
        prompts: File with the texts and spans of pickles; ``None`` where both sources are tables.
        name: Data set of prompts that name none.
        datasets: Beginning of an id -> data set, for prompts that name none.
        levels: L of scores that were kept as S.
        limit: Largest number of prompts; ``None`` is all.
        skip: Whether faulty rows and prompts without a match are left out.
        settings: L, b and p.
        seed: Random seed for bootstrap intervals, relabellings and random masks.
        map_prompt: Id of the prompt whose map is shown first; ``None`` is the one with the median shift.
        map_b: b of the maps.
        maps: Number of prompts with a map.
        permutations: Relabellings of each permutation test.
        controls: Rival explanations beyond the usual ones, by name.
    """

    base: Path
    tuned: Path
    prompts: Path | None
    name: str
    datasets: Mapping[str, str]
    levels: int
    limit: int | None
    skip: bool
    settings: Settings
    seed: int
    map_prompt: str | None
    map_b: int
    maps: int
    permutations: int = PERMUTATIONS
    controls: Mapping[str, ControlTest] = field(default_factory=dict)


def run_scores(options: ScoresOptions, console: Console) -> Analysis:
    """Everything that scores alone can tell of a pair.

    Args:
        options: what to read and how to look at it.
        console: where left-out prompts are told.

    Returns:
        The analysis, with the sensitivity to L, b and p among its tables.

    Raises:
        SourceError: a file cannot be read.
        PromptError: rows with faults, or prompts without a match.
        ConfigError: an L that the kept scores cannot give, or no such prompt.
    """
    prompts, problems = _prompts(options)
    base, tuned = (
        read_pickles(path, role, prompts, options.levels, options.skip)
        if path.is_dir()
        else read_table(path, role, options.levels, options.skip)
        for role, path in zip(ROLES, (options.base, options.tuned), strict=True)
    )
    pairs, unmatched = match(base, tuned, options.skip)
    left_out = [*problems, *base.skipped, *tuned.skipped, *unmatched]
    _tell(left_out, console)
    pairs = pairs[: options.limit]
    if options.map_prompt is not None and all(s.scored.id != options.map_prompt for s, _ in pairs):
        some = ", ".join(sample.scored.id for sample, _ in pairs[:3])
        raise ConfigError(f"report.prompt={options.map_prompt}: no such id in these scores; e.g. {some}")
    flat = [pair[side] for side in range(len(ROLES)) for pair in pairs]
    records = [sample.scored for sample in flat]
    possible = [L for L in LEVELS if all(record.L is None or record.L % L == 0 for record in records)]
    measured = [measure_imported(sample, options.settings) for sample in flat]
    density = Density(
        options.settings, options.seed, options.map_prompt, options.map_b, options.maps,
        tuple(options.controls.values()), options.permutations,
    )  # fmt: skip
    sections = density.sections(
        records,
        measured,
        imported_table(measured, flat),
        lambda chosen: imported_maps(chosen, measured, flat, options.settings.L, options.map_b),
        all_settings(possible),
    )
    models = _models(base, tuned)
    return Analysis(
        sections=sections,
        provenance=provenance(
            models=models,
            data={
                "name": " and ".join(dict.fromkeys(record.dataset for record in records)),
                "n": len(pairs),
                "hash": digest([[*sample.key, sample.prompt] for sample, _ in pairs]),
                "skipped": [str(problem) for problem in left_out],
            },
            settings={**vars(options.settings), "picture_b": options.map_b},
            scores={source.role: " and ".join(source.kinds) for source in (base, tuned)},
            evidence=evidence_record(list(options.controls)),
        ),
        **page_head(models),
    )


def _prompts(options: ScoresOptions) -> tuple[list[Prompt], Sequence[Problem]]:
    if options.prompts is None:
        return [], ()
    reader = _READERS.get(options.prompts.suffix, "tsv")
    on_error = "skip" if options.skip else "raise"
    found = read_prompts({"name": options.name, "reader": reader, "path": options.prompts, "on_error": on_error})
    return [replace(prompt, dataset=_data_set(prompt, options)) for prompt in found.prompts], found.skipped


def _data_set(prompt: Prompt, options: ScoresOptions) -> str:
    if prompt.dataset != options.name:
        return prompt.dataset
    return next((name for start, name in options.datasets.items() if prompt.id.startswith(start)), options.name)


def _models(base: Source, tuned: Source) -> dict[str, dict[str, str]]:
    names = {
        source.role: source.path.stem if source.path.is_file() else source.path.name for source in (base, tuned)
    }
    if names["base"] == names["tuned"]:
        names = {source.role: f"{source.path.parent.name}/{names[source.role]}" for source in (base, tuned)}
    return {
        source.role: {"name": names[source.role], "source": str(source.path), "fingerprint": source.fingerprint}
        for source in (base, tuned)
    }


def _tell(problems: Sequence[Problem], console: Console) -> None:
    if problems:
        console.print(f"[yellow]left out (data.on_error=skip): {len(problems)} problems[/]")
        for problem in problems[:_TOLD]:
            console.print(f"  {problem}", soft_wrap=True, markup=False, highlight=False)
        if len(problems) > _TOLD:
            console.print(f"  and {len(problems) - _TOLD} more, see data.skipped in findings.json", soft_wrap=True)
