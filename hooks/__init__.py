"""Torch hooks: the ways in to a model that no family needs to know about."""

from shiftlens.hooks.embedding import EmbeddingTap
from shiftlens.hooks.head import HeadTap
from shiftlens.hooks.stream import StreamTap

__all__ = ["EmbeddingTap", "HeadTap", "StreamTap"]
