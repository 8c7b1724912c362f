"""Compares the word pairs of attention heads between base and tuned."""
