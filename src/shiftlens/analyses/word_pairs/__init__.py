"""Attention heads read as word pairs, base against tuned."""
