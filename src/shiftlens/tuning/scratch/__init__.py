"""A small base model made from nothing: text, tokenizer, LLaMA, pre-training."""

from shiftlens.tuning.scratch.options import PretrainOptions, pretrain_options
from shiftlens.tuning.scratch.pretrain import pretrain

__all__ = ["PretrainOptions", "pretrain", "pretrain_options"]
