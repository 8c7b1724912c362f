"""Pre-trains a small base model: reads text, makes a tokenizer and random weights, trains, and saves the model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import Logger
from rich.console import Console
from transformers import PreTrainedTokenizerBase

from shiftlens.errors import ConfigError
from shiftlens.models.identity import Identity, digest
from shiftlens.models.loading import LM, shared_template
from shiftlens.results.provenance import provenance
from shiftlens.scratch.blocks import blocks, split
from shiftlens.scratch.new_model import make_model
from shiftlens.scratch.prefixed_logger import Prefixed
from shiftlens.scratch.scratch_options import PretrainOptions, TextOptions, pretrain_options
from shiftlens.scratch.text import Corpus, from_files, installed
from shiftlens.scratch.tokenizer import make_tokenizer
from shiftlens.support.main_rank import is_main_rank
from shiftlens.tuning.checkpoints import where_to_resume
from shiftlens.tuning.examples import Example
from shiftlens.tuning.fit import TuneRecord, fit
from shiftlens.tuning.ranks import whole_weights
from shiftlens.tuning.save import RECORD, save_tuned


def pretrain(
    settings: Mapping[str, Any],
    folder: Path,
    trainer: Mapping[str, Any],
    loggers: Sequence[Logger],
    console: Console,
    seed: int,
) -> Path:
    """Pre-train a small LLaMA on text and save it; do nothing if the folder already holds the model.

    Args:
        settings: The configuration group ``pretrain`` as plain values.
        folder: Run folder; the model is saved in ``folder/base``, checkpoints in ``folder/pretrain``.
        trainer: Arguments of the Lightning ``Trainer``.
        loggers: Loggers that receive the loss curves, under names that start with ``pretrain/``.
        console: Console for progress messages.
        seed: Random seed for the weights, the order of the documents and the choice of repeated blocks.

    Returns:
        ``folder/base``: a Hugging Face folder with model, tokenizer and ``record.json``.

    Raises:
        ConfigError: Lists every setting that cannot be used, or ``folder/base`` holds a model made with other
            settings.
    """
    options = pretrain_options(settings, seed)
    base = folder / "base"
    if (base / RECORD).exists():  # the record is written last, so the folder is complete
        _check_same(base / RECORD, options)
        console.print(f"[bold]pre-training[/]: {base} is complete; nothing to do", soft_wrap=True)
        return base
    corpus = read_corpus(options.text)
    sources = ", ".join(f"{name} {chars // 1000:,} k" for name, chars in corpus.sources.items())
    console.print(f"[bold]text[/]: {corpus.chars:,} characters ({sources})", soft_wrap=True)
    tokenizer = make_tokenizer(corpus.documents, options.model.vocabulary, options.model.context)
    made = prepare(corpus, tokenizer, options, seed)
    console.print(
        f"[bold]model[/]: a LLaMA of {made.lm.model.num_parameters():,} random weights, a tokenizer of "
        f"{len(tokenizer):,} tokens; blocks of {options.block}",
        soft_wrap=True,
    )
    record = fit(
        made.lm,
        made.train,
        made.held_out,
        options.training,
        folder / "pretrain",
        trainer,
        loggers=[Prefixed(logger, "pretrain/") for logger in loggers],
        console=console,
        ckpt_path=where_to_resume("last", folder / "pretrain" / "checkpoints"),
    )
    weights = whole_weights(made.lm.model) if record.ranks > 1 else None
    if is_main_rank():
        save_tuned(made.lm.model, tokenizer, base, facts(options, corpus, record), "random weights", weights)
    if record.ranks > 1:
        torch.distributed.barrier()  # the other ranks will read the folder that rank 0 writes
    return base


@dataclass(frozen=True)
class Made:
    """Model and data for pre-training.

    Args:
        lm: Model with random weights, and its tokenizer.
        train: Blocks to train on.
        held_out: Blocks on which the held-out loss is computed; none contains repeated passages.
    """

    lm: LM
    train: Sequence[Example]
    held_out: Sequence[Example]


def read_corpus(text: TextOptions) -> Corpus:
    """Read the text that the settings name: files, or documentation of installed packages.

    Raises:
        ConfigError: A file cannot be read, or a package is not installed.
    """
    if text.files is not None:
        return from_files(text.files, text.max_chars)
    return installed(text.packages, text.max_chars)


def prepare(corpus: Corpus, tokenizer: PreTrainedTokenizerBase, options: PretrainOptions, seed: int) -> Made:
    """Cut the text into blocks and make the model with random weights.

    Args:
        corpus: Text to train on.
        tokenizer: Tokenizer made for the text.
        options: Settings of pre-training.
        seed: Random seed for the weights, the order of the documents and the choice of repeated blocks.

    Returns:
        The model, the blocks to train on and the held-out blocks.

    Raises:
        ConfigError: The text gives no block to train on, or no held-out block.
    """
    learn, apart = split(corpus.documents, options.held_out, seed)
    train = blocks(learn, tokenizer, options.block, options.repeats, seed)
    held_out = blocks(apart, tokenizer, options.block)
    if not train or not held_out:
        raise ConfigError(
            f"pretrain.text: {corpus.chars:,} characters give {len(train)} blocks of {options.block} tokens to "
            f"learn from and {len(held_out)} to hold out; use more text, a smaller pretrain.block or a larger "
            "pretrain.held_out"
        )
    model = make_model(options.model, tokenizer, seed)
    name = digest({"corpus": corpus.sha256, "settings": options.to_dict(), "seed": seed})
    identity = Identity("random weights", name, "", "float32")
    return Made(LM(model, tokenizer, shared_template("auto", tokenizer), identity), train, held_out)


def facts(options: PretrainOptions, corpus: Corpus, record: TuneRecord) -> dict[str, Any]:
    """Return the content of ``record.json``: settings, text, result and software versions."""
    return provenance(
        what="pre-training of a LLaMA from random weights",
        seed=options.training.seed,
        settings=options.to_dict(),
        text={"characters": corpus.chars, "sources": dict(corpus.sources), "sha256": corpus.sha256},
        result=record.to_dict(),
    )


def _check_same(path: Path, options: PretrainOptions) -> None:
    """Raise ``ConfigError`` if the settings in a record differ from ``options``."""
    recorded = json.loads(path.read_text())["settings"]
    wanted = json.loads(json.dumps(options.to_dict()))
    differ = sorted(key for key in wanted.keys() | recorded.keys() if recorded.get(key) != wanted.get(key))
    if differ:
        keys = ", ".join(f"pretrain.{key}" for key in differ)
        raise ConfigError(
            f"{path.parent} was made with other settings ({keys}, or the seed); set another hydra.run.dir, "
            "or delete that folder"
        )
