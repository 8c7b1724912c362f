"""Views the weights of GPT-2."""

from __future__ import annotations

from shiftlens.models.families.family_view import Block, FamilyView
from shiftlens.models.families.folding import Affine, first_two_of_three


class GPT2View(FamilyView):
    """View of GPT-2: LayerNorms, learned positions, and Conv1D weights, one with ``[query | key | value]``."""

    def _block(self, layer: int) -> Block:
        module = self._body.h[layer]
        return Block((module.attn.c_attn,), module.mlp.c_proj, module.ln_1)

    def _split(self, maps: tuple[Affine, ...]) -> tuple[Affine, Affine]:
        return first_two_of_three(maps[0], self.heads * self.head)
