"""The analysis of importance scores, whether a model was explained or scores were read from files."""

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
    """T1, T2, their grid of settings, their controls, and the saliency maps.

    Args:
        settings: L, b and p of the tests.
        seed: Random seed of bootstrap intervals, relabellings and random masks.
        map_prompt: Id of the prompt whose map is shown first; ``None`` is the one with the median shift.
        map_b: Largest level left out of the maps.
        maps: Number of prompts with a map.
        controls: Controls beyond :data:`shiftlens.analyses.density.controls.CONTROLS`.
        permutations: Relabellings of each permutation test.
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
        """Findings, tables, figures and maps.

        Args:
            records: Responses of base and tuned with their importance or kept scores.
            measured: The same responses with their scores at the tests' settings.
            samples: Their table ``samples``.
            draw: Makes the maps of the prompts with the given ids, base and tuned side by side.
            settings: Grid to correct for; ``None`` is every L, b and p of
                :func:`~shiftlens.analyses.density.grid.all_settings`.

        Raises:
            ConfigError: An L that kept scores cannot give.
        """
        examination = examine(records, self.settings, settings, self.permutations, self.seed, self.controls)
        chosen = choose_prompts(samples, self.map_prompt, self.maps)
        return density_sections(
            examination, samples, tokens_table(measured), profile_table(measured), draw(chosen), self.settings,
            self.map_b,
        )  # fmt: skip
