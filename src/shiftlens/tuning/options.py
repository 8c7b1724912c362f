"""Defines and checks the settings of a tuning run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from shiftlens.errors import ConfigError

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
    epochs: int = 1
    batch: int = 8
    accumulate: int = 1
    rate: float = 3e-4
    warmup: float = 0.1
    weight_decay: float = 0.0
    clip: float | None = 1.0
    batching: str = "grouped"
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: str | tuple[str, ...] = "all-linear"
    gradient_checkpointing: bool = False
    max_tokens: int | None = None
    validate_every: int = 20
    patience: int | None = None
    keep: str = "best"
    lr_find: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if problems := _problems(vars(self)):
            raise ConfigError("\n".join(problems))

    def replace(self, **changes: Any) -> TuneOptions:
        """Return a copy of the settings with the given fields changed."""
        return TuneOptions(**{**asdict(self), **changes})

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a dictionary of plain values."""
        return asdict(self)


def tune_options(tune: Mapping[str, Any], seed: Any) -> TuneOptions:
    """Read the configuration group ``tune``; missing keys get their defaults.

    Args:
        tune: The group as plain values; the key ``start`` is ignored, as it is read elsewhere.
        seed: Random seed of the run.

    Returns:
        The checked settings.

    Raises:
        ConfigError: Lists every key that does not exist, or every value that cannot be used.

    Example:
        >>> tune_options({"method": "full", "batch": 0, "rate": -1}, seed=0)
        Traceback (most recent call last):
        shiftlens.errors.ConfigError: tune.batch=0: expected a whole number of at least 1
        tune.rate=-1: expected a number above 0
    """
    known = {key: value for key, value in tune.items() if key != "start"}
    unknown = sorted(known.keys() - TuneOptions.__dataclass_fields__.keys())
    if unknown:
        raise ConfigError("\n".join(f"tune.{key} is not known" for key in unknown))
    if isinstance(known.get("targets"), list):
        known["targets"] = tuple(map(str, known["targets"]))
    values: dict[str, Any] = {**asdict(TuneOptions()), **known, "seed": seed}
    if problems := _problems(values):  # before `float` fails on a value of the wrong type
        raise ConfigError("\n".join(problems))
    floats = {key: float(values[key]) for key in _NUMBERS if values[key] is not None}
    return TuneOptions(**{**values, **floats})


def _problems(values: Mapping[str, Any]) -> list[str]:
    """Return an error message for each value that cannot be used."""
    problems = [
        f"tune.{key}={values[key]}: expected one of {', '.join(known)}"
        for key, known in (("method", METHODS), ("batching", BATCHING), ("keep", KEEP))
        if values[key] not in known
    ]
    problems += [
        f"tune.{key}={value}: expected a whole number of at least 1{' or null' if key in _MAY_BE_NULL else ''}"
        for key in ("steps", "epochs", "batch", "accumulate", "rank", "max_tokens", "validate_every", "patience")
        if not ((value := values[key]) is None and key in _MAY_BE_NULL) and not _whole(value, 1)
    ]
    problems += [
        f"tune.{key}={value}: expected a number {text}"
        for key, fits, text in (
            ("rate", lambda v: v > 0, "above 0"),
            ("alpha", lambda v: v > 0, "above 0"),
            ("warmup", lambda v: 0 <= v < 1, "from 0 to below 1"),
            ("dropout", lambda v: 0 <= v < 1, "from 0 to below 1"),
            ("weight_decay", lambda v: v >= 0, "of at least 0"),
            ("clip", lambda v: v > 0, "above 0 or null"),
        )
        if not ((value := values[key]) is None and key == "clip")
        and (isinstance(value, bool) or not isinstance(value, int | float) or not fits(value))
    ]
    problems += [
        f"tune.{key}={values[key]}: expected true or false"
        for key in ("gradient_checkpointing", "lr_find")
        if not isinstance(values[key], bool)
    ]
    if not _whole(values["seed"], 0):
        problems.append(f"seed={values['seed']}: expected a whole number of at least 0")
    targets, accumulate, batch = values["targets"], values["accumulate"], values["batch"]
    if not targets or not (targets == "all-linear" or isinstance(targets, tuple)):
        problems.append(f"tune.targets={targets}: expected all-linear or a list of layer names, e.g. [q_proj]")
    if not problems and accumulate > batch:
        problems.append(f"tune.accumulate={accumulate} micro-batches for tune.batch={batch} dialogues of a step")
    return problems


_NUMBERS = ("rate", "alpha", "warmup", "dropout", "weight_decay", "clip")
_MAY_BE_NULL = ("steps", "max_tokens", "patience")


def _whole(value: Any, least: int) -> bool:
    """Return whether a value is a whole number of at least ``least``."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
