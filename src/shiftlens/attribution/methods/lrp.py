"""Layer-wise relevance propagation with the rules of AttnLRP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from shiftlens.attribution.engine import Engine, Explained
from shiftlens.attribution.methods.method import Method
from shiftlens.attribution.variant import Variant


@dataclass(frozen=True)
class Lrp(Method):
    """Relevance of each source by AttnLRP: gradient x embedding, with other derivatives of nonlinear parts.

    The rules, in :mod:`~shiftlens.attribution.modes.lrp_rules`, hold the denominators of norms and the ratios of
    activations constant. The gradient cannot see the length of an embedding that a norm divides by; relevance can.

    Source:
        Achtibat, Hatefi, Dreyer, Jain, Wiegand, Lapuschkin, Samek, "AttnLRP: Attention-Aware Layer-Wise Relevance
        Propagation for Transformers" (ICML 2024, arXiv 2402.05602), whose authors name patents outside personal
        and scientific use.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        ...                      num_attention_heads=2)
        >>> Lrp().explain(LlamaForCausalLM(config), [1, 2, 3, 4], [0, 1], 2, Engine()).values.shape
        torch.Size([2, 2])
    """

    name = "lrp"
    words = "AttnLRP"
    shares = True

    def explain(
        self,
        model: PreTrainedModel,
        input_ids: Sequence[int],
        sources: Sequence[int],
        response: int,
        engine: Engine,
    ) -> Explained:
        """Run the engine with the rules, see :meth:`shiftlens.attribution.engine.Engine.explain`.

        Raises:
            ShiftLensError: There is no rule for a part of the model.
        """
        with torch.enable_grad():
            return engine.explain(model, input_ids, sources, response, Variant(lrp=True))
