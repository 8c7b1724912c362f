"""Measures what a tuning changes while it runs."""
