"""The embedded data set: tasks whose fulfilment can be decided from the response alone.

It needs no file and no network. Correct responses are short, so that a few dozen new tokens suffice.
The test half is for explaining models, the train half for tuning them; they share no template and no content.
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

# Families take turns, so that even the first few prompts are of all sorts.
KINDS: Sequence[Kind] = tuple(
    kind for turn in zip_longest(COPYING, READING, LISTS, WRITING) for kind in turn if kind is not None
)
"""The kinds of tasks, in the order in which prompts come."""

_HALVES: Mapping[str, tuple[Material, int]] = {"test": (_FOR_TEST, 6), "train": (_FOR_TRAIN, 12)}


def build(split: str = "test") -> list[Prompt]:
    """Build one half of the data set; the same prompts every time.

    Args:
        split: ``test`` or ``train``.

    Returns:
        The prompts, one of each kind in turn; each with a check, and a reference that passes it.

    Raises:
        ConfigError: there is no such half.

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
    # Seeded with a text, a generator is the same on every machine and in every process; what a kind gets
    # depends on its name alone, so that a new kind leaves the others as they are.
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
