"""Crossed comparison: both models explain both responses, to separate a changed model from a changed text."""
