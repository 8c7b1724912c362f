"""Says what the engines differentiate: the model as it is, or another linear reading of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Variant:
    """What an engine carries through the model, beside the plain derivative along the embedding.

    All variants are linear, so tangents and cotangents carry them alike and every mode gives the same numbers.

    Args:
        lrp: Whether nonlinear parts pass relevance by the rules of AttnLRP instead of their derivatives, see
            :mod:`shiftlens.attribution.methods.lrp`.
        baseline: [width] Embedding from which directions are measured: a source counts along ``E - baseline``;
            ``None`` for along E.
        foils: [response] Id that each response token is contrasted with in the target logit_difference; ``None``
            for the strongest other one.
    """

    lrp: bool = False
    baseline: Float[Tensor, " width"] | None = None
    foils: Int[Tensor, " response"] | None = None

    def columns(self, some: slice) -> Variant:
        """Return the variant for some of the response tokens.

        Args:
            some: Slice of the response tokens, counted from 0.
        """
        return self if self.foils is None else replace(self, foils=self.foils[some])

    def direction(self, embeddings: Float[Tensor, "*positions width"]) -> Float[Tensor, "*positions width"]:
        """Return the directions of some embeddings, ``E - baseline``.

        Args:
            embeddings: [..., width] Embeddings of sources.

        Example:
            >>> import torch
            >>> Variant(baseline=torch.ones(2)).direction(torch.tensor([[1.0, 3.0]])).tolist()
            [[0.0, 2.0]]
        """
        return embeddings if self.baseline is None else embeddings - self.baseline.to(embeddings)


PLAIN = Variant()
"""The derivative of the model as it is, along each embedding."""
