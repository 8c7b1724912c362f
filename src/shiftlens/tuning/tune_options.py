"""Reads and checks the configuration group ``tune``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from shiftlens.support.conf_files import read_choice
from shiftlens.support.setting_rules import SEED, Choice, Flag, Number, Rule, refuse, setting_problems

METHODS = ("lora", "full")
BATCHING = ("grouped", "packed")
KEEP = ("best", "last")


@dataclass(frozen=True)
class TuneOptions:
    """Settings of a tuning run; the keys of the configuration group ``tune``, and the seed.

    Args:
        method: ``lora`` (small matrices beside the frozen weights) or ``full`` (all weights).
        steps: Number of optimizer steps; ``None`` is ``epochs`` passes over the examples.
        epochs: Passes over the examples, used where ``steps`` is ``None``.
        batch: Dialogues of one optimizer step, over all ranks and micro-batches together.
        accumulate: Micro-batches that each rank splits its share of a step into; saves memory, changes nothing.
        rate: Highest learning rate of AdamW.
        warmup: Share of the steps over which the learning rate rises; after that it falls as a cosine to 0.
        weight_decay: Weight decay of AdamW, on matrices only.
        clip: Largest norm of the gradient; ``None`` does not clip.
        batching: ``grouped`` (dialogues of like length, padded) or ``packed`` (one row without padding).
        rank: Rank of LoRA's matrices.
        alpha: LoRA's scale; the product of the matrices is scaled by ``alpha / rank``.
        dropout: Share of the inputs of LoRA's matrices that are dropped.
        targets: ``all-linear``, or names of the layers that get LoRA's matrices.
        gradient_checkpointing: Whether activations are computed again instead of kept.
        max_tokens: Largest number of tokens of a dialogue; ``None`` is no limit.
        validate_every: Optimizer steps between two measurements of the held-out loss; a checkpoint follows each.
        patience: Measurements without a better held-out loss after which to stop; ``None`` never stops early.
        keep: Weights that are kept: those of the ``best`` held-out loss or the ``last``.
        lr_find: Whether Lightning's tuner chooses ``rate`` first.
        seed: Random seed for the order of the examples, LoRA's first weights and dropout.

    Example:
        >>> TuneOptions(steps=3).replace(method="full").method
        'full'
    """

    method: str = "lora"
    steps: int | None = None
    epochs: int = 4
    batch: int = 8
    accumulate: int = 1
    rate: float = 1e-3
    warmup: float = 0.1
    weight_decay: float = 0.0
    clip: float | None = 1.0
    batching: str = "grouped"
    rank: int = 4
    alpha: float = 8.0
    dropout: float = 0.0
    targets: str | tuple[str, ...] = "all-linear"
    gradient_checkpointing: bool = False
    max_tokens: int | None = None
    validate_every: int = 51
    patience: int | None = None
    keep: str = "last"
    lr_find: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        refuse(tune_problems(vars(self), self.seed))

    def replace(self, **changes: Any) -> TuneOptions:
        """Copy the settings with some of them changed."""
        return TuneOptions(**{**asdict(self), **changes})

    def to_dict(self) -> dict[str, Any]:
        """Give the settings as plain values."""
        return asdict(self)


_PART = Number(0, 1, whole=False, below=True)
_POSITIVE = Number(0, whole=False, above=True)
_RULES: dict[str, Rule] = {
    "method": Choice(METHODS),
    "steps": Number(1, optional=True),
    "epochs": Number(1),
    "batch": Number(1),
    "accumulate": Number(1),
    "rate": _POSITIVE,
    "warmup": _PART,
    "weight_decay": Number(0, whole=False),
    "clip": Number(0, whole=False, above=True, optional=True),
    "batching": Choice(BATCHING),
    "rank": Number(1),
    "alpha": _POSITIVE,
    "dropout": _PART,
    "gradient_checkpointing": Flag(),
    "max_tokens": Number(1, optional=True),
    "validate_every": Number(1),
    "patience": Number(1, optional=True),
    "keep": Choice(KEEP),
    "lr_find": Flag(),
}
_REALS = ("rate", "alpha", "warmup", "dropout", "weight_decay", "clip")


def tune_options(tune: Mapping[str, Any], seed: Any) -> TuneOptions:
    """Read the configuration group ``tune``.

    Args:
        tune: Values of the group, without its ``start``, which has no effect here. A key that is missing has its
            value in ``conf/tune/METHOD.yaml``.
        seed: Seed of the run.

    Raises:
        ConfigError: Lists every value that cannot be used.

    Example:
        >>> tune_options({"method": "full", "batch": 0, "rate": -1}, seed=0)
        Traceback (most recent call last):
        shiftlens.errors.ConfigError: tune.batch=0: expected a whole number of at least 1
        tune.rate=-1: expected a number above 0
    """
    refuse(tune_problems(tune, seed))  # before a value of the wrong type is put anywhere
    given = {key: value for key, value in tune.items() if key != "start"}
    values = {**read_choice("tune", tune.get("method", TuneOptions.method)), **given}
    values.pop("start", None)
    values |= {key: float(values[key]) for key in _REALS if values.get(key) is not None}
    if isinstance(values.get("targets"), list):
        values["targets"] = tuple(map(str, values["targets"]))
    return TuneOptions(**values, seed=seed)


def tune_problems(tune: Mapping[str, Any], seed: Any, prefix: str = "tune.") -> list[str]:
    """Check the configuration group ``tune``, and the seed of the run.

    Args:
        tune: Group as plain values; a key that is missing has its default.
        seed: Seed of the run.
        prefix: Text before the name of a key in the messages.

    Returns:
        One line for each key that is not known and each value that cannot be used.

    Example:
        >>> tune_problems({"clip": "none"}, seed=0)
        ['tune.clip=none: expected a number above 0, or null']
    """
    known = {"start", *TuneOptions.__dataclass_fields__}
    problems = [f"{prefix}{key} is not known" for key in sorted(tune.keys() - known)]
    problems += setting_problems(tune, _RULES, prefix) + setting_problems({"seed": seed}, {"seed": SEED})
    targets = tune.get("targets", TuneOptions.targets)
    if not targets or not (targets == "all-linear" or isinstance(targets, list | tuple)):
        problems.append(f"{prefix}targets={targets}: expected all-linear or a list of layer names, e.g. [q_proj]")
    accumulate, batch = (tune.get(key, getattr(TuneOptions, key)) for key in ("accumulate", "batch"))
    if not problems and accumulate > batch:
        problems.append(
            f"{prefix}accumulate={accumulate} micro-batches for {prefix}batch={batch} dialogues of a step"
        )
    return problems
