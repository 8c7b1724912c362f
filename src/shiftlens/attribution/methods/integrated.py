"""Integrated gradients: the gradient averaged on the way from a baseline to the embeddings of the sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from shiftlens.attribution.engine import Engine, Explained
from shiftlens.attribution.methods.method import Method
from shiftlens.attribution.modes.plain_attention import plain_attention
from shiftlens.attribution.removal.replacements import replacement
from shiftlens.attribution.targets import Reading, at_logits, stored
from shiftlens.attribution.variant import Variant
from shiftlens.hooks import EmbeddingPath, HeadTap
from shiftlens.support.marked import numbers_of, numeric
from shiftlens.support.setting_rules import Choice, Number, Rule, refuse, setting_problems

BASELINES = ("zero", "mean")
"""Where a path starts: nothing, or the mean over the vocabulary's input embeddings."""


@dataclass(frozen=True)
class Integrated(Method):
    """Integrated gradients over all sources at once, by Gauss-Legendre quadrature.

    With ``E(a) = baseline + a (E - baseline)`` at the sources, and every other embedding as it is, the importance
    of source n is the integral from a = 0 to 1 of ``<d f(y_m) / d E(a)[n], E[n] - baseline>``. Over all sources it
    adds up to ``f(E) - f(baseline at all sources)``; :attr:`~shiftlens.attribution.engine.Explained.residual` is
    what the sum is too large by, in the unit of the target (p, log p or logit).

    Args:
        points: Points of the path where the model is differentiated.
        baseline: Where the path starts, one of :data:`BASELINES`.

    Raises:
        ConfigError: A setting is out of range.

    Source:
        Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks" (ICML 2017, arXiv 1703.01365).

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        ...                      num_attention_heads=2)
        >>> found = Integrated(4).explain(LlamaForCausalLM(config), [1, 2, 3, 4], [0, 1], 2, Engine())
        >>> found.values.shape, found.residual.shape
        (torch.Size([2, 2]), torch.Size([2]))
    """

    name = "integrated"
    rules: ClassVar[Mapping[str, Rule]] = {"points": Number(1, 10_000), "baseline": Choice(BASELINES)}
    points: int = numeric(8)
    baseline: str = numeric("zero")

    def __post_init__(self) -> None:
        refuse(setting_problems(numbers_of(self), self.rules, f"saliency.{self.name}."))

    @property
    def words(self) -> str:
        """What a finding calls the method."""
        return f"integrated gradients ({self.baseline} embedding, {self.points} points)"

    def token_rows(self, units: Sequence[Sequence[int]], total: int, response: int) -> int:
        """Count the rows of the gradient and of its ordinary pass at each point, and a pass at the baseline."""
        return self.points * (super().token_rows(units, total, response) + total) + total if response else 0

    def output_rows(self, units: int, response: int) -> int:
        """Count the gradient's rows at each point, and a row for each response token at both ends."""
        return self.points * super().output_rows(units, response) + 2 * response

    def explain(
        self,
        model: PreTrainedModel,
        input_ids: Sequence[int],
        sources: Sequence[int],
        response: int,
        engine: Engine,
    ) -> Explained:
        """Run the engine at each point of the path, always in the mode of the first.

        For the target probability the gradient of p is integrated, and the result is divided by p(y).

        Raises:
            ValueError: A source or ``response`` is out of range.
            ShiftLensError: As :meth:`shiftlens.attribution.engine.Engine.explain`.
        """
        with torch.enable_grad():
            if response == 0 or not len(sources):
                explained = engine.explain(model, input_ids, sources, response)
                return replace(explained, residual=torch.zeros(response))
            base = replacement(model, self.baseline)
            # The text as it is; the token that it is contrasted with stays the same along the path.
            whole, reading, foils = _target(model, input_ids, response, engine, engine.contrast(response))
            with EmbeddingPath(model, sources, base, 0.0):
                start, *_ = _target(model, input_ids, response, engine, foils)
            integral = torch.zeros(len(sources), response, dtype=torch.float64)
            log_p = reading.log_probability.double()  # [response]
            variant = Variant(baseline=base, foils=foils)
            for place, weight in zip(*_quadrature(self.points), strict=True):
                with EmbeddingPath(model, sources, base, place):
                    explained = engine.explain(model, input_ids, sources, response, variant)
                engine = replace(engine, mode=explained.mode)
                # The direction E(a) - baseline is a times E - baseline.
                part = explained.values.double() * (weight / place)  # [sources, response]
                if engine.target == "probability":
                    # d p = p d log p; here divided by p(y) of the whole text, which the ledger keeps.
                    part *= (explained.reading.log_probability.double() - log_p).clamp_max(_LARGEST).exp()
                integral += part
        total = integral.sum(0)  # [response]
        if engine.target == "probability":
            start, whole, total = start.exp(), whole.exp(), total * log_p.exp()
        most = torch.finfo(torch.float32).max
        return Explained(integral.clamp(-most, most), reading, explained.mode, total - (whole - start))


_LARGEST = 700.0
"""Largest exponent: where p(y) is next to nothing, p(y) on the path over p(y) need not be a number."""


def _quadrature(points: int) -> tuple[list[float], list[float]]:
    """Return places and weights of Gauss-Legendre quadrature on [0, 1]."""
    places, weights = np.polynomial.legendre.leggauss(points)
    return ((places + 1) / 2).tolist(), (weights / 2).tolist()


def _target(
    model: PreTrainedModel,
    input_ids: Sequence[int],
    response: int,
    engine: Engine,
    foils: Int[Tensor, " response"] | None = None,
) -> tuple[Float[Tensor, " response"], Reading, Int[Tensor, " response"] | None]:
    """Read a response in one forward pass.

    Args:
        model: Causal language model.
        input_ids: [total] Ids; the last ``response`` of them are the response.
        response: Number of response tokens.
        engine: Its target counts: log p stands for p.
        foils: [response] Ids subtracted in the logit difference; ``None`` for the strongest other ones.

    Returns:
        The target, float64; log probabilities and ranks; and the foils, ``None`` for other targets. On the CPU.
    """
    target, ids = stored(engine.target), torch.tensor(input_ids)
    with (
        torch.no_grad(),
        nullcontext() if engine.mode == "naive" else plain_attention(model),
        HeadTap(model),
    ):
        fed = ids[None, :-1].to(model.device)
        logits = model(fed, use_cache=False, logits_to_keep=response).logits[0].detach()  # [response, vocab]
    # [response, vocab]
    direction, reading = at_logits(logits, ids[-response:].to(logits.device), target, foils)
    reading = Reading(*(each.cpu() for each in reading))
    if target == "log_probability":
        return reading.log_probability.double(), reading, None
    difference = (direction * logits).sum(-1, dtype=torch.float64)  # [response]
    return difference.cpu(), reading, direction.argmin(-1).cpu()
