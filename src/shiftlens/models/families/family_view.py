"""Base class of the views: reads a model's weights as matrices that do not depend on its family."""

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
from shiftlens.models.families.norms import Norm, is_centred


@dataclass(frozen=True)
class QueryKey:
    """Maps of one layer's heads from the residual stream: ``q = hat(x) @ query + query_bias``, k likewise.

    ``hat(x)`` is the output of the norm ahead of attention without its gain and bias, which are folded into
    these matrices. Per-token scales of norms, rotary positions and the constant scale of the attention logits
    are left out.

    Args:
        query: [heads, width, head] Query matrix of each head.
        key: [heads, width, head] Key matrix of each head; a key head that several query heads share is repeated
            for each of them.
        query_bias: [heads, head] Query bias of each head.
        key_bias: [heads, head] Key bias of each head.
    """

    query: Float[Tensor, "heads width head"]
    key: Float[Tensor, "heads width head"]
    query_bias: Float[Tensor, "heads head"]
    key_bias: Float[Tensor, "heads head"]


@dataclass(frozen=True)
class Block:
    """Names the modules of one layer that a view reads.

    Args:
        query_key: Projections that make queries and keys: two, or one that is fused.
        down: Projection from the feed-forward layer's inner units to the residual stream.
        norm: Norm ahead of attention, or ``None`` where there is none.
        head_norms: Norms of each head's query and of each head's key, or ``None``.
        down_norm: Norm between ``down`` and the residual stream, or ``None``.
    """

    query_key: tuple[nn.Module, ...]
    down: nn.Module
    norm: nn.Module | None
    head_norms: tuple[nn.Module, nn.Module] | None = None
    down_norm: nn.Module | None = None


