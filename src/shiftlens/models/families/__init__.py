"""Reads the weights of models as matrices that do not depend on the family; one small class (view) per family."""

from __future__ import annotations

from transformers import PreTrainedModel

from shiftlens.errors import SourceError
from shiftlens.models.families.embedding_table import Embedding
from shiftlens.models.families.family_view import FamilyView, QueryKey
from shiftlens.models.families.gemma import GemmaView
from shiftlens.models.families.gpt2 import GPT2View
from shiftlens.models.families.gpt_neox import GPTNeoXView
from shiftlens.models.families.llama import LlamaView
from shiftlens.models.families.opt import OPTView
from shiftlens.models.families.phi3 import Phi3View
from shiftlens.support.plugins import added

FAMILIES: dict[str, type[FamilyView]] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "smollm3"), LlamaView),
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text"), GemmaView),
    "phi3": Phi3View,
    "gpt2": GPT2View,
    "gpt_neox": GPTNeoXView,
    "opt": OPTView,
}
"""Class of the view for each model type, as the configuration of the model (its text part) names the type."""
GROUP = "shiftlens.families"
"""Entry point group of views that other packages add; the name of an entry point is the model type."""

__all__ = ["FAMILIES", "Embedding", "FamilyView", "QueryKey", "view"]


def view(model: PreTrainedModel) -> FamilyView:
    """Make the view of a model's weights.

    Args:
        model: Hugging Face causal language model of a family in :data:`FAMILIES`. For a multimodal model (Gemma
            3), the view covers the text part.

    Returns:
        The view. It takes no memory until a matrix is read.

    Raises:
        SourceError: The family is not known; or weights are quantized, wrapped by an adapter, or not in memory.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=12, num_hidden_layers=1,
        ...                      num_attention_heads=2)
        >>> weights = view(LlamaForCausalLM(config))
        >>> weights.query_key(0).query.shape, weights.down(0).shape
        (torch.Size([2, 8, 4]), torch.Size([12, 8]))
    """
    family = model.get_decoder().config.model_type
    others = added(GROUP)
    if family in FAMILIES:
        return FAMILIES[family](model)
    if family in others:
        added_view: FamilyView = others[family].load()(model)
        return added_view
    raise SourceError(
        f"The weights of a {family} model cannot be viewed; known families: {', '.join([*FAMILIES, *others])}. "
        f"Another family needs a subclass of FamilyView, named as entry point {family!r} in group {GROUP!r}: see "
        "docs/extending.md."
    )
