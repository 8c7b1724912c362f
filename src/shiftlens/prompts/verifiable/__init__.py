"""Builds the embedded data set: tasks with a check that decides from a response alone whether the task is solved.

The data set needs no file and no network. Correct responses are short, so a few dozen new tokens suffice. The test
half is for explaining models and the train half for tuning them; they share no template and no content.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import zip_longest

from shiftlens.errors import ConfigError
from shiftlens.prompts.schema import Prompt
from shiftlens.prompts.verifiable.checks import CHECKS, check_problems, followed
from shiftlens.prompts.verifiable.copying import COPYING
from shiftlens.prompts.verifiable.kind import Draw, Kind
from shiftlens.prompts.verifiable.lists import LISTS
from shiftlens.prompts.verifiable.material import Material
from shiftlens.prompts.verifiable.material_test_half import MATERIAL as _FOR_TEST
from shiftlens.prompts.verifiable.material_train_half import MATERIAL as _FOR_TRAIN
from shiftlens.prompts.verifiable.pieces import assemble, pieces_of
from shiftlens.prompts.verifiable.reading import READING
from shiftlens.prompts.verifiable.writing import WRITING

__all__ = ["CHECKS", "KINDS", "build", "check_problems", "followed"]

# Groups of kinds alternate, so that the first few prompts are already varied.
KINDS: Sequence[Kind] = tuple(
    kind for turn in zip_longest(COPYING, READING, LISTS, WRITING) for kind in turn if kind is not None
)
"""Kinds of tasks, in the order of the prompts."""

_HALVES: Mapping[str, tuple[Material, int]] = {"test": (_FOR_TEST, 6), "train": (_FOR_TRAIN, 12)}
"""Material of each half, and its number of prompts per kind."""


def build(split: str = "test") -> list[Prompt]:
    """Build one half of the data set. The prompts are the same in every call and on every machine.

    Args:
        split: Name of the half: ``test`` or ``train``.

    Returns:
        The prompts, one of each kind in turn. Each has a check, and a reference that passes the check.

    Raises:
        ConfigError: ``split`` is not the name of a half.

    Example:
        >>> prompt = build()[0]
        >>> prompt.id, prompt.text
        ('verifiable/test/copy_exactly/00', 'Repeat this sentence exactly: The museum is closed on Monday.')
        >>> followed(prompt.check, "The museum is closed on Monday."), followed(prompt.check, "Monday.")
        (True, False)
    """
    if split not in _HALVES:
        raise ConfigError(f"data set verifiable has the halves {', '.join(_HALVES)}; got {split!r}")
    material, count = _HALVES[split]
    return [_prompt(kind, split, material, index) for index in range(count) for kind in KINDS]


def _prompt(kind: Kind, split: str, material: Material, index: int) -> Prompt:
    name = f"verifiable/{split}/{kind.name}/{index:02d}"
    # A generator seeded with a string is the same in every process and on every machine. The seeds are the
    # names of the kind and of the prompt, so a new kind does not change the prompts of the others.
    shift = random.Random(kind.name).randrange(48)
    task = kind.make(Draw(material, index, shift, random.Random(name)))
    templates = kind.test if split == "test" else kind.train
    text, instruction, context = assemble(pieces_of(templates[index % len(templates)], task.slots))
    return Prompt(
        id=name,
        text=text,
        instruction=instruction,
        context=context,
        dataset="verifiable",
        reference=task.reference,
        check=task.check,
    )
