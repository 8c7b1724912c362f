"""Defines and checks the settings of a tuning run."""

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
    """Settings of a tuning run: the keys of the configuration group ``tune``, and the seed.

    Args:
        method: ``lora`` (trains low-rank matrices, freezes the weights) or ``full`` (trains all weights).
        steps: Number of optimizer steps; ``None`` takes ``epochs`` passes over the examples.
        epochs: Number of passes over the examples, used if ``steps`` is ``None``.
        batch: Number of dialogues per optimizer step, over all ranks and micro-batches.
        accumulate: Number of micro-batches into which each step is split; more of them use less memory and give
            the same step.
        rate: Highest learning rate of AdamW.
        warmup: Share of the steps over which the learning rate rises; afterwards it falls as a cosine to 0.
        weight_decay: Weight decay of AdamW, applied to matrices only.
        clip: Largest allowed norm of the gradient; ``None`` does not clip.
        batching: ``grouped`` (dialogues of similar length, padded) or ``packed`` (one row without padding).
        rank: Rank of the LoRA matrices.
        alpha: Scale of LoRA; the product of the matrices is multiplied by ``alpha / rank``.
        dropout: Dropout probability of the inputs of the LoRA matrices.
        targets: Layers that get LoRA: ``all-linear`` or names of layers.
        gradient_checkpointing: Whether to recompute activations in the backward pass instead of keeping them.
        max_tokens: Largest number of tokens of a dialogue; ``None`` sets no limit.
        validate_every: Number of optimizer steps between two validations; a validation computes the held-out loss
            and writes a checkpoint.
        patience: Number of validations without a better held-out loss after which training stops; ``None`` never
            stops early.
        keep: Weights to keep: those with the ``best`` held-out loss, or the ``last``.
        lr_find: Whether Lightning's tuner chooses ``rate`` before training.
        seed: Random seed for the order of the examples, the initial LoRA matrices and dropout.

    Raises:
        ConfigError: Lists every value that cannot be used.

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
        """Return the settings as a dictionary of plain values."""
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
