"""Ways to measure the importance of a prompt token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shiftlens.attribution.methods.ablation import Ablation
from shiftlens.attribution.methods.attention_weights import AttentionWeights
from shiftlens.attribution.methods.gradient import Gradient
from shiftlens.attribution.methods.integrated import Integrated
from shiftlens.attribution.methods.lrp import Lrp
from shiftlens.attribution.methods.method import Method
from shiftlens.attribution.methods.random_order import RandomOrder
from shiftlens.errors import ConfigError
from shiftlens.support.plugins import pick
from shiftlens.support.setting_rules import refuse, setting_problems

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
    "Ablation",
    "AttentionWeights",
    "Gradient",
    "Integrated",
    "Lrp",
    "Method",
    "RandomOrder",
    "method_from_config",
    "methods_from_config",
]


def methods_from_config(value: Any, settings: Mapping[str, Any] | None = None) -> tuple[Method, ...]:
    """The methods that ``saliency.method`` names: one, or a list of which the first is the headline.

    Args:
        value: What :func:`method_from_config` takes, or a list of it.
        settings: Name of a method -> its settings, for methods given by name.

    Raises:
        ConfigError: There is no such method, none at all, or one is named twice.

    Example:
        >>> [method.label for method in methods_from_config(["gradient", "ablation"])]
        ['gradient', 'ablation']
    """
    listed = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if not listed:
        raise ConfigError("saliency.method=[]: expected at least one method")
    methods = tuple(method_from_config(each, settings) for each in listed)
    labels = [method.label for method in methods]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ConfigError(f"saliency.method: {', '.join(twice)} is listed twice")
    return methods


def method_from_config(value: Any, settings: Mapping[str, Any] | None = None) -> Method:
    """The method that an entry of ``saliency.method`` names.

    Args:
        value: Name of a method, name of an entry point of the group ``shiftlens.methods``, a node with
            ``_target_``, or a method.
        settings: Name of a method -> its settings, for methods given by name.

    Raises:
        ConfigError: There is no such method.

    Example:
        >>> method_from_config("gradient").words
        'gradient x embedding'
    """
    made = value if isinstance(value, Method) else pick("saliency.method", value, METHODS, GROUP)
    try:
        if isinstance(made, type) and issubclass(made, Method):
            given = (settings or {}).get(str(value)) or {}
            if not isinstance(given, Mapping):
                raise ConfigError(f"saliency.{value}={given}: expected settings by name, such as {{}}")
            refuse(setting_problems(given, made.rules, f"saliency.{value}."))
            made = made(**dict(given))
        if not isinstance(made, Method):
            raise ConfigError(f"saliency.method={value}: expected a Method, got {type(made).__name__}")
        made.identity()
    except TypeError as error:
        raise ConfigError(f"saliency.method={value}: {error}") from error
    if not all(isinstance(getattr(made, text, None), str) for text in ("name", "words")):
        raise ConfigError(f"saliency.method={value}: {type(made).__name__} needs the texts name and words")
    return made