class FamilyView(ABC):
    """Gives the weights of a language model in the same form for every family.

    All tensors are detached, in at least float32, and on the device of the weights. They are computed at each
    call, so only what the caller keeps takes memory. A tensor that needed no change shares memory with the
    model: read it, do not write to it.

    Args:
        model: Causal language model.

    Attributes:
        family: Model type as the configuration names it.
        layers: Number of layers.
        heads: Number of query heads in a layer.
        width: Size of the residual stream.
        head: Size of a head.

    Raises:
        SourceError: Weights are quantized, wrapped by an adapter or not in memory; the error names the modules.
            When a matrix is read: a norm does something that cannot be folded into it; the error names the norm.
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
        self._names = {module: name for name, module in model.named_modules()}
        self._centred: dict[nn.Module, bool] = {}
        self._check()

    def _check(self) -> None:
        read = self._outside()
        for layer in range(self.layers):
            block = self._block(layer)
            read += [*block.query_key, block.down]
        faults = [f"{self._names.get(each, '?')} ({type(each).__name__})" for each in read if not is_plain(each)]
        if faults:
            rest = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
            raise SourceError(
                f"{self.family}: the weight views need plain floating-point weights in memory; not so in "
                f"{', '.join(faults[:3])}{rest}. Load the model unquantized, without offloading, "
                "and merge adapters into it (merge_and_unload)."
            )

    def _outside(self) -> list[Any]:
        """Return the modules that are read outside the layers."""
        return [self._body.get_input_embeddings(), self._output]

    @abstractmethod
    def _block(self, layer: int) -> Block:
        """Return the modules of a layer."""

    def _split(self, maps: tuple[Affine, ...]) -> tuple[Affine, Affine]:
        """Separate the outputs of a layer's projections into queries and keys, each [.., heads x head]."""
        query, key = maps
        return query, key

    def _gain(self, norm: Any) -> Float[Tensor, "*heads size"] | None:
        """Read the factor that a norm applies to its normalised input; ``None`` for 1."""
        weight = getattr(norm, "weight", None)
        return None if weight is None else widen(weight)

    def _shift(self, norm: Any) -> Float[Tensor, "*heads size"] | None:
        """Read the vector that a norm adds; ``None`` for nothing."""
        bias = getattr(norm, "bias", None)
        return None if bias is None else widen(bias)

    def _norm(self, module: Any, like: Float[Tensor, "*rest size"]) -> Norm:
        """Read a norm of vectors of the size, device and dtype of ``like``; each norm is checked once."""
        gain, shift = self._gain(module), self._shift(module)
        gain = like.new_ones(like.shape[-1]) if gain is None else gain
        if module not in self._centred:
            name = self._names.get(module, "?")
            self._centred[module] = is_centred(module, name, like.shape[-1], gain, shift)
        return Norm(gain, shift, self._centred[module])

    @property
    def input_embedding(self) -> Embedding:
        """[vocab, width] the vector that a token puts into the first layer's residual stream, without positions.

        Rows are scaled (Gemma: by the square root of the width) or projected (OPT) as the family does it.
        """
        return Embedding(self._body.get_input_embeddings().weight)

    @property
    def output_embedding(self) -> Embedding:
        """[vocab, width] rows whose product with the last hidden state is the logit, without the output bias.

        The last hidden state is the output of the final norm, whose gain is not folded in. A projection ahead of
        the output layer (OPT) is folded in.
        """
        return Embedding(self._output.weight)

    def query_key(self, layer: int) -> QueryKey:
        """Return the matrices from which the heads of a layer make queries and keys.

        Where each head's query and key are normed before use (Qwen3, Gemma3), the gain of that norm is
        folded into columns and bias; its scale, one positive number per token and head, is left out.

        Args:
            layer: Number of the layer, 0 to ``layers - 1``.

        Returns:
            Matrices and biases of all heads.

        Raises:
            SourceError: A norm does something that cannot be folded in.
        """
        block = self._block(layer)
        maps = tuple(affine(module) for module in block.query_key)
        sides = []  # query, then key
        for i, side in enumerate(self._split(maps)):
            weight, bias = self._fold(side, block.norm)  # [width, heads x head], [heads x head]
            weight, bias = weight.view(self.width, -1, self.head), bias.view(-1, self.head)
            if block.head_norms is not None:
                weight, bias = (self._fold_behind(outputs, block.head_norms[i]) for outputs in (weight, bias))
            repeat = self.heads // len(bias)
            weight = weight.transpose(0, 1).repeat_interleave(repeat, dim=0)  # [heads, width, head]
            sides.append((weight, bias.repeat_interleave(repeat, dim=0)))
        (query, query_bias), (key, key_bias) = sides
        return QueryKey(query, key, query_bias, key_bias)

    def _fold(self, after: Affine, norm: Any) -> tuple[Tensor, Tensor]:
        """Fold the norm ahead of a map, if there is one, into the map's weight and bias."""
        if norm is not None:
            form = self._norm(norm, after.weight.T)
            after = fold_norm(after, form.gain, form.shift, form.centred)
        return after.weight, after.bias

    def _fold_behind(self, outputs: Float[Tensor, "*rest size"], norm: Any) -> Float[Tensor, "*rest size"]:
        """Fold the norm behind a map, if there is one, into rows of the map's weight, or into its bias."""
        if norm is None:
            return outputs
        form = self._norm(norm, outputs)
        if form.shift is not None and form.shift.any():
            raise SourceError(
                f"{self._names.get(norm, '?')} ({type(norm).__name__}): adds a shift to outputs whose scale per "
                "token is left out, so the shift cannot be folded into their weights. Override `_fold_behind` in "
                "the view class of this family."
            )
        if form.centred:
            outputs = outputs - outputs.mean(-1, keepdim=True)
        return outputs * form.gain

    def down(self, layer: int) -> Float[Tensor, "d_ff width"]:
        """Return the patterns that a feed-forward layer adds to the residual stream as ``inner @ down``.

        Where its output is normed before it is added (Gemma 2 and 3), the norm's gain is folded in; its
        scale, one positive number per token, is left out.

        Args:
            layer: Number of the layer, 0 to ``layers - 1``.

        Returns:
            [d_ff, width] One pattern per inner unit.

        Raises:
            SourceError: The norm does something that cannot be folded in.
        """
        block = self._block(layer)
        return self._fold_behind(affine(block.down).weight, block.down_norm)

    def down_bias(self, layer: int) -> Float[Tensor, " width"]:
        """Return the vector that a feed-forward layer adds independently of its inner units.

        Args:
            layer: Number of the layer, 0 to ``layers - 1``.

        Returns:
            [width] The bias, folded like :meth:`down`; zeros where there is none.

        Raises:
            SourceError: The norm does something that cannot be folded in.
        """
        block = self._block(layer)
        return self._fold_behind(affine(block.down).bias, block.down_norm)
