"""Runs a comparison, an analysis of imported scores, or a tuning from start to end."""
