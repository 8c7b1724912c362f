"""Builds the annotator that the ``annotator`` group of the configuration describes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Float

from shiftlens.annotate import endpoint, lexical, local
from shiftlens.annotate.annotation import Annotator
from shiftlens.annotate.endpoint import Endpoint
from shiftlens.annotate.lexical import LexicalAnnotator
from shiftlens.annotate.local import LocalAnnotator
from shiftlens.annotate.service import OpenAIAnnotator
from shiftlens.support.plugins import added, expected_names, pick
from shiftlens.support.setting_rules import Rule, refuse

GROUP = "shiftlens.annotators"
"""Entry point group of annotators that other packages add; called with the keys of the group ``annotator``."""
_PROBLEMS = {"lexical": lexical.problems, "openai": endpoint.problems, "local": local.problems}
ANNOTATOR_RULES: Mapping[str, Mapping[str, Rule]] = {
    "lexical": lexical.RULES,
    "openai": endpoint.RULES,
    "local": local.RULES,
}
"""Name of an annotator -> rules of its numeric keys."""
_KEYS = {
    "lexical": frozenset({"alpha", "seed"}),
    "openai": frozenset(field.name for field in dataclasses.fields(Endpoint)),
    "local": frozenset({"source", "dtype", "device_map", "max_new_tokens", "batch_size"}),
}


def annotator_problems(config: Mapping[str, Any]) -> list[str]:
    """Check everything that can be checked before an annotator is made.

    Args:
        config: Keys of one of ``conf/annotator/*.yaml``; ``name`` selects the annotator.

    Returns:
        One line for each key that is not known and each value that cannot be used; none for an annotator that
        others added, which checks its own keys.

    Example:
        >>> annotator_problems({"name": "lexical", "seed": -1})
        ['annotator.seed=-1: expected a whole number from 0 to 4294967295']
    """
    name, values = config.get("name"), {key: value for key, value in config.items() if key != "name"}
    if not isinstance(name, str):
        return []
    if name not in _KEYS:
        return [] if name in added(GROUP) else [f"annotator.name={name}: {expected_names(_KEYS, GROUP)}"]
    known = ", ".join(sorted(_KEYS[name]))
    unknown = [key for key in values if key not in _KEYS[name]]
    return [f"annotator.{key}: unknown for {name}; known are {known}" for key in unknown] + _PROBLEMS[name](values)


def annotator_from_config(
    config: Mapping[str, Any],
    words: Sequence[str],
    vectors: Float[np.ndarray, "_ dim"],
    parts_of_speech: Callable[[str], Collection[str]],
    cache: str | Path,
) -> Annotator:
    """Build the annotator that the configuration describes.

    Args:
        config: Keys of one of ``conf/annotator/*.yaml``; ``name`` selects the annotator, or is a node with
            ``_target_`` that makes an :class:`~shiftlens.annotate.annotation.Annotator`.
        words: Vocabulary that contains the words of the concepts.
        vectors: [words, dim] static word vectors; the row of a word without a vector is NaN.
        parts_of_speech: Function from a word to the universal part-of-speech tags that it can have.
        cache: Folder of caches; answers of language models are stored in its folder ``annotations``.

    Raises:
        ConfigError: If the configuration is invalid; the message lists all faults.

    Example:
        >>> annotator_from_config({"name": "oracle"}, [], np.zeros((0, 2)), lambda word: set(), ".")
        ... # doctest: +ELLIPSIS
        Traceback (most recent call last):
        shiftlens.errors.ConfigError: annotator.name=oracle: expected one of lexical, openai, local, or a node ...
    """
    refuse(annotator_problems(config))
    values = {key: value for key, value in config.items() if key != "name"}
    name = config.get("name")
    if isinstance(name, Mapping):
        name = pick("annotator.name", name, _KEYS, GROUP)
    if hasattr(name, "annotate"):  # made from a node with _target_, here or by Hydra
        return cast(Annotator, name)
    if name not in _KEYS:
        return cast(Annotator, pick("annotator.name", name, _KEYS, GROUP)(**values))
    answers = Path(cache).expanduser() / "annotations"
    if name == "lexical":
        return LexicalAnnotator(words, vectors, parts_of_speech, **values)
    if name == "openai":
        return OpenAIAnnotator(Endpoint(**values), answers)
    # Imported here: the other annotators need no model.
    from shiftlens.models.opening import load

    settings = {key: values[key] for key in ("dtype", "device_map") if key in values}
    lm = load(str(values["source"]), cache=str(cache), **settings)
    sizes = {key: values[key] for key in ("max_new_tokens", "batch_size") if key in values}
    return LocalAnnotator(lm, answers, **sizes)
