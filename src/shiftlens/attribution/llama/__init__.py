"""Derivatives of LLaMA-type layers, written out by hand."""
