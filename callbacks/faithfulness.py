"""Compares methods of attribution with exact removal on a sample of prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from shiftlens.analyses.faithfulness.rating import RANDOM
from shiftlens.analyses.faithfulness.section import Measured, faithfulness_section
from shiftlens.analyses.faithfulness.subject import Sampling, Subject
from shiftlens.attribution import Request, Row
from shiftlens.attribution.methods import Method, method_from_config, methods_from_config
from shiftlens.attribution.removal import REMOVALS
from shiftlens.attribution.role import Role, Rows
from shiftlens.callbacks.base import RowView
from shiftlens.errors import ConfigError
from shiftlens.models.roles import ROLES
from shiftlens.results.section import Section
from shiftlens.support.setting_rules import SEED, Number, Rule, Shares, Some, refuse, setting_problems


class Faithfulness(RowView):
    """Measures how faithful methods of attribution are to the exact removal of prompt tokens.

    Each model explains its own responses. Every row is kept in the ledger, so an interrupted run goes on where it
    stopped. A prompt costs a forward pass per prompt token and replacement, and up to
    ``2 len(shares) (1 + tokens)`` of them per method for the curves. The formulas are in
    :mod:`shiftlens.analyses.faithfulness`.

    Args:
        methods: Method or methods that are compared, as ``saliency.method`` names them; ``None`` for those of the
            run. ``random`` is always among them.
        n: Number of prompts in the sample; all prompts if there are fewer.
        by: What replaces an embedding in the exact removals; the removals are also compared with each other.
        shares: Shares of the prompt tokens that the deletion and insertion curves remove.
        tokens: Number of response tokens per response with curves of their own, drawn at random.
        sanity: Number of prompts on which attributions are repeated with random weights in the upper layers.
        seed: Random seed for the sample, the random layers and the bootstrap intervals.

    Raises:
        ConfigError: A setting has an invalid value.
    """

    rules: ClassVar[Mapping[str, Rule]] = {
        "n": Number(1), "by": Some(REMOVALS), "shares": Shares(), "tokens": Number(0), "sanity": Number(0),
        "seed": SEED,
    }  # fmt: skip

    def __init__(
        self,
        methods: Any = None,
        n: int = 8,
        by: Sequence[str] = ("zero", "mean"),
        shares: Sequence[float] = (0.05, 0.1, 0.2, 0.5),
        tokens: int = 2,
        sanity: int = 4,
        seed: int = 0,
    ) -> None:
        values = {"n": n, "by": by, "shares": shares, "tokens": tokens, "sanity": sanity, "seed": seed}
        problems = setting_problems(values, self.rules, "callbacks.faithfulness.")
        self._methods: tuple[Method, ...] | None = None
        try:
            self._methods = None if methods is None else methods_from_config(methods)
        except ConfigError as error:
            problems.append(f"callbacks.faithfulness.methods: {error}")
        refuse(problems)
        self.n, self.sanity, self.seed = n, sanity, seed
        self._sampling = partial(Sampling, by=tuple(by), shares=tuple(shares), tokens=tokens, seed=seed)

    def requests(self, name: str, roles: Mapping[str, Role], rows: Rows) -> list[Request]:
        """Return requests for the model's own responses to the sample; once known, for all that is compared."""
        own = [roles[name].requests[i] for i in self._sample(roles)]
        if any(request.key not in rows[name] for request in own):
            return own
        return [
            request for subject in self._subjects(name, roles, rows) for request in subject.requests(rows[name])
        ]

    def section(self, roles: Mapping[str, Role], rows: Rows) -> Section:
        """Return the section with the tables ``faithfulness*`` and their findings."""
        subjects = [(name, subject) for name in ROLES for subject in self._subjects(name, roles, rows)]

        def table(measure: Callable[[Subject, Mapping[str, Row]], pd.DataFrame]) -> pd.DataFrame:
            frames = [measure(subject, rows[name]).assign(role=name) for name, subject in subjects]
            return pd.concat(frames, ignore_index=True)

        measured = Measured(table(Subject.correlations), table(Subject.points), table(Subject.sanity))
        sampling = self._sampling(self._compared(roles))
        words = {label: method.words for label, method in sampling.methods.items()}
        return faithfulness_section(measured, words, list(sampling.estimates), list(sampling.removals), self.seed)

    def _subjects(self, name: str, roles: Mapping[str, Role], rows: Rows) -> Iterator[Subject]:
        sample, role, sampling = self._sample(roles), roles[name], self._sampling(self._compared(roles))
        checked = set(np.random.default_rng(self.seed).permutation(sample)[: self.sanity].tolist())
        for i in sample:
            yield Subject(sampling, role, i, rows[name][role.requests[i].key], i in checked)

    def _compared(self, roles: Mapping[str, Role]) -> dict[str, Method]:
        methods = roles["base"].methods if self._methods is None else self._methods
        return {method.label: method for method in (*methods, method_from_config(RANDOM))}

    def _sample(self, roles: Mapping[str, Role]) -> list[int]:
        count = len(roles["base"].requests)
        chosen = np.random.default_rng(self.seed).choice(count, min(self.n, count), replace=False)
        return sorted(chosen.tolist())
