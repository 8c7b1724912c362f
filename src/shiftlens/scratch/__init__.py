"""Makes a small base model from scratch: text, tokenizer, LLaMA with random weights, and pre-training."""

from shiftlens.scratch.pretrain import pretrain
from shiftlens.scratch.scratch_options import PretrainOptions, pretrain_options, pretrain_problems

__all__ = ["PretrainOptions", "pretrain", "pretrain_options", "pretrain_problems"]
