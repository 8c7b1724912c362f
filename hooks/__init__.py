"""Torch hooks on the embedding layer, the layers, and the output layer of a model of any family."""

from shiftlens.hooks.embedding import EmbeddingTap
from shiftlens.hooks.head import HeadTap
from shiftlens.hooks.stream import StreamTap

__all__ = ["EmbeddingTap", "HeadTap", "StreamTap"]
