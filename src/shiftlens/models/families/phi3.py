"""Views the weights of Phi-3."""

from __future__ import annotations

from shiftlens.models.families.family_view import Block, FamilyView
from shiftlens.models.families.folding import Affine, first_two_of_three


class Phi3View(FamilyView):
    """View of Phi-3: like LLaMA, but with one projection to ``[query | key | value]``."""

    def _block(self, layer: int) -> Block:
        module = self._body.layers[layer]
        return Block((module.self_attn.qkv_proj,), module.mlp.down_proj, module.input_layernorm)

    def _split(self, maps: tuple[Affine, ...]) -> tuple[Affine, Affine]:
        return first_two_of_three(maps[0], self.heads * self.head)
