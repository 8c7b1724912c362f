"""Views the weights of Gemma 1, 2 and 3."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from shiftlens.models.families.embedding_table import Embedding
from shiftlens.models.families.family_view import Block
from shiftlens.models.families.folding import widen
from shiftlens.models.families.llama import LlamaView


class GemmaView(LlamaView):
    """View of Gemma: like LLaMA, but gains are stored as difference from 1, and the model scales its embeddings.

    Gemma 2 and 3 norm the output of the feed-forward layer. Gemma 3 norms each head's query and key.
    """

    def _block(self, layer: int) -> Block:
        # Missing in Gemma 1, where post_attention_layernorm is the norm ahead of the feed-forward layer.
        down_norm = getattr(self._body.layers[layer], "post_feedforward_layernorm", None)
        return replace(super()._block(layer), down_norm=down_norm)

    def _gain(self, norm: Any) -> Float[Tensor, "*heads size"] | None:
        return 1 + widen(norm.weight)

    @property
    def input_embedding(self) -> Embedding:
        """[vocab, width] embeddings times the square root of the width; the factor is rounded as in the model."""
        embedding = self._body.get_input_embeddings()
        scale = widen(embedding.embed_scale.to(embedding.weight.dtype))
        return replace(super().input_embedding, finish=lambda rows: rows * scale)
