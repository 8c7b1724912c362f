"""Captures the input embeddings of a forward pass, and the gradient with respect to them."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from shiftlens.hooks.tap import Tap


class EmbeddingTap(Tap):
    """Context manager that makes the input embeddings of a model a leaf of the graph and captures their gradient.

    A forward hook replaces the output of the embedding layer by a detached tensor that requires a gradient; a hook
    on that tensor stores the gradient. Parameters can stay frozen. Families that scale the embeddings afterwards
    (Gemma) need no special case: ``<dL/dE, E>`` is the same for ``E`` and ``cE``.

    Args:
        model: Hugging Face causal language model.

    Attributes:
        embedding: [batch, total, width] leaf of the last forward pass; ``None`` before.
        gradient: [batch, total, width] gradient of the last ``backward()``; ``None`` before.

    Example:
        >>> import torch
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        ...                      num_attention_heads=2)
        >>> model, ids = LlamaForCausalLM(config), torch.tensor([[1, 2, 3]])
        >>> with EmbeddingTap(model) as tap:
        ...     model(ids).logits[0, -1].max().backward()
        >>> tap.gradient.shape
        torch.Size([1, 3, 8])
    """

    embedding: Float[Tensor, "batch total width"] | None = None
    gradient: Float[Tensor, "batch total width"] | None = None

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self._layer: nn.Module = model.get_input_embeddings()

    def _hooks(self) -> list[RemovableHandle]:
        return [self._layer.register_forward_hook(self._capture)]

    def _capture(self, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        self.embedding = output.detach().requires_grad_()
        self._handles.append(self.embedding.register_hook(self._receive))
        return self.embedding

    def _receive(self, gradient: Tensor) -> None:
        self.gradient = gradient
