"""From text to a base model in a folder: tokenizer, random weights, training."""

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
from shiftlens.support.ranks import is_main_rank
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
    """Pre-train a small LLaMA on text, or find that this was done.

    Args:
        settings: the configuration group ``pretrain``.
        folder: of the run; the model goes to ``folder/base``, checkpoints to ``folder/pretrain``.
        trainer: arguments of the Lightning ``Trainer``.
        loggers: where the curves go, under ``pretrain/``.
        console: where progress is told.
        seed: of the weights, the order of the text and what repeats in it.

    Returns:
        ``folder/base``: a Hugging Face folder with tokenizer, and ``record.json``.

    Raises:
        ConfigError: lists every setting that cannot be used; or the folder has a model of other settings.
    """
    options = pretrain_options(settings, seed)
    base = folder / "base"
    if (base / RECORD).exists():  # it is written last, so the folder is complete
        _check_same(base / RECORD, options)
        console.print(f"[bold]pre-training[/]: {base} is complete; nothing to do", soft_wrap=True)
        return base
    corpus = read_corpus(options.text)
    told = ", ".join(f"{name} {chars // 1000:,} k" for name, chars in corpus.sources.items())
    console.print(f"[bold]text[/]: {corpus.chars:,} characters ({told})", soft_wrap=True)
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
        torch.distributed.barrier()  # the other ranks read what the first one writes
    return base


@dataclass(frozen=True)
class Made:
    """All that training needs.

    Args:
        lm: the model with random weights.
        train: blocks to learn from.
        held_out: blocks to measure on; none of them repeats itself.
    """

    lm: LM
    train: Sequence[Example]
    held_out: Sequence[Example]


def read_corpus(text: TextOptions) -> Corpus:
    """The text that the settings name."""
    if text.files is not None:
        return from_files(text.files, text.max_chars)
    return installed(text.packages, text.max_chars)


def prepare(corpus: Corpus, tokenizer: PreTrainedTokenizerBase, options: PretrainOptions, seed: int) -> Made:
    """Cut the text into blocks and draw the weights.

    Raises:
        ConfigError: the text is too short for one block on either side.
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
    """What ``record.json`` says."""
    return provenance(
        what="pre-training of a LLaMA from random weights",
        seed=options.training.seed,
        settings=options.to_dict(),
        text={"characters": corpus.chars, "sources": dict(corpus.sources), "sha256": corpus.sha256},
        result=record.to_dict(),
    )


def _check_same(path: Path, options: PretrainOptions) -> None:
    found = json.loads(path.read_text())["settings"]
    wanted = json.loads(json.dumps(options.to_dict()))
    differ = sorted(key for key in wanted.keys() | found.keys() if found.get(key) != wanted.get(key))
    if differ:
        keys = ", ".join(f"pretrain.{key}" for key in differ)
        raise ConfigError(
            f"{path.parent} was made with other settings ({keys}, or the seed); set another hydra.run.dir, "
            "or delete that folder"
        )
