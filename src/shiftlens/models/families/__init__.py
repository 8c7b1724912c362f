"""Views of the weights: one small class per family, the same questions answered by each."""

from __future__ import annotations

from importlib.metadata import entry_points

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

FAMILIES: dict[str, type[FamilyView]] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "smollm3"), LlamaView),
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text"), GemmaView),
    "phi3": Phi3View,
    "gpt2": GPT2View,
    "gpt_neox": GPTNeoXView,
    "opt": OPTView,
}
"""Model type of the (text) configuration -> its view."""
GROUP = "shiftlens.families"
"""Entry point group of views that other packages add; the name of an entry point is the model type."""

__all__ = ["FAMILIES", "Embedding", "FamilyView", "QueryKey", "view"]


def view(model: PreTrainedModel) -> FamilyView:
    """The weights of a model in terms that do not depend on its family.

    Args:
        model: a Hugging Face causal language model of a family in :data:`FAMILIES`; of a model with more
            than text (Gemma 3), the text part.

    Returns:
        Its view; costs no memory until something is asked of it.

    Raises:
        SourceError: the family is not known; or weights are quantized, adapted or not in memory.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=12, num_hidden_layers=1,
        ...                      num_attention_heads=2)
        >>> seen = view(LlamaForCausalLM(config))
        >>> seen.query_key(0).query.shape, seen.down(0).shape
        (torch.Size([2, 8, 4]), torch.Size([12, 8]))
    """
    family = model.get_decoder().config.model_type
    added = {point.name: point for point in entry_points(group=GROUP)}
    if family in FAMILIES:
        return FAMILIES[family](model)
    if family in added:
        seen: FamilyView = added[family].load()(model)
        return seen
    raise SourceError(
        f"The weights of a {family} model cannot be viewed; known families: {', '.join([*FAMILIES, *added])}. "
        f"Another needs a subclass of FamilyView, named as entry point {family!r} in group {GROUP!r}: see "
        "docs/extending.md."
    )
