"""OPT."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from shiftlens.models.families.embedding_table import Embedding
from shiftlens.models.families.family_view import Block, FamilyView
from shiftlens.models.families.folding import affine


class OPTView(FamilyView):
    """LayerNorms, learned positions; OPT-350m has narrower embeddings, projected in and out, and norms afterwards.

    With norms after attention and feed-forward layer (``do_layer_norm_before=False``) attention reads the
    residual stream as it is: ``hat(x)`` is then x itself and nothing is folded in.
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
        """[vocab, width] embeddings, projected in where they are narrower; learned positions are left out."""
        table, project = super().input_embedding, self._body.project_in
        return table if project is None else replace(table, finish=lambda rows: rows @ affine(project).weight)

    @property
    def output_embedding(self) -> Embedding:
        """[vocab, width] rows of the output layer, carried back through the projection out where there is one."""
        table, project = super().output_embedding, self._body.project_out
        return table if project is None else replace(table, finish=lambda rows: rows @ affine(project).weight.T)
