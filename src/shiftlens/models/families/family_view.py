"""What every family answers about its weights, and the work that all families share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from shiftlens.errors import SourceError
from shiftlens.models.families.embedding_table import Embedding
from shiftlens.models.families.folding import Affine, affine, fold_norm, is_plain, widen


@dataclass(frozen=True)
class QueryKey:
    """How the heads of one layer read the residual stream: ``q = hat(x) @ query + query_bias``, k likewise.

    ``hat(x)`` is x as the norm ahead of attention leaves it, before the norm's gain and bias, which are
    folded in here. Per-token scales of norms, rotary positions and the constant scale of the attention
    logits are left out.

    Args:
        query: [heads, width, head].
        key: [heads, width, head]; a key head that several query heads share is repeated for each.
        query_bias: [heads, head].
        key_bias: [heads, head].
    """

    query: Float[Tensor, "heads width head"]
    key: Float[Tensor, "heads width head"]
    query_bias: Float[Tensor, "heads head"]
    key_bias: Float[Tensor, "heads head"]


@dataclass(frozen=True)
class Block:
    """The modules of one layer that a view reads.

    Args:
        query_key: the projections that make queries and keys: two, or one that is fused.
        down: the projection from the feed-forward layer's inside to the residual stream.
        norm: the norm ahead of attention, or ``None`` where there is none.
        head_norms: norms of each head's query and of each head's key, or ``None``.
        down_norm: the norm between ``down`` and the residual stream, or ``None``.
    """

    query_key: tuple[nn.Module, ...]
    down: nn.Module
    norm: nn.Module | None
    head_norms: tuple[nn.Module, nn.Module] | None = None
    down_norm: nn.Module | None = None


class FamilyView(ABC):
    """The weights of a language model in the same terms for every family.

    Everything is detached and in at least float32, on the device of the weights, and made anew at each
    call, so only what the caller holds takes memory. Where nothing had to be changed it shares memory
    with the model: read, do not write.

    Args:
        model: the causal language model.

    Attributes:
        family: model type as the configuration names it.
        layers: number of layers.
        heads: number of query heads in a layer.
        width: size of the residual stream.
        head: size of a head.

    Raises:
        SourceError: weights are quantized, wrapped by an adapter or not in memory; names the modules.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._body: Any = model.get_decoder()  # the text part, where a model has others
        self._output: Any = model.get_output_embeddings()
        config = self._body.config
        self.family: str = config.model_type
        self.layers: int = config.num_hidden_layers
        self.heads: int = config.num_attention_heads
        self.width: int = config.hidden_size
        self.head: int = getattr(config, "head_dim", None) or self.width // self.heads
        self._check(model)

    def _check(self, model: PreTrainedModel) -> None:
        names = {module: name for name, module in model.named_modules()}
        read = self._outside()
        for layer in range(self.layers):
            block = self._block(layer)
            read += [*block.query_key, block.down]
        faults = [f"{names.get(each, '?')} ({type(each).__name__})" for each in read if not is_plain(each)]
        if faults:
            rest = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
            raise SourceError(
                f"{self.family}: the weight views need plain floating-point weights in memory; not so in "
                f"{', '.join(faults[:3])}{rest}. Load the model unquantized, without offloading, "
                "and merge adapters into it (merge_and_unload)."
            )

    def _outside(self) -> list[Any]:
        """The modules that are read outside the layers."""
        return [self._body.get_input_embeddings(), self._output]

    @abstractmethod
    def _block(self, layer: int) -> Block:
        """The modules of a layer."""

    def _split(self, maps: tuple[Affine, ...]) -> tuple[Affine, Affine]:
        """Query and key outputs, each [.., heads x head], out of the layer's projections."""
        query, key = maps
        return query, key

    def _gain(self, norm: Any) -> Float[Tensor, " width"]:
        """What a norm multiplies its normalised input by."""
        return widen(norm.weight)

    @property
    def input_embedding(self) -> Embedding:
        """[vocab, width] what a token puts into the residual stream of the first layer, positions aside.

        Families that scale (Gemma: by the square root of the width) or project their embeddings
        (OPT) have that done.
        """
        return Embedding(self._body.get_input_embeddings().weight)

    @property
    def output_embedding(self) -> Embedding:
        """[vocab, width] a token's logit is its row times the last hidden state, plus what the output layer adds.

        The last hidden state is the one behind the final norm, whose gain is not folded in; where the
        family projects it before the output layer (OPT), the projection is.
        """
        return Embedding(self._output.weight)

    def query_key(self, layer: int) -> QueryKey:
        """How the heads of a layer make queries and keys from the residual stream.

        Where each head's query and key are normed before use (Qwen3, Gemma3), the gain of that norm is
        folded into columns and bias; its scale, one positive number per token and head, is left out.

        Args:
            layer: 0 to ``layers - 1``.

        Returns:
            Matrices and biases of all heads.
        """
        block = self._block(layer)
        maps = tuple(affine(module) for module in block.query_key)
        parts = []
        for i, part in enumerate(self._split(maps)):
            weight, bias = self._fold(part, block.norm)
            weight, bias = weight.view(self.width, -1, self.head), bias.view(-1, self.head)
            if block.head_norms is not None:
                gain = self._gain(block.head_norms[i])
                weight, bias = weight * gain, bias * gain
            repeat = self.heads // len(bias)
            weight = weight.transpose(0, 1).repeat_interleave(repeat, dim=0)
            parts.append((weight, bias.repeat_interleave(repeat, dim=0)))
        (query, query_bias), (key, key_bias) = parts
        return QueryKey(query, key, query_bias, key_bias)

    def _fold(self, part: Affine, norm: Any) -> tuple[Tensor, Tensor]:
        if norm is not None:
            centred = isinstance(norm, nn.LayerNorm)
            shift = None if getattr(norm, "bias", None) is None else widen(norm.bias)
            gain = part.weight.new_ones(len(part.weight)) if norm.weight is None else self._gain(norm)
            part = fold_norm(part, gain, shift, centred)
        return part.weight, part.bias

    def down(self, layer: int) -> Float[Tensor, "d_ff width"]:
        """The patterns that the feed-forward layer writes into the residual stream: it adds ``inner @ down``.

        Where its output is normed before it is added (Gemma 2 and 3), the norm's gain is folded in; its
        scale, one positive number per token, is left out.

        Args:
            layer: 0 to ``layers - 1``.

        Returns:
            [d_ff, width] one pattern per inner unit.
        """
        block = self._block(layer)
        weight = affine(block.down).weight
        return weight if block.down_norm is None else weight * self._gain(block.down_norm)

    def down_bias(self, layer: int) -> Float[Tensor, " width"]:
        """What the feed-forward layer adds whatever its inner units do; zeros where it has no bias.

        Args:
            layer: 0 to ``layers - 1``.

        Returns:
            [width], in the terms of :meth:`down`.
        """
        block = self._block(layer)
        bias = affine(block.down).bias
        return bias if block.down_norm is None else bias * self._gain(block.down_norm)
