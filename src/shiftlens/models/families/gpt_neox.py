"""Views the weights of GPT-NeoX and Pythia."""

from __future__ import annotations

from shiftlens.models.families.family_view import Block, FamilyView
from shiftlens.models.families.folding import Affine


class GPTNeoXView(FamilyView):
    """View of GPT-NeoX: LayerNorms, and one projection to query, key and value, ordered by head."""

    def _block(self, layer: int) -> Block:
        module = self._body.layers[layer]
        return Block((module.attention.query_key_value,), module.mlp.dense_4h_to_h, module.input_layernorm)

    def _split(self, maps: tuple[Affine, ...]) -> tuple[Affine, Affine]:
        weight = maps[0].weight.view(self.width, self.heads, 3, self.head)  # 3: query, key, value
        bias = maps[0].bias.view(self.heads, 3, self.head)
        # each map: weight [width, heads x head], bias [heads x head]
        query, key = (Affine(weight[:, :, i].flatten(1), bias[:, i].flatten()) for i in (0, 1))
        return query, key
