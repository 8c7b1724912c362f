"""Checks the configuration group ``annotator`` and makes the annotator it asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from shiftlens.annotate import endpoint, lexical, local
from shiftlens.annotate.annotation import Annotator
from shiftlens.annotate.endpoint import Endpoint
from shiftlens.annotate.lexical import LexicalAnnotator
from shiftlens.annotate.local import LocalAnnotator
from shiftlens.annotate.service import OpenAIAnnotator
from shiftlens.support.setting_rules import Choice, Rule, refuse, setting_problems

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
        config: Keys of one of ``conf/annotator/*.yaml``; ``name`` says which.

    Returns:
        One line for each key that is not known and each value that cannot be used.

    Example:
        >>> annotator_problems({"name": "lexical", "seed": -1})
        ['annotator.seed=-1: expected a whole number from 0 to 4294967295']
    """
    if wrong := setting_problems({"name": None, **config}, {"name": Choice(list(_KEYS))}, "annotator."):
        return wrong
    name, values = config["name"], {key: value for key, value in config.items() if key != "name"}
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
    """Make the annotator that the configuration asks for.

    Args:
        config: Keys of one of ``conf/annotator/*.yaml``; ``name`` says which.
        words: Vocabulary from which concepts take their words.
        vectors: [words, dim] static word vectors; a row of NaN is a word without one.
        parts_of_speech: Function that gives the universal part-of-speech tags that a word can have.
        cache: Folder of caches; answers of language models go to ``annotations`` in it.

    Raises:
        ConfigError: Lists every key that is not known and every value that cannot be used.

    Example:
        >>> annotator_from_config({"name": "oracle"}, [], np.zeros((0, 2)), lambda word: set(), ".")
        Traceback (most recent call last):
        shiftlens.errors.ConfigError: annotator.name=oracle: expected one of lexical, openai, local
    """
    refuse(annotator_problems(config))
    values = {key: value for key, value in config.items() if key != "name"}
    name = config["name"]
    answers = Path(cache).expanduser() / "annotations"
    if name == "lexical":
        return LexicalAnnotator(words, vectors, parts_of_speech, **values)
    if name == "openai":
        return OpenAIAnnotator(Endpoint(**values), answers)
    # Here, because the interface lies above this module and may come to import it.
    from shiftlens.api.attribute import load

    settings = {key: values[key] for key in ("dtype", "device_map") if key in values}
    lm = load(str(values["source"]), cache=str(cache), **settings)
    sizes = {key: values[key] for key in ("max_new_tokens", "batch_size") if key in values}
    return LocalAnnotator(lm, answers, **sizes)
