"""Ways to measure the importance of a prompt token."""

from __future__ import annotations

from typing import Any

from shiftlens.attribution.methods.ablation import REPLACEMENTS, Ablation
from shiftlens.attribution.methods.attention_weights import AttentionWeights
from shiftlens.attribution.methods.gradient import Gradient
from shiftlens.attribution.methods.integrated import Integrated
from shiftlens.attribution.methods.lrp import Lrp
from shiftlens.attribution.methods.method import Method
from shiftlens.attribution.methods.random_order import RandomOrder
from shiftlens.errors import ConfigError
from shiftlens.support.plugins import pick

METHODS: dict[str, type[Method]] = {
    "gradient": Gradient,
    "ablation": Ablation,
    "lrp": Lrp,
    "integrated": Integrated,
    "attention": AttentionWeights,
    "random": RandomOrder,
}
"""Methods of ShiftLens, by name."""
GROUP = "shiftlens.methods"
"""Entry point group of methods that other packages add: a class that needs no arguments."""

__all__ = [
    "GROUP",
    "METHODS",
    "REPLACEMENTS",
    "Ablation",
    "AttentionWeights",
    "Gradient",
    "Integrated",
    "Lrp",
    "Method",
    "RandomOrder",
    "method_from_config",
]


def method_from_config(value: Any) -> Method:
    """The method that ``saliency.method`` names.

    Args:
        value: Name of a method, name of an entry point of the group ``shiftlens.methods``, a node with
            ``_target_``, or a method.

    Raises:
        ConfigError: There is no such method.

    Example:
        >>> method_from_config("gradient").words
        'gradient x embedding'
    """
    made = value if isinstance(value, Method) else pick("saliency.method", value, METHODS, GROUP)
    try:
        if isinstance(made, type) and issubclass(made, Method):
            made = made()
        if not isinstance(made, Method):
            raise ConfigError(f"saliency.method={value}: expected a Method, got {type(made).__name__}")
        made.identity()
    except TypeError as error:
        raise ConfigError(f"saliency.method={value}: {error}") from error
    if not all(isinstance(getattr(made, text, None), str) for text in ("name", "words")):
        raise ConfigError(f"saliency.method={value}: {type(made).__name__} needs the texts name and words")
    return made
