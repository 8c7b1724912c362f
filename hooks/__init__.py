"""Torch hooks on the embedding layer, the layers, and the output layer of a model of any family."""

from shiftlens.hooks.embedding_path import EmbeddingPath
from shiftlens.hooks.embedding_tap import EmbeddingTap
from shiftlens.hooks.head_tap import HeadTap
from shiftlens.hooks.stream_tap import StreamTap

__all__ = ["EmbeddingPath", "EmbeddingTap", "HeadTap", "StreamTap"]
