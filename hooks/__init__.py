"""Family-independent torch hooks on the embedding layer, the layers and the output layer."""

from shiftlens.hooks.embedding_tap import EmbeddingTap
from shiftlens.hooks.head_tap import HeadTap
from shiftlens.hooks.stream_tap import StreamTap

__all__ = ["EmbeddingTap", "HeadTap", "StreamTap"]
