"""From modules to matrices: read a projection, fold a norm into it, part what is fused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from shiftlens.support.libraries.transformers_parts import Conv1D


@dataclass(frozen=True)
class Affine:
    """The map ``x -> x @ weight + bias``.

    Args:
        weight: [inputs, outputs].
        bias: [outputs].
    """

    weight: Float[Tensor, "inputs outputs"]
    bias: Float[Tensor, " outputs"]

    def columns(self, start: int, stop: int) -> Affine:
        """The part of the map that makes outputs ``start`` to ``stop - 1``."""
        return Affine(self.weight[:, start:stop], self.bias[start:stop])


def widen(tensor: Float[Tensor, ...]) -> Float[Tensor, ...]:
    """The values without their graph, in at least float32; shares memory where nothing had to be widened.

    Example:
        >>> widen(torch.ones(2, dtype=torch.bfloat16)).dtype, widen(torch.ones(2, dtype=torch.float64)).dtype
        (torch.float32, torch.float64)
    """
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))


def is_plain(module: Any) -> bool:
    """Whether a projection or embedding holds its weights as they are: not quantized, not wrapped, in memory.

    Quantized and adapted layers are often subclasses of ``nn.Linear``, so the exact class counts;
    embeddings have harmless subclasses (Gemma's scale their output).

    Example:
        >>> is_plain(nn.Linear(2, 3)), is_plain(nn.Linear(2, 3, device="meta")), is_plain(nn.Identity())
        (True, False, False)
    """
    if type(module) not in (nn.Linear, Conv1D) and not isinstance(module, nn.Embedding):
        return False
    weight = module.weight
    # Weights quantized in place keep the module and change the tensor's class.
    return type(weight) in (nn.Parameter, Tensor) and weight.is_floating_point() and not weight.is_meta


def affine(module: Any) -> Affine:
    """A ``Linear`` or ``Conv1D`` (GPT-2's linear layer, stored transposed) as a map; a missing bias is zero.

    Example:
        >>> affine(nn.Linear(2, 3, bias=False)).bias
        tensor([0., 0., 0.])
        >>> affine(Conv1D(nf=3, nx=2)).weight.shape
        torch.Size([2, 3])
    """
    stored = widen(module.weight)
    weight = stored if isinstance(module, Conv1D) else stored.T
    bias = weight.new_zeros(weight.shape[1]) if module.bias is None else widen(module.bias)
    return Affine(weight, bias)


def fold_norm(
    after: Affine, gain: Float[Tensor, " inputs"], shift: Float[Tensor, " inputs"] | None, centred: bool
) -> Affine:
    """Put what a norm does besides its per-token scale into the map that follows.

    With ``norm(x) = hat(x) * gain + shift``, the result f has ``f(hat(x)) = after(norm(x))``. A norm
    that centres its input makes the folded weight blind to the mean of x as well, so that f also
    reads embeddings that were not centred.

    Args:
        after: the map behind the norm.
        gain: [inputs] what the norm multiplies by.
        shift: [inputs] what it adds, or ``None``.
        centred: whether the norm subtracts the mean over the inputs (LayerNorm does, RMSNorm does not).

    Returns:
        The folded map.

    Source:
        ``fold_layer_norm`` of TransformerLens, which centres likewise.

    Example:
        >>> after = Affine(torch.tensor([[1.0], [3.0]]), torch.zeros(1))
        >>> folded = fold_norm(after, torch.tensor([2.0, 1.0]), torch.tensor([0.0, 1.0]), centred=True)
        >>> folded.weight.flatten().tolist(), folded.bias.tolist()
        ([-0.5, 0.5], [3.0])
    """
    weight = after.weight * gain[:, None]
    if centred:
        weight = weight - weight.mean(0, keepdim=True)
    bias = after.bias if shift is None else after.bias + shift @ after.weight
    return Affine(weight, bias)


def first_two_of_three(fused: Affine, queries: int) -> tuple[Affine, Affine]:
    """Query and key of a map that makes ``[query | key | value]`` side by side.

    Args:
        fused: the map; keys and values have the same size.
        queries: number of query outputs.

    Example:
        >>> query, key = first_two_of_three(Affine(torch.zeros(5, 8), torch.arange(8.0)), queries=4)
        >>> query.bias.tolist(), key.bias.tolist()
        ([0.0, 1.0, 2.0, 3.0], [4.0, 5.0])
    """
    keys = (len(fused.bias) - queries) // 2
    return fused.columns(0, queries), fused.columns(queries, queries + keys)
