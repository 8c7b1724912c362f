"""Moves the input embeddings of some positions along a straight line to a baseline."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from shiftlens.hooks.tap import Tap


class EmbeddingPath(Tap):
    """Context manager in which some embeddings E are ``baseline + share (E - baseline)``.

    Hooks that are registered inside, such as :class:`~shiftlens.hooks.EmbeddingTap`, see the moved embeddings.

    Args:
        model: Hugging Face causal language model.
        positions: Positions to move, in each text of a batch; those beyond the end of a text are left out.
        baseline: [width] Embedding where the line starts.
        share: Place on the line: 0 is the baseline, 1 the embedding.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        ...                      num_attention_heads=2)
        >>> model = LlamaForCausalLM(config)
        >>> with EmbeddingPath(model, [1], torch.zeros(8), 0.0):
        ...     model.get_input_embeddings()(torch.tensor([[1, 2, 3]])).any(-1).tolist()
        [[True, False, True]]
    """

    def __init__(
        self, model: PreTrainedModel, positions: Sequence[int], baseline: Float[Tensor, " width"], share: float
    ) -> None:
        super().__init__()
        self._layer: nn.Module = model.get_input_embeddings()
        self._positions = torch.tensor(positions, dtype=torch.long)
        self._baseline, self._share = baseline, share

    def _hooks(self) -> list[RemovableHandle]:
        return [self._layer.register_forward_hook(self._move)]

    def _move(self, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        at = self._positions[self._positions < output.shape[1]].to(output.device)
        output = output.clone()  # [batch, total, width]
        baseline = self._baseline.to(output.device)
        # lerp is exact at both ends.
        output[:, at] = torch.lerp(baseline, output[:, at].to(baseline), self._share).to(output)
        return output
