"""Makes a small base model from scratch: text, tokenizer, LLaMA with random weights, and pre-training."""

from shiftlens.tuning.scratch.options import PretrainOptions, pretrain_options
from shiftlens.tuning.scratch.pretrain import pretrain

__all__ = ["PretrainOptions", "pretrain", "pretrain_options"]
