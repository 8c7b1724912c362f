"""Views the weights of OPT."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from shiftlens.models.families.embedding_table import Embedding
from shiftlens.models.families.family_view import Block, FamilyView
from shiftlens.models.families.folding import affine


class OPTView(FamilyView):
    """View of OPT: LayerNorms and learned positions.

    OPT-350m has narrower embeddings, with a projection to the residual stream and one back. Its norms come after
    attention and after the feed-forward layer (``do_layer_norm_before=False``), so attention reads the residual
    stream directly: ``hat(x)`` is x, and nothing is folded in.
    """

    def _block(self, layer: int) -> Block:
        module = self._body.layers[layer]
        attention = module.self_attn
        return Block(
            query_key=(attention.q_proj, attention.k_proj),
            down=module.fc2,
            norm=module.self_attn_layer_norm if module.do_layer_norm_before else None,
        )

    def _outside(self) -> list[Any]:
        projections = (self._body.project_in, self._body.project_out)
        return [*super()._outside(), *(each for each in projections if each is not None)]

    @property
    def input_embedding(self) -> Embedding:
        """[vocab, width] embeddings, projected to the residual stream if narrower; without learned positions."""
        table, project = super().input_embedding, self._body.project_in
        return table if project is None else replace(table, finish=lambda rows: rows @ affine(project).weight)

    @property
    def output_embedding(self) -> Embedding:
        """[vocab, width] rows of the output layer, combined with the projection ahead of it if there is one."""
        table, project = super().output_embedding, self._body.project_out
        return table if project is None else replace(table, finish=lambda rows: rows @ affine(project).weight.T)
