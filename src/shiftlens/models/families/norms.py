"""Reads what a norm does besides its scale per vector, and checks on random vectors that it does nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from shiftlens.errors import SourceError


@dataclass(frozen=True)
class Norm:
    """A norm written as ``norm(x) = scale * (x - mean) * gain + shift``, with one positive scale per vector.

    Args:
        gain: [.., size] Factor of each entry; one row for each head where the norms of the heads differ.
        shift: Like ``gain``, what is added to each entry; ``None`` for nothing.
        centred: Whether the mean over the last dimension is subtracted (LayerNorm); without it, as in RMSNorm,
            ``mean`` is 0.
    """

    gain: Float[Tensor, "*heads size"]
    shift: Float[Tensor, "*heads size"] | None
    centred: bool


@torch.no_grad()
def is_centred(
    module: Any, name: str, size: int, gain: Float[Tensor, ...], shift: Float[Tensor, ...] | None
) -> bool:
    """Run a norm on random vectors to find out whether it subtracts the mean.

    The norm runs on its own device and in its own dtype. The random vectors differ in scale and mean, because a
    map such as tanh resembles a norm for small inputs only.

    Args:
        module: Norm to run.
        name: Name of the module in its model, for the error.
        size: Size of the vectors that the model feeds to it.
        gain: [.., size] Gain that the view folds into weights.
        shift: [.., size] Shift that the view folds into biases, or ``None`` for none.

    Raises:
        SourceError: The output is not that of :class:`Norm`, centred or not, with this gain and shift.

    Example:
        >>> norm = torch.nn.LayerNorm(16)
        >>> is_centred(norm, "norm", 16, norm.weight, norm.bias)
        True
        >>> is_centred(norm, "norm", 16, 1 + norm.weight**2, norm.bias + 1)  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        shiftlens.errors.SourceError: norm (LayerNorm): ...
    """
    shapes = [list(tensor.shape) for tensor in (gain, shift) if tensor is not None]
    if shapes[0][-1] != size or any(shape != shapes[0] for shape in shapes):
        raise SourceError(
            f"{_advice(module, name)} Gain and shift of shape {shapes} do not fit vectors of {size}."
        )
    own = next(module.parameters(), gain)
    x = _random_vectors(gain.shape).to(own.device, own.dtype)  # [vectors, .., size]
    try:
        # `forward`, because a call of the module would run hooks, which would record these vectors.
        output = module.forward(x[None])[0]
    except Exception as error:  # whatever a norm that wants other shapes or arguments raises
        raise SourceError(f"{_advice(module, name)} It cannot be run on {list(x.shape)}: {error}") from error
    if output.shape != x.shape:
        raise SourceError(f"{_advice(module, name)} It makes {list(output.shape)} of {list(x.shape)}.")
    x, output, gain = (tensor.detach().cpu().double() for tensor in (x, output, gain))
    shift = torch.zeros_like(gain) if shift is None else shift.detach().cpu().double()
    finite = (gain + shift).isfinite()  # the code that uses the matrices raises on other entries
    rest = torch.where(finite, output - shift, 0.0)
    # Measured errors: up to 0.5 eps of the dtype, and 3 eps of float32, in which most norms compute inside.
    limit = 4 * torch.finfo(own.dtype).eps + 8 * torch.finfo(torch.float32).eps
    limits = limit * (rest.norm(dim=-1) + torch.where(finite, shift, 0.0).norm(dim=-1))  # [vectors, ..]
    errors = [
        _error(rest, torch.where(finite, (x - mean) * gain, 0.0)) for mean in (0.0, x.mean(-1, keepdim=True))
    ]
    centred = bool(errors[1].sum() < errors[0].sum())
    if not (errors[centred] <= limits).all():
        raise SourceError(_advice(module, name))
    return centred


def _random_vectors(shape: torch.Size) -> Float[Tensor, "vectors *heads size"]:
    noise = torch.randn(9, *shape, generator=torch.Generator().manual_seed(0))
    column = (-1, *[1] * len(shape))
    means = torch.tensor([0.0, 1.0, -2.0]).repeat(3).view(column)
    scales = torch.tensor([0.25, 1.0, 8.0]).repeat_interleave(3).view(column)
    return scales * (noise + means)


def _error(output: Tensor, direction: Tensor) -> Tensor:
    """Distance of each output vector from the nearest non-negative multiple of its direction."""
    length = direction.square().sum(-1, keepdim=True).clamp_min(torch.finfo(direction.dtype).tiny)
    scale = ((output * direction).sum(-1, keepdim=True) / length).clamp_min(0)
    return (output - scale * direction).norm(dim=-1)


def _advice(module: Any, name: str) -> str:
    return (
        f"{name} ({type(module).__name__}): the views can fold a norm that multiplies x, or x minus its mean, by "
        "one scale per vector and by its gain, and adds its shift; on random vectors this norm does something "
        "else with the gain and shift that were read. Override `_gain` and `_shift`, or `_fold`, in the view "
        "class of this family."
    )
