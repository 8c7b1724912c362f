"""Torch hooks: the ways in to a model that no family needs to know about."""

from shiftlens.hooks.embedding_tap import EmbeddingTap
from shiftlens.hooks.head_tap import HeadTap
from shiftlens.hooks.stream_tap import StreamTap

__all__ = ["EmbeddingTap", "HeadTap", "StreamTap"]
