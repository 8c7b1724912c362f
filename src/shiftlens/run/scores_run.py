"""Runs the analysis on scores computed elsewhere (``data=scores``); loads no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from shiftlens.analyses.density.across_methods import ByMethod
from shiftlens.analyses.density.controls import ControlTest
from shiftlens.analyses.density.density import Density
from shiftlens.analyses.density.grid import LEVELS, all_settings
from shiftlens.analyses.imported import Source, match, read_pickles, read_table
from shiftlens.analyses.imported.to_samples import imported_maps, imported_table, measure_imported
from shiftlens.attribution.methods import METHODS
from shiftlens.errors import ConfigError, Problem
from shiftlens.models.identity import digest
from shiftlens.models.roles import ROLES
from shiftlens.prompts.readers import read_prompts
from shiftlens.prompts.schema import Prompt
from shiftlens.results.analysis import Analysis
from shiftlens.results.method_agreement import Named
from shiftlens.results.provenance import provenance
from shiftlens.run.head import evidence_record, page_head
from shiftlens.scores.samples import profile_table, tokens_table
from shiftlens.scores.settings import Settings
from shiftlens.stats.permutation import PERMUTATIONS

_READERS = {".jsonl": "jsonl", ".parquet": "parquet"}
_PRINTED = 20  # number of problems printed; findings.json has all of them


@dataclass(frozen=True)
class ScoresOptions:
    """Options of an analysis of imported scores.

    Args:
        base: Parquet file or folder of pickles with the base model's scores.
        tuned: Parquet file or folder of pickles with the tuned model's scores.
        prompts: File with the texts and spans for the pickles; ``None`` if both models' scores are Parquet files.
        name: Data set of the prompts whose file names none.
        datasets: Data set for each beginning of an id, for the prompts whose file names none.
        levels: Value of L with which normalized scores S were computed.
        limit: Largest number of prompts; ``None`` for all.
        skip: Whether rows with faults and prompts without a match are left out instead of raising an error.
        settings: Values of L, b and p.
        seed: Random seed for the bootstrap, the relabellings and the random masks.
        map_prompt: Id of the prompt whose map is shown first; ``None`` for the prompt with the median shift.
        map_b: Value of b for the maps.
        maps: Number of prompts with a map.
        permutations: Number of relabellings of each permutation test.
        controls: Controls in addition to the usual ones, by name.
        method: Name of the method of attribution that made the scores.
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
    method: str = "gradient"


def run_scores(options: ScoresOptions, console: Console) -> Analysis:
    """Run all tests of a pair that need only scores.

    Args:
        options: Files to read and options of the analysis.
        console: Console for messages about prompts that are left out.

    Returns:
        The analysis; its tables include the sensitivity to L, b and p.

    Raises:
        SourceError: A file cannot be read.
        PromptError: Some rows have faults, or some prompts have no match.
        ConfigError: The imported scores cannot be converted to L, or no prompt has the id ``options.map_prompt``.
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
    _print_left_out(left_out, console)
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
    explained = ByMethod(
        _named(options.method),
        records,
        imported_table(measured, flat),
        tokens_table(measured),
        profile_table(measured),
        lambda chosen: imported_maps(chosen, measured, flat, options.settings.L, options.map_b),
    )
    sections = density.sections([explained], all_settings(possible))
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


def _named(method: str) -> Named:
    known = METHODS.get(method)
    return Named(method, known().words if known else method, known is not None and known.exact)


def _prompts(options: ScoresOptions) -> tuple[list[Prompt], Sequence[Problem]]:
    if options.prompts is None:
        return [], ()
    reader = _READERS.get(options.prompts.suffix, "tsv")
    on_error = "skip" if options.skip else "raise"
    prompts = read_prompts({"name": options.name, "reader": reader, "path": options.prompts, "on_error": on_error})
    return [replace(prompt, dataset=_data_set(prompt, options)) for prompt in prompts.prompts], prompts.skipped


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


def _print_left_out(problems: Sequence[Problem], console: Console) -> None:
    if problems:
        console.print(f"[yellow]left out (data.on_error=skip): {len(problems)} problems[/]")
        for problem in problems[:_PRINTED]:
            console.print(f"  {problem}", soft_wrap=True, markup=False, highlight=False)
        if len(problems) > _PRINTED:
            console.print(
                f"  and {len(problems) - _PRINTED} more, see data.skipped in findings.json", soft_wrap=True
            )
