"""Defines and checks the settings of pre-training from random weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from shiftlens.scratch.text import PACKAGES
from shiftlens.scratch.tokenizer import LEAST_VOCABULARY
from shiftlens.support.setting_rules import Number, refuse, setting_problems
from shiftlens.tuning.tune_options import TuneOptions, tune_options, tune_problems

LEAST_BLOCK = 16
"""Smallest number of tokens of a training example; fewer are hardly a text."""


@dataclass(frozen=True)
class TextOptions:
    """Settings of the text to train on: the keys of ``pretrain.text``.

    Args:
        packages: Installed packages whose documentation is read.
        files: Text files to read instead of the packages; ``None`` reads the packages.
        max_chars: Number of characters after which reading stops; ``None`` reads everything.
    """

    packages: tuple[str, ...] = PACKAGES
    files: tuple[str, ...] | None = None
    max_chars: int | None = 4_000_000


@dataclass(frozen=True)
class ModelOptions:
    """Size of the LLaMA: the keys of ``pretrain.model``.

    Args:
        vocabulary: Largest number of tokens of the tokenizer.
        width: Width of the hidden states.
        layers: Number of layers.
        heads: Number of attention heads of a layer; ``width`` is divided equally among them.
        kv_heads: Number of key and value heads of a layer; each is shared by ``heads / kv_heads`` attention heads.
        feed_forward: Width of the feed-forward layers.
        context: Largest number of tokens that the model can read.
    """

    vocabulary: int = 2048
    width: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 4
    feed_forward: int = 352
    context: int = 512


_TRAINING = TuneOptions(
    method="full", steps=1600, batch=16, rate=3e-3, warmup=0.05, weight_decay=0.1, validate_every=200
)


@dataclass(frozen=True)
class PretrainOptions:
    """Settings of pre-training: the configuration group ``pretrain``.

    Args:
        text: Text to train on.
        model: Size of the model.
        block: Number of tokens of one training example.
        repeats: Share of the blocks that contain every passage twice, see
            :func:`shiftlens.scratch.blocks.blocks`.
        held_out: Share of the characters on which the held-out loss is computed.
        training: Settings of the training.
    """

    text: TextOptions = field(default_factory=TextOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    block: int = 128
    repeats: float = 0.5
    held_out: float = 0.01
    training: TuneOptions = _TRAINING

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a dictionary of plain values."""
        return asdict(self)


def pretrain_options(settings: Mapping[str, Any], seed: int) -> PretrainOptions:
    """Read the configuration group ``pretrain``.

    Args:
        settings: Group as plain values; a key that is missing has its default.
        seed: Seed of the run.

    Raises:
        ConfigError: Lists every value that cannot be used.

    Example:
        >>> pretrain_options({"model": {"heads": 3}, "block": 1}, seed=0)
        Traceback (most recent call last):
        shiftlens.errors.ConfigError: pretrain.model.width=128: expected a multiple of twice heads=3
        pretrain.model.heads=3: expected a multiple of kv_heads=4
        pretrain.block=1: expected a whole number from 16 to model.context=512
    """
    refuse(pretrain_problems(settings, seed))  # before a value of the wrong type is put anywhere
    given = _groups(settings)
    for key in ("packages", "files"):
        if given["text"].get(key) is not None:
            given["text"][key] = tuple(map(str, given["text"][key]))
    return PretrainOptions(
        TextOptions(**given["text"]),
        ModelOptions(**given["model"]),
        settings.get("block", PretrainOptions.block),
        float(settings.get("repeats", PretrainOptions.repeats)),
        float(settings.get("held_out", PretrainOptions.held_out)),
        tune_options({"method": "full", **given["training"]}, seed),
    )


def pretrain_problems(settings: Mapping[str, Any], seed: Any) -> list[str]:
    """Check the configuration group ``pretrain``, and the seed of the run.

    Args:
        settings: Group as plain values; a key that is missing has its default.
        seed: Seed of the run.

    Returns:
        One line for each key that is not known and each value that cannot be used.

    Example:
        >>> pretrain_problems({"text": {"max_chars": "all"}}, seed=0)
        ['pretrain.text.max_chars=all: expected a whole number of at least 1, or null']
    """
    given = _groups(settings)
    problems = _unknown("pretrain", settings, PretrainOptions)
    problems += _unknown("pretrain.text", given["text"], TextOptions)
    problems += _unknown("pretrain.model", given["model"], ModelOptions)
    problems += _text_problems(given["text"]) + _model_problems(given["model"])
    context = given["model"].get("context", ModelOptions.context)
    most = {} if _CONTEXT.expected(context) else {"most": context, "most_name": "model.context"}
    own = {key: settings.get(key, getattr(PretrainOptions, key)) for key in ("block", "repeats", "held_out")}
    rules = {
        "block": Number(LEAST_BLOCK, **most),
        "repeats": Number(0, 1, whole=False),
        "held_out": Number(0, 1, whole=False, above=True, below=True),
    }
    problems += setting_problems(own, rules, "pretrain.")
    training = {"method": "full", **given["training"]}
    wrong = tune_problems(training, seed, "pretrain.training.")
    if training["method"] != "full" and not wrong:
        wrong.append(f"pretrain.training.method={training['method']}: new weights are trained in full")
    return problems + wrong


def _groups(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: dict(settings.get(name) or {}) for name in ("text", "model", "training")}


def _unknown(where: str, given: Mapping[str, Any], options: Any) -> list[str]:
    names = {one.name for one in fields(options)}
    return [
        f"{where}.{key} is not known; there are {', '.join(sorted(names))}" for key in given if key not in names
    ]


def _text_problems(text: Mapping[str, Any]) -> list[str]:
    problems = []
    for key, one in (("packages", "numpy"), ("files", "my.txt")):
        value = text.get(key, getattr(TextOptions, key))
        if not (value is None and key == "files") and not (isinstance(value, list | tuple) and value):
            problems.append(f"pretrain.text.{key}={value}: expected a list, e.g. [{one}]")
    return problems + setting_problems(text, {"max_chars": Number(1, optional=True)}, "pretrain.text.")


def _model_problems(model: Mapping[str, Any]) -> list[str]:
    sizes = {**asdict(ModelOptions()), **model}
    if problems := setting_problems(sizes, _SIZES, "pretrain.model."):
        return problems
    width, heads, kv_heads = sizes["width"], sizes["heads"], sizes["kv_heads"]
    if width % (2 * heads):  # rotary positions turn pairs of a head's dimensions
        problems.append(f"pretrain.model.width={width}: expected a multiple of twice heads={heads}")
    if heads % kv_heads:
        problems.append(f"pretrain.model.heads={heads}: expected a multiple of kv_heads={kv_heads}")
    return problems


_CONTEXT = Number(LEAST_BLOCK)
_SIZES = {
    **{one.name: Number(1) for one in fields(ModelOptions)},
    "vocabulary": Number(LEAST_VOCABULARY),
    "context": _CONTEXT,
}
