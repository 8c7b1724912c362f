"""Print docs/families.md: how exact each mode is for each model family, and whether its weights can be viewed.

``python scripts/families_table.py > docs/families.md``; needs the tests' tiny models beside it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import PreTrainedModel

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from helpers.naive import naive
from helpers.tiny import FAMILIES, VOCAB, tiny

from shiftlens.attribution import Engine
from shiftlens.attribution.llama.layer import takes
from shiftlens.attribution.modes.plain_attention import plain_attention
from shiftlens.errors import SourceError
from shiftlens.models.families import view

MODES = ("forward", "reverse", "mixed")
TOTAL, RESPONSE, SOURCES = 14, 5, [2, 3, 4, 5, 6]
HEAD = """# Verified families

Made by `python scripts/families_table.py > docs/families.md`, and compared in CI
(`tests/models/test_families_table.py`). Each family is a random model of two layers in float64.

- *forward*, *reverse*, *mixed*: largest difference of the mode from a plain loop of one forward and one backward
  pass per response token, relative to the largest entry of its column.
- *by hand*: the layers have hand-written derivatives; the others are differentiated automatically.
- *weights*: concepts and word pairs can be read. The views are checked against what flows through the model
  (`tests/models/test_families.py`).

| family | forward | reverse | mixed | by hand | weights |
| --- | --- | --- | --- | --- | --- |
"""


def main() -> None:
    """Print the table."""
    print(HEAD + "\n".join(row(family) for family in FAMILIES))


def row(family: str) -> str:
    """One family as a row of the table.

    Args:
        family: Name of a tiny model of the tests.
    """
    model = tiny(family)
    ids = torch.randint(3, VOCAB, (TOTAL,), generator=torch.Generator().manual_seed(0))
    errors = [bound(error(model, ids, mode)) for mode in MODES]
    return f"| {family} | {' | '.join(errors)} | {yes(takes(model, TOTAL))} | {yes(viewed(model))} |"


def error(model: PreTrainedModel, ids: torch.Tensor, mode: str) -> float:
    """Largest relative difference of a mode from the plain loop."""
    with plain_attention(model):  # some families' own attention takes its softmax in float32
        truth, _ = naive(model, ids, torch.tensor(SOURCES), RESPONSE)
    values = Engine(mode).explain(model, ids.tolist(), SOURCES, RESPONSE).values
    return float(((values - truth).abs().amax(0) / truth.abs().amax(0)).max())


def bound(error: float) -> str:
    """The bound that an error stays below; smaller errors are rounding, which machines do differently."""
    return next((f"< 1e-{digits}" for digits in (9, 6, 4) if error < 10.0**-digits), "**no**")


def viewed(model: PreTrainedModel) -> bool:
    """Whether the weights can be viewed."""
    try:
        view(model)
    except SourceError:
        return False
    return True


def yes(holds: bool) -> str:
    """A cell of the table."""
    return "yes" if holds else "no"


if __name__ == "__main__":
    main()
