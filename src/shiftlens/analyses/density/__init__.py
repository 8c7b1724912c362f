"""Importance density: the paper's tests T1 and T2, their grid of settings and their controls."""
