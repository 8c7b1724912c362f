"""Compares the concepts of feed-forward layers between base and tuned."""
