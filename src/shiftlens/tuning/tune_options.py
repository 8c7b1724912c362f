"""What a tuning run is asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from shiftlens.errors import ConfigError
from shiftlens.support.conf_files import read_choice

METHODS = ("lora", "full")
BATCHING = ("grouped", "packed")
KEEP = ("best", "last")


@dataclass(frozen=True)
class TuneOptions:
    """Settings of a tuning run; the keys of the configuration group ``tune``, and the seed.

    Args:
        method: ``lora`` (small matrices beside the frozen weights) or ``full`` (all weights).
        steps: optimizer steps; ``None`` is ``epochs`` passes over the examples.
        epochs: passes over the examples, used where ``steps`` is ``None``.
        batch: dialogues of one optimizer step, over all ranks and micro-batches together.
        accumulate: micro-batches that each rank splits its share of a step into; saves memory, changes nothing.
        rate: highest learning rate of AdamW.
        warmup: share of the steps over which the rate rises; it falls as a cosine to 0 after that.
        weight_decay: of AdamW, on matrices only.
        clip: largest norm of the gradient; ``None`` leaves it as it is.
        batching: ``grouped`` (dialogues of like length, padded) or ``packed`` (one row without padding).
        rank, alpha, dropout, targets: of LoRA; ``targets`` is ``all-linear`` or names of layers.
        gradient_checkpointing: compute activations again instead of keeping them.
        max_tokens: most tokens of a dialogue; ``None`` is no limit.
        validate_every: optimizer steps between two looks at the held-out loss; each is followed by a checkpoint.
        patience: looks without a better held-out loss after which to stop; ``None`` never stops early.
        keep: which weights are kept, those of the ``best`` held-out loss or the ``last``.
        lr_find: let Lightning's tuner choose ``rate`` first.
        seed: of the order of the examples, of LoRA's start and of dropout.

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
        if problems := _problems(vars(self)):
            raise ConfigError("\n".join(problems))

    def replace(self, **changes: Any) -> TuneOptions:
        """The same settings with some changed."""
        return TuneOptions(**{**asdict(self), **changes})

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self)


def tune_options(tune: Mapping[str, Any], seed: Any) -> TuneOptions:
    """Read the configuration group ``tune``.

    Args:
        tune: Values of the group, without its ``start``, which has no effect here. A key that is missing has its
            value in ``conf/tune/METHOD.yaml``.
        seed: the run's seed.

    Raises:
        ConfigError: lists every value that cannot be used.

    Example:
        >>> tune_options({"method": "full", "batch": 0, "rate": -1}, seed=0)
        Traceback (most recent call last):
        shiftlens.errors.ConfigError: tune.batch=0: expected a whole number of at least 1
        tune.rate=-1: expected a number above 0
    """
    method = tune.get("method", TuneOptions.method)
    usual = read_choice("tune", method) if method in METHODS else {}
    known = {key: value for key, value in {**usual, **tune}.items() if key != "start"}
    unknown = sorted(known.keys() - TuneOptions.__dataclass_fields__.keys())
    if unknown:
        raise ConfigError("\n".join(f"tune.{key} is not known" for key in unknown))
    if isinstance(known.get("targets"), list):
        known["targets"] = tuple(map(str, known["targets"]))
    values: dict[str, Any] = {**asdict(TuneOptions()), **known, "seed": seed}
    if problems := _problems(values):  # before a value of the wrong type is put anywhere
        raise ConfigError("\n".join(problems))
    floats = {key: float(values[key]) for key in _NUMBERS if values[key] is not None}
    return TuneOptions(**{**values, **floats})


def _problems(values: Mapping[str, Any]) -> list[str]:
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
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
