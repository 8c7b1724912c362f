"""Runs the analysis of importance scores, computed with a model or read from files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from shiftlens.analyses.density.compute import examine
from shiftlens.analyses.density.controls import ControlTest
from shiftlens.analyses.density.maps import SaliencyMap, choose_prompts
from shiftlens.analyses.density.section import density_sections
from shiftlens.results.section import Section
from shiftlens.scores.samples import Measured, profile_table, tokens_table
from shiftlens.scores.scored import Scored
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
    """

    settings: Settings
    seed: int = 0
    map_prompt: str | None = None
    map_b: int = 0
    maps: int = 12
    controls: Sequence[ControlTest] = ()
    permutations: int = PERMUTATIONS

    def sections(
        self,
        records: Sequence[Scored],
        measured: Sequence[Measured],
        samples: pd.DataFrame,
        draw: Callable[[Sequence[str]], Sequence[SaliencyMap]],
        settings: Sequence[Settings] | None = None,
    ) -> list[Section]:
        """Run the tests and controls, and return the sections with findings, tables, figures and maps.

        Args:
            records: Responses of base and tuned, with raw importance or kept scores.
            measured: The same responses with their scores at ``self.settings``.
            samples: Table ``samples`` of these responses.
            draw: Prompt ids -> the saliency maps of these prompts, base and tuned side by side.
            settings: Grid to correct for; ``None`` for every L, b and p of
                :func:`~shiftlens.analyses.density.grid.all_settings`.

        Raises:
            ConfigError: The kept scores cannot give one of the values of L.
        """
        examination = examine(records, self.settings, settings, self.permutations, self.seed, self.controls)
        chosen = choose_prompts(samples, self.map_prompt, self.maps)
        return density_sections(
            examination, samples, tokens_table(measured), profile_table(measured), draw(chosen), self.settings,
            self.map_b,
        )  # fmt: skip
