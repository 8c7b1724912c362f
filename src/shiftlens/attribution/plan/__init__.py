"""Predicts time and memory of an attribution, and so chooses its mode and its cut."""
