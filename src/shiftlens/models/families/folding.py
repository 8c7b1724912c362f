"""Reads projections as matrices, folds norms into them, and splits fused ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from shiftlens.support.libraries.transformers_parts import Conv1D


@dataclass(frozen=True)
class Affine:
    """Affine map ``x -> x @ weight + bias``.

    Args:
        weight: [inputs, outputs] matrix.
        bias: [outputs] vector.
    """

    weight: Float[Tensor, "inputs outputs"]
    bias: Float[Tensor, " outputs"]

    def columns(self, start: int, stop: int) -> Affine:
        """Return the part of the map that computes outputs ``start`` to ``stop - 1``."""
        return Affine(self.weight[:, start:stop], self.bias[start:stop])


def widen(tensor: Float[Tensor, ...]) -> Float[Tensor, ...]:
    """Detach a tensor and convert it to at least float32; it shares memory if it needs no conversion.

    Example:
        >>> widen(torch.ones(2, dtype=torch.bfloat16)).dtype, widen(torch.ones(2, dtype=torch.float64)).dtype
        (torch.float32, torch.float64)
    """
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))


def is_plain(module: Any) -> bool:
    """Return whether a projection or embedding has ordinary weights: in memory, not quantized, without adapter.

    Quantized layers and layers with adapters are often subclasses of ``nn.Linear``, so a linear layer must be of
    the exact class. Embeddings have harmless subclasses (Gemma's scale their output).

    Example:
        >>> is_plain(nn.Linear(2, 3)), is_plain(nn.Linear(2, 3, device="meta")), is_plain(nn.Identity())
        (True, False, False)
    """
    if type(module) not in (nn.Linear, Conv1D) and not isinstance(module, nn.Embedding):
        return False
    weight = module.weight
    # Quantization in place keeps the class of the module and changes the class of its weight.
    return type(weight) in (nn.Parameter, Tensor) and weight.is_floating_point() and not weight.is_meta


def affine(module: Any) -> Affine:
    """Read a ``Linear`` or ``Conv1D`` (GPT-2's linear layer, stored transposed) as a map; a missing bias is zero.

    Example:
        >>> affine(nn.Linear(2, 3, bias=False)).bias
        tensor([0., 0., 0.])
        >>> affine(Conv1D(nf=3, nx=2)).weight.shape
        torch.Size([2, 3])
    """
    stored = widen(module.weight)
    weight = stored if isinstance(module, Conv1D) else stored.T  # [inputs, outputs]
    bias = weight.new_zeros(weight.shape[1]) if module.bias is None else widen(module.bias)
    return Affine(weight, bias)


def fold_norm(
    after: Affine, gain: Float[Tensor, " inputs"], shift: Float[Tensor, " inputs"] | None, centred: bool
) -> Affine:
    """Fold gain, shift and centring of a norm into the map that follows it.

    With ``norm(x) = hat(x) * gain + shift``, the folded map f satisfies ``f(hat(x)) = after(norm(x))``. If the
    norm centres its input, f ignores the mean of its input, so f can also be applied to embeddings that are not
    centred. The norm's per-token scale is not part of f.

    Args:
        after: Map that follows the norm.
        gain: [inputs] factor of the norm.
        shift: [inputs] vector that the norm adds, or ``None``.
        centred: Whether the norm subtracts the mean over the inputs (LayerNorm does, RMSNorm does not).

    Returns:
        The folded map, with the shapes of ``after``.

    Source:
        ``fold_layer_norm`` of TransformerLens, which centres in the same way.

    Example:
        >>> after = Affine(torch.tensor([[1.0], [3.0]]), torch.zeros(1))
        >>> folded = fold_norm(after, torch.tensor([2.0, 1.0]), torch.tensor([0.0, 1.0]), centred=True)
        >>> folded.weight.flatten().tolist(), folded.bias.tolist()
        ([-0.5, 0.5], [3.0])
    """
    weight = after.weight * gain[:, None]  # [inputs, outputs]
    if centred:
        weight = weight - weight.mean(0, keepdim=True)
    bias = after.bias if shift is None else after.bias + shift @ after.weight
    return Affine(weight, bias)


def first_two_of_three(fused: Affine, queries: int) -> tuple[Affine, Affine]:
    """Split query and key off a map whose outputs are ``[query | key | value]``.

    Args:
        fused: Map with all three outputs; key and value have the same size.
        queries: Number of query outputs.

    Returns:
        The maps of query and key.

    Example:
        >>> query, key = first_two_of_three(Affine(torch.zeros(5, 8), torch.arange(8.0)), queries=4)
        >>> query.bias.tolist(), key.bias.tolist()
        ([0.0, 1.0, 2.0, 3.0], [4.0, 5.0])
    """
    keys = (len(fused.bias) - queries) // 2
    return fused.columns(0, queries), fused.columns(queries, queries + keys)
