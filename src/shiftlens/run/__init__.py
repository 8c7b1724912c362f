"""Composition: which model runs when, and what is made of it."""
