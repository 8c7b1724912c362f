"""Runs the analysis of importance scores, computed with a model or read from files, under one or more methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shiftlens.analyses.density.across_methods import ByMethod, examine_methods
from shiftlens.analyses.density.controls import ControlTest
from shiftlens.analyses.density.maps import choose_prompts
from shiftlens.analyses.density.section import density_sections
from shiftlens.results.section import Section
from shiftlens.scores.settings import Settings
from shiftlens.stats.permutation import PERMUTATIONS


@dataclass(frozen=True)
class Density:
    """Analysis of importance density: T1, T2, their grid of settings, their controls, and the saliency maps.

    Args:
        settings: L, b and p of the tests.
        seed: Random seed for bootstrap intervals, relabellings and random masks.
        map_prompt: Id of the prompt whose map is shown first; ``None`` for the prompt with the median shift.
        map_b: Threshold b of the maps: levels up to ``map_b`` are left out.
        maps: Number of prompts with a map.
        controls: Controls to run in addition to :data:`shiftlens.analyses.density.controls.CONTROLS`.
        permutations: Number of relabellings of each permutation test.
        over_methods: Whether the headline's p-values are corrected for the choice among the methods too.
    """

    settings: Settings
    seed: int = 0
    map_prompt: str | None = None
    map_b: int = 0
    maps: int = 12
    controls: Sequence[ControlTest] = ()
    permutations: int = PERMUTATIONS
    over_methods: bool = False

    def sections(self, explained: Sequence[ByMethod], settings: Sequence[Settings] | None = None) -> list[Section]:
        """Run the tests and controls, and return the sections with findings, tables, figures and maps.

        Args:
            explained: The responses by each method; the first method is the headline.
            settings: Grid to correct for; ``None`` for every L, b and p of
                :func:`~shiftlens.analyses.density.grid.all_settings`.

        Raises:
            ConfigError: The kept scores cannot give one of the values of L.
        """
        found = examine_methods(
            {each.method: each.records for each in explained}, self.settings, settings, self.permutations,
            self.seed, self.controls, self.over_methods,
        )  # fmt: skip
        chosen = choose_prompts(explained[0].samples, self.map_prompt, self.maps)
        return density_sections(found, explained, chosen, self.settings, self.map_b)
