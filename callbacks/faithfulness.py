"""Compares gradient x embedding with exact ablation on a sample of prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pandas as pd

from shiftlens.analyses.faithfulness.compute import faithfulness_rows, rank_correlation
from shiftlens.analyses.faithfulness.section import faithfulness_section
from shiftlens.attribution import Request, Row
from shiftlens.attribution.methods import Ablation, Gradient, Method
from shiftlens.attribution.removal import REMOVALS
from shiftlens.attribution.role import Role, Rows, given, keyed
from shiftlens.callbacks.base import RowView
from shiftlens.models.roles import ROLES
from shiftlens.results.section import Section
from shiftlens.support.setting_rules import SEED, Number, Rule, Some, refuse, setting_problems


class Faithfulness(RowView):
    """Measures the rank correlation of importance and ablation.

    Each model explains its own responses. A prompt costs one forward pass per
    prompt token and way to remove it, each from that token on. The
    formulas are in :mod:`shiftlens.analyses.faithfulness.compute`.

    Args:
        n: Number of prompts in the sample; all prompts if there are fewer.
        by: How tokens are removed, some of :data:`~shiftlens.attribution.removal.suffixes.REMOVALS`; with ``zero``
            and ``mean``, these two ablations are also compared with each other.
        seed: Random seed for the sample and the bootstrap intervals.

    Raises:
        ConfigError: A setting has an invalid value.
    """

    rules: ClassVar[Mapping[str, Rule]] = {"n": Number(1), "by": Some(REMOVALS), "seed": SEED}

    def __init__(self, n: int = 8, by: Sequence[str] = ("zero", "mean"), seed: int = 0) -> None:
        values = {"n": n, "by": by, "seed": seed}
        refuse(setting_problems(values, self.rules, "callbacks.faithfulness."))
        self.n, self.by, self.seed = n, tuple(by), seed

    def requests(self, name: str, roles: Mapping[str, Role], rows: Rows) -> list[Request]:
        """Return requests for the model's own responses to the sample; once known, for their ablations."""
        own = [roles[name].requests[i] for i in self._sample(roles)]
        if any(request.key not in rows[name] for request in own):
            return own
        known = [(request, rows[name][request.key]) for request in own]
        methods = [Gradient(), *map(Ablation, self.by)]
        return [_by(method, request, roles[name], row) for request, row in known for method in methods]

    def section(self, roles: Mapping[str, Role], rows: Rows) -> Section:
        """Return the section with the table ``faithfulness`` and its findings."""
        frames = []
        for name in ROLES:
            role, known = roles[name], rows[name]
            for i in self._sample(roles):
                encoded, request = role.encoded[i], role.requests[i]
                row = known[request.key]
                estimate = known[_by(Gradient(), request, role, row).key].relative()[: len(encoded.tokens)]
                exact = {by: known[_by(Ablation(by), request, role, row).key].relative() for by in self.by}
                correlations = {by: rank_correlation(estimate, values) for by, values in exact.items()}
                if {"zero", "mean"} <= exact.keys():
                    correlations["zero_vs_mean"] = rank_correlation(exact["zero"], exact["mean"])
                for by, values in correlations.items():
                    prompt = encoded.prompt
                    frames.append(faithfulness_rows(name, prompt.id, prompt.dataset, by, values, row.probability))
        table = pd.concat(frames, ignore_index=True)
        return faithfulness_section(table, self.seed)

    def _sample(self, roles: Mapping[str, Role]) -> list[int]:
        count = len(roles["base"].requests)
        chosen = np.random.default_rng(self.seed).choice(count, min(self.n, count), replace=False)
        return sorted(chosen.tolist())


def _by(method: Method, request: Request, role: Role, row: Row) -> Request:
    """Build the request to explain a row's response by a method; the run's own if that is its method."""
    if type(method) is type(request.method) is Gradient:
        return request
    own = given(request, role, row, role)
    return keyed(replace(own, include_response=False, method=method), role)
