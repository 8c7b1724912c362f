"""One response of the sample: the rows that its faithfulness needs, and what is measured from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Float

from shiftlens.analyses.faithfulness.compute import faithfulness_rows, rank_correlation
from shiftlens.analyses.faithfulness.randomised import Randomised
from shiftlens.analyses.faithfulness.rating import RANDOM
from shiftlens.analyses.faithfulness.removal_curves import WHOLE, Order, curve_points, distinct_sets
from shiftlens.attribution import Request, Row
from shiftlens.attribution.methods import Ablation, Method
from shiftlens.attribution.role import Role, given, keyed

DEPTHS = (0.25, 0.5, 1.0)
"""Shares of the layers whose weights are randomised, from the top."""
CHECKED = 6
"""Number of response tokens, from the first on, that are explained again while layers are random."""
Known = Mapping[str, Row]
"""Key -> row, as far as they are known."""


@dataclass(frozen=True)
class Sampling:
    """What is measured on a sample of prompts.

    Args:
        methods: Methods that are compared, by label; one is labelled ``random``.
        by: Replacements of an embedding whose exact removal the methods are compared with.
        shares: Shares of the prompt tokens that the curves remove, between 0 and 1.
        tokens: Number of response tokens with curves of their own.
        seed: Random seed for the response tokens and for the weights of random layers.
    """

    methods: Mapping[str, Method]
    by: tuple[str, ...]
    shares: tuple[float, ...]
    tokens: int
    seed: int

    @property
    def removals(self) -> dict[str, str]:
        """Label of each method that is a removal itself -> what it replaces an embedding by."""
        by_removal = {Ablation(by): by for by in self.by}
        return {
            label: by_removal[method]
            for label, method in self.methods.items()
            if isinstance(method, Ablation) and method in by_removal
        }

    @property
    def estimates(self) -> dict[str, Method]:
        """The methods that are neither exact removal nor random, by label."""
        return {
            label: method for label, method in self.methods.items() if not method.exact and method.name != RANDOM
        }


@dataclass(frozen=True)
class Subject:
    """One response of a model to a prompt of the sample.

    Args:
        sampling: What is measured.
        role: The model, which explains its own response.
        number: Number of the prompt in the run.
        row: Row with the response.
        is_checked: Whether the sanity check with random layers is made.
    """

    sampling: Sampling
    role: Role
    number: int
    row: Row
    is_checked: bool

    def requests(self, known: Known) -> list[Request]:
        """Name the rows that are needed, as far as they can be named: the removed sets need all importance.

        Args:
            known: The role's rows so far.
        """
        methods = [*self.sampling.methods.values(), *map(Ablation, self.sampling.by)]
        first = [self._by(method) for method in methods]
        if self.is_checked:
            first += [self._randomised(m, depth) for m in self.sampling.estimates.values() for depth in DEPTHS]
        if any(request.key not in known for request in first):
            return first
        return [*first, self._removed(self._orders(known))]

    def correlations(self, known: Known) -> pd.DataFrame:
        """Compare every method with the removals, see :func:`~.compute.faithfulness_rows`."""
        importance = {label: self._relative(method, known) for label, method in self.sampling.methods.items()}
        exact = {by: self._relative(Ablation(by), known) for by in self.sampling.by}
        return self._named(faithfulness_rows(importance, exact, self.sampling.removals, self.row.probability))

    def points(self, known: Known) -> pd.DataFrame:
        """Measure the curves, see :func:`~.removal_curves.curve_points`; empty for an empty response."""
        orders = self._orders(known)
        removed = known[self._removed(orders).key]
        is_probability = removed.target != "logit_difference"
        points = curve_points(
            orders, self.sampling.shares, removed.values, removed.log_probability, is_probability
        )
        return self._named(points)

    def sanity(self, known: Known) -> pd.DataFrame:
        """Compare each estimate with itself after layers were randomised: ``method, at, value``."""
        rows = []
        for label, method in self.sampling.estimates.items() if self.is_checked else ():
            own = self._relative(method, known)[:, :CHECKED]
            for depth in DEPTHS:
                other = known[self._randomised(method, depth).key].relative()
                correlation = rank_correlation(own, other)
                if np.isfinite(correlation).any():
                    rows.append((label, f"{depth:g}", float(np.nanmean(correlation))))
        return self._named(pd.DataFrame(rows, columns=["method", "at", "value"]))

    def _named(self, frame: pd.DataFrame) -> pd.DataFrame:
        prompt = self.role.encoded[self.number].prompt
        frame.insert(0, "id", prompt.id)
        frame.insert(1, "dataset", prompt.dataset)
        return frame

    def _by(self, method: Method) -> Request:
        """Build the request to explain the response by a method, token by token; the run's own if it is that."""
        request = self.role.requests[self.number]
        units = request.units
        by_unit = method.jointly and units is not None and units.used(len(self.row.log_probability))
        if method == request.method and not by_unit:
            return request
        own = given(request, self.role, self.row, self.role)
        # Units that are not used stay, so that the key is that of the run's own rows by this method.
        own = replace(own, include_response=False, units=None if by_unit else units, method=method)
        return keyed(own, self.role)

    def _randomised(self, method: Method, depth: float) -> Request:
        """Build the request to explain the first tokens of the response while layers are random."""
        random = Randomised(method, depth, self.sampling.seed)
        own = self._by(method)
        response = tuple(self.row.response_ids[:CHECKED].tolist())
        foils = own.foils and own.foils[:CHECKED]
        own = replace(own, response_ids=response, foils=foils, units=None, include_response=False)
        return keyed(replace(own, method=random), self.role)

    def _removed(self, orders: Mapping[Order, Float[np.ndarray, " prompt"]]) -> Request:
        """Build the request for the losses without each set of tokens that a curve removes."""
        own, places = self._by(Ablation("zero")), self.row.prompt_index
        sets = tuple(tuple(places[list(one)].tolist()) for one in distinct_sets(orders, self.sampling.shares))
        own = replace(own, response_ids=tuple(self.row.response_ids.tolist()), include_response=False)
        return keyed(replace(own, prompt_index=(), outside=(), units=None, sets=sets), self.role)

    def _orders(self, known: Known) -> dict[Order, Float[np.ndarray, " prompt"]]:
        """Return the importance by which the curves order the tokens: for the whole response, for some tokens."""
        response = len(self.row.log_probability)
        rng = np.random.default_rng([self.sampling.seed, self.number])
        chosen = sorted(rng.choice(response, min(self.sampling.tokens, response), replace=False).tolist())
        orders: dict[Order, Float[np.ndarray, " prompt"]] = {}
        for label, method in self.sampling.methods.items() if response else ():
            # Not relative importance: what log p loses adds up over response tokens, ratios of p do not.
            values = known[self._by(method).key].values[: len(self.row.prompt_index)].astype(float)
            orders[label, WHOLE] = values.sum(axis=1)
            orders |= {(label, position): values[:, position] for position in chosen}
        return orders

    def _relative(self, method: Method, known: Known) -> Float[np.ndarray, "prompt response"]:
        return known[self._by(method).key].relative()[: len(self.row.prompt_index)]
