"""Views the weights of LLaMA and of families with the same layers: Mistral, Qwen2, Qwen3, SmolLM2 and SmolLM3."""

from __future__ import annotations

from shiftlens.models.families.family_view import Block, FamilyView


class LlamaView(FamilyView):
    """View of LLaMA: RMS norms, separate projections, a gated feed-forward layer.

    Qwen3 also norms each head's query and key.
    """

    def _block(self, layer: int) -> Block:
        module = self._body.layers[layer]
        attention = module.self_attn
        return Block(
            query_key=(attention.q_proj, attention.k_proj),
            down=module.mlp.down_proj,
            norm=module.input_layernorm,
            head_norms=(attention.q_norm, attention.k_norm) if hasattr(attention, "q_norm") else None,
        )
